package share

// Shares become weights.

import (
	"math"
	"math/big"

	"nlb/lb"
)

// Tolerance is how far a share may be from what was asked, relative to it,
// where no weights give it exactly.
const Tolerance = 0.001

// maxTrials bounds the search for weights that are near enough.
const maxTrials = 20_000_000

// Weights returns the smallest whole weights, 0 to lb.MaxWeight, whose sum is
// at most lb.MaxSlots, for shares that need not add up to 1. Where they exist,
// they are exact. Otherwise they are the smallest within Tolerance, or, where
// there are none either, the nearest: off is the largest error of a share,
// relative to it. A share of 0 has the weight 0, and no other share does.
func Weights(shares []*big.Rat) (weights []int, off float64) {
	weights = make([]int, len(shares))
	sum := new(big.Rat)
	for _, s := range shares {
		sum.Add(sum, s)
	}
	if sum.Sign() <= 0 {
		return weights, 0
	}
	if exact(shares, weights) {
		return weights, 0
	}
	want := make([]float64, len(shares))
	for i, s := range shares {
		want[i], _ = new(big.Rat).Quo(s, sum).Float64()
	}
	best := math.Inf(1)
	trial := make([]int, len(shares))
	most := min(lb.MaxSlots, lb.MaxWeight*len(shares), maxTrials/len(shares))
	for total := 1; total <= most && best > Tolerance; total++ {
		if e := try(want, trial, total); e < best {
			best = e
			copy(weights, trial)
		}
	}
	return weights, best
}

// exact fills in weights that are the shares, if they are small enough.
func exact(shares []*big.Rat, weights []int) bool {
	common := big.NewInt(1) // denominator
	for _, s := range shares {
		g := new(big.Int).GCD(nil, nil, common, s.Denom())
		common.Mul(common, new(big.Int).Div(s.Denom(), g))
		if common.BitLen() > 4096 {
			return false
		}
	}
	parts := make([]*big.Int, len(shares))
	divisor := new(big.Int)
	for i, s := range shares {
		parts[i] = new(big.Int).Mul(s.Num(), new(big.Int).Div(common, s.Denom()))
		divisor.GCD(nil, nil, divisor, parts[i])
	}
	total := 0
	for i, p := range parts {
		p.Div(p, divisor)
		if !p.IsInt64() || p.Int64() > lb.MaxWeight {
			return false
		}
		weights[i] = int(p.Int64())
		total += weights[i]
	}
	return total <= lb.MaxSlots
}

// try rounds shares to weights that are about total in sum, and returns the
// largest relative error.
func try(want []float64, weights []int, total int) float64 {
	sum := 0
	for i, w := range want {
		weights[i] = 0
		if w > 0 {
			weights[i] = min(max(1, int(math.Round(w*float64(total)))), lb.MaxWeight)
		}
		sum += weights[i]
	}
	if sum > lb.MaxSlots {
		return math.Inf(1)
	}
	worst := 0.0
	for i, w := range want {
		if w > 0 {
			worst = max(worst, math.Abs(float64(weights[i])/float64(sum)-w)/w)
		}
	}
	return worst
}
