package share

import (
	"math/big"
	"math/rand/v2"
	"testing"

	"nlb/lb"

	"github.com/google/go-cmp/cmp"
)

func TestMeant(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "1": "1", "1.0": "1", "0.00000000000": "0", "1.00000000000": "1",
		".5": "1/2", "0.5": "1/2", "0.50000000000": "1/2", ".25": "1/4",
		// A probability of .3333 is a third, and .3 is three tenths.
		".3333": "1/3", ".333": "1/3", ".33": "1/3", ".3": "3/10", "0.30": "3/10",
		".66": "2/3", ".67": "2/3", ".6666": "2/3", ".6667": "2/3", ".7": "7/10", ".6": "3/5",
		".16": "1/6", ".17": "1/6", ".1667": "1/6", ".14": "1/7", ".143": "1/7", ".1429": "1/7", ".125": "1/8", ".111": "1/9",
		// Decimals that only look as if.
		".15": "3/20", ".35": "7/20", ".45": "9/20", ".12": "3/25", ".05": "1/20", ".01": "1/100", ".24": "6/25", ".49": "49/100",
		".99": "99/100", ".999": "999/1000", ".001": "1/1000", ".1": "1/10", ".2": "1/5", ".4": "2/5", ".9": "9/10", ".11": "11/100",
		// As iptables-save prints them.
		"0.33329999982": "1/3", "0.33333000001": "1/3", "0.33000000007": "1/3", "0.33333333349": "1/3", "0.33333333302": "1/3",
		"0.29999999981": "3/10", "0.25000000000": "1/4", "0.20000000019": "1/5", "0.14285714272": "1/7", "0.16666666651": "1/6",
		"0.10000000009": "1/10", "0.14999999991": "3/20", "0.00999999978": "1/100",
	} {
		p, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := p.Meant.RatString(); got != want {
			t.Errorf("%s means %s, want %s", text, got, want)
		}
		value, _ := new(big.Rat).SetString(text)
		if d := new(big.Rat).Sub(value, p.Kernel); d.Abs(d).Cmp(big.NewRat(1, 1<<31)) > 0 {
			t.Errorf("%s is %s to the kernel", text, p.Kernel.FloatString(12))
		}
	}
	for _, bad := range []string{"", ".", "1.1", "2", "-0.5", "0x1", "1/2", "1e-1", "0.5.5", "half", "0.1111111111111111111111111111111111"} {
		if p, err := Parse(bad); err == nil {
			t.Errorf("%q is read as %s", bad, p.Meant)
		}
	}
}

// TestMeantThroughTheKernel: what iptables-save prints means the same as what
// was typed.
func TestMeantThroughTheKernel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range rounds(4000) {
		digits := 1 + r.IntN(7)
		typed := big.NewRat(r.Int64N(pow10(digits).Int64()+1), pow10(digits).Int64()).FloatString(digits)
		want, err := Parse(typed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(want.Kernel.FloatString(11))
		if err != nil {
			t.Fatal(err)
		}
		if got.Meant.Cmp(want.Meant) != 0 || got.Kernel.Cmp(want.Kernel) != 0 {
			t.Fatalf("%s means %s, and through the kernel, as %s, %s", typed, want.Meant, want.Kernel.FloatString(11), got.Meant)
		}
	}
}

// TestMeantIsTheOnly: what is meant is the one simple fraction that is near, or the decimal.
func TestMeantIsTheOnly(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range rounds(4000) {
		digits := 1 + r.IntN(5)
		unit := pow10(digits)
		number := 1 + r.Int64N(unit.Int64()-1)
		p, err := Parse(big.NewRat(number, unit.Int64()).FloatString(digits))
		if err != nil {
			t.Fatal(err)
		}
		value := big.NewRat(number, unit.Int64())
		for number%10 == 0 { // the shortest decimal counts
			number, unit = number/10, new(big.Int).Div(unit, big.NewInt(10))
		}
		low := new(big.Rat).Sub(value, new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Mul(big.NewInt(2), unit)))
		high := new(big.Rat).Add(value, new(big.Rat).SetFrac(big.NewInt(1), unit))
		want := value
		for q := int64(1); 2*q*q <= unit.Int64() && low.Sign() > 0; q++ {
			over := new(big.Rat).Mul(low, big.NewRat(-q, 1))
			f := new(big.Rat).SetFrac(new(big.Int).Neg(floor(over)), big.NewInt(q)) // the first that is not below
			if f.Cmp(high) < 0 {
				want = f
				break
			}
		}
		if p.Meant.Cmp(want) != 0 {
			t.Fatalf("%s means %s, want %s", value.FloatString(digits), p.Meant, want)
		}
	}
}

func rats(texts ...string) []*big.Rat {
	out := make([]*big.Rat, len(texts))
	for i, s := range texts {
		out[i], _ = new(big.Rat).SetString(s)
	}
	return out
}

func TestWeights(t *testing.T) {
	for _, tt := range []struct {
		shares []*big.Rat
		want   []int
		exact  bool
	}{
		{nil, []int{}, true},
		{rats("0"), []int{0}, true},
		{rats("1"), []int{1}, true},
		{rats("1/4", "1/4", "1/4", "1/4"), []int{1, 1, 1, 1}, true},
		{rats("1/4", "3/16", "9/64", "27/256"), []int{64, 48, 36, 27}, true},
		{rats("3/10", "0", "7/10"), []int{3, 0, 7}, true},
		{rats("1/1000", "999/1000"), []int{1, 999}, true},
		{rats("1/1001", "1000/1001"), []int{1, 1000}, true},
		{rats("5000", "2500"), []int{2, 1}, true},
		// Not exactly possible.
		{rats("50001/100000", "49999/100000"), []int{1, 1}, false},
		{rats("1/5000", "4999/5000"), []int{1, 1000}, false},
		{rats("1001/3003", "2003/3003"), []int{1, 2}, false},
	} {
		got, off := Weights(tt.shares)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Weights(%v) (-want +got)\n%s", tt.shares, diff)
		}
		if (off == 0) != tt.exact {
			t.Errorf("Weights(%v) is off by %v", tt.shares, off)
		}
	}
}

func TestWeightsAreValid(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range rounds(100) {
		n := 1 + r.IntN(40)
		shares := make([]*big.Rat, n)
		for i := range shares {
			shares[i] = big.NewRat(r.Int64N(1+int64(r.IntN(1<<r.IntN(20)+1))), 1+r.Int64N(1000))
		}
		weights, _ := Weights(shares)
		sum := 0
		for i, w := range weights {
			if w < 0 || w > lb.MaxWeight || (w == 0) != (shares[i].Sign() == 0) {
				t.Fatalf("Weights(%v) = %v", shares, weights)
			}
			sum += w
		}
		if sum > lb.MaxSlots {
			t.Fatalf("Weights(%v) has the sum %d", shares, sum)
		}
	}
}

// rounds is n, or a tenth of it with -short.
func rounds(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}
