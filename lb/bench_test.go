package lb

import (
	"fmt"
	"testing"
)

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		p := fleet(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Write(p)
			}
		})
	}
}

// BenchmarkCompare compares a profile with itself, as every apply does.
func BenchmarkCompare(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		have, want := []*Profile{fleet(n)}, []*Profile{fleet(n)}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if changes := Compare(have, want); changes != nil {
					b.Fatal(changes)
				}
			}
		})
	}
}
