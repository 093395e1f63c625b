package iptables

// Conditions: which part of a flow a rule applies to.

import (
	"math/big"

	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// concerns reports whether a rule can apply to the region, as far as that tells:
// before NAT. Most do not, and there is no need to ask for each flow. A condition
// that holds for a part of the region is for match, unless one after it holds for
// none: but only up to the first that counts, if the rule is followed.
func (w *walker) concerns(r *syntax.Rule) bool {
	for _, m := range r.Matches {
		switch m := m.(type) {
		case *syntax.Nth, syntax.Recent:
			if !r.Skip {
				return true
			}
		case syntax.Within:
			if !w.leaving && !w.region[m.Of].Meets(m.Set) {
				return false
			}
		}
	}
	return true
}

// match parts flows into those that a rule applies to, and the rest. The
// conditions are asked in their order, and the later ones only for what has
// passed the earlier: an nth match counts nothing else.
func (w *walker) match(r *syntax.Rule, flows []flow) (yes, no []flow) {
	for _, f := range flows {
		passes := true
		w.unsure = false
		for i := 0; passes && i < len(r.Matches); i++ {
			var rest *flow
			if rest, passes = w.test(r, r.Matches[i], &f); w.split != nil {
				return nil, nil
			}
			if rest != nil {
				no = append(no, *rest)
			}
		}
		if passes && w.unsure && w.spares(r) {
			w.note(r, spared)
			passes = false
		}
		if passes {
			yes = append(yes, f)
		} else {
			no = append(no, f)
		}
	}
	return yes, no
}

// test asks one condition of a flow. Where it holds for a part, the flow becomes that
// part, and the rest is one of its own.
func (w *walker) test(r *syntax.Rule, m syntax.Match, f *flow) (rest *flow, holds bool) {
	switch m := m.(type) {
	case syntax.Source:
		return w.client(m.Set, f)
	case syntax.Within:
		if now, changed := f.to.number(m.Of); changed && !m.Original {
			holds = m.Has(now)
		} else {
			holds = w.inside(m.Of, m.Set)
		}
	case syntax.Interface:
		switch {
		case m.Leaving:
			holds = w.leaves(r, m, *f)
		case w.hook == prerouting:
			holds = w.inside(space.Interface, w.interfaces.Matching(m.Pattern)) != m.Not
		default:
			holds = m.Not
		}
	case syntax.FromLocal:
		holds = (w.hook == output) != m.Not
	case syntax.State:
		holds = (m.New || m.DNAT && f.to.natted) != m.Not
		f.first = f.first || holds && m.First()
	case syntax.Fixed:
		holds = m.Holds
	case syntax.Mark:
		value := f.mark
		if m.Connection {
			value = f.connmark
		}
		holds = (value&m.Mask == m.Value) != m.Not
	case *syntax.Nth:
		return w.everyNth(r, m, f)
	case syntax.Chance:
		w.chance = w.chance || m.Kernel.Sign() > 0 && !m.Kernel.IsInt()
		return byPart(m.Kernel, m.Meant, m.Not, f)
	case syntax.Hashed:
		w.hash, w.hashBy = true, m.By
		return byPart(m.Part, m.Part, false, f)
	case syntax.Recent:
		if m.Set {
			w.note(r, lists)
			holds = !m.Not
		} else {
			w.note(r, looksUp)
			holds = m.Not // a client that is new here is on no list
		}
	default:
		holds = true
	}
	return nil, holds
}

// inside reports whether the region fulfils a condition; where only a part of
// it does, it asks for a split.
func (w *walker) inside(d space.Dimension, s space.Set) bool {
	switch w.region[d].Against(s) {
	case space.Inside:
		return true
	case space.Across:
		w.split = &split{dimension: d, by: s}
	}
	return false
}

// client parts a flow by the addresses of clients.
func (w *walker) client(s space.Set, f *flow) (rest *flow, holds bool) {
	switch f.src.Against(s) {
	case space.Inside:
		return nil, true
	case space.Outside:
		return nil, false
	}
	out := *f
	f.src, out.src = f.src.And(s), f.src.Without(s)
	return &out, true
}

// everyNth parts a flow by an nth match.
func (w *walker) everyNth(r *syntax.Rule, m *syntax.Nth, f *flow) (rest *flow, holds bool) {
	if m.Every == 1 {
		return nil, !m.Not
	}
	w.nth = true
	if r.Table != "nat" && !f.first {
		w.note(r, everyPacket)
	}
	if i, ok := w.counters[m]; ok {
		var hit bool
		f.counters, hit = count(f.counters, i, m.Every)
		return nil, hit != m.Not
	}
	for _, src := range w.visits[m] {
		w.entangled = w.entangled || src.Meets(f.src)
	}
	w.visits[m] = append(w.visits[m], f.src)
	part := big.NewRat(1, int64(m.Every))
	return byPart(part, part, m.Not, f)
}

// byPart parts a flow by a match that holds for a part of it. Of 0 and all, nothing is
// left to chance.
func byPart(kernel, meant *big.Rat, not bool, f *flow) (rest *flow, holds bool) {
	one := big.NewRat(1, 1)
	if kernel.Sign() == 0 || kernel.Cmp(one) == 0 {
		return nil, (kernel.Sign() != 0) != not
	}
	real, _ := kernel.Float64()
	other := *f
	f.share, other.share = f.share.times(real, meant), f.share.times(1-real, one.Sub(one, meant))
	if not {
		f.share, other.share = other.share, f.share
	}
	return &other, true
}
