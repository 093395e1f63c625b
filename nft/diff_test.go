package nft

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/lbtest"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
)

// run does to objects what the kernel does with a plan, and fails where the
// kernel would: an object that is there already, or is not there, or is still
// in use.
func (o *objects) run(p *plan) error {
	for _, op := range slices.Concat(p.before, p.main, p.afterGrace) {
		if err := o.do(op); err != nil {
			return fmt.Errorf("%w in\n%s", err, &plan{table: p.table, main: []op1{op}})
		}
	}
	return nil
}

type op1 = op

func (o *objects) do(op op) error {
	switch {
	case op.table:
		if (op.verb == add) == o.exists {
			return fmt.Errorf("table exists: %v", o.exists)
		}
		o.exists, o.layout = op.verb == add, compile.LayoutVersion
		if !o.exists {
			o.maps, o.chains = map[string]*haveMap{}, map[string]*haveChain{}
		}
	case op.flowtable != nil:
		return o.doFlowtable(op)
	case op.mapping != nil && op.elements == nil:
		if (op.verb == add) == (o.maps[op.mapping.Name] != nil) {
			return fmt.Errorf("the map exists: %v", op.verb == add)
		}
		if op.verb == remove {
			delete(o.maps, op.mapping.Name)
			return nil
		}
		o.maps[op.mapping.Name] = &haveMap{spec: op.mapping, elements: map[string]ruleset.Element{}}
	case op.mapping != nil:
		m := o.maps[op.mapping.Name]
		for _, e := range op.elements {
			_, there := m.elements[e.ID()]
			if there == (op.verb == add) {
				return fmt.Errorf("element %s there: %v", op.mapping.ElementText(e), there)
			}
			if op.verb == remove {
				delete(m.elements, e.ID())
				continue
			}
			if op.mapping.Verdicts() && e.Data != "" && o.chains[e.Data] == nil {
				return fmt.Errorf("no chain %s", e.Data)
			}
			m.elements[e.ID()] = e
		}
	case op.rule != nil || op.handle != 0:
		if op.rule != nil {
			if _, table, adds := strings.Cut(op.rule.String(), "flow add @"); adds && o.flowtable(strings.Fields(table)[0]) == nil {
				return fmt.Errorf("no such flow table")
			}
		}
		return o.doRule(op)
	case op.verb == add:
		if o.chains[op.chain.Name] != nil {
			return fmt.Errorf("the chain exists")
		}
		o.chains[op.chain.Name] = &haveChain{}
	default:
		for _, m := range o.maps {
			for _, e := range m.elements {
				if m.spec.Verdicts() && e.Data == op.chain.Name {
					return fmt.Errorf("the chain is used by %s", m.spec.ElementText(e))
				}
			}
		}
		if o.chains[op.chain.Name] == nil {
			return fmt.Errorf("no such chain")
		}
		delete(o.chains, op.chain.Name)
	}
	return nil
}

var lastHandle atomic.Uint64 // of all tests: some run side by side

func (o *objects) doRule(op op) error {
	c := o.chains[op.chain.Name]
	if c == nil {
		return fmt.Errorf("no such chain")
	}
	at := slices.IndexFunc(c.rules, func(r haveRule) bool { return r.handle == op.handle })
	if op.verb != add && at < 0 {
		return fmt.Errorf("no rule %d", op.handle)
	}
	if op.verb == remove {
		c.rules = slices.Delete(c.rules, at, at+1)
		return nil
	}
	r := haveRule{handle: lastHandle.Add(1), fingerprint: op.rule.Fingerprint(), comment: op.rule.Comment}
	if op.verb == replace {
		c.rules[at] = r
	} else {
		c.rules = append(c.rules, r)
	}
	return nil
}

func emptyObjects() *objects {
	return &objects{maps: map[string]*haveMap{}, chains: map[string]*haveChain{}}
}

