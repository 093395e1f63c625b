package compile

import "testing"

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
