package nft

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
)

// smallShards makes shards smaller for the rest of a test, and the slots of services that
// translate inline fewer.
func smallShards(t *testing.T, size, inlineSlots uint32) {
	was, inline := compile.ShardSize, compile.InlineSlots
	compile.ShardSize, compile.InlineSlots = size, inlineSlots
	t.Cleanup(func() { compile.ShardSize, compile.InlineSlots = was, inline })
}

// weighted are services with many slots each.
func weighted(services, weight int) *lb.Profile {
	p := &lb.Profile{Name: "shop"}
	for i := range services {
		s := service(fmt.Sprintf("s%d", i), fmt.Sprintf("203.0.113.%d", i+1), backend("10.0.0.1:80", weight), backend("10.0.0.2:80", 1), backend("10.0.0.3:80", 1))
		if i%3 == 0 {
			s.Affinity = &lb.Affinity{Timeout: 60e9, Bits: 32, Bits6: 128}
		}
		p.Services = append(p.Services, s)
	}
	return p
}

// A table with all slots in one map is brought over to shards: nothing is said to
// change, what was drawn before still finds its backend, and the apply after that
// sweeps.
func TestOneMapOfSlots(t *testing.T) {
	p := weighted(6, 10)
	smallShards(t, 1<<30, 0)
	o := emptyObjects()
	applyTo(t, o, p)
	smallShards(t, 16, 0)
	before, old := newState("nlb", o), o.snapshot()
	if changes := lb.Compare(before.Profiles, []*lb.Profile{p}); len(changes) > 0 {
		t.Errorf("as it was: %v", changes)
	}
	plan, result, err := planFor(before, []*lb.Profile{p}, Options{Table: "nlb", Record: true}, func() request { return request{digest: "d"} })
	if err == nil {
		result.compare()
	}
	if err != nil || len(result.Changes) > 0 {
		t.Fatalf("changes %v, %v", result.Changes, err)
	}
	if plan.record != nil {
		t.Error("what retires is in no shard, so that the record cannot say what it is")
	}
	if err := o.run(plan); err != nil {
		t.Fatal(err)
	}
	after := newState("nlb", o)
	inFlight(t, before, old, after)
	for key, b := range after.blocks {
		if name, moves := after.objects.slotsOf(key, b); moves || name != compile.SlotMapOf(b.Base) {
			t.Errorf("%v is in %s", key, name)
		}
	}
	// The block of the first service stays where it is, and in its place in the round.
	if b := after.blocks[compile.PoolKey{Chain: "shop/s0", Family: lb.IPv4}]; b.Base != 0 || strings.Contains(plan.String(), "rule shop/s0 ") {
		t.Errorf("the first block moved to %d", b.Base)
	}
	changed := weighted(6, 10)
	changed.Services[0].Backends[0].Name = "one"
	applyTo(t, o, changed) // sweeps
	slots := 0
	for _, b := range after.blocks {
		slots += int(b.Slots)
	}
	for range newState("nlb", o).objects.allSlots() {
		slots--
	}
	if slots != 0 {
		t.Errorf("%d slots beside those that are in use", -slots)
	}
	if again := applyTo(t, o, changed); !again.empty() {
		t.Errorf("applied again:\n%s", again)
	}
}

// What retires is written down however its numbers are as bytes.
func TestManyRetiredSlots(t *testing.T) {
	smallShards(t, 4096, 0)
	o := emptyObjects()
	p := weighted(5, 997)
	options := Options{Table: "nlb", Record: true}
	var last *record
	for range 2 {
		plan, _, err := planFor(newState("nlb", o), []*lb.Profile{p}, options, func() request { return request{digest: "d"} })
		if err != nil {
			t.Fatal(err)
		}
		if err := o.run(plan); err != nil {
			t.Fatal(err)
		}
		last = plan.record
		for i := range p.Services {
			p.Services[i].Backends[1].Weight = 0
		}
	}
	if last == nil || len(last.retired) != 2 {
		t.Errorf("the record %+v, want two runs, the second one in another shard", last)
	}
}

