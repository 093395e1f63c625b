package iptables

// Ways: behind which interface a backend is, as far as the rules say.

import (
	"cmp"
	"slices"

	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// way is what a rule says of a network: it is behind the interfaces of one of the
// patterns, or not.
type way struct {
	net      space.Set
	patterns []string
	not      bool
}

// one is a way of a single pattern.
func one(pattern string, not bool) *way { return &way{patterns: []string{pattern}, not: not} }

// matching are the interfaces of a way.
func (w *way) matching(all *space.Interfaces) space.Set {
	var out space.Set
	for _, p := range w.patterns {
		out = out.Union(all.Matching(p))
	}
	return out
}

// ways are what all rules say.
type ways struct {
	networks []way
	// forwards are interfaces between which connections may be made, in and out.
	forwards [][2]*way
}

// passage is by which interfaces connections come to a chain, and leave; nil: by any.
type passage struct{ in, out *way }

// maxZone is how many interfaces of a zone are looked at.
const maxZone = 16

// passages are those of chains to which all rules that lead there name an interface, by
// table and chain: those of a zone, as firewalls have them.
func passages(set *syntax.Ruleset) map[string]passage {
	out := map[string]passage{}
	seen := map[string]bool{}
	both := func(a, b *way) *way {
		switch {
		case a == nil || b == nil || a.not != b.not:
			return nil
		case slices.Contains(a.patterns, b.patterns[0]):
			return a
		case a.not || len(a.patterns) == maxZone:
			return nil
		}
		return &way{patterns: append(slices.Clip(a.patterns), b.patterns...)}
	}
	for r := range set.Rules {
		jump, ok := r.Target.(syntax.Jump)
		if !ok || r.Skip {
			continue
		}
		p := passageOf(r)
		key := r.Table + " " + jump.Chain
		if old := out[key]; seen[key] {
			p = passage{both(old.in, p.in), both(old.out, p.out)}
		}
		out[key], seen[key] = p, true
	}
	return out
}

// passageOf is what a rule itself says.
func passageOf(r *syntax.Rule) (p passage) {
	for _, m := range r.Matches {
		if m, ok := m.(syntax.Interface); ok && m.Leaving {
			p.out = one(m.Pattern, m.Not)
		} else if ok {
			p.in = one(m.Pattern, m.Not)
		}
	}
	return p
}

// waysOf reads the rules.
func waysOf(set *syntax.Ruleset) *ways {
	w, under := &ways{}, passages(set)
	// What all but some have in common is no network: ! -s NETWORK.
	most := space.Addresses(set.Family).Size() / 2
	add := func(net space.Set, behind *way, not bool) {
		if net.Size() <= most {
			w.networks = append(w.networks, way{net, behind.patterns, not})
		}
	}
	for r := range set.Rules {
		if _, drops := r.Target.(syntax.Drop); drops || r.Skip {
			continue
		}
		var src, dst space.Set
		chain, own := under[r.Table+" "+r.Chain], passageOf(r)
		in, out := cmp.Or(own.in, chain.in), cmp.Or(own.out, chain.out)
		later := false
		for _, m := range r.Matches {
			switch m := m.(type) {
			case syntax.Source:
				src = m.Set
			case syntax.Within:
				if m.Of == space.Destination {
					dst = m.Set
				}
			case syntax.State:
				later = !m.New
			}
		}
		switch {
		case out != nil && dst != nil:
			add(dst, out, out.not)
		case out != nil && src != nil && r.ChangesSource():
			// -s NETWORK -o WAN leaves the network, as does ! -o BRIDGE.
			add(src, out, !out.not)
		}
		switch {
		case in == nil || in.not:
		case src != nil:
			add(src, in, false)
		case out != nil && !out.not && dst == nil && !later && r.Table == "filter":
			w.forwards = append(w.forwards, [2]*way{in, out})
		}
	}
	return w
}

// answer is what is known of a condition.
type answer uint8

const (
	unsaid answer = iota
	yes
	no
)

// leads reports whether the backend is behind interfaces, by what rules say of
// its network, or of where connections go that enter as those of the region do.
func (w *walker) leads(m syntax.Interface, f flow) answer {
	if m.Pattern == "lo" {
		return no
	}
	out := w.interfaces.Matching(m.Pattern)
	var said []answer
	add := func(behind *way, not bool) {
		switch other := behind.matching(w.interfaces); {
		case other.Against(out) == space.Inside && !not:
			said = append(said, yes)
		case !other.Meets(out) && !not, out.Against(other) == space.Inside && not:
			said = append(said, no)
		}
	}
	for i := range w.ways.networks {
		n := &w.ways.networks[i]
		if f.to.addr.IsValid() && n.net.Has(space.NumberOf(f.to.addr)) {
			add(n, n.not)
		}
	}
	if entering := w.region[space.Interface]; said == nil && w.hook == prerouting && !entering.Equal(w.interfaces.All()) {
		for _, forward := range w.ways.forwards {
			if entering.Against(forward[0].matching(w.interfaces)) == space.Inside {
				add(forward[1], false)
			}
		}
	}
	switch {
	case slices.Contains(said, yes): // a rule that takes it along counts more than one that is for leaving its network
		return yes
	case said != nil:
		return no
	}
	return unsaid
}

// spares reports whether a rule keeps connections from rules behind it, and changes no
// source itself.
func (w *walker) spares(r *syntax.Rule) bool {
	switch to := r.Target.(type) {
	case syntax.Accept, syntax.Return:
		return true
	case syntax.Jump:
		return !w.changes(r.Table, to.Chain)
	}
	return false
}

// changes reports whether a chain, or one that it leads to, changes sources.
func (w *walker) changes(table, name string) bool {
	c := w.set.Table(table).Chain(name)
	does, known := w.changing[c]
	if !known {
		w.changing[c] = false // circles are left out
		does = slices.ContainsFunc(c.Rules, func(r *syntax.Rule) bool {
			to, jumps := r.Target.(syntax.Jump)
			return !r.Skip && (r.ChangesSource() || jumps && w.changes(table, to.Chain))
		})
		w.changing[c] = does
	}
	return does
}

// leaves reports whether a connection leaves as a rule wants it. Where that is
// not known, it does: a backend that sees another source answers, one that is
// not on the way back may not.
func (w *walker) leaves(r *syntax.Rule, m syntax.Interface, f flow) bool {
	if !w.leaving { // nat OUTPUT: the route to where it was sent
		if m.Pattern == "lo" {
			return w.inside(space.Local, space.Own(true)) != m.Not
		}
		w.note(r, routed)
		return w.hook == output
	}
	switch a := w.leads(m, f); {
	case a == unsaid:
		w.note(r, open)
		w.unsure = true
		return true
	case (a == yes) == m.Not:
		w.note(r, refused)
		return false
	}
	return true
}
