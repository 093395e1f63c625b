// Package space divides the packets that a packet filter can meet: sets of
// addresses, ports, protocols and interfaces, and regions that are products of
// them.
package space

// Sets of numbers: what every dimension of a region is made of.

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// Number is an unsigned number of 128 bits: an IPv6 address, or anything
// smaller.
type Number struct{ High, Low uint64 }

// N is a small number.
func N(n uint64) Number { return Number{0, n} }

// Compare is -1, 0 or 1.
func (a Number) Compare(b Number) int {
	return cmp.Or(cmp.Compare(a.High, b.High), cmp.Compare(a.Low, b.Low))
}

func (a Number) next() Number {
	a.Low++
	if a.Low == 0 {
		a.High++
	}
	return a
}

func (a Number) previous() Number {
	if a.Low == 0 {
		a.High--
	}
	a.Low--
	return a
}

// Range is First to Last, both included.
type Range struct{ First, Last Number }

// Set is a set of numbers: ranges that are sorted and do not touch. The zero
// value is empty. Sets are not changed once they are made.
type Set []Range

// Of is the set of these ranges, which may overlap.
func Of(ranges ...Range) Set {
	if len(ranges) == 0 {
		return nil
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int { return a.First.Compare(b.First) })
	out := Set(sorted[:0])
	for _, r := range sorted {
		if last := len(out) - 1; last >= 0 && (r.First.Compare(out[last].Last) <= 0 || r.First == out[last].Last.next()) {
			if r.Last.Compare(out[last].Last) > 0 {
				out[last].Last = r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// One is a set of one range.
func One(first, last uint64) Set { return Set{{N(first), N(last)}} }

// Union is what is in either.
func (s Set) Union(t Set) Set { return Of(append(slices.Clone(s), t...)...) }

// And is what is in both.
func (s Set) And(t Set) Set {
	var out Set
	s.pairs(t, func(r Range) bool { out = append(out, r); return true })
	return out
}

// Meets reports whether something is in both.
func (s Set) Meets(t Set) bool {
	found := false
	s.pairs(t, func(Range) bool { found = true; return false })
	return found
}

// pairs calls f for each range that is in both, until it says no.
func (s Set) pairs(t Set, f func(Range) bool) {
	if len(s) > len(t) {
		s, t = t, s
	}
	for _, a := range s {
		from, _ := slices.BinarySearchFunc(t, a.First, func(b Range, n Number) int { return b.Last.Compare(n) })
		for _, b := range t[from:] {
			if b.First.Compare(a.Last) > 0 {
				break
			}
			r := Range{a.First, a.Last}
			if b.First.Compare(r.First) > 0 {
				r.First = b.First
			}
			if b.Last.Compare(r.Last) < 0 {
				r.Last = b.Last
			}
			if !f(r) {
				return
			}
		}
	}
}

// Without is what is in s and not in t.
func (s Set) Without(t Set) Set {
	var out Set
	for _, a := range s {
		from, _ := slices.BinarySearchFunc(t, a.First, func(b Range, n Number) int { return b.Last.Compare(n) })
		first, empty := a.First, false
		for _, b := range t[from:] {
			if b.First.Compare(a.Last) > 0 {
				break
			}
			if b.First.Compare(first) > 0 {
				out = append(out, Range{first, b.First.previous()})
			}
			if b.Last.Compare(a.Last) >= 0 {
				empty = true
				break
			}
			first = b.Last.next()
		}
		if !empty {
			out = append(out, Range{first, a.Last})
		}
	}
	return out
}

// Relation is how a set lies to a condition.
type Relation uint8

// The relations.
const (
	Outside Relation = iota // no member fulfils it
	Inside                  // each does
	Across                  // some do
)

// Against is how s lies to a condition that the members of t fulfil; of an
// empty s, Outside.
func (s Set) Against(t Set) Relation {
	if !s.Meets(t) {
		return Outside
	}
	for _, a := range s {
		i, _ := slices.BinarySearchFunc(t, a.First, func(b Range, n Number) int { return b.Last.Compare(n) })
		if i == len(t) || t[i].First.Compare(a.First) > 0 || t[i].Last.Compare(a.Last) < 0 {
			return Across
		}
	}
	return Inside
}

// Has reports whether a number is in s.
func (s Set) Has(n Number) bool {
	i, _ := slices.BinarySearchFunc(s, n, func(b Range, n Number) int { return b.Last.Compare(n) })
	return i < len(s) && s[i].First.Compare(n) <= 0
}

// Equal reports whether both have the same members.
func (s Set) Equal(t Set) bool { return slices.Equal(s, t) }

// Size is about how many members there are.
func (s Set) Size() float64 {
	const half = 1 << 32 * 1.0 * (1 << 32)
	n := 0.0
	for _, r := range s {
		n += float64(r.Last.High-r.First.High)*half + float64(r.Last.Low) - float64(r.First.Low) + 1
	}
	return n
}

// key is a text that is the same for equal sets only.
func (s Set) key(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	for _, r := range s {
		for _, n := range [...]uint64{r.First.High, r.First.Low, r.Last.High, r.Last.Low} {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// Key is a text that is the same for equal sets only.
func (s Set) Key() string { return string(s.key(nil)) }