// applyTo plans and runs an apply of profiles on objects.
func applyTo(t *testing.T, o *objects, profiles ...*lb.Profile) *plan {
	t.Helper()
	p, _, err := planFor(newState("nlb", o), profiles, Options{Table: "nlb"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.run(p); err != nil {
		t.Fatal(err)
	}
	return p
}

func backend(address string, weight int) lb.Backend {
	b := lb.Backend{Name: address, Weight: weight}
	if ap, err := netip.ParseAddrPort(address); err == nil {
		b.Address = lb.Endpoint{Addr: ap.Addr(), Port: ap.Port()}
	} else {
		b.Address.Addr = netip.MustParseAddr(address)
	}
	return b
}

func listen(address string, port uint16) lb.Listen {
	a := netip.MustParseAddr(address)
	return lb.Listen{Prefix: netip.PrefixFrom(a, a.BitLen()), Ports: []lb.PortRange{{First: port, Last: port}}}
}

func service(name, listenOn string, backends ...lb.Backend) lb.Service {
	return lb.Service{Name: name, Listen: []lb.Listen{listen(listenOn, 80)}, Protocols: []lb.Protocol{lb.TCP}, Backends: backends}
}

// TestSmallChange: a change sends what it is about, and nothing else.
func TestSmallChange(t *testing.T) {
	three := func() []lb.Backend {
		return []lb.Backend{backend("10.0.0.1:80", 1), backend("10.0.0.2:80", 1), backend("10.0.0.3:80", 1)}
	}
	shop := func() *lb.Profile {
		return &lb.Profile{Name: "shop", Services: []lb.Service{
			service("web", "203.0.113.1", three()...), service("api", "203.0.113.2", three()...),
		}}
	}
	mark := func(address string) string {
		return fmt.Sprintf("0x%08x", compile.NewNumbers(0).Mark("shop/web", new(backend(address, 1))))
	}
	tests := []struct {
		name   string
		change func(*lb.Profile)
		want   []string
	}{
		{"nothing", func(*lb.Profile) {}, nil},
		{"another backend for one that goes", func(p *lb.Profile) {
			p.Services[0].Backends[1] = backend("10.0.0.9:80", 1)
		}, []string{
			"add element inline-endpoints4 " + mark("10.0.0.9:80") + " : 10.0.0.9 . 80",
			"delete element inline-slots 1 : " + mark("10.0.0.2:80"),
			"add element inline-slots 1 : " + mark("10.0.0.9:80"),
		}},
		{"a backend drains", func(p *lb.Profile) { p.Services[0].Backends[2].Weight = 0 }, []string{
			"add element inline-slots 6 : " + mark("10.0.0.1:80"),
			"add element inline-slots 7 : " + mark("10.0.0.2:80"),
			"add element inline-slots 8 : " + mark("10.0.0.3:80"),
			`replace rule shop/web ct mark set numgen inc mod 2 offset 6 map @inline-slots comment "IPv4 round-robin slots 6+2+1"`,
		}},
		{"a service moves", func(p *lb.Profile) { p.Services[0].Listen[0] = listen("203.0.113.9", 80) }, []string{
			"delete element services4 203.0.113.1 . tcp . 80 : goto shop/web",
			"add element services4 203.0.113.9 . tcp . 80 : goto shop/web",
		}},
		{"a service goes", func(p *lb.Profile) { p.Services = p.Services[1:] }, []string{
			"delete element services4 203.0.113.1 . tcp . 80 : goto shop/web",
			"delete chain shop/web",
		}},
		{"two services swap their addresses", func(p *lb.Profile) {
			p.Services[0].Listen, p.Services[1].Listen = p.Services[1].Listen, p.Services[0].Listen
		}, []string{
			"delete element services4 203.0.113.2 . tcp . 80 : goto shop/api",
			"delete element services4 203.0.113.1 . tcp . 80 : goto shop/web",
			"add element services4 203.0.113.2 . tcp . 80 : goto shop/web",
			"add element services4 203.0.113.1 . tcp . 80 : goto shop/api",
		}},
		{"other names", func(p *lb.Profile) { p.Services[0].Backends[0].Name = "one" }, []string{
			"delete element inline-endpoints4 " + mark("10.0.0.1:80") + " : 10.0.0.1 . 80",
			"add element inline-endpoints4 " + mark("10.0.0.1:80") + ` comment "name one" : 10.0.0.1 . 80`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := emptyObjects()
			applyTo(t, o, shop())
			next := shop()
			tt.change(next)
			var got []string
			if s := strings.TrimSuffix(applyTo(t, o, next).String(), "\n"); s != "" {
				got = strings.Split(s, "\n")
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}

// TestCountersStay: a backend goes on counting under another name; one that
// comes back after it was removed begins at zero.
func TestCountersStay(t *testing.T) {
	o := emptyObjects()
	with := func(b ...lb.Backend) *lb.Profile {
		return &lb.Profile{Name: "p", Services: []lb.Service{service("s", "203.0.113.1", b...)}}
	}
	one, two := backend("10.0.0.1:80", 1), backend("10.0.0.2:80", 1)
	applyTo(t, o, with(one, two))
	for id, e := range o.maps["inline-endpoints4"].elements {
		e.Extra = &ruleset.Extra{Packets: 7, Bytes: 420}
		o.maps["inline-endpoints4"].elements[id] = e
	}
	count := func(b lb.Backend) uint64 { return newState("nlb", o).Stats("p", "s", b.Address, nil).Connections }
	renamed := one
	renamed.Name = "first"
	applyTo(t, o, with(renamed, two))
	if got := count(one); got != 7 {
		t.Errorf("a renamed backend counts %d, want 7", got)
	}
	applyTo(t, o, with(renamed))
	applyTo(t, o, with(renamed, two))
	if got := count(two); got != 0 {
		t.Errorf("a backend that came back counts %d, want 0", got)
	}
}

// String is one line for each operation.
func (p *plan) String() string {
	var b strings.Builder
	for _, o := range p.ops() {
		switch {
		case o.table:
			fmt.Fprintf(&b, "%s table %s\n", o.verb, p.table)
		case o.flowtable != nil:
			fmt.Fprintf(&b, "%s flowtable %s %v\n", o.verb, o.flowtable.Name, o.flowtable.Devices)
		case o.mapping != nil && o.elements == nil:
			fmt.Fprintf(&b, "%s map %s\n", o.verb, o.mapping.Name)
		case o.mapping != nil:
			for _, e := range o.elements {
				fmt.Fprintf(&b, "%s element %s %s\n", o.verb, o.mapping.Name, o.mapping.ElementText(e))
			}
		case o.rule != nil:
			fmt.Fprintf(&b, "%s rule %s %s\n", o.verb, o.chain.Name, o.rule)
		case o.handle != 0:
			fmt.Fprintf(&b, "%s rule %s handle %d\n", o.verb, o.chain.Name, o.handle)
		default:
			fmt.Fprintf(&b, "%s chain %s\n", o.verb, o.chain.Name)
		}
	}
	return b.String()
}

var full = flag.Bool("full", false, "the tests at their full size, as CI runs them")

// seeds is n with -full, and a tenth of it else.
func seeds(n uint64) uint64 {
	if *full {
		return n
	}
	return n / 10
}

// TestAnySequence applies random profiles, one after the other, and looks at
// everything that has to hold after each.
func TestAnySequence(t *testing.T) {
	for seed := range seeds(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		smallShards(t, []uint32{1 << 16, 8, 24}[seed%3], []uint32{0, 8, 24, 256}[seed%4])
		o := emptyObjects()
		have := map[string]*lb.Profile{}
		for step := range 12 {
			p := lbtest.Alike(r, fmt.Sprintf("p%d", r.IntN(3)))
			before := newState("nlb", o)
			old := o.snapshot()
			plan := applyTo(t, o, p)
			have[p.Name] = p
			after := newState("nlb", o)

			var want []*lb.Profile
			for _, p := range have {
				want = append(want, p)
			}
			if changes := lb.Compare(after.Profiles, want); len(changes) > 0 {
				t.Fatalf("seed %d step %d: after\n%s: %v", seed, step, plan, changes)
			}
			if again := applyTo(t, o, p); !again.empty() {
				t.Fatalf("seed %d step %d: applied again:\n%s", seed, step, again)
			}
			for _, line := range strings.Split(plan.String(), "\n") {
				name, deleted := strings.CutPrefix(line, "delete map ")
				if own := compile.OwnSlots(name); deleted && own != nil && o.chains[own.OfChain] == nil {
					continue // its service is gone
				}
				for other := range have {
					if other != p.Name && strings.Contains(line, " "+other+"/") {
						t.Fatalf("seed %d step %d: a plan for %s touches another profile: %s", seed, step, p.Name, line)
					}
				}
			}
			inFlight(t, before, old, after)
		}
	}
}

// snapshot copies the elements.
func (o *objects) snapshot() map[string]map[string]ruleset.Element {
	out := map[string]map[string]ruleset.Element{}
	for name, m := range o.maps {
		out[name] = map[string]ruleset.Element{}
		for id, e := range m.elements {
			out[name][id] = e
		}
	}
	return out
}

// inFlight: a packet that is between two rules when the ruleset changes has
// drawn a slot by the old rules, or has got the old mark already, and finds
// its way in the new maps.
func inFlight(t *testing.T, before *State, old map[string]map[string]ruleset.Element, after *State) {
	t.Helper()
	for key, b := range before.blocks {
		if after.objects.chains[key.Chain] == nil {
			continue
		}
		f := compile.FamilyOf(key.Family)
		for slot := b.Base; slot < b.Base+b.Slots; slot++ {
			name, _ := before.objects.slotsOf(key, b)
			if _, ok := old[name][ruleset.MarkBytes(slot)]; !ok {
				name = compile.SlotsMap // of an older layout
			}
			e, ok := after.elements(name)[ruleset.MarkBytes(slot)]
			if !ok {
				t.Fatalf("%v: slot %d is gone", key, slot)
			}
			for _, m := range []string{e.Data, old[name][ruleset.MarkBytes(slot)].Data} {
				there := func(servers string) bool { _, ok := after.elements(servers)[m]; return ok }
				if !slices.ContainsFunc(f.ServersBehind(name), there) {
					t.Fatalf("%v: slot %d leads to no backend", key, slot)
				}
				if mode, _ := compile.ModeOf(ruleset.MarkOf(m)); mode != lb.SNATPool {
					continue
				}
				pool, ok := after.elements(compile.PoolsMap)[m]
				if !ok || after.objects.chains[pool.Data] == nil {
					t.Fatalf("%v: slot %d has lost its SNAT addresses", key, slot)
				}
			}
		}
	}
}
