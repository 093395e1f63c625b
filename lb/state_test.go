package lb_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/lbtest"
)

// TestOverlay: states are joined to what is wanted, which stays as it was.
func TestOverlay(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		profiles := []*lb.Profile{lbtest.Alike(r, "p0"), lbtest.Alike(r, "p1")}
		states := map[lb.BackendID]lb.BackendState{{Profile: "p9"}: lb.Down}
		for p, s := range lb.Services(profiles) {
			for _, b := range s.Backends {
				if n := r.IntN(5); n < 3 {
					states[lb.BackendID{Profile: p.Name, Service: s.Name, Address: b.Address}] = lb.BackendState(n)
				}
			}
		}
		joined := lb.Overlay(profiles, states)
		if changes := lb.Compare(profiles, joined); len(changes) > 0 {
			t.Fatalf("what is wanted has changed: %v", changes)
		}
		var names []string
		for p, s := range lb.Services(joined) {
			names = append(names, p.Name+"/"+s.Name)
			for i := range s.Backends {
				b := &s.Backends[i]
				state := states[lb.BackendID{Profile: p.Name, Service: s.Name, Address: b.Address}]
				want := b.Weight
				if state != lb.Up {
					want = 0
				}
				if b.State != state || b.Effective() != want {
					t.Fatalf("%v is %v with weight %d, want %v with %d", b.Address, b.State, b.Effective(), state, want)
				}
				if want == 0 && slices.Contains(s.Slots(s.Backends), i) {
					t.Fatalf("%v is %v, and has a slot", b.Address, b.State)
				}
			}
		}
		var all []string
		for p, s := range lb.Services(profiles) {
			all = append(all, p.Name+"/"+s.Name)
			for _, b := range s.Backends {
				if b.State != lb.Up {
					t.Fatal("the profiles were changed")
				}
			}
		}
		if !slices.Equal(names, all) {
			t.Fatalf("services %v, want %v", names, all)
		}
		if diff := cmp.Diff(profiles, lb.Overlay(joined, nil), lbtest.Same); diff != "" {
			t.Fatalf("without states (-want +got)\n%s", diff)
		}
	}
}
