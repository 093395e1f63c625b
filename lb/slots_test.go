package lb

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSlots(t *testing.T) {
	for _, tt := range []struct{ weights, want []int }{
		{nil, nil},
		{[]int{0, 0}, nil},
		{[]int{7}, []int{0}},
		{[]int{1, 1, 1}, []int{0, 1, 2}},
		{[]int{40, 0, 40}, []int{0, 2}},
		{[]int{5, 1, 1}, []int{0, 0, 1, 0, 0, 2, 0}},
		{[]int{1, 5, 1}, []int{1, 1, 0, 1, 1, 2, 1}},
		{[]int{50, 10, 10}, []int{0, 0, 1, 0, 0, 2, 0}},
		{[]int{3, 1}, []int{0, 0, 1, 0}},
		{[]int{2, 1, 1}, []int{0, 1, 0, 2}},
		{[]int{3, 2, 2}, []int{0, 1, 0, 2, 1, 0, 2}},
		{[]int{3, 3, 2}, []int{0, 1, 2, 0, 1, 0, 2, 1}},
		{[]int{5, 3, 1}, []int{0, 1, 0, 1, 0, 0, 2, 0, 1}},
	} {
		if diff := cmp.Diff(tt.want, Slots(tt.weights)); diff != "" {
			t.Errorf("Slots(%v) (-want +got)\n%s", tt.weights, diff)
		}
	}
}

// randomWeights have shapes that schedulers find hard: all near each other, one
// far above the others, a few among many, zeros.
func randomWeights(r *rand.Rand) []int {
	n := 1 + r.IntN([]int{4, 12, 120}[r.IntN(3)])
	scale := 1 + r.IntN([]int{2, 10, 100, MaxWeight}[r.IntN(4)])
	weights := make([]int, n)
	for i := range weights {
		weights[i] = r.IntN(scale + 1)
		if r.IntN(8) == 0 {
			weights[i] = 1 + r.IntN(MaxWeight)
		}
	}
	return weights
}

func TestSlotsProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	worst := 0.0
	for range 2000 {
		weights := randomWeights(r)
		slots := Slots(weights)
		divisor, total, top := 0, 0, 0
		for i, w := range weights {
			divisor = gcd(divisor, w)
			total += w
			if w > weights[top] {
				top = i
			}
		}
		if total == 0 {
			if slots != nil {
				t.Fatalf("Slots(%v) = %v, want nil", weights, slots)
			}
			continue
		}
		total /= divisor
		if len(slots) != total {
			t.Fatalf("Slots(%v) has %d slots, want %d", weights, len(slots), total)
		}
		// Deviation of each beginning from the share; that of any window, over
		// the seam too, is the difference of two.
		counts := make([]int, len(weights))
		low, high := make([]float64, len(weights)), make([]float64, len(weights))
		for slot, b := range slots {
			share := float64(weights[b]/divisor) / float64(total)
			low[b] = min(low[b], float64(counts[b])-float64(slot)*share)
			counts[b]++
			high[b] = max(high[b], float64(counts[b])-float64(slot+1)*share)
		}
		for i, w := range weights {
			if counts[i] != w/divisor {
				t.Fatalf("Slots(%v) gives %d slots to %d, want %d", weights, counts[i], i, w/divisor)
			}
			worst = max(worst, high[i]-low[i])
		}
		w := weights[top] / divisor
		if w == total {
			continue
		}
		if got, want := longestRun(slots, top), (w+total-w-1)/(total-w); got != want {
			t.Fatalf("Slots(%v) gives %d slots in a row to %d, want %d", weights, got, top, want)
		}
	}
	if worst >= 2.5 {
		t.Errorf("a window is %.3f slots from its share, want less than 2.5", worst)
	}
	t.Logf("the worst window is %.3f slots from its share", worst)
}

func longestRun(slots []int, b int) int {
	longest, run := 0, 0
	for _, s := range slices.Concat(slots, slots) {
		if s != b {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}

func BenchmarkSlots(b *testing.B) {
	ramp := make([]int, 361) // 1 to 361: 65,341 slots, all weights different
	for i := range ramp {
		ramp[i] = i + 1
	}
	for name, weights := range map[string][]int{"equal": {1, 1, 1}, "5:1:1": {5, 1, 1}, "65341": ramp} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Slots(weights)
			}
		})
	}
}
