package nft

import (
	"fmt"
	"strings"
	"testing"

	"nlb/lb"
)

// smallShards makes shards smaller for the rest of a test.
func smallShards(t *testing.T, size uint32) {
	was := shardSize
	shardSize = size
	t.Cleanup(func() { shardSize = was })
}

func TestShards(t *testing.T) {
	smallShards(t, 100)
	s := newSpace([]uint32{3, 95, 250})
	for _, tt := range []struct{ size, want uint32 }{
		{3, 0}, {10, 4}, {80, 14}, {10, 100}, {1, 110}, {0, 111}, {139, 300}, {1, 439}, {60, 440}, {1, 500}, {100, 600}, {100, 700}, {250, 800}, {50, 1050}, {51, 1100},
	} {
		if got := s.take(tt.size, true); got != tt.want {
			t.Errorf("a run of %d begins at %d, want %d", tt.size, got, tt.want)
		}
	}
	for name, want := range map[string]int{"slots": 0, "slots-1": 1, "slots-12": 12, "slots-0": -1, "slots-01": -1, "slots1": -1, "slots-": -1, "slots--1": -1, "slots-x": -1, "slots-65536": -1, "slot": -1} {
		got := -1
		if n, ok := shardNamed(name); ok {
			got = int(n)
		}
		if got != want {
			t.Errorf("%s is shard %d, want %d", name, got, want)
		}
	}
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
	smallShards(t, 1<<30)
	o := emptyObjects()
	applyTo(t, o, p)
	smallShards(t, 16)
	before, old := newState("nlb", o), o.snapshot()
	if changes := lb.Compare(before.Profiles, []*lb.Profile{p}); len(changes) > 0 {
		t.Errorf("as it was: %v", changes)
	}
	plan, result, err := planFor(before, []*lb.Profile{p}, Options{Table: "nlb", Digest: "d"}, func() []fingerprint { return nil })
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
		if name, moves := after.slotsOf(b); moves || name != slotMapOf(b.base) {
			t.Errorf("%v is in %s", key, name)
		}
	}
	// The block of the first service stays where it is, and in its place in the round.
	if b := after.blocks[poolKey{"shop/s0", lb.IPv4}]; b.base != 0 || strings.Contains(plan.String(), "rule shop/s0 ") {
		t.Errorf("the first block moved to %d", b.base)
	}
	changed := weighted(6, 10)
	changed.Services[0].Backends[0].Name = "one"
	applyTo(t, o, changed) // sweeps
	slots := 0
	for _, b := range after.blocks {
		slots += int(b.slots)
	}
	for range newState("nlb", o).allSlots() {
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
	smallShards(t, 4096)
	o := emptyObjects()
	p := weighted(5, 997)
	options := Options{Table: "nlb", Digest: "d"}
	var last *record
	for range 2 {
		plan, _, err := planFor(newState("nlb", o), []*lb.Profile{p}, options, func() []fingerprint { return nil })
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
