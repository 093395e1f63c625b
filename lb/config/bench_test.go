package config

import (
	"fmt"
	"testing"

	"nlb/lb"
)

// BenchmarkCompare compares a profile with itself, as every apply does.
func BenchmarkCompare(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		have, want := []*lb.Profile{fleet(n)}, []*lb.Profile{fleet(n)}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if changes := lb.Compare(have, want); changes != nil {
					b.Fatal(changes)
				}
			}
		})
	}
}
