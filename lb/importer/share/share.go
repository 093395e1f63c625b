// Package share turns probabilities and exact shares into the whole weights of
// a profile. It is arithmetic on rational numbers: nothing is rounded that
// does not say so.
package share

// Probabilities as rules write them, and the fractions that were meant.

import (
	"fmt"
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
// that was meant. Otherwise the decimal was.
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
	f := simplest(low, high)
	q := f.Denom()
	if new(big.Int).Mul(big.NewInt(2), new(big.Int).Mul(q, q)).Cmp(pow10(min(digits, maxMeant))) <= 0 {
		return f
	}
	return decimal
}

// maxMeant is how many digits can tell fractions apart: 10^-8 is well above
// the 2^-31 of the kernel.
const maxMeant = 8

func pow10(k int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(k)), nil)
}

// simplest is the fraction with the smallest denominator in [low, high), for
// 0 < low < high: the common beginning of their continued fractions.
func simplest(low, high *big.Rat) *big.Rat {
	whole := floor(low)
	if new(big.Rat).SetInt(whole).Cmp(low) == 0 {
		return new(big.Rat).SetInt(whole)
	}
	next := new(big.Int).Add(whole, big.NewInt(1))
	if new(big.Rat).SetInt(next).Cmp(high) < 0 {
		return new(big.Rat).SetInt(next)
	}
	// Both lie between whole and next, high at most at next. With the whole
	// part gone, the order of the reciprocals is turned around, and the open
	// end with it.
	part := new(big.Rat).SetInt(whole)
	upper := new(big.Rat).Inv(new(big.Rat).Sub(low, part))
	lower := new(big.Rat).Inv(new(big.Rat).Sub(high, part))
	rest := simplestAbove(lower, upper)
	return part.Add(part, rest.Inv(rest))
}

// simplestAbove is the same for (low, high].
func simplestAbove(low, high *big.Rat) *big.Rat {
	next := new(big.Int).Add(floor(low), big.NewInt(1))
	if new(big.Rat).SetInt(next).Cmp(high) <= 0 {
		return new(big.Rat).SetInt(next)
	}
	part := new(big.Rat).SetInt(floor(low))
	upper := new(big.Rat).Sub(low, part)
	lower := new(big.Rat).Inv(new(big.Rat).Sub(high, part))
	var rest *big.Rat
	if upper.Sign() == 0 { // no upper end
		rest = new(big.Rat).SetInt(ceil(lower))
	} else {
		rest = simplest(lower, upper.Inv(upper))
	}
	return part.Add(part, rest.Inv(rest))
}

func ceil(r *big.Rat) *big.Int {
	return new(big.Int).Neg(floor(new(big.Rat).Neg(r)))
}
