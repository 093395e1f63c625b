package iptables

// Flows: the new connections that take one way through the rules.

import (
	"math/big"
	"net/netip"

	"nlb/lb"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// amount is a share of the new connections of a client.
type amount struct {
	// real is what the kernel's numbers give, meant what was meant by them
	// (share.Probability).
	real  float64
	meant *big.Rat
}

var all = amount{1, big.NewRat(1, 1)}

// maxBits bounds the exactness of amounts. Cascades of hundreds of rules stay
// exact.
const maxBits = 4096

func (a amount) times(real float64, meant *big.Rat) amount {
	out := amount{a.real * real, new(big.Rat).Mul(a.meant, meant)}
	if out.meant.Denom().BitLen() > maxBits {
		rounded, _ := out.meant.Float64()
		out.meant.SetFloat64(rounded)
	}
	return out
}

func (a amount) plus(b amount) amount {
	if a.meant == nil { // the zero value
		return b
	}
	return amount{a.real + b.real, new(big.Rat).Add(a.meant, b.meant)}
}

// destination is where NAT sends a connection; the zero value: nowhere else.
type destination struct {
	// natted: DNAT or REDIRECT applied. redirected: REDIRECT did.
	natted, redirected bool
	// addr is not valid where the address stays, or is this host's; port is 0
	// where the port stays.
	addr netip.Addr
	port uint16
}

// number is what NAT has made of a dimension, if anything.
func (d destination) number(of space.Dimension) (n space.Number, changed bool) {
	switch {
	case of == space.Destination && d.addr.IsValid():
		return space.NumberOf(d.addr), true
	case of == space.Port && d.port != 0:
		return space.N(uint64(d.port)), true
	}
	return space.N(0), of == space.Local && d.addr.IsValid() // it is elsewhere
}

// state is all that rules have done to a connection so far. It is comparable:
// connections with equal states have the same future.
type state struct {
	mark, connmark uint32
	to             destination
	// logs are the rules that have logged it, by number.
	logs string
	// first: a condition was met that only first packets fulfil.
	first bool
	// untracked: out of the reach of NAT.
	untracked bool
	// counters are those of the nth matches, where they are followed.
	counters string
}

// flow is a share of the new connections of the clients src.
type flow struct {
	share amount
	src   space.Set
	state
	// order is that of the rules that sent it to a backend.
	order int
}

// merge joins flows with the same future.
func merge(flows []flow) []flow {
	if len(flows) < 2 {
		return flows
	}
	type key struct {
		state
		src string
	}
	at := make(map[key]int, len(flows))
	out := flows[:0:0]
	for _, f := range flows {
		k := key{f.state, f.src.Key()}
		if i, ok := at[k]; ok {
			out[i].share = out[i].share.plus(f.share)
			continue
		}
		at[k] = len(out)
		out = append(out, f)
	}
	return out
}

// fate is what becomes of a connection.
type fate uint8

const (
	unbalanced fate = iota // it goes where the client has sent it
	dropped
	balanced
	fates
)

// source is what the backend sees of a client's address.
type source struct {
	masquerade  bool
	first, last netip.Addr // SNAT; not valid: none
	random      bool       // its port
}

// end is a flow at its end.
type end struct {
	flow
	fate fate
	source
}

// trace is what was seen on the way.
type trace struct {
	rules map[*syntax.Rule]said
	// nth, chance and hash say how shares came about.
	nth, chance, hash bool
	hashBy            []lb.HashField // of rules that say it; nil: of a range of DNAT
}

func newTrace() *trace { return &trace{rules: map[*syntax.Rule]said{}} }

// said is what a walk has found of a rule, as bits.
type said uint16

const (
	matched     said = 1 << iota // it applied to something
	skipped                      // it might have, if it were understood
	everyPacket                  // it is an nth rule that also counts packets of old connections
	open                         // the text does not say whether backends are behind its interface
	refused                      // backends are behind another interface
	spared                       // it is open, and passed over, since it would keep sources as they are
	routed                       // it is of OUTPUT, for one interface
	firstPort                    // it sends many ports to the first of a range
	shifted                      // it shifts too many ports to translate it
	lists                        // it puts clients on a list of -m recent
	looksUp                      // it looks clients up there
)

func (t *trace) note(r *syntax.Rule, s said) { t.rules[r] |= s }

// those are the rules of which something of s is found, in the order of the text.
func (t *trace) those(s said) []*syntax.Rule {
	var out []*syntax.Rule
	for r, is := range t.rules {
		if is&s != 0 {
			out = append(out, r)
		}
	}
	sortRules(out)
	return out
}
