package nft

// Numbers follow from the profiles alone.

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/nft/compile"
)

// numbersOf are the numbers that a table has, by the backend.
func numbersOf(o *objects) map[string]uint32 {
	out := map[string]uint32{}
	for key, b := range newState("nlb", o).backends {
		out[fmt.Sprint(key.Chain, " ", key.Address)] = b.mark & compile.NumberMask
	}
	return out
}

// crowd is a profile with so many backends that some of their names stand for
// one number: of 7,500 about two pairs do.
func crowd(name string, services int) *lb.Profile {
	p := &lb.Profile{Name: name}
	for i := range services {
		s := service(fmt.Sprint("s", i), fmt.Sprintf("203.%d.%d.%d", len(name), i/250, i%250+1))
		for k := range 3 {
			a := netip.AddrFrom4([4]byte{10, byte(k), byte(i / 250), byte(i%250 + 1)})
			s.Backends = append(s.Backends, lb.Backend{Name: a.String(), Address: lb.Endpoint{Addr: a, Port: 80}, Weight: 1})
		}
		p.Services = append(p.Services, s)
	}
	return p
}

func TestNumbersHaveNoHistory(t *testing.T) {
	all := crowd("shop", 2500)
	fresh := emptyObjects()
	applyTo(t, fresh, all)
	want := numbersOf(fresh)
	n, moved := compile.NewNumbers(0, []*lb.Profile{all}), 0
	for profile, s := range lb.Services([]*lb.Profile{all}) {
		for _, b := range s.Backends {
			key := compile.BackendKey{Chain: compile.ChainOf(profile.Name, s.Name), Address: b.Address}
			if n.Backend(key.Chain, key.Address) != key.FirstNumber() {
				moved++
			}
		}
	}
	if moved == 0 {
		t.Fatal("no two names stand for one number, so this shows nothing")
	}

	half := &lb.Profile{Name: all.Name, Services: all.Services[1000:]}
	for name, before := range map[string][]*lb.Profile{
		"half of it before":       {half},
		"another profile before":  {crowd("other", 2500), {Name: "other"}},
		"one by one":              {{Name: all.Name, Services: all.Services[:1]}, half, {Name: all.Name, Services: all.Services[:2000]}},
		"the same service before": {all, {Name: all.Name}},
	} {
		if testing.Short() && len(before) != 1 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := emptyObjects()
			for _, p := range before {
				applyTo(t, o, p)
			}
			applyTo(t, o, all)
			if d := cmp.Diff(want, numbersOf(o)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestRivals: backends whose names stand for one number come and go in any
// order, in one profile or several.
func TestRivals(t *testing.T) {
	rivals := findRivals(t)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		o := emptyObjects()
		var profiles []*lb.Profile
		for range 12 {
			profiles = nil
			for name, keys := range rivals {
				p := &lb.Profile{Name: name}
				for _, k := range keys {
					if r.IntN(2) == 0 {
						p.Services = append(p.Services, k)
					}
				}
				profiles = append(profiles, p)
			}
			r.Shuffle(len(profiles), func(i, j int) { profiles[i], profiles[j] = profiles[j], profiles[i] })
			for _, p := range profiles {
				applyTo(t, o, p)
			}
		}
		fresh := emptyObjects()
		applyTo(t, fresh, profiles...)
		if d := cmp.Diff(numbersOf(fresh), numbersOf(o)); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
}

// findRivals finds services of two profiles, each with a backend, whose
// backends have numbers that others of them want.
func findRivals(t *testing.T) map[string][]lb.Service {
	t.Helper()
	out := map[string][]lb.Service{}
	seen := map[uint32]compile.BackendKey{}
	one := func(key compile.BackendKey) {
		profile, name, _ := compile.ServiceOf(key.Chain)
		s := service(name, "203.0.113.1")
		if profile == "b" {
			s.Listen[0].Prefix = netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/32", len(out["b"])+1))
		} else {
			s.Listen[0].Prefix = netip.MustParsePrefix(fmt.Sprintf("203.0.113.%d/32", len(out["a"])+1))
		}
		s.Backends = []lb.Backend{{Name: key.Address.String(), Address: key.Address, Weight: 1}}
		if !slices.ContainsFunc(out[profile], func(o lb.Service) bool { return o.Name == name }) {
			out[profile] = append(out[profile], s)
		}
	}
	for i := 0; len(out["a"]) < 4 || len(out["b"]) < 4; i++ {
		if i == 200_000 {
			t.Fatal("no rivals")
		}
		key := compile.BackendKey{Chain: compile.ChainOf([]string{"a", "b"}[i%2], fmt.Sprint("s", i)), Address: lb.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Port: 80}}
		// What wants the number behind another's is a rival, too.
		for _, n := range []uint32{key.FirstNumber(), (key.FirstNumber() - 1) & compile.NumberMask} {
			if other, taken := seen[n]; taken {
				one(other)
				one(key)
			}
		}
		seen[key.FirstNumber()] = key
	}
	return out
}
