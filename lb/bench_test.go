package lb_test

import (
	"fmt"
	"slices"
	"testing"

	"nlb/lb"
	"nlb/lb/lbtest"
)

// BenchmarkCompare compares a profile with itself, as every apply does.
func BenchmarkCompare(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		have, want := []*lb.Profile{lbtest.Fleet(n)}, []*lb.Profile{lbtest.Fleet(n)}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if changes := lb.Compare(have, want); len(changes) > 0 {
					b.Fatal(changes)
				}
			}
		})
	}
}

// BenchmarkFingerprint makes what an apply knows services by.
func BenchmarkFingerprint(b *testing.B) {
	p := lbtest.Fleet(10_000)
	b.ReportAllocs()
	for b.Loop() {
		for i := range p.Services {
			lb.Fingerprint("salt", &p.Services[i])
		}
	}
}

// TestCompareFirst: so many changes are named, and the services behind them counted.
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
