package integration

// Many slots: they are in several maps, which packets find their way through.

import (
	"fmt"
	"strings"
	"testing"

	"nlb/lb"
)

func TestShardsOfSlots(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	profile := func(first, second int) *lb.Profile {
		var s strings.Builder
		s.WriteString("profile: shop\nservices:\n")
		for i := range 66 { // of a thousand slots each
			fmt.Fprintf(&s, "  - {name: s%d, listen: \"198.18.0.%d:80\", backends: [{address: \"10.2.0.21:80\", weight: 501}, {address: \"10.2.0.22:80\", weight: 499}]}\n", i, i+1)
		}
		fmt.Fprintf(&s, "  - {name: web, listen: \"203.0.113.10:80\", backends: [{address: \"10.2.0.11:8080\", weight: %d}, {address: \"10.2.0.12:8080\", weight: %d}]}\n", first, second)
		fmt.Fprintf(&s, "  - {name: kept, listen: \"203.0.113.11:80\", affinity: 1m, backends: [{address: \"10.2.0.11:8080\", weight: %d}, {address: \"10.2.0.13:8080\", weight: %d}]}\n", first, second)
		return b.Parse(s.String())
	}
	shares := func(first, second int) {
		t.Helper()
		b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 12)), map[string]int{"10.2.0.11": 12 * first / (first + second), "10.2.0.12": 12 * second / (first + second)})
		if kept := count(b.Row("tcp", "203.0.113.11:80", 4)); len(kept) != 1 {
			t.Errorf("a client with affinity came to %v", kept)
		}
	}
	b.applyWatched(profile(1, 2))
	listing := b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "nlb")
	for _, want := range []string{"map slots-1 {", "@slots-1", "goto pick4-1", "jump resolve-1"} {
		if !strings.Contains(listing, want) {
			t.Errorf("no %q in the table", want)
		}
	}
	shares(1, 2)
	for _, to := range [][2]int{{2, 1}, {3, 1}} {
		if _, all := b.applyWatched(profile(to[0], to[1])); all {
			t.Error("everything was read")
		}
		shares(to[0], to[1])
	}
	if drift := b.Load().Drift(); len(drift) > 0 {
		t.Errorf("drift: %v", drift)
	}
	if changes := lb.Compare(b.Load().Profiles, []*lb.Profile{profile(3, 1)}); len(changes) > 0 {
		t.Errorf("read back: %v", changes)
	}
	// A drain of many slots, and the apply after it, which sweeps them.
	drained := profile(3, 1)
	drained.Services[65].Backends[0].Weight = 0
	for range 2 {
		if _, all := b.applyWatched(drained); all {
			t.Error("everything was read for a drain of 501 slots")
		}
		drained.Services[65].Backends[1].Weight = 498 // other slots
	}
	shares(3, 1)
}
