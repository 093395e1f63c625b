package lb_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/lbtest"
)

// TestFingerprint: services have one fingerprint where they are the same, and
// other ones where they are not.
func TestFingerprint(t *testing.T) {
	type print struct{ frame, backends [lb.FingerprintSize]byte }
	seen := map[print]*lb.Service{}
	r := rand.New(rand.NewPCG(7, 8))
	for range 3000 {
		s := lbtest.Service(r)
		var p, q print
		p.frame, p.backends = lb.Fingerprint("x", &s)
		moved := s
		moved.Pos = lb.Pos{File: "f", Line: 1, Column: 2}
		if q.frame, q.backends = lb.Fingerprint("x", &moved); p != q {
			t.Fatal("where a service stands makes another fingerprint")
		}
		if q.frame, q.backends = lb.Fingerprint("y", &s); p.frame == q.frame || p.backends != q.backends {
			t.Fatal("salt is for the frame")
		}
		if old, ok := seen[p]; ok && !cmp.Equal(*old, s, lbtest.Same) {
			t.Fatalf("one fingerprint for two services\n%s", cmp.Diff(*old, s, lbtest.Same))
		}
		seen[p] = &s
	}
}

// TestFingerprintAmbiguous has values that a careless encoding takes for each
// other.
func TestFingerprintAmbiguous(t *testing.T) {
	address := netip.MustParseAddr
	for _, pair := range [][2]lb.Service{
		{{Name: "ab"}, {Name: "a", Interface: "b"}},
		{{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, {Deny: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		{{Log: nil}, {Log: &lb.Log{}}},
		{{Limit: lb.Limit{ConnectionsPerSource: 1}}, {Limit: lb.Limit{Burst: 1}}},
		{{SNAT: lb.SNAT{Pool: []netip.Addr{address("1.2.3.4")}}}, {SNAT: lb.SNAT{Pool: []netip.Addr{address("::ffff:1.2.3.4")}}}},
		{{Listen: []lb.Listen{{}}}, {Listen: []lb.Listen{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}}},
		{{Listen: []lb.Listen{{Ports: []lb.PortRange{{First: 1, Last: 2}}}, {}}}, {Listen: []lb.Listen{{}, {Ports: []lb.PortRange{{First: 1, Last: 2}}}}}},
	} {
		first, _ := lb.Fingerprint("", &pair[0])
		second, _ := lb.Fingerprint("", &pair[1])
		if first == second {
			t.Errorf("one fingerprint for %+v and %+v", pair[0], pair[1])
		}
	}
	one := lb.Service{Backends: []lb.Backend{{Name: "a"}, {}}}
	two := lb.Service{Backends: []lb.Backend{{}, {Name: "a"}}}
	_, first := lb.Fingerprint("", &one)
	if _, second := lb.Fingerprint("", &two); first == second {
		t.Error("the order of backends does not matter")
	}
}

// TestCompareFirst: so many changes are named, and the services behind them are counted.
func TestCompareFirst(t *testing.T) {
	have, want := lbtest.Fleet(20), lbtest.Fleet(20)
	for i := range 15 {
		want.Services[i].Backends[0].Weight += 3
	}
	want.Services = want.Services[:19] // one less
	all := lb.Compare([]*lb.Profile{have}, []*lb.Profile{want})
	for _, most := range []int{1, 7, 15, 100} {
		got, more := lb.CompareFirst([]*lb.Profile{have}, []*lb.Profile{want}, most)
		named := map[string]bool{}
		for _, c := range got {
			named[c.Service] = true
		}
		if len(got) < min(most, len(all)) || !slices.Equal(got, all[:len(got)]) || len(named)+more != 16 {
			t.Errorf("%d of %d changes: %d are named, of %d services, and %d more services differ, want 16 in all", most, len(all), len(got), len(named), more)
		}
	}
}
