package nft

// Handover, packet by packet: all moments at which a batch may commit, without a
// kernel.

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
)

// generation is what packets look up at a moment.
type generation struct {
	rules  []handed // the maps that the base chains ask, in order
	maps   map[string]map[string]ruleset.Element
	chains map[string]bool // those that have rules
}

func (o *objects) generation() generation {
	g := generation{maps: o.snapshot(), chains: map[string]bool{}}
	for name, c := range o.chains {
		g.chains[name] = len(c.rules) > 0
	}
	r := &ruleset.Ruleset{Table: "nlb"}
	for _, m := range compile.Layout("nlb", mapNames(o)).Maps {
		if o.maps[m.Name] != nil && m.Kind == ruleset.Destinations {
			r.Maps = append(r.Maps, m)
		}
	}
	g.rules = handedBy(r)
	return g
}

func mapNames(o *objects) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range o.maps {
			if !yield(name) {
				return
			}
		}
	}
}

// target is a destination of a packet.
type target struct {
	addr  netip.Addr
	proto lb.Protocol
	port  uint16
}

// find is the chain that a map leads a packet to; "" for none.
func (h *handed) find(elements map[string]ruleset.Element, to target) string {
	for _, e := range elements {
		c := h.claim(0, e)
		if c.proto == to.proto && c.ports.First <= to.port && to.port <= c.ports.Last && c.prefix.Contains(to.addr) {
			return e.Data
		}
	}
	return ""
}

// walk is a packet's way through the rules of one generation, with the contents
// of each map as the function says.
func walk(rules []handed, to target, content func(i int, h *handed) map[string]ruleset.Element) string {
	for i := range rules {
		if chain := rules[i].find(content(i, &rules[i]), to); chain != "" {
			return chain
		}
	}
	return ""
}

// TestHandOver: wherever a packet is when a batch commits, it comes to a chain,
// if it would have before and after; and the chain has rules for it.
func TestHandOver(t *testing.T) {
	moved := 0
	for seed := range seeds(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		o := emptyObjects()
		applyTo(t, o, oneService(r))
		for range 6 {
			before := o.generation()
			p, _, err := planFor(newState("nlb", o), []*lb.Profile{oneService(r)}, Options{Table: "nlb"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			steps := p.phases()
			generations := []generation{before}
			for _, ops := range steps {
				if err := o.run(&plan{table: "nlb", main: ops}); err != nil {
					t.Fatal(err)
				}
				generations = append(generations, o.generation())
			}
			after := generations[len(generations)-1]
			for _, to := range lasting(before, after) {
				moved++
				for i := range len(generations) - 1 {
					underWay(t, p, generations[i], generations[i+1], to)
				}
			}
		}
	}
	if moved < int(seeds(500)) {
		t.Errorf("only %d destinations were there before and after", moved)
	}
}

// underWay looks at all packets that the commit between two generations finds
// somewhere.
func underWay(t *testing.T, p *plan, old, now generation, to target) {
	t.Helper()
	check := func(chain, what string) {
		t.Helper()
		if chain == "" || !old.chains[chain] && !now.chains[chain] {
			t.Fatalf("%v: %s comes to %q, in\n%safterwards\n%s", to, what, chain, p, &plan{table: p.table, main: p.afterGrace})
		}
	}
	for k := range len(old.rules) + 1 {
		late := false
		chain := walk(old.rules, to, func(i int, h *handed) map[string]ruleset.Element {
			if late = i >= k; late {
				return now.maps[h.Map.Name]
			}
			return old.maps[h.Map.Name]
		})
		check(chain, fmt.Sprintf("a packet before map %d", k))
		if late && !old.chains[chain] {
			t.Fatalf("%v: a packet before map %d comes to %s, which is new, in\n%s", to, k, chain, p)
		}
	}
	// The new generation begins before maps of ranges take their new contents.
	check(walk(now.rules, to, func(_ int, h *handed) map[string]ruleset.Element {
		if h.Interval && old.maps[h.Map.Name] != nil {
			return old.maps[h.Map.Name]
		}
		return now.maps[h.Map.Name]
	}), "a packet of the first moment")
}

// lasting are destinations that lead somewhere both before and after.
func lasting(before, after generation) []target {
	var out []target
	for _, a := range []string{"203.0.113.10", "203.0.113.77", "2001:db8::10"} {
		for port := uint16(78); port < 86; port++ {
			to := target{netip.MustParseAddr(a), lb.TCP, port}
			there := func(g generation) bool {
				return walk(g.rules, to, func(_ int, h *handed) map[string]ruleset.Element { return g.maps[h.Map.Name] }) != ""
			}
			if there(before) && there(after) {
				out = append(out, to)
			}
		}
	}
	return out
}

// oneService is a service whose name and listen vary.
func oneService(r *rand.Rand) *lb.Profile {
	s := service(fmt.Sprintf("s%d", r.IntN(3)), "203.0.113.10", backend("10.0.0.1:80", 1), backend("[fd00::1]:80", 1))
	s.Listen = nil
	for _, prefix := range []string{"203.0.113.10/32", "203.0.113.0/28", "203.0.113.0/24", "2001:db8::10/128"} {
		if r.IntN(3) == 0 {
			continue
		}
		first := uint16(79 + r.IntN(4))
		ports := lb.PortRange{First: first, Last: first + uint16(r.IntN(2)*r.IntN(3))}
		s.Listen = append(s.Listen, lb.Listen{Prefix: netip.MustParsePrefix(prefix), Ports: []lb.PortRange{ports}})
	}
	if len(s.Listen) == 0 {
		s.Listen = []lb.Listen{listen("203.0.113.10", 80)}
	}
	s.SNAT.Mode = lb.Masquerade
	return &lb.Profile{Name: "p", Services: slices.Clone([]lb.Service{s})}
}

func (to target) String() string { return fmt.Sprintf("%s %s port %d", to.addr, to.proto, to.port) }

// TestNewPoolGoesAhead: connections that get other SNAT addresses go to a chain
// that is new, so it has to be there before.
func TestNewPoolGoesAhead(t *testing.T) {
	pool := func(addr string) *lb.Profile {
		b := backend("10.0.0.1:80", 1)
		b.SNAT = lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{netip.MustParseAddr(addr)}}
		return &lb.Profile{Name: "p", Services: []lb.Service{service("s", "203.0.113.10", b)}}
	}
	o := emptyObjects()
	if p := applyTo(t, o, pool("192.0.2.1")); p.chainsFirst {
		t.Error("a first apply goes in two batches")
	}
	if p := applyTo(t, o, pool("192.0.2.2")); !p.chainsFirst || p.before[len(p.before)-1].rule == nil {
		t.Errorf("the new chain does not go ahead in\n%s", p)
	}
}
