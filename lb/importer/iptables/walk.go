package iptables

// The walk: what a first packet of a connection meets, rule by rule, as the
// kernel does it (net/ipv4/netfilter/ip_tables.c). Instead of one packet, all
// new connections of a region go at once, in flows with shares.

import (
	"errors"
	"fmt"
	"math/big"
	"slices"

	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// hook is where packets come from.
type hook uint8

const (
	prerouting hook = iota // the network
	output                 // this host
)

// walker walks one region at a time.
type walker struct {
	set        *syntax.Ruleset
	interfaces *space.Interfaces
	ways       *ways
	hook       hook
	region     space.Region
	// leaving: the packet is on its way out.
	leaving bool
	*trace
	ends     []end
	accepted []flow
	natted   []flow // flows whose NAT in this table is decided
	sources  []end  // the same in POSTROUTING
	// split is set where the region is not of one mind about a condition;
	// the walk is void then.
	split *split
	// visits are the clients that came to an nth match. entangled: some came
	// twice, so that shares do not say which of them match.
	visits    map[*syntax.Nth][]space.Set
	entangled bool
	// counters are the nth matches that are followed; nil: none are.
	counters map[*syntax.Nth]int
	logRules []*syntax.Rule
	indexes  map[indexKey]*index
	changing map[*syntax.Chain]bool       // chains that change sources
	unsure   bool                         // what was asked last is open
	single   [len(indexed)][]space.Number // of all rules
	// budget is how many rules may still be looked at.
	budget *int
	looks  int
}

// split asks for the region to be parted.
type split struct {
	dimension space.Dimension
	by        space.Set
	rules     []*syntax.Rule // of the chain that asks, which may concern the region
}

// errBudget ends a search that would take too long.
var errBudget = errors.New("the rules divide connections into too many cases")

// maxFlows bounds the flows at one point; marks that are set at random and by
// bits make them grow.
const maxFlows = 4096

// run walks the region from the beginning, with clients src. It panics with
// errBudget.
func (w *walker) run(r space.Region, src space.Set, counters string) []end {
	w.region, w.leaving, w.split = r, false, nil
	w.trace = newTrace()
	w.ends, w.accepted, w.natted, w.sources = nil, nil, nil, nil
	w.visits, w.entangled = map[*syntax.Nth][]space.Set{}, false
	chain := map[hook]string{prerouting: "PREROUTING", output: "OUTPUT"}[w.hook]
	flows := []flow{{share: all, src: src, state: state{counters: counters}}}
	flows = w.table("raw", chain, flows)
	flows = w.table("mangle", chain, flows)
	flows = w.ended(flows, unbalanced, func(f flow) bool { return f.untracked })
	for _, f := range w.table("nat", chain, flows) {
		w.end(f, unbalanced, source{})
	}
	flows, w.natted = merge(w.natted), nil
	for i := range flows {
		flows[i].order = i + 1
	}
	w.leaving = true
	flows = w.ended(flows, balanced, func(f flow) bool { return f.to.redirected || f.to.addr.IsLoopback() })
	if w.hook == prerouting {
		flows = w.table("mangle", "FORWARD", flows)
	}
	flows = w.table("mangle", "POSTROUTING", flows)
	for _, f := range w.table("nat", "POSTROUTING", flows) {
		w.end(f, balanced, source{})
	}
	w.ends = append(w.ends, w.sources...)
	slices.SortStableFunc(w.ends, func(a, b end) int { return a.order - b.order })
	return w.ends
}

// spend takes from the budget.
func (w *walker) spend(n int) {
	if *w.budget -= n; *w.budget < 0 {
		panic(errBudget)
	}
}

// ended are flows without those that end here.
func (w *walker) ended(flows []flow, as fate, here func(flow) bool) []flow {
	return slices.DeleteFunc(flows, func(f flow) bool {
		is := here(f)
		if is {
			w.end(f, as, source{})
		}
		return is
	})
}

func (w *walker) end(f flow, as fate, s source) { w.ends = append(w.ends, end{f, as, s}) }

// table walks one chain of a table, and returns what goes on to the next.
func (w *walker) table(name, chain string, flows []flow) []flow {
	c := w.set.Table(name).Chain(chain)
	if c == nil || len(flows) == 0 || w.split != nil {
		return flows
	}
	w.accepted = nil
	rest := w.chain(c, flows)
	if c.Policy == "DROP" {
		for _, f := range rest {
			w.end(f, dropped, source{})
		}
		rest = nil
	}
	out := merge(append(rest, w.accepted...))
	w.accepted = nil
	return out
}

// chain walks a chain and returns the flows that come out at its end or by
// RETURN.
func (w *walker) chain(c *syntax.Chain, flows []flow) []flow {
	var out []flow
	rules := w.relevant(c)
	for _, r := range rules {
		if len(flows) == 0 || w.split != nil {
			break
		}
		if r.Skip {
			if w.concerns(r) {
				w.note(r, skipped)
			}
			continue
		}
		if w.looks++; w.looks%16 == 0 {
			w.spend(1)
		}
		if !w.concerns(r) {
			continue
		}
		if w.spend(len(flows)); len(flows) > maxFlows {
			panic(errBudget)
		}
		yes, no := w.match(r, flows)
		if w.split != nil {
			w.split.rules = rules
			return nil
		}
		flows = no // with its counters moved on
		if len(yes) == 0 {
			continue
		}
		w.note(r, matched)
		on, back := w.act(r, yes)
		out = append(out, back...)
		if len(on) > 0 {
			flows = merge(append(flows, on...))
		}
	}
	return merge(append(out, flows...))
}

// act does what a rule does. It returns the flows that go on to the next rule,
// and those that leave the chain.
func (w *walker) act(r *syntax.Rule, flows []flow) (on, back []flow) {
	each := func(f func(s *state)) []flow {
		changed := slices.Clone(flows)
		for i := range changed {
			f(&changed[i].state)
		}
		return changed
	}
	switch t := r.Target.(type) {
	case syntax.Accept:
		w.accepted = append(w.accepted, flows...)
	case syntax.Drop:
		for _, f := range flows {
			w.end(f, dropped, source{})
		}
	case syntax.Return:
		return nil, flows
	case syntax.Jump:
		out := w.chain(w.set.Table(r.Table).Chain(t.Chain), flows)
		if t.Goto {
			return nil, out
		}
		return out, nil
	case syntax.DNAT:
		if w.leaving { // no kernel has that
			return flows, nil
		}
		w.dnat(r, t, flows)
	case syntax.SNAT:
		return w.source(flows, source{t.Masquerade, t.To.First, t.To.Last, t.Random}), nil
	case syntax.SetMark:
		return each(func(s *state) {
			if t.Connection {
				s.connmark = s.connmark&^t.Mask ^ t.Value
			} else {
				s.mark = s.mark&^t.Mask ^ t.Value
			}
		}), nil
	case syntax.CopyMark:
		return each(func(s *state) {
			if t.Save {
				s.connmark = s.connmark&^t.Clear ^ s.mark&t.Take
			} else {
				s.mark = s.mark&^t.Clear ^ s.connmark&t.Take
			}
		}), nil
	case syntax.Log:
		return each(func(s *state) { s.logs += w.logged(r) }), nil
	case syntax.Untrack:
		return each(func(s *state) { s.untracked = true }), nil
	default:
		return flows, nil
	}
	return nil, nil
}

// source notes what a backend sees of these flows. It returns those that go on,
// as they would where no kernel has SNAT.
func (w *walker) source(flows []flow, s source) []flow {
	if !w.leaving {
		return flows
	}
	for _, f := range flows {
		w.sources = append(w.sources, end{f, balanced, s})
	}
	return nil
}

// logged is the number of a rule that logs, as a part of state.logs.
func (w *walker) logged(r *syntax.Rule) string {
	i := slices.Index(w.logRules, r)
	if i < 0 {
		i = len(w.logRules)
		w.logRules = append(w.logRules, r)
	}
	return fmt.Sprintf("%d ", i)
}

// dnat sends flows to where a rule says. Of a range, the kernel picks an address
// by a hash of the client, and of the destination unless --persistent
// (net/netfilter/nf_nat_core.c, find_best_ips_proto).
func (w *walker) dnat(r *syntax.Rule, t syntax.DNAT, flows []flow) {
	var to []destination
	for _, n := range t.To {
		if n.Ports.First != n.Ports.Last && t.Random && n.First == n.Last {
			w.chance = true
			for port := int(n.Ports.First); port <= int(n.Ports.Last); port++ {
				to = append(to, destination{natted: true, redirected: t.Host, addr: n.First, port: uint16(port)})
			}
			continue
		}
		port, ok := w.port(r, n)
		if t.Host && ok && port == 0 {
			port, ok = w.onePort()
		}
		if !ok {
			return
		}
		if !n.First.IsValid() {
			to = append(to, destination{natted: true, redirected: t.Host, port: port})
			continue
		}
		for a := n.First; ; a = a.Next() {
			to = append(to, destination{natted: true, addr: a, port: port})
			if a == n.Last {
				break
			}
		}
	}
	if len(to) == 0 {
		return
	}
	part := big.NewRat(1, int64(len(to)))
	w.hash = w.hash || len(to) > 1 && len(t.To) == 1 && to[0].addr != to[1].addr
	w.nth = w.nth || len(t.To) > 1
	for _, f := range flows {
		for _, d := range to {
			g := f
			g.to = d
			if len(to) > 1 {
				g.share = f.share.times(1/float64(len(to)), part)
			}
			w.natted = append(w.natted, g)
		}
	}
}

// port is the port that NAT gives the connections of the region; 0: their own.
// A port that is in the range stays, any other becomes the first
// (net/netfilter/nf_nat_core.c, nf_nat_l4proto_unique_tuple).
func (w *walker) port(r *syntax.Rule, n syntax.NATRange) (uint16, bool) {
	if n.Ports.First == 0 {
		return 0, true
	}
	ports := w.region[space.Port]
	within := space.Ports(n.Ports)
	if n.Base != 0 {
		port, ok := w.onePort()
		if !ok || port == 0 {
			w.note(r, shifted)
			return 0, ok
		}
		size := int(n.Ports.Last) - int(n.Ports.First) + 1
		return n.Ports.First + uint16(int(port-n.Base)%size), true
	}
	if n.Ports.First == n.Ports.Last {
		return n.Ports.First, true
	}
	switch ports.Against(within) {
	case space.Inside:
		return 0, true
	case space.Across:
		w.split = &split{dimension: space.Port, by: within}
		return 0, false
	}
	if ports.Size() > 1 {
		w.note(r, firstPort)
	}
	return n.Ports.First, true
}

// maxPorts bounds the ports of which each becomes a service of its own.
const maxPorts = 64

// onePort is the port of the region; 0: it has too many. false: it has several, and is
// to be parted.
func (w *walker) onePort() (port uint16, ok bool) {
	ports := w.region[space.Port]
	switch n := ports.Size(); {
	case n > maxPorts:
		return 0, true
	case n > 1:
		w.split = &split{dimension: space.Port, by: space.Set{{First: ports[0].First, Last: ports[0].First}}}
		return 0, false
	}
	return uint16(ports[0].First.Low), true
}
