package lb_test

import (
	"net/netip"
	"slices"
	"testing"

	"nlb/lb"
)

// TestSchedulers: every scheduler gives slots to the backends that take
// connections, and to those only, and says what it promises.
func TestSchedulers(t *testing.T) {
	promises := map[lb.Scheduler]struct{ exact, hashes bool }{
		lb.RoundRobin: {exact: true},
		lb.Random:     {},
		lb.Hash:       {hashes: true},
	}
	if n := len(lb.Scheduler(0).Words()); n != len(promises) {
		t.Errorf("%d schedulers, and promises of %d", n, len(promises))
	}
	backends := []lb.Backend{{Weight: 2}, {Weight: 0}, {Weight: 4}, {Weight: 3, State: lb.Down}}
	for i := range backends {
		backends[i].Address.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}
	for s, want := range promises {
		if s.Exact() != want.exact || s.Hashes() != want.hashes {
			t.Errorf("%v: exact %v, hashes %v", s, s.Exact(), s.Hashes())
		}
		service := lb.Service{Scheduler: s, HashBy: []lb.HashField{lb.SourceAddress}}
		slots := service.Slots(backends)
		slices.Sort(slots)
		if !slices.Equal(slots, []int{0, 2, 2}) {
			t.Errorf("%v: slots of %v", s, slots)
		}
		if service.KeepsClient() != want.hashes {
			t.Errorf("%v: keeps clients %v", s, service.KeepsClient())
		}
	}
}
