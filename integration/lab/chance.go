//go:build linux

package lab

// How many connections a backend may get: exactly for round robin, within the
// bounds of chance for the others.

import "math"

// falseAlarm is the probability that a whole rehearsal complains although all
// is well.
const falseAlarm = 1e-9

// interval is what a backend may get of a number of draws.
type interval struct{ least, most int }

func (i interval) holds(n int) bool { return i.least <= n && n <= i.most }

// windows returns, for each backend, the least and the most draws that it can
// get of n draws in a row of a cycle, wherever in it they begin. The two are
// equal where n is a multiple of the cycle.
func windows(cycle []int, backends, n int) []interval {
	out := make([]interval, backends)
	if len(cycle) == 0 {
		return out
	}
	whole, rest := n/len(cycle), n%len(cycle)
	count, total := make([]int, backends), make([]int, backends)
	for i, b := range cycle {
		total[b]++
		if i < rest {
			count[b]++
		}
	}
	for b, c := range count {
		out[b] = interval{c, c}
	}
	for i, gone := range cycle {
		came := cycle[(i+rest)%len(cycle)]
		count[gone]--
		count[came]++
		out[gone].least = min(out[gone].least, count[gone])
		out[came].most = max(out[came].most, count[came])
	}
	for b := range out {
		out[b].least += whole * total[b]
		out[b].most += whole * total[b]
	}
	return out
}

// binomial returns the narrowest interval that n draws, each with chance p,
// leave on either side with a probability of at most alpha/2.
func binomial(n int, p, alpha float64) interval {
	switch {
	case n == 0 || p <= 0:
		return interval{0, 0}
	case p >= 1:
		return interval{n, n}
	}
	return interval{tail(n, p, alpha/2), n - tail(n, 1-p, alpha/2)}
}

// tail is the smallest k for which P(X <= k) exceeds alpha.
func tail(n int, p, alpha float64) int {
	sum := 0.0
	for k := range n {
		if sum += binomialMass(n, k, p); sum > alpha {
			return k
		}
	}
	return n
}

func binomialMass(n, k int, p float64) float64 {
	return math.Exp(logFactorial(n) - logFactorial(k) - logFactorial(n-k) +
		float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

func logFactorial(n int) float64 {
	v, _ := math.Lgamma(float64(n) + 1)
	return v
}
