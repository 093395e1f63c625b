package iptables

// Indexes: in long chains, nearly every rule is for one address or one port. A
// region of one of them need not be held against each rule, and a region of many
// is parted at once.

import (
	"slices"

	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// minIndexed is the length of the shortest chain that gets an index.
const minIndexed = 64

// indexed are the dimensions that chains are indexed by.
var indexed = [...]space.Dimension{space.Destination, space.Port}

// index is a chain by single values of one dimension.
type index struct {
	rules  map[space.Number][]int // by place in the chain
	others []int
}

func newIndex(c *syntax.Chain, d space.Dimension) *index {
	x := &index{rules: map[space.Number][]int{}}
	for i, r := range c.Rules {
		if a, ok := single(r, d); ok {
			x.rules[a] = append(x.rules[a], i)
		} else {
			x.others = append(x.others, i)
		}
	}
	return x
}

// single is the one destination or port of a rule. Nothing that counts may be
// asked before it.
func single(r *syntax.Rule, d space.Dimension) (space.Number, bool) {
	for _, m := range r.Matches {
		switch m := m.(type) {
		case syntax.Within:
			if m.Of == d && len(m.Set) == 1 && m.Set[0].First == m.Set[0].Last {
				return m.Set[0].First, true
			}
		case *syntax.Nth, syntax.Recent:
			return space.Number{}, false
		}
	}
	return space.Number{}, false
}

// pointsOf are the single values of all rules, sorted.
func pointsOf(set *syntax.Ruleset) (out [len(indexed)][]space.Number) {
	for r := range set.Rules {
		for i, d := range indexed {
			if n, ok := single(r, d); ok {
				out[i] = append(out[i], n)
			}
		}
	}
	for i := range out {
		slices.SortFunc(out[i], space.Number.Compare)
		out[i] = slices.Compact(out[i])
	}
	return out
}

// point is the one single value that a region has in an indexed dimension, if it
// has any; ok is false where there are more.
func (w *walker) point(i int) (at []space.Number, ok bool) {
	for _, s := range w.region[indexed[i]] {
		from, _ := slices.BinarySearchFunc(w.single[i], s.First, space.Number.Compare)
		for _, n := range w.single[i][from:] {
			if n.Compare(s.Last) > 0 {
				break
			}
			if at = append(at, n); len(at) > 1 {
				return nil, false
			}
		}
	}
	return at, true
}

// parts are what a region is split into: where the rules that asked for it have
// many single values, one part for each.
func (s *split) parts(r space.Region) []space.Region {
	var points []space.Range
	for _, rule := range s.rules {
		if n, ok := single(rule, s.dimension); ok && r[s.dimension].Has(n) {
			points = append(points, space.Range{First: n, Last: n})
		}
	}
	if len(points) < minIndexed || s.by.Size() != 1 {
		inside, outside := r.Split(s.dimension, s.by)
		return []space.Region{outside, inside}
	}
	_, outside := r.Split(s.dimension, space.Of(points...))
	slices.SortFunc(points, func(a, b space.Range) int { return b.First.Compare(a.First) })
	points = slices.Compact(points)
	out := make([]space.Region, 0, 1+len(points))
	if len(outside[s.dimension]) > 0 {
		out = append(out, outside)
	}
	for i := range points {
		one := r
		one[s.dimension] = points[i : i+1 : i+1]
		out = append(out, one)
	}
	return out
}

// relevant are the rules of a chain that can concern the region.
func (w *walker) relevant(c *syntax.Chain) []*syntax.Rule {
	if w.leaving || len(c.Rules) < minIndexed {
		return c.Rules
	}
	var best *index
	var own []int
	for i, d := range indexed {
		point, ok := w.point(i)
		if !ok {
			continue
		}
		key := indexKey{c, d}
		x := w.indexes[key]
		if x == nil {
			x = newIndex(c, d)
			w.indexes[key] = x
		}
		var rules []int
		if len(point) > 0 {
			rules = x.rules[point[0]]
		}
		if best == nil || len(rules)+len(x.others) < len(own)+len(best.others) {
			best, own = x, rules
		}
	}
	if best == nil {
		return c.Rules
	}
	places := slices.Concat(own, best.others)
	slices.Sort(places)
	out := make([]*syntax.Rule, len(places))
	for i, p := range places {
		out[i] = c.Rules[p]
	}
	return out
}

// indexKey is what an index is of.
type indexKey struct {
	chain     *syntax.Chain
	dimension space.Dimension
}
