//go:build linux

package lab

import (
	"math/rand/v2"
	"slices"
	"testing"

	"nlb/lb"
)

func TestWindows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		weights []int
		n       int
		want    []interval
	}{
		{[]int{1, 1, 1}, 300, []interval{{100, 100}, {100, 100}, {100, 100}}},
		{[]int{1, 1, 1}, 301, []interval{{100, 101}, {100, 101}, {100, 101}}},
		{[]int{5, 1, 1}, 70, []interval{{50, 50}, {10, 10}, {10, 10}}},
		{[]int{5, 1, 0}, 6, []interval{{5, 5}, {1, 1}, {0, 0}}},
		{[]int{3, 1}, 2, []interval{{1, 2}, {0, 1}}},
		{[]int{0, 0}, 5, []interval{{0, 0}, {0, 0}}},
		{nil, 5, []interval{}},
	} {
		if got := windows(lb.Slots(c.weights), len(c.weights), c.n); !slices.Equal(got, c.want) {
			t.Errorf("%d of %d: got %v, want %v", c.n, c.weights, got, c.want)
		}
	}
	// Against counting, from every beginning.
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		weights := make([]int, 1+r.IntN(5))
		for i := range weights {
			weights[i] = r.IntN(8)
		}
		cycle := lb.Slots(weights)
		if cycle == nil {
			continue
		}
		n := r.IntN(40)
		want := make([]interval, len(weights))
		for i := range want {
			want[i].least = n
		}
		for begin := range cycle {
			count := make([]int, len(weights))
			for i := range n {
				count[cycle[(begin+i)%len(cycle)]]++
			}
			for i, c := range count {
				want[i] = interval{min(want[i].least, c), max(want[i].most, c)}
			}
		}
		if got := windows(cycle, len(weights), n); !slices.Equal(got, want) {
			t.Errorf("%d of %d: got %v, want %v", n, weights, got, want)
		}
	}
}

func TestBinomial(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n     int
		p     float64
		alpha float64
		want  interval
	}{
		{100, 0.5, 0.05, interval{40, 60}}, // as in every table
		{10, 0.5, 0.002, interval{1, 9}},   // P(X=0) is 1/1024
		{1000, 0, 1e-9, interval{0, 0}},
		{1000, 1, 1e-9, interval{1000, 1000}},
		{1, 1e-12, 1e-9, interval{0, 0}},
	} {
		if got := binomial(c.n, c.p, c.alpha); got != c.want {
			t.Errorf("%d draws with chance %g, alpha %g: got %v, want %v", c.n, c.p, c.alpha, got, c.want)
		}
	}
	// The wide one: not trivial, and never left by chance.
	i := binomial(600, 1.0/3, 1e-9)
	if i.least < 120 || i.most > 285 {
		t.Errorf("600 draws of a third: %v is too wide", i)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		n := 0
		for range 600 {
			if r.IntN(3) == 0 {
				n++
			}
		}
		if !i.holds(n) {
			t.Fatalf("%d is not in %v", n, i)
		}
	}
}
