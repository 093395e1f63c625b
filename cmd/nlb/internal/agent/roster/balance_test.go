//go:build linux

package roster

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"nlb/lb"
	"nlb/nft"
)

// look has the roster balance by figures of its backends b1, b2 ...: how many live,
// how many there have been.
func (w *world) look(figures ...[2]int) {
	stats := map[lb.BackendID]nft.Stats{}
	for i := range w.profiles[0].Services[0].Backends {
		b := &w.profiles[0].Services[0].Backends[i]
		stats[lb.BackendID{Profile: "shop", Service: "web", Address: b.Address}] = nft.Stats{Live: figures[i][0], Connections: uint64(figures[i][1])}
	}
	w.Balance(stats, w.now)
}

func least(s *lb.Service) { s.Scheduler, s.Health = lb.LeastConnections, nil }

// TestBalance: shares follow the connections from the second look on, small changes
// are none, and they come back.
func TestBalance(t *testing.T) {
	w := newWorld(t)
	w.Set(shop(2, least), nil, w.now)
	for _, step := range []struct {
		figures [2][2]int
		changes bool
		want    string
	}{
		{[2][2]int{{100, 1000}, {0, 10}}, false, "b1 up, b2 up"}, // nobody knows what came
		{[2][2]int{{150, 1050}, {50, 60}}, true, "b1 up 12/16, b2 up 20/16"},
		{[2][2]int{{170, 1070}, {106, 116}}, false, "b1 up 12/16, b2 up 20/16"}, // 13, 19
		{[2][2]int{{180, 1080}, {106, 116}}, true, "b1 up 2/16, b2 up 32/16"},
		{[2][2]int{{0, 0}, {0, 0}}, false, "b1 up 2/16, b2 up 32/16"}, // the counters began anew
		{[2][2]int{{0, 50}, {0, 50}}, true, "b1 up, b2 up"},
		{[2][2]int{{0, 50}, {0, 50}}, false, "b1 up, b2 up"},
	} {
		w.look(step.figures[0], step.figures[1])
		if w.HasChanged() != step.changes {
			t.Errorf("%v: changed %v, want %v", step.figures, w.HasChanged(), step.changes)
		}
		w.want(step.want)
	}
}

// TestBalanceOut: a backend without connections has no part in it, and begins anew.
// What a backend may have at all makes its share smaller.
func TestBalanceOut(t *testing.T) {
	w := newWorld(t)
	w.Set(shop(3, func(s *lb.Service) {
		least(s)
		s.Backends[2].Priority = 2
	}), nil, w.now)
	id := lb.BackendID{Profile: "shop", Service: "web", Address: w.profiles[0].Services[0].Backends[0].Address}
	w.look([2]int{0, 0}, [2]int{0, 0}, [2]int{500, 0})
	w.look([2]int{60, 60}, [2]int{0, 0}, [2]int{500, 0})
	w.want("b1 up 12/16, b2 up 20/16, b3 standby")
	w.Order(id, lb.OrderDrain, "admin", time.Time{})
	w.look([2]int{60, 60}, [2]int{0, 0}, [2]int{500, 0})
	w.want("b1 draining, b2 up, b3 standby")
	w.Order(id, lb.NoOrder, "", time.Time{})
	w.want("b1 up, b2 up, b3 standby")

	b := w.backend(id)
	b.service.SlowStart, b.rising = 15*time.Second, w.now
	for _, tt := range []struct {
		after    time.Duration
		balanced uint8
		want     uint8
	}{{0, 0, 1}, {0, 2, 1}, {0, 32, 2}, {7 * time.Second, 0, 8}, {7 * time.Second, 8, 4}, {7 * time.Second, 32, 0}, {15 * time.Second, 32, 32}, {15 * time.Second, 16, 0}} {
		b.balanced = tt.balanced
		if got := b.part(w.now.Add(tt.after)); got != tt.want {
			t.Errorf("%v, balanced %d: got %d, want %d", tt.after, tt.balanced, got, tt.want)
		}
	}
}

// TestBalanceKept: a reload keeps shares while the scheduler asks for them.
func TestBalanceKept(t *testing.T) {
	w := newWorld(t)
	if w.Set(shop(2, func(s *lb.Service) { s.Health = nil }), nil, w.now); w.Balances() {
		t.Error("round robin is to be balanced")
	}
	w.Set(shop(2, least), nil, w.now)
	if !w.Balances() {
		t.Error("nothing is to be balanced")
	}
	w.look([2]int{0, 0}, [2]int{0, 0})
	w.look([2]int{60, 60}, [2]int{0, 0})
	w.Set(shop(2, least), nil, w.now)
	w.want("b1 up 12/16, b2 up 20/16")
	w.Set(shop(2, func(s *lb.Service) { s.Health = nil }), nil, w.now)
	w.want("b1 up, b2 up")
}

// TestBalanceTurns: of many services all have their turn, some at each look.
func TestBalanceTurns(t *testing.T) {
	const services = 250
	w := newWorld(t)
	profile := shop(2, least)[0]
	web := profile.Services[0]
	profile.Services = nil
	for i := range services {
		s := web
		s.Name = fmt.Sprintf("web%d", i)
		s.Listen = []lb.Listen{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32)}}
		profile.Services = append(profile.Services, s)
	}
	w.Set([]*lb.Profile{profile}, nil, w.now)
	stats := map[lb.BackendID]nft.Stats{}
	look := func(live, all int) {
		for i := range services {
			for j := range web.Backends {
				stats[lb.BackendID{Profile: "shop", Service: profile.Services[i].Name, Address: web.Backends[j].Address}] = nft.Stats{Live: live * j, Connections: uint64(all)}
			}
		}
		w.Balance(stats, w.now)
	}
	look(0, 0)
	seen := map[string]bool{}
	for _, want := range []int{mostBalanced, mostBalanced, services - 2*mostBalanced} {
		look(100, 50)
		n := 0
		for _, s := range lb.Services(w.Changed(w.now)) {
			seen[s.Name] = true
			n++
		}
		if n < want || n > mostBalanced {
			t.Errorf("%d services have changed, want %d", n, want)
		}
	}
	if len(seen) != services {
		t.Errorf("%d services had their turn, want %d", len(seen), services)
	}
}
