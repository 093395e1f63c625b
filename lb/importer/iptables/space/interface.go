package space

// Interfaces by their names, as iptables matches them.

import (
	"cmp"
	"slices"
	"strings"
)

// Interfaces divides the names of interfaces. A pattern is a name, or the
// beginning of names and '+'. Of two patterns, one has all names of the other
// or they have none in common, so the names fall into atoms: one for each
// pattern, without the names of narrower ones, and the atom 0 for all others.
type Interfaces struct{ patterns []string }

// NewInterfaces divides names by these patterns.
func NewInterfaces(patterns []string) *Interfaces {
	sorted := slices.DeleteFunc(slices.Clone(patterns), func(p string) bool { return p == "+" || p == "" })
	slices.Sort(sorted)
	return &Interfaces{slices.Compact(sorted)}
}

// All is the set of all names.
func (f *Interfaces) All() Set { return One(0, uint64(len(f.patterns))) }

// Matching is the set of the names that a pattern matches, which must be one
// of those that were given, "" or "+".
func (f *Interfaces) Matching(pattern string) Set {
	if pattern == "" || pattern == "+" {
		return f.All()
	}
	var out []Range
	for i, p := range f.patterns {
		if covers(pattern, p) {
			out = append(out, Range{N(uint64(i + 1)), N(uint64(i + 1))})
		}
	}
	return Of(out...)
}

// covers reports whether pattern has all names of p.
func covers(pattern, p string) bool {
	if begin, ok := strings.CutSuffix(pattern, "+"); ok {
		return strings.HasPrefix(strings.TrimSuffix(p, "+"), begin)
	}
	return pattern == p
}

// Patterns are patterns that have just these names. ok is false where there
// are none: for all names but some.
func (f *Interfaces) Patterns(s Set) (out []string, ok bool) {
	if s.Equal(f.All()) {
		return []string{"+"}, true
	}
	byBreadth := slices.Clone(f.patterns)
	slices.SortStableFunc(byBreadth, func(a, b string) int {
		// eth+ has the name eth, too.
		return cmp.Or(cmp.Compare(len(strings.TrimSuffix(a, "+")), len(strings.TrimSuffix(b, "+"))), cmp.Compare(len(b), len(a)))
	})
	rest := s
	for _, p := range byBreadth {
		if m := f.Matching(p); len(m) > 0 && rest.Meets(m) && m.Against(s) == Inside {
			out = append(out, p)
			rest = rest.Without(m)
		}
	}
	slices.Sort(out)
	return out, len(rest) == 0
}