// TestFreedSlots: of what is swept, a table that stays open keeps in mind what it can give
// away again: inline slots are found by reading them.
func TestFreedSlots(t *testing.T) {
	swept := &memory{sweeps: true}
	swept.retired = []run{
		{mapping: compile.SlotsMap, first: 3, count: 2},
		{mapping: compile.SlotsMap, first: compile.InlineSlots - 2, count: 5},
		{mapping: compile.RefusedSet, first: 1000, count: 1},
		{mapping: compile.SlotsMap, first: 1000, count: 4},
	}
	want := []compile.Block{{Base: compile.InlineSlots, Slots: 3}, {Base: 1000, Slots: 4}}
	if got := (&State{last: swept}).freed(); !slices.Equal(got, want) {
		t.Errorf("free are %+v, want %+v", got, want)
	}
}

// TestRulesAhead: of several batches, one that makes rules may be the last that comes. The
// slots that these draw from are given to nobody else.
func TestRulesAhead(t *testing.T) {
	for _, inlineSlots := range []uint32{0, 256} {
		smallShards(t, 1<<16, inlineSlots)
		o := emptyObjects()
		few, more := []lb.Backend{backend("10.0.0.1:80", 1)}, []lb.Backend{backend("10.0.0.1:80", 1), backend("10.0.0.2:80", 1)}
		applyTo(t, o, &lb.Profile{Name: "p", Services: []lb.Service{service("web", "203.0.113.1", few...)}})
		p := &lb.Profile{Name: "p", Services: []lb.Service{service("new", "203.0.113.2", more...), service("web", "203.0.113.1", more...)}}
		plan, _, err := planFor(newState("nlb", o), []*lb.Profile{p}, Options{Table: "nlb"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		plan.main = nil
		if err := o.run(plan); err != nil {
			t.Fatal(err)
		}
		if o.chains["p/new"] == nil {
			t.Fatalf("no rules go ahead:\n%s", plan)
		}
		applyTo(t, o, p)
		if changes := lb.Compare(newState("nlb", o).Profiles, []*lb.Profile{p}); len(changes) > 0 {
			t.Errorf("with %d inline slots: %v", inlineSlots, changes)
		}
	}
}

// consistent is a service over n backends with slots of its own.
func consistent(n int) *lb.Profile {
	s := service("web", "203.0.113.1")
	s.Scheduler, s.HashBy = lb.Consistent, []lb.HashField{lb.SourceAddress}
	for i := range n {
		s.Backends = append(s.Backends, backend(fmt.Sprintf("10.0.0.%d:80", i+1), 1))
	}
	return &lb.Profile{Name: "shop", Services: []lb.Service{s}}
}

const ownSlots = "shop/web/slots4"

// drawn are the backends' marks by the slots that are drawn.
func drawn(o *objects) []string {
	b := newState("nlb", o).blocks[compile.PoolKey{Chain: "shop/web", Family: lb.IPv4}]
	out := make([]string, b.Slots)
	for i := range out {
		out[i] = o.maps[ownSlots].elements[ruleset.MarkBytes(uint32(i))].Data
	}
	return out
}

// A service's own slots do not become fewer, a change sends those that differ, and a
// backend that falls moves its own alone.
func TestOwnSlots(t *testing.T) {
	o := emptyObjects()
	replaced := func(p *lb.Profile) (n int) {
		t.Helper()
		for _, line := range strings.Split(applyTo(t, o, p).String(), "\n") {
			if strings.HasSuffix(line, " map "+ownSlots) {
				t.Errorf("%s", line)
			}
			if strings.HasPrefix(line, "add element "+ownSlots) {
				n++
			}
		}
		return n
	}
	applyTo(t, o, consistent(10))
	if n := len(drawn(o)); n != 1021 {
		t.Fatalf("10 backends have %d slots", n)
	}
	applyTo(t, o, consistent(11))
	eleven := drawn(o)
	differs := func() (n int) {
		for i, mark := range drawn(o) {
			if mark != eleven[i] {
				n++
			}
		}
		return n
	}
	const own = 4093/11 + 1 // of one of them, at most
	sent := replaced(consistent(10))
	if n := len(drawn(o)); n != 4093 || sent != differs() || sent < own-1 || sent > 2*own {
		t.Errorf("without the last there are %d slots, %d differ and %d were sent", n, differs(), sent)
	}
	fresh := emptyObjects()
	applyTo(t, fresh, consistent(11))
	reversed := consistent(11)
	slices.Reverse(reversed.Services[0].Backends)
	applyTo(t, fresh, reversed)
	if !slices.Equal(drawn(fresh), eleven) {
		t.Error("another machine has other slots")
	}

	replaced(consistent(11))
	down := consistent(11)
	down.Services[0].Backends[4].State = lb.Down
	if sent := replaced(down); differs() != sent || sent > own {
		t.Errorf("one of 11 is down: %d slots differ, and %d were sent", differs(), sent)
	}
	for i := range down.Services[0].Backends {
		down.Services[0].Backends[i].State = lb.Down
	}
	replaced(down)
	if n := len(drawn(o)); n != 0 {
		t.Errorf("all are down, and %d slots are drawn", n)
	}
	ten := consistent(10)
	replaced(ten)
	if n := len(drawn(o)); n != 4093 {
		t.Errorf("after all were down there are %d slots", n)
	}
	for i := range ten.Services[0].Backends {
		ten.Services[0].Backends[i].Weight = 0
	}
	replaced(ten)
	if replaced(consistent(11)); !slices.Equal(drawn(o), eleven) {
		t.Errorf("with all as at first %d slots differ", differs())
	}

	// Somebody has changed one, and added one.
	m := o.maps[ownSlots]
	for _, slot := range []uint32{7, 99999} {
		key := ruleset.MarkBytes(slot)
		m.elements[key] = ruleset.Element{Key: key, Data: m.elements[ruleset.MarkBytes(4093)].Data}
	}
	if d := newState("nlb", o).Drift(); len(d) != 2 {
		t.Errorf("drift %v, want two", d)
	}
	if sent := replaced(consistent(11)); sent != 1 || !slices.Equal(drawn(o), eleven) {
		t.Errorf("%d slots were put right, and %d still differ", sent, differs())
	}

	// For packets that are under way the map outlives its use.
	hashed := consistent(11)
	hashed.Services[0].Scheduler = lb.Hash
	replaced(hashed)
	if m := o.maps[ownSlots]; m == nil || len(m.elements) != 4093+11 {
		t.Errorf("the map went with its last use: %v", m)
	}
	hashed.Services[0].Backends[0].Name = "another"
	if applyTo(t, o, hashed); o.maps[ownSlots] != nil {
		t.Error("the map was not swept")
	}
	other := consistent(11)
	other.Services[0].Name, other.Services[0].Scheduler = "other", lb.Hash
	applyTo(t, o, consistent(11))
	if applyTo(t, o, other); o.maps[ownSlots] == nil || o.chains["shop/web"] != nil {
		t.Error("the map went with its service")
	}
	if again := applyTo(t, o, other); !again.empty() {
		t.Errorf("applied again:\n%s", again)
	}
	other.Services[0].Backends[0].Name = "another"
	if applyTo(t, o, other); o.maps[ownSlots] != nil {
		t.Error("the map of a service that is gone was not swept")
	}
}

// TestOwnSlotsOfGoneProfile: the map of a profile that is gone is swept by an apply of
// others.
func TestOwnSlotsOfGoneProfile(t *testing.T) {
	o := emptyObjects()
	other := &lb.Profile{Name: "other", Services: []lb.Service{service("web", "203.0.113.2", backend("10.0.1.1:80", 1))}}
	applyTo(t, o, consistent(3), other)
	plan, _, err := planFor(newState("nlb", o), []*lb.Profile{other}, Options{Table: "nlb", Prune: true}, nil)
	if err == nil {
		err = o.run(plan)
	}
	if err != nil || o.maps[ownSlots] == nil {
		t.Fatalf("%v; the map went with its profile: %v", err, o.maps[ownSlots] == nil)
	}
	if again := applyTo(t, o, other); !again.empty() {
		t.Errorf("applied again:\n%s", again)
	}
	other.Services[0].Backends[0].Name = "another"
	if applyTo(t, o, other); o.maps[ownSlots] != nil {
		t.Error("the map was not swept")
	}
}

// A service that translates inline no longer, or does so from now on, leaves what packets
// that have drawn still find, and its backends go on counting.
func TestInline(t *testing.T) {
	o := emptyObjects()
	plain := func(n int) *lb.Profile {
		s := service("web", "203.0.113.1")
		for i := range n {
			s.Backends = append(s.Backends, backend(fmt.Sprintf("10.0.0.%d:80", i+1), 1))
		}
		s.Backends[1].Address.Port = 0
		return &lb.Profile{Name: "shop", Services: []lb.Service{s}}
	}
	sticky := func(n int) *lb.Profile {
		p := plain(n)
		p.Services[0].Affinity = &lb.Affinity{Timeout: 60e9, Bits: 32, Bits6: 128}
		return p
	}
	key := compile.PoolKey{Chain: "shop/web", Family: lb.IPv4}
	counts := func() (out []uint64) {
		for _, b := range plain(2).Services[0].Backends {
			out = append(out, newState("nlb", o).Stats("shop", "web", b.Address, nil).Connections)
		}
		return out
	}
	step := func(p *lb.Profile, inline bool) {
		t.Helper()
		before, old := newState("nlb", o), o.snapshot()
		plan := applyTo(t, o, p)
		after := newState("nlb", o)
		inFlight(t, before, old, after)
		if b := after.blocks[key]; b.Inline() != inline {
			t.Errorf("it has slots %+v, by\n%s", b, plan)
		}
		if again := applyTo(t, o, p); !again.empty() {
			t.Errorf("applied again:\n%s", again)
		}
	}
	step(plain(2), true)
	for i, name := range compile.Families[0].ServersBehind(compile.InlineSlotsMap) {
		for id, e := range o.maps[name].elements {
			e.Extra = &ruleset.Extra{Packets: uint64(7 + i), Bytes: 420}
			o.maps[name].elements[id] = e
		}
	}
	want := []uint64{7, 8}
	for i, next := range []struct {
		p      *lb.Profile
		inline bool
	}{{sticky(2), false}, {plain(2), false}, {plain(3), true}, {plain(2), true}, {sticky(3), false}} {
		step(next.p, next.inline)
		if got := counts(); !slices.Equal(got, want) {
			t.Errorf("step %d: they count %v, want %v", i, got, want)
		}
	}
	for range 2 {
		applyTo(t, o, plain(4)) // sweeps
		applyTo(t, o, sticky(5))
	}
	for _, name := range compile.Families[0].ServersBehind(compile.InlineSlotsMap) {
		if n := len(o.maps[name].elements); n > 3 {
			t.Errorf("%s has %d elements at the end", name, n)
		}
	}
}

// A table of the layout without inline slots is brought over: no slot of an old number is
// taken for an inline one, and backends go on counting.
func TestBeforeInline(t *testing.T) {
	p := weighted(6, 60) // more slots than there are inline
	smallShards(t, 1<<16, 0)
	o := emptyObjects()
	applyTo(t, o, p)
	smallShards(t, 1<<16, 256)
	before, old := newState("nlb", o), o.snapshot()
	applyTo(t, o, p)
	after := newState("nlb", o)
	inFlight(t, before, old, after)
	inline := 0
	for key, b := range after.blocks {
		if name, moves := after.objects.slotsOf(key, b); moves || name != compile.SlotMapOf(b.Base) {
			t.Errorf("%v is in %s", key, name)
		}
		if b.Inline() {
			inline++
		}
	}
	if inline != 3 { // two have an affinity, and one had other slots
		t.Errorf("%d services translate inline", inline)
	}
}
