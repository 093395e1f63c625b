package iptables

// Indexes: in the long chains of kube-proxy, nearly every rule is for one
// address. A region of one address need not be held against each of them.

import (
	"slices"

	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// minIndexed is the length of the shortest chain that gets an index.
const minIndexed = 64

// index is a chain by destinations.
type index struct {
	rules  map[space.Number][]int // for one address, by place in the chain
	others []int
}

func newIndex(c *syntax.Chain) *index {
	x := &index{rules: map[space.Number][]int{}}
	for i, r := range c.Rules {
		if a, ok := address(r); ok {
			x.rules[a] = append(x.rules[a], i)
		} else {
			x.others = append(x.others, i)
		}
	}
	return x
}

// address is the one destination of a rule. Nothing that counts may be asked
// before it.
func address(r *syntax.Rule) (space.Number, bool) {
	for _, m := range r.Matches {
		switch m := m.(type) {
		case syntax.Destination:
			if len(m.Set) == 1 && m.Set[0].First == m.Set[0].Last {
				return m.Set[0].First, true
			}
		case *syntax.Nth, syntax.Recent:
			return space.Number{}, false
		}
	}
	return space.Number{}, false
}

// relevant are the rules of a chain that can concern the region.
func (w *walker) relevant(c *syntax.Chain) []*syntax.Rule {
	to := w.region[space.Destination]
	if w.leaving || len(c.Rules) < minIndexed || to.Size() != 1 {
		return c.Rules
	}
	x := w.indexes[c]
	if x == nil {
		x = newIndex(c)
		w.indexes[c] = x
	}
	own := x.rules[to[0].First]
	places := slices.Concat(own, x.others)
	slices.Sort(places)
	out := make([]*syntax.Rule, len(places))
	for i, p := range places {
		out[i] = c.Rules[p]
	}
	return out
}
