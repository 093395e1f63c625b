package lb_test

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"nlb/lb"
)

// TestSchedulers: every scheduler gives slots to the backends that take
// connections, and to those only, and says what it promises.
func TestSchedulers(t *testing.T) {
	promises := map[lb.Scheduler]struct{ exact, hashes, follows, own bool }{
		lb.RoundRobin:       {exact: true},
		lb.Random:           {},
		lb.Hash:             {hashes: true},
		lb.LeastConnections: {exact: true, follows: true},
		lb.Consistent:       {hashes: true, own: true},
	}
	if n := len(lb.Words[lb.Scheduler]()); n != len(promises) {
		t.Errorf("%d schedulers, and promises of %d", n, len(promises))
	}
	backends := []lb.Backend{{Weight: 2}, {Weight: 0}, {Weight: 4}, {Weight: 3, State: lb.Down}}
	for i := range backends {
		backends[i].Address.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}
	for s, want := range promises {
		if s.Exact() != want.exact || s.Hashes() != want.hashes || s.Follows() != want.follows || s.OwnSlots() != want.own {
			t.Errorf("%v: exact %v, hashes %v, follows %v, own slots %v", s, s.Exact(), s.Hashes(), s.Follows(), s.OwnSlots())
		}
		service := lb.Service{Scheduler: s, HashBy: []lb.HashField{lb.SourceAddress}}
		if got := shares(service.Slots(backends), len(backends)); math.Abs(got[0]-1./3) > 0.05 || math.Abs(got[2]-2./3) > 0.05 || got[1]+got[3] > 0 {
			t.Errorf("%v: shares %v", s, got)
		}
		if service.KeepsClient() != want.hashes {
			t.Errorf("%v: keeps clients %v", s, service.KeepsClient())
		}
	}
}

// shares are the parts of a cycle that n backends have.
func shares(slots []int, n int) []float64 {
	out := make([]float64, n)
	for _, b := range slots {
		out[b] += 1 / float64(len(slots))
	}
	return out
}

// clients are the backends that a fixed number of clients meet, in the way of
// the kernel: by a hash that is scaled to the number of slots.
func clients(slots []int) []int {
	out := make([]int, 5000)
	for i := range out {
		hash := uint64(i) * (1 << 32) / uint64(len(out))
		out[i] = -1
		if n := uint64(len(slots)); n > 0 {
			out[i] = slots[hash*n>>32]
		}
	}
	return out
}

// fleet is a service that hashes over n backends of these weights, in turn.
func fleet(n int, weights ...int) *lb.Service {
	s := &lb.Service{Scheduler: lb.Hash, HashBy: []lb.HashField{lb.SourceAddress}}
	for i := range n {
		b := lb.Backend{Weight: weights[i%len(weights)], Priority: 1}
		b.Address.Addr = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		s.Backends = append(s.Backends, b)
	}
	return s
}

// TestHashLends: whatever the states were before, a backend that falls takes its
// own clients with it and nobody else's, and one that returns has back those that
// it had.
func TestHashLends(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for i := range 600 {
		s := fleet(1+r.IntN(12), 1+r.IntN(5), 1+r.IntN(40), r.IntN(3))
		s.Scheduler = []lb.Scheduler{lb.Hash, lb.Consistent}[i%2]
		for i := range s.Backends {
			s.Backends[i].State = lb.BackendState(r.IntN(2) * r.IntN(4))
			s.Backends[i].Share = uint8(r.IntN(2) * r.IntN(2*lb.Shares+1))
		}
		one := r.IntN(len(s.Backends))
		s.Backends[one].State = lb.Up
		with := clients(s.Slots(s.Backends))
		s.Backends[one].State = lb.Down
		without := clients(s.Slots(s.Backends))
		s.Backends[one].State = lb.Up
		if !slices.Equal(clients(s.Slots(s.Backends)), with) {
			t.Fatalf("%v: clients differ after a fall", s.Backends)
		}
		for i := range with {
			if with[i] != one && with[i] != without[i] || without[i] == one {
				t.Fatalf("%v: client %d went from %d to %d when %d fell", s.Backends, i, with[i], without[i], one)
			}
		}
	}
}

