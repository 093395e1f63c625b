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
		// It takes all slots that there are inline.
		s.WriteString("  - {name: first, listen: \"198.18.1.1:80\", backends: [{address: \"10.2.0.21:80\", weight: 129}, {address: \"10.2.0.22:80\", weight: 127}]}\n")
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
	for _, want := range []string{"map slots-1 {", "@slots-1", "goto pick4-1", "jump resolve-1", "@inline-slots"} {
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
	b.undrifted("in the end")
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

// TestInline: services that translate in their own chain, by TCP and UDP, IPv4 and IPv6,
// with a port that is said and one that is not, through changes of which each reads its
// service alone.
func TestInline(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
	profile := func(weight int) *lb.Profile {
		return b.Parse(fmt.Sprintf(`
profile: shop
services:
  - name: web
    listen: ["203.0.113.10:8080", "[2001:db8::10]:8080"]
    protocol: [tcp, udp]
    backends: [{address: "10.2.0.11:8080", weight: %[1]d}, "10.2.0.12", "[fd02::11]:8080", {address: "fd02::12", weight: %[1]d}]
  - name: hashed
    listen: 203.0.113.11:8080
    scheduler: hash
    backends: ["10.2.0.11", "10.2.0.12"]
`, weight))
	}
	shares := func(weight int) {
		t.Helper()
		for _, network := range []string{"tcp", "udp"} {
			n := 2 * (weight + 1)
			b.WantShares(count(b.Row(network, "203.0.113.10:8080", n)), map[string]int{"10.2.0.11": 2 * weight, "10.2.0.12": 2})
			b.WantShares(count(b.Row(network, "[2001:db8::10]:8080", n)), map[string]int{"fd02::11": 2, "fd02::12": 2 * weight})
		}
		if one := count(b.Row("tcp", "203.0.113.11:8080", 4)); len(one) != 1 {
			t.Errorf("a client by hash came to %v", one)
		}
	}
	b.applyWatched(profile(1))
	shares(1)
	for _, weight := range []int{2, 3, 1, 2} {
		if _, all := b.applyWatched(profile(weight)); all {
			t.Error("everything was read")
		}
		shares(weight)
		if table := b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "nlb"); strings.Contains(table, "deliver") || strings.Contains(table, "map slots") {
			t.Errorf("it goes by what others share:\n%s", table)
		}
	}
	b.undrifted("in the end")
	if changes := lb.Compare(b.Load().Profiles, []*lb.Profile{profile(2)}); len(changes) > 0 {
		t.Errorf("read back: %v", changes)
	}
}
