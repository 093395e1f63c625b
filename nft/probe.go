package nft

// Probing: what of nftables this kernel has. A batch without END is validated
// and dropped, so that everything can be asked for and nothing is changed.

import (
	"errors"
	"maps"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

// Part is something of nftables that profiles may need.
type Part struct {
	// Name is an expression as the kernel calls it, or a kind of object.
	Name string
	// For says what profiles use it for.
	For string
	// Since is the version of Linux that has it.
	Since string
	// Module is the kernel's module that it is in, where it is not a part of
	// nf_tables.
	Module string
}

// Missing is a part that the kernel refused, and what it said.
type Missing struct {
	Part
	Err error
}

// probe asks for a part: by the objects of a batch.
type probe struct {
	Part
	sets  []*mapping
	exprs []expr.Any
	base  *hook // of the chain with the expressions; nil: a regular chain
}

const probeTable = "nlb-probe"

// Names of parts that are no expressions.
const (
	partTable   = "table inet"
	partChain   = "nat chain"
	partSet     = "set"
	partMap     = "verdict map"
	partCounter = "counter of elements"
	partRanges  = "ranges of concatenations"
	partPrefix  = "intervals"
	partTimeout = "timeouts"
)

// probes are all parts, those that others need first.
func probes() []probe {
	pre := func(priority int32) *hook { return &hook{"prerouting", unix.NF_INET_PRE_ROUTING, priority, ""} }
	post := &hook{"postrouting", unix.NF_INET_POST_ROUTING, 100, ""}
	number := &expr.Immediate{Register: reg, Data: make([]byte, 4)}
	clients := &mapping{name: "clients", key: typ{mark}, dynamic: true, timeout: true}
	simple := func(name, use, since, module string, e ...expr.Any) probe {
		return probe{Part: Part{name, use, since, module}, exprs: e}
	}
	set := func(name, use, since, module string, m mapping) probe {
		m.name = "probe"
		return probe{Part: Part{name, use, since, module}, sets: []*mapping{&m}}
	}
	jenkins := &expr.Hash{SourceRegister: reg32 + 4, DestRegister: reg, Length: 4, Modulus: 2, Seed: 1, Type: expr.HashTypeJenkins}
	snat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg}
	return []probe{
		simple(partTable, "every service", "3.14", "nf_tables_inet"),
		{Part: Part{partChain, "every service", "5.2", "nft_chain_nat"}, base: pre(-100)},
		set(partSet, "every service", "3.13", "", mapping{key: typ{mark}, data: typ{mark}}),
		set(partMap, "every service", "4.1", "", mapping{key: typ{ipv4Addr, inetProto, inetService}, data: typ{verdict}}),
		set(partCounter, "every service", "5.7", "", mapping{key: typ{mark}, data: typ{ipv4Addr}, counter: true}),
		set(partRanges, "several ports, prefixes and interfaces", "5.6", "", mapping{key: typ{inetProto, inetService}, data: typ{verdict}, interval: true}),
		set(partPrefix, "allow and deny", "3.13", "", mapping{key: typ{ipv4Addr}, prefixes: true}),
		set(partTimeout, "affinity and limit", "4.1", "", mapping{key: typ{mark}, dynamic: true, timeout: true}),
		simple("meta", "every service", "3.13", "", loadL4),
		simple("payload", "every service", "3.13", "", &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}),
		simple("cmp", "every service", "3.13", "", loadL4, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{6}}),
		simple("immediate", "every service", "3.13", "", number),
		simple("ct", "every service", "3.13", "nft_ct", loadMark, setMark),
		{
			Part: Part{"lookup", "every service", "3.13", ""}, sets: []*mapping{{name: "probe", key: typ{mark}}},
			exprs: []expr.Any{number, &expr.Lookup{SourceRegister: reg, SetName: "probe"}},
		},
		{
			Part: Part{"nat", "every service", "5.2", "nft_nat"}, base: post,
			exprs: []expr.Any{&expr.Immediate{Register: reg, Data: []byte{192, 0, 2, 1}}, snat},
		},
		simple("bitwise", "every service", "3.13", "", loadMark, masked(reg, modeMask)),
		simple("numgen", "scheduler: round-robin and random", "4.10", "nft_numgen", &expr.Numgen{Register: reg, Modulus: 2, Type: unix.NFT_NG_INCREMENTAL, Offset: 1}),
		simple("hash", "scheduler: hash", "4.10", "nft_hash", &expr.Immediate{Register: reg32 + 4, Data: make([]byte, 4)}, jenkins),
		{Part: Part{"masq", "snat: masquerade", "5.2", "nft_masq"}, base: post, exprs: []expr.Any{&expr.Masq{}}},
		{Part: Part{"reject", "refused connections", "3.14", "nft_reject_inet"}, base: pre(-100), exprs: []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}},
		{Part: Part{"fib", "role: server and a listen without an address", "4.10", "nft_fib_inet"}, base: pre(-100), exprs: fibLocal(expr.CmpOpEq)},
		simple("limit", "limit and the rate of log", "3.13", "nft_limit", limitExpr(lb.Rate{Events: 1, Per: 1e9}, 1, true)),
		simple("connlimit", "connections-per-source and max-connections", "4.18", "nft_connlimit", &expr.Connlimit{Count: 1, Flags: expr.NFT_CONNLIMIT_F_INV}),
		simple("log", "log", "3.13", "nft_log", &expr.Log{Key: 1 << unix.NFTA_LOG_LEVEL, Level: expr.LogLevelInfo}),
		{
			Part: Part{"dynset", "affinity and limit", "4.1", ""}, sets: []*mapping{clients},
			exprs: []expr.Any{number, &expr.Dynset{SrcRegKey: reg, SetName: clients.name, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: 1e9}},
		},
	}
}

