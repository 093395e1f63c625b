package maglev

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func ones(n int) []int { return slices.Repeat([]int{1}, n) }

// TestPaper is table 1 of the paper.
func TestPaper(t *testing.T) {
	walks := []walk{{3, 4}, {0, 2}, {3, 1}}
	if got, want := populate(7, walks, ones(3)), []int{1, 0, 1, 0, 2, 2, 0}; !slices.Equal(got, want) {
		t.Errorf("with all three %v, want %v", got, want)
	}
	got := populate(7, []walk{walks[0], walks[2]}, ones(2))
	if want := []int{0, 0, 0, 0, 1, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("without the second %v, want %v", got, want)
	}
}

// TestKatran: the figures of Katran's tests of its table.
func TestKatran(t *testing.T) {
	const size = 65537
	for _, got := range counts(Slots(size, fleet(400), ones(400)), 400) {
		if got != 163 && got != 164 {
			t.Errorf("one of 400 has %d slots", got)
		}
	}
	for _, tt := range []struct{ weights, want []int }{
		{[]int{2, 1, 1}, []int{32769, 16384, 16384}},
		{[]int{1000, 500, 500}, []int{32769, 16384, 16384}},
	} {
		if got := counts(Slots(size, fleet(3), tt.weights), 3); !slices.Equal(got, tt.want) {
			t.Errorf("of weights %v there are %d slots, want %d", tt.weights, got, tt.want)
		}
	}
}

// TestWalks: the walks are those that they were, and each meets every slot.
func TestWalks(t *testing.T) {
	for at, want := range map[string]walk{"10.0.0.1:80": {545, 259}, "10.0.0.1:0": {612, 17}, "[2001:db8::1]:443": {596, 636}} {
		w := walkOf(netip.MustParseAddrPort(at), 1021)
		if w != want {
			t.Errorf("the walk of %s is %v, was %v", at, w, want)
		}
		seen := map[int]bool{}
		for i := range 1021 {
			seen[(w.offset+i*w.skip)%1021] = true
		}
		if len(seen) != 1021 {
			t.Errorf("%s meets %d slots", at, len(seen))
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct{ backends, held, want int }{
		{1, 0, 251},
		{2, 0, 251},
		{3, 0, 1021},
		{10, 0, 1021},
		{11, 0, 4093},
		{40, 0, 4093},
		{41, 0, 16381},
		{163, 0, 16381},
		{164, 0, 65537},
		{9000, 0, 65537},
		{1, 250, 251},
		{1, 1020, 251},
		{1, 1021, 1021},
		{10, 4093 + 11, 4093},
		{11, 251, 4093},
		{1, 1<<31 - 1, 65537},
	} {
		if got := Size(tt.backends, tt.held); got != tt.want {
			t.Errorf("%d backends, where there are %d, get %d slots, want %d", tt.backends, tt.held, got, tt.want)
		}
	}
}

// TestShares: the worst of equal backends is right within a hundredth. Whatever the
// weights are every backend has a slot, lacks at most a hundredth of its share, and has
// at most one slot more.
func TestShares(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 10, 11, 40, 41, 100, 163, 164, 655} {
		size := Size(n, 0)
		for _, got := range counts(Slots(size, fleet(n), ones(n)), n) {
			if off := float64(got)*float64(n)/float64(size) - 1; off > 0.01 || off < -0.01 {
				t.Fatalf("one of %d has %d of %d slots", n, got, size)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		n, sum := 1+r.IntN(60), 0
		weights := make([]int, n)
		for i := range weights {
			weights[i] = 1 + r.IntN(1+r.IntN(1000))
			sum += weights[i]
		}
		size := Size(n, 0)
		for i, got := range counts(Slots(size, fleet(n), weights), n) {
			if fair := float64(weights[i]) * float64(size) / float64(sum); got < 1 || float64(got) < 0.99*fair-1 || float64(got) > fair+1 {
				t.Fatalf("of weights %v one of %d has %d of %d slots, and %.1f are fair", weights, weights[i], got, size, fair)
			}
		}
	}
}

// TestRemoved: of ten backends one that goes moves few slots beside its own.
func TestRemoved(t *testing.T) {
	all := fleet(10)
	before := Slots(1021, all, ones(10))
	var moved []int
	for gone := range all {
		after := Slots(1021, slices.Delete(slices.Clone(all), gone, gone+1), ones(9))
		n := 0
		for slot, is := range after {
			if is >= gone {
				is++
			}
			if was := before[slot]; was != gone && was != is {
				n++
			}
		}
		moved = append(moved, n)
	}
	slices.Sort(moved)
	if median := (moved[4] + moved[5]) / 2; median > 35 {
		t.Errorf("of 1,021 slots %d moved beyond those of the removed one (all: %d)", median, moved)
	}
}

func fleet(n int) []netip.AddrPort {
	out := make([]netip.AddrPort, n)
	for i := range out {
		out[i] = netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:80", i/250, 1+i%250))
	}
	return out
}

func counts(slots []int, n int) []int {
	out := make([]int, n)
	for _, b := range slots {
		out[b]++
	}
	return out
}
