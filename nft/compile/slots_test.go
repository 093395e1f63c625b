package compile

import (
	"testing"

	"nlb/lb"
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
