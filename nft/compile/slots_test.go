package compile

import (
	"maps"
	"testing"

	"nlb/lb"
	"nlb/lb/lbtest"
)

func TestShards(t *testing.T) {
	defer func(was uint32) { ShardSize = was }(ShardSize)
	ShardSize = 100
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

// TestFreeSlots: a free run is given away piece by piece, and what is used up is not
// kept: a table that stays open would gather one with each change.
func TestFreeSlots(t *testing.T) {
	free := []Block{{Base: 1010, Slots: 3}, {Base: 1020, Slots: 5}}
	for i, want := range []Block{{Base: 1010, Slots: 3}, {Base: 1020, Slots: 3}, {Base: 1100, Slots: 3}} {
		n := NewNumbers(0)
		n.Hold(Held{Maps: func(func(string) bool) {}, Blocks: map[PoolKey]Block{}, FirstSlot: 1100, Free: free})
		if got := n.slot(PoolKey{Chain: "shop/web", Family: lb.IPv4}, 3, 0, false); got != want {
			t.Errorf("block %d is %+v, want %+v", i, got, want)
		}
		free = n.Free()
	}
	if len(free) != 1 || free[0] != (Block{Base: 1023, Slots: 2}) {
		t.Errorf("free are %+v", free)
	}
}

// TestRoomForSlots: where there are thousands of backends, the maps of slots have room for
// all that may ever be in them, and elsewhere no size.
func TestRoomForSlots(t *testing.T) {
	few, many := lbtest.Fleet(1000), lbtest.Fleet(1001)
	huge := lbtest.Fleet(1001)
	first := &huge.Services[0] // 65,534 slots, and three more that are parked
	first.Scheduler, first.HashBy = lb.Hash, []lb.HashField{lb.SourceAddress}
	for i := range first.Backends {
		first.Backends[i].Weight = 21845
	}
	first.Backends[0].Weight--
	for name, tt := range map[string]struct {
		profile *lb.Profile
		want    map[string]uint32
	}{
		"few":  {few, map[string]uint32{"slots": 0}},
		"many": {many, map[string]uint32{"slots": 65536}},
		"huge": {huge, map[string]uint32{"slots-1": 65537, "slots-2": 65536}},
	} {
		got := map[string]uint32{}
		for _, m := range Profiles("nlb", []*lb.Profile{tt.profile}).Maps {
			if _, shard := shardNamed(m.Name); shard {
				got[m.Name] = m.Size
				if m.Size > 0 && int(m.Size) < len(m.Elements) {
					t.Errorf("%s: %s has the size %d and %d elements", name, m.Name, m.Size, len(m.Elements))
				}
			}
		}
		if !maps.Equal(got, tt.want) {
			t.Errorf("%s: sizes %v, want %v", name, got, tt.want)
		}
	}
}