// TestHashLendsByWeight: what the fallen had goes to the others about by weight.
func TestHashLendsByWeight(t *testing.T) {
	for _, tt := range []struct {
		n       int
		weights []int
		fallen  int
	}{{3, []int{1}, 1}, {4, []int{1}, 2}, {10, []int{1}, 5}, {10, []int{1, 3}, 4}, {100, []int{1, 2, 5}, 30}, {300, []int{200, 199}, 150}, {500, []int{1}, 480}} {
		s := fleet(tt.n, tt.weights...)
		up := 0
		for i := range s.Backends {
			if i < tt.fallen {
				s.Backends[i].State = lb.Down
			} else {
				up += s.Backends[i].Weight
			}
		}
		slots := s.Slots(s.Backends)
		if len(slots) > lb.MaxSlots {
			t.Errorf("%d slots", len(slots))
		}
		for i, got := range shares(slots, tt.n) {
			fair := float64(s.Backends[i].Effective()) / float64(up)
			if got < 0.5*fair || got > 1.7*fair || fair == 0 && got > 0 {
				t.Errorf("%d of %d by %v are down: %d has %.4f, and %.4f is fair", tt.fallen, tt.n, tt.weights, i, got, fair)
			}
		}
	}
}

// TestConsistentAgrees: slots follow from the backends alone, in whatever order they
// come, and are the same on every machine.
func TestConsistentAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	owners := func(s *lb.Service, held int) (out []lb.Endpoint) {
		for _, i := range s.SlotsWith(s.Backends, held) {
			out = append(out, s.Backends[i].Address)
		}
		return out
	}
	for range 50 {
		s := fleet(1+r.IntN(50), 1+r.IntN(3), 1+r.IntN(30), r.IntN(3))
		s.Scheduler = lb.Consistent
		want := owners(s, 0)
		r.Shuffle(len(s.Backends), func(i, j int) { s.Backends[i], s.Backends[j] = s.Backends[j], s.Backends[i] })
		s.Name, s.HashSeed = "another", 7
		if got := owners(s, 0); !slices.Equal(got, want) {
			t.Fatalf("in another order %d backends have other slots", len(s.Backends))
		}
	}
	s := fleet(3, 1)
	s.Scheduler = lb.Consistent
	slots := s.Slots(s.Backends)
	if want := []int{0, 0, 2, 0, 2, 0, 2, 2, 0, 0, 1, 2, 1, 0, 1, 1}; len(slots) != 1021 || !slices.Equal(slots[:len(want)], want) {
		t.Errorf("%d slots that begin with %d", len(slots), slots[:len(want)])
	}
	if n := len(s.SlotsWith(s.Backends, 4100)); n != 4093 {
		t.Errorf("a table of 4,100 numbers shrinks to %d slots", n)
	}
}

// TestConsistentMoves: what comes or goes moves its own clients and few others.
func TestConsistentMoves(t *testing.T) {
	s := fleet(10, 1)
	s.Scheduler = lb.Consistent
	before := clients(s.Slots(s.Backends))
	var moved []int
	for gone := range s.Backends {
		rest := slices.Delete(slices.Clone(s.Backends), gone, gone+1)
		n := 0
		for i, now := range clients(s.Slots(rest)) {
			if was := before[i]; was != gone && s.Backends[was].Address != rest[now].Address {
				n++
			}
		}
		moved = append(moved, n)
	}
	slices.Sort(moved)
	if median := (moved[4] + moved[5]) / 2; median > 35*len(before)/1000 {
		t.Errorf("of %d clients %d moved beside those of the removed one (all: %d)", len(before), median, moved)
	}
}

// TestShares: a backend with a part of its weight has that part, of every
// scheduler, and clients that others had stay there where they are hashed.
func TestShares(t *testing.T) {
	for i := range lb.Words[lb.Scheduler]() {
		s := fleet(3, 2)
		s.Scheduler = lb.Scheduler(i)
		before := clients(s.Slots(s.Backends))
		s.Backends[1].Share = lb.Shares / 4
		if n := s.Backends[1].Effective(); n != 1 {
			t.Errorf("a quarter of 2 is %d, want at least 1", n)
		}
		slots := s.Slots(s.Backends)
		if got := shares(slots, 3)[1]; math.Abs(got-1./9) > 0.04 {
			t.Errorf("%v: a quarter of the weight gets %.3f", s.Scheduler, got)
		}
		for i, now := range clients(slots) {
			if s.Scheduler.Hashes() && before[i] != 1 && now != before[i] {
				t.Fatalf("client %d went from %d to %d", i, before[i], now)
			}
		}
	}
	// Exact where slots are in turn, up to twice the weight, and as if there were
	// none where the cycle would be too long.
	s := fleet(2, 3)
	s.Backends[0].Share = 2 * lb.Shares
	if got := lb.Weights(s.Backends); !slices.Equal(got, []int{96, 48}) {
		t.Errorf("weights %v", got)
	}
	s = fleet(300, 199, 200)
	s.Backends[7].Share = 5
	if got := lb.Weights(s.Backends); got[7] != 200 || got[8] != 199 {
		t.Errorf("weights %v are too many slots", got)
	}
}
