package nft

import (
	"fmt"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/nft/compile"
)

// smallShards makes shards smaller for the rest of a test.
func smallShards(t *testing.T, size uint32) {
	was := compile.ShardSize
	compile.ShardSize = size
	t.Cleanup(func() { compile.ShardSize = was })
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
	plan, result, err := planFor(before, []*lb.Profile{p}, Options{Table: "nlb", Record: true}, func() request { return request{digest: "d"} })
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
		if name, moves := after.objects.slotsOf(b); moves || name != compile.SlotMapOf(b.Base) {
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
	smallShards(t, 4096)
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
