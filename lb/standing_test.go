package lb_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/lbtest"
)

// placed is a service of backends that are described in words: a family 4 or 6, a
// verdict (new, up, down), and, with '/' before them, an order (drain, disable),
// unchecked, pN for a priority and wN for a weight: "4up/p2/w3".
func placed(words string) *lb.Service {
	s := &lb.Service{Health: []lb.Check{{}}}
	for i, one := range strings.Fields(words) {
		parts := strings.Split(one, "/")
		b := lb.Backend{Weight: 1, Priority: 1}
		b.Address.Addr = netip.MustParseAddr(fmt.Sprintf(map[byte]string{'4': "10.0.0.%d", '6': "fd00::%d"}[one[0]], i+1))
		b.Standing.Verdict = map[string]lb.Verdict{"new": lb.VerdictNew, "up": lb.VerdictUp, "down": lb.VerdictDown}[parts[0][1:]]
		for _, p := range parts[1:] {
			switch p {
			case "drain":
				b.Standing.Order = lb.OrderDrain
			case "disable":
				b.Standing.Order = lb.OrderDisable
			case "unchecked":
				b.CheckAt.None = true
			default:
				into := map[byte]*int{'p': &b.Priority, 'w': &b.Weight}[p[0]]
				if _, err := fmt.Sscan(p[1:], into); err != nil {
					panic(err)
				}
			}
		}
		s.Backends = append(s.Backends, b)
	}
	return s
}

func states(s *lb.Service) string {
	words := make([]string, len(s.Backends))
	for i, b := range s.Backends {
		words[i] = b.State.String()
	}
	return strings.Join(words, " ")
}

func TestPlace(t *testing.T) {
	count := func(n int) func(*lb.Service) { return func(s *lb.Service) { s.MinUp.Count = n } }
	percent := func(n int) func(*lb.Service) { return func(s *lb.Service) { s.MinUp.Percent = n } }
	open := func(n lb.FailOpen) func(*lb.Service) { return func(s *lb.Service) { s.FailOpen = n } }
	unhealthy := func(s *lb.Service) { s.Health = nil }
	for _, tt := range []struct {
		name, backends string
		set            func(*lb.Service)
		want           string
	}{
		{"verdicts", "4up 4down 4up", nil, "up down up"},
		{"nobody checks", "4down 4new 4up", unhealthy, "up up up"},
		{"orders without checks", "4down/drain 4new/disable 4up", unhealthy, "draining down up"},
		{"orders", "4up/drain 4up/disable 4up", nil, "draining down up"},
		{"down and drained is down", "4down/drain 4up", nil, "down up"},
		{"new and drained is drained", "4new/drain 4up", nil, "draining up"},
		{"a newcomer waits while another is up", "4new 4up", nil, "down up"},
		{"newcomers alone", "4new 4new", nil, "up up"},
		{"a newcomer beside one that is down", "4new 4down", nil, "up down"},
		{"a newcomer beside one that drains", "4new 4up/drain", nil, "up draining"},
		{"a newcomer beside one of weight 0", "4new 4up/w0", nil, "up up"},
		{"a newcomer beside one that nobody checks", "4new 4down/unchecked", nil, "up up"},
		{"unchecked counts as up", "4down/unchecked 4down", nil, "up down"},
		{"families are alone", "4up 6new 4new 6new", nil, "up up down up"},

		{"the second priority stands by", "4up/p1 4up/p2 4up/p3", nil, "up standby standby"},
		{"the second joins", "4down/p1 4up/p2 4up/p3", nil, "down up standby"},
		{"the third joins", "4down/p1 4down/p2 4up/p3", nil, "down down up"},
		{"in no order", "4up/p3 4up/p1 4down/p2", nil, "standby up down"},
		{"no priority is priority 1", "4up/p0 4up/p1 4up/p2", nil, "up up standby"},
		{"weight 0 serves nobody", "4up/w0 4up/p2", nil, "up up"},
		{"drained leaves to the second", "4up/drain 4up/p2", nil, "draining up"},
		{"two are needed", "4up 4down 4up/p2 4up/p3", count(2), "up down up standby"},
		{"two are there", "4up 4up 4up/p2", count(2), "up up standby"},
		{"more than there are", "4up 4up/p2 4up/p3", count(9), "up up up"},
		{"half of three is two", "4up 4down 4down 4up/p2", percent(50), "up down down up"},
		{"half of three are there", "4up 4up 4down 4up/p2", percent(50), "up up down standby"},
		{"a percentage of each family", "4up 4up 4up/p2 6up 6down 6up/p2", percent(100), "up up standby up down up"},
		{"a percentage without a first", "6up/p2 6up/p3", percent(100), "up standby"},
		{"a percentage of those with a weight", "4up 4up/w0 4up/p2", percent(100), "up up standby"},
		{"priorities without checks", "4new 4new/p2", unhealthy, "up standby"},

		{"nobody is up", "4down 4down/p2", nil, "up up"},
		{"nobody of a family is up", "4down 4down 6up 6down", nil, "up up up down"},
		{"never", "4down 4down/p2", open(lb.NeverOpen), "down down"},
		{"orders are obeyed", "4down 4down/drain 4down/disable", nil, "up down down"},
		{"only orders", "4up/drain 4up/disable", nil, "draining down"},
		{"only weight 0 is up", "4up/w0 4down", nil, "up up"},
		{"all have weight 0", "4up/w0 4down/w0", nil, "up down"},
		{"less than half", "4up 4down/w2", open(50), "up up"},
		{"half", "4up 4down", open(50), "up down"},
		{"who stands by is up", "4up 4up/p2/w9", open(50), "up standby"},
		{"drained is no failure", "4up 4up/drain/w9 4down", open(50), "up draining down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := placed(tt.backends)
			if tt.set != nil {
				tt.set(s)
			}
			if s.Place(); states(s) != tt.want {
				t.Errorf("%s: %s, want %s", tt.backends, states(s), tt.want)
			}
		})
	}
}

