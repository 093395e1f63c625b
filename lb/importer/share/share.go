// Package share turns probabilities and exact shares into the whole weights of
// a profile. It is arithmetic on rational numbers: nothing is rounded that
// does not say so.
package share

// Probabilities as rules write them, and the fractions that were meant.

import (
	"fmt"
	"iter"
	"math/big"
	"strings"
)

// Probability is a probability in a rule.
type Probability struct {
	// Kernel is what the kernel works with: a multiple of 2^-31
	// (include/uapi/linux/netfilter/xt_statistic.h).
	Kernel *big.Rat
	// Meant is the fraction that was written as a decimal: a third for 0.3333
	// and for 0.33333333349, three tenths for 0.3.
	Meant *big.Rat
}

// maxDigits is how many digits of a decimal are read; iptables-save writes 11.
const maxDigits = 30

// scale is the kernel's 1.
var scale = new(big.Int).Lsh(big.NewInt(1), 31)

// Parse reads a decimal from 0 to 1, such as 0.3333 or .5.
func Parse(text string) (Probability, error) {
	whole, decimals, _ := strings.Cut(text, ".")
	if whole+decimals == "" || strings.Trim(whole+decimals, "0123456789") != "" || len(text) > maxDigits {
		return Probability{}, fmt.Errorf("probability %q is not a decimal number", text)
	}
	value, _ := new(big.Rat).SetString("0" + whole + "." + decimals + "0")
	if value.Cmp(big.NewRat(1, 1)) > 0 {
		return Probability{}, fmt.Errorf("probability %s is more than 1", text)
	}
	kernel := round(value)
	p := Probability{Kernel: new(big.Rat).SetFrac(kernel, scale)}
	p.Meant = meant(value, len(decimals), kernel)
	return p, nil
}

// round is what iptables hands to the kernel for a probability.
func round(p *big.Rat) *big.Int {
	scaled := new(big.Rat).Mul(p, new(big.Rat).SetInt(scale))
	return floor(scaled.Add(scaled, big.NewRat(1, 2)))
}

func floor(r *big.Rat) *big.Int { return new(big.Int).Div(r.Num(), r.Denom()) }

// meant is the fraction behind a decimal of so many digits.
//
// What iptables-save prints has been through the kernel, and 0.3333 comes back
// as 0.33329999982. So first the shortest decimal is found that the kernel
// holds as the same number; versions of iptables before 1.4.10 cut what they
// round today.
//
// A decimal of k digits stands for an interval: [d-u/2, d+u) where u is 10^-k,
// since people round and people cut; and for no less than what the kernel
// cannot tell apart. Two fractions with denominators up to q are at least
// 1/q^2 apart, so at most one with 2q^2 <= 10^k is in there: if there is one,
// that was meant. Otherwise the decimal was. Since it is nearer to d than
// 1/2q^2, it is among the convergents of d (Legendre).
func meant(value *big.Rat, digits int, kernel *big.Int) *big.Rat {
	decimal := value
	for k := range min(digits, maxMeant+1) {
		unit := pow10(k)
		near := new(big.Rat).Mul(value, new(big.Rat).SetInt(unit))
		shorter := new(big.Rat).SetFrac(floor(near.Add(near, big.NewRat(1, 2))), unit)
		cut := floor(new(big.Rat).Mul(shorter, new(big.Rat).SetInt(scale)))
		if round(shorter).Cmp(kernel) == 0 || cut.Cmp(kernel) == 0 {
			decimal, digits = shorter, k
			break
		}
	}
	unit := new(big.Rat).SetFrac(big.NewInt(1), pow10(digits))
	low := new(big.Rat).Sub(decimal, new(big.Rat).Quo(unit, big.NewRat(2, 1)))
	high := new(big.Rat).Add(decimal, unit)
	if cell := new(big.Rat).SetFrac(new(big.Int).Sub(kernel, big.NewInt(1)), scale); cell.Cmp(low) < 0 {
		low = cell
	}
	if cell := new(big.Rat).SetFrac(new(big.Int).Add(kernel, big.NewInt(1)), scale); cell.Cmp(high) > 0 {
		high = cell
	}
	if low.Sign() <= 0 {
		return decimal
	}
	most := pow10(min(digits, maxMeant))
	for f := range convergents(decimal) {
		if q := f.Denom(); new(big.Int).Mul(big.NewInt(2), new(big.Int).Mul(q, q)).Cmp(most) > 0 {
			break
		}
		if f.Cmp(low) >= 0 && f.Cmp(high) < 0 {
			return f
		}
	}
	return decimal
}

// maxMeant is how many digits can tell fractions apart: 10^-8 is well above
// the 2^-31 of the kernel.
const maxMeant = 8

func pow10(k int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(k)), nil)
}

// convergents are those of the continued fraction of r, each nearer to it than the one
// before, with a larger denominator; the last is r.
func convergents(r *big.Rat) iter.Seq[*big.Rat] {
	return func(yield func(*big.Rat) bool) {
		// p/q is the last, before it was p0/q0.
		p0, q0, p, q := big.NewInt(0), big.NewInt(1), big.NewInt(1), big.NewInt(0)
		for rest := r; ; rest = new(big.Rat).Inv(rest) {
			whole := floor(rest)
			p0, p = p, p0.Add(p0, new(big.Int).Mul(whole, p))
			q0, q = q, q0.Add(q0, new(big.Int).Mul(whole, q))
			rest = new(big.Rat).Sub(rest, new(big.Rat).SetInt(whole))
			if !yield(new(big.Rat).SetFrac(p, q)) || rest.Sign() == 0 {
				return
			}
		}
	}
}
