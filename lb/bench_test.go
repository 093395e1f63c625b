package lb_test

import (
	"fmt"
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