// TestPlaceMany: the weights of many are more than an int of 32 bits has room for,
// where a percentage is made of them.
func TestPlaceMany(t *testing.T) {
	s := &lb.Service{Health: []lb.Check{{}}, FailOpen: 50, Backends: make([]lb.Backend, 40_000)}
	for i := range s.Backends {
		b := &s.Backends[i]
		b.Address.Addr = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		b.Weight, b.Standing.Verdict = lb.MaxWeight, lb.VerdictUp
	}
	s.Backends[0].Standing.Verdict = lb.VerdictDown
	if s.Place(); s.IsOpen() {
		t.Error("health is ignored where one of 40,000 is down")
	}
	for i := range s.Backends[:30_000] {
		s.Backends[i].Standing.Verdict = lb.VerdictDown
	}
	if s.Place(); !s.IsOpen() {
		t.Error("health is not ignored where 30,000 of 40,000 are down")
	}
}

// standings are random ones for some of the backends of profiles.
func standings(r *rand.Rand, profiles []*lb.Profile) map[lb.BackendID]lb.Standing {
	known := map[lb.BackendID]lb.Standing{{Profile: "p9"}: {Verdict: lb.VerdictDown}}
	for p, s := range lb.Services(profiles) {
		for _, b := range s.Backends {
			if r.IntN(4) > 0 {
				one := lb.Standing{Verdict: lb.Verdict(r.IntN(3))}
				if r.IntN(4) == 0 {
					one.Order = lb.Order(r.IntN(3))
				}
				known[lb.BackendID{Profile: p.Name, Service: s.Name, Address: b.Address}] = one
			}
		}
	}
	return known
}

// TestOverlay: what is known is joined to what is wanted, which stays as it was.
func TestOverlay(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 100 {
		profiles := []*lb.Profile{lbtest.Alike(r, "p0"), lbtest.Alike(r, "p1")}
		for _, s := range lb.Services(profiles) {
			if r.IntN(3) > 0 {
				s.Health = []lb.Check{{}}
			}
			s.FailOpen = []lb.FailOpen{lb.NeverOpen, 0, 0, 30, 100}[r.IntN(5)]
			s.MinUp.Count = r.IntN(3)
			for i := range s.Backends {
				s.Backends[i].Priority = 1 + r.IntN(2)*r.IntN(3)
			}
		}
		known := standings(r, profiles)
		share := func(id lb.BackendID) uint8 { return id.Address.Addr.AsSlice()[3] % 3 }
		joined := lb.Overlay(profiles, known, share)
		if changes := lb.Compare(profiles, joined); len(changes) > 0 {
			t.Fatalf("what is wanted has changed: %v", changes)
		}
		for _, s := range lb.Services(profiles) {
			for _, b := range s.Backends {
				if b.State != lb.Up || b.Standing != (lb.Standing{}) || b.Share != 0 {
					t.Fatal("the profiles were changed")
				}
			}
		}
		for p, s := range lb.Services(joined) {
			for i := range s.Backends {
				b := &s.Backends[i]
				id := lb.BackendID{Profile: p.Name, Service: s.Name, Address: b.Address}
				want := known[id]
				if !s.Checked(b) {
					want = want.WithoutVerdict()
				}
				if b.Standing != want || b.Share != share(id) {
					t.Fatalf("%v has %v and share %d", id, b.Standing, b.Share)
				}
			}
			wellPlaced(t, s)
		}
		if diff := cmp.Diff(lb.Overlay(profiles, nil, nil), lb.Overlay(joined, nil, nil), lbtest.Same); diff != "" {
			t.Fatalf("without standings (-want +got)\n%s", diff)
		}
	}
}

// wellPlaced is what holds for every service whose backends have states.
func wellPlaced(t *testing.T, s *lb.Service) {
	t.Helper()
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		backends := s.Of(f)
		slots := s.Slots(backends)
		willing, serving := 0, 0
		for i := range backends {
			b := &backends[i]
			if b.Standing.Order != lb.NoOrder && (b.State == lb.Up || b.State == lb.Standby) {
				t.Fatalf("%v has an order and is %v", b.Address, b.State)
			}
			if b.Standing.Order == lb.NoOrder && b.State == lb.Draining {
				t.Fatalf("%v drains without an order", b.Address)
			}
			if b.Standing.Order == lb.NoOrder && b.Weight > 0 {
				willing++
			}
			if serves := b.State == lb.Up && b.Weight > 0; serves != (b.Effective() > 0) || serves != slices.Contains(slots, i) {
				t.Fatalf("%v is %v with weight %d, effective %d, slots %v", b.Address, b.State, b.Weight, b.Effective(), slots)
			} else if serves {
				serving++
			}
		}
		if willing > 0 && serving == 0 && s.FailOpen != lb.NeverOpen {
			t.Fatalf("nobody serves: %v", backends)
		}
	}
}