// Parts are all parts of nftables that a profile may need.
func Parts() []Part {
	var out []Part
	for _, p := range probes() {
		out = append(out, p.Part)
	}
	return out
}

// Needed are the names of the parts that the rulesets of profiles are made of.
func Needed(profiles []*lb.Profile) map[string]bool {
	out := map[string]bool{partTable: true, partChain: true}
	r := Compile(probeTable, profiles)
	for _, m := range r.maps {
		for name, uses := range map[string]bool{
			partSet: true, partMap: m.verdicts(), partCounter: m.counter, partRanges: m.interval,
			partPrefix: m.prefixes, partTimeout: m.timeout,
		} {
			if uses {
				out[name] = true
			}
		}
	}
	for _, c := range r.chains {
		for _, rule := range c.rules {
			for _, s := range rule.statements {
				maps.Insert(out, maps.All(expressionNames(s.exprs)))
			}
		}
	}
	return out
}

// expressionNames are the names of encoded expressions, and of those inside.
func expressionNames(list []byte) map[string]bool {
	out := map[string]bool{}
	for _, e := range wire.Attrs(list) {
		name := wire.Text(wire.Attr(e, unix.NFTA_EXPR_NAME))
		out[name] = true
		if name == "dynset" {
			data := wire.Attr(e, unix.NFTA_EXPR_DATA)
			for _, inner := range [][]byte{wire.Attr(data, unix.NFTA_DYNSET_EXPR)} {
				if inner != nil {
					out[wire.Text(wire.Attr(inner, unix.NFTA_EXPR_NAME))] = true
				}
			}
			for _, inner := range wire.Attrs(wire.Attr(data, dynsetExpressions)) {
				out[wire.Text(wire.Attr(inner, unix.NFTA_EXPR_NAME))] = true
			}
		}
	}
	return out
}

const dynsetExpressions = 10 // NFTA_DYNSET_EXPRESSIONS

// Probe asks the kernel for the parts that profiles need, or for all where
// there are none, and returns those that it refuses. Nothing is changed, but
// that the kernel may load modules, as for an apply. An error says that it
// could not be asked: unix.EPERM without CAP_NET_ADMIN.
func Probe(c *wire.Conn, profiles []*lb.Profile) ([]Missing, error) {
	all := probes()
	if len(profiles) > 0 {
		needed := Needed(profiles)
		all = slices.DeleteFunc(all, func(p probe) bool { return !needed[p.Name] })
	}
	err := ask(c, all...)
	if err == nil || NotPermitted(err) || !refused(err) {
		return nil, err
	}
	// Where a single message was refused, it says which. Else what needs the
	// missing part is refused, too, so one by one.
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Others == 0 {
		if i := slices.IndexFunc(all, func(p probe) bool { return e.What == "chain "+p.chainName() }); i >= 0 {
			return []Missing{{all[i].Part, err}}, nil
		}
	}
	var out []Missing
	for _, p := range all {
		err := ask(c, p)
		if err != nil && !refused(err) {
			return out, err
		}
		if err != nil && !blames(err, p.Name, all) {
			out = append(out, Missing{p.Part, err})
		}
		if err != nil && slices.Contains([]string{partTable, partChain}, p.Name) {
			break // all else needs it
		}
	}
	return out, nil
}

// blames reports whether the kernel says that it is another part which it
// lacks.
func blames(err error, name string, all []probe) bool {
	e, ok := errors.AsType[*wire.Error](err)
	return ok && e.Expr != name && slices.ContainsFunc(all, func(p probe) bool { return p.Name == e.Expr })
}

// chainName tells the probe's chain from those of others in a batch.
func (p probe) chainName() string { return "probe-" + p.Name }

// refused reports whether err is the kernel's answer to a message.
func refused(err error) bool {
	_, ok := errors.AsType[*wire.Error](err)
	return ok || errors.Is(err, wire.ErrRefused)
}

// ask has the kernel validate the objects of some probes.
func ask(c *wire.Conn, probes ...probe) error {
	for try := 0; ; try++ {
		generation, err := c.Generation()
		if err != nil {
			return err
		}
		b := wire.NewBatch(generation)
		for i, p := range probes {
			p.encode(b, i)
		}
		err = c.Check(b)
		if !errors.Is(err, wire.ErrStale) || try == applyTries {
			return err
		}
	}
}

// encode writes a table of its own, with a set and a chain that has a rule.
func (p probe) encode(b *wire.Batch, i int) {
	m := &messages{Batch: b, table: probeTable + string(rune('a'+i)), list: maxList}
	m.newTable()
	for _, s := range p.sets {
		m.newMap(s)
	}
	if p.base == nil && p.exprs == nil {
		return
	}
	ch := &chain{name: p.chainName(), hook: p.base}
	m.newChain(ch)
	if p.exprs != nil {
		m.rule(ch.name, rule{statements: []statement{newStatement(p.Name, p.exprs...)}}, 0)
	}
}
