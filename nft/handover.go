package nft

// Handover: destinations that pass from one map, or from one service, to
// another while connections come in. A packet that is between two rules when a
// batch commits goes on with the old rules, and asks the maps of the new
// generation. So
//
//   - a destination that moves to a map that is asked earlier is not found any
//     more by a packet that has been there already, nor by one whose old rules
//     do not ask the new map. It also stays in the old map, as retired, until no
//     packet is under way any more; then a second batch takes it away. Load
//     does not see it.
//   - a chain that is new has no rules in the old generation: a packet that is
//     sent there by a map falls through it. So where a destination that is in use
//     passes to a new chain, the new chains go ahead, in a batch of their own;
//     nothing leads to them, and Load does not see them.

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
)

// retiredMark is the comment of elements that are on their way out.
const retiredMark = "retired"

func isRetired(e *ruleset.Element) bool { return e.More().Comment == retiredMark }

// claim is an element of a tier, read.
type claim struct {
	in     int // the place of its map among the tiers
	e      ruleset.Element
	prefix netip.Prefix // not valid: this host's own addresses
	proto  lb.Protocol
	ports  lb.PortRange
	rest   []lb.PortRange // those that its map does not have otherwise
}

func (c *claim) overlaps(d *claim) bool {
	return c.proto == d.proto && c.ports.First <= d.ports.Last && d.ports.First <= c.ports.Last &&
		(!c.prefix.IsValid() || !d.prefix.IsValid() || c.prefix.Overlaps(d.prefix))
}

// handed is a map of a tier and what becomes of it.
type handed struct {
	*ruleset.Map
	compile.Tier
	*compile.Family
	change
	stale []ruleset.Element // retired by a plan that did not come to its end
	// regrouped are those whose ports are in other elements of the map from now on.
	regrouped map[place]*regrouped
}

// place is where a claim is, whatever its ports.
type place struct {
	prefix netip.Prefix
	proto  lb.Protocol
}

func (c *claim) place() place { return place{c.prefix, c.proto} }

// regrouped are the elements of a place, which change in one batch.
type regrouped struct{ old, new []ruleset.Element }

func (h *handed) claim(in int, e ruleset.Element) claim {
	c := claim{in: in, e: e}
	_, c.prefix, c.proto, c.ports = h.Tier.Parse(h.Family, e)
	c.rest = []lb.PortRange{c.ports}
	return c
}

// handOver brings the maps of the tiers up to date. chains are those that are wanted.
func (p *plan) handOver(have *State, want *ruleset.Ruleset, chains map[string]bool, ours func(name string) bool) {
	all := handedBy(want)
	var gone []claim
	for i := range all {
		h := &all[i]
		h.change = have.immediate(h.Map, func(e ruleset.Element) bool { return isRetired(&e) || ours(e.Data) })
		for _, e := range h.change.new {
			p.leadsTo(have, e.Data)
		}
		for _, e := range sorted(h.change.gone) {
			if isRetired(&e) {
				h.stale = append(h.stale, e)
			} else {
				gone = append(gone, h.claim(i, e))
			}
		}
		h.change.gone = h.stale
	}
	index := newClaims(gone)
	heirs := map[*claim][]claim{} // who has the destinations in another map now
	for i := range all {
		if len(gone) == 0 { // as where all is new
			break
		}
		for _, e := range all[i].change.fresh {
			w := all[i].claim(i, e)
			for g := range index.overlapping(&w) {
				p.leadsTo(have, w.e.Data)
				if g.in == i {
					g.rest = compile.Without(g.rest, w.ports) // found in the same map
					all[i].regrouped[w.place()] = &regrouped{}
				} else {
					heirs[g] = append(heirs[g], w)
				}
			}
		}
	}
	for i := range gone {
		g, h := &gone[i], &all[gone[i].in]
		chain := g.e.Data
		if !chains[chain] {
			chain = "" // its heir's
		}
		last := g.retired(heirs[g], chain)
		if len(last) > 0 {
			p.afterGrace = append(p.afterGrace, op{verb: remove, mapping: h.Map, elements: last})
		}
		switch r := h.regrouped[g.place()]; {
		case r != nil:
			r.old, r.new = append(r.old, g.e), append(r.new, last...)
		case len(last) > 0:
			h.change.replace(g.e, last[0])
			h.change.fresh = append(h.change.fresh, last[1:]...)
		default:
			h.change.gone = append(h.change.gone, g.e)
		}
	}
	for i := range all {
		p.regroup(&all[i], i)
		p.change(all[i].Map, all[i].change)
	}
}

// regroup changes the elements of each place that has its ports in others from now
// on: between two batches they would be in none.
func (p *plan) regroup(h *handed, in int) {
	if len(h.regrouped) == 0 {
		return
	}
	h.change.fresh = slices.DeleteFunc(slices.Clone(h.change.fresh), func(e ruleset.Element) bool {
		c := h.claim(in, e)
		r := h.regrouped[c.place()]
		if r != nil {
			r.new = append(r.new, e)
		}
		return r != nil
	})
	for _, at := range slices.SortedFunc(maps.Keys(h.regrouped), func(a, b place) int {
		return cmp.Or(a.prefix.Compare(b.prefix), cmp.Compare(a.proto, b.proto))
	}) {
		r := h.regrouped[at]
		p.add(op{verb: remove, mapping: h.Map, elements: r.old})
		p.add(op{verb: add, mapping: h.Map, elements: r.new, joined: true})
	}
}

// retired are the elements that stay for a moment: of what is found nowhere
// else in its map, the ports that other maps have now.
func (c *claim) retired(heirs []claim, chain string) []ruleset.Element {
	var out []ruleset.Element
	for _, r := range c.rest {
		for _, h := range heirs {
			if h.ports.First > r.Last || r.First > h.ports.Last {
				continue
			}
			e := ruleset.Element{Key: c.e.Key, End: c.e.End, Data: cmp.Or(chain, h.e.Data), Extra: &ruleset.Extra{Comment: retiredMark}}
			if r != c.ports {
				e.Key = e.Key[:len(e.Key)-ruleset.InetService.Padded()] + ruleset.PortBytes(r.First)
				e.End = e.End[:len(e.End)-ruleset.InetService.Padded()] + ruleset.PortBytes(r.Last)
			}
			out = append(out, e)
			break
		}
	}
	return out
}

// leadsTo notes that something in use leads to a chain from now on.
func (p *plan) leadsTo(have *State, chain string) {
	if chain != "" && have.objects.chains[chain] == nil {
		p.chainsFirst = true
	}
}

// handedBy are the maps of the tiers in a ruleset, in the packet's order.
func handedBy(want *ruleset.Ruleset) []handed {
	byName := map[string]*ruleset.Map{}
	for _, m := range want.Maps {
		byName[m.Name] = m
	}
	var out []handed
	for _, t := range compile.Tiers(maps.Keys(byName)) {
		for _, f := range t.Families() {
			if m := byName[t.MapName(f)]; m != nil && !t.Exempt {
				out = append(out, handed{Map: m, Tier: t, Family: f, regrouped: map[place]*regrouped{}})
			}
		}
	}
	return out
}

// claims finds those that overlap with another one.
type claims struct {
	single map[netip.Addr][]*claim
	wide   []*claim
}

func newClaims(all []claim) *claims {
	c := &claims{single: map[netip.Addr][]*claim{}}
	for i := range all {
		if g := &all[i]; g.prefix.IsSingleIP() {
			c.single[g.prefix.Addr()] = append(c.single[g.prefix.Addr()], g)
		} else {
			c.wide = append(c.wide, g)
		}
	}
	return c
}

func (c *claims) overlapping(w *claim) iter.Seq[*claim] {
	return func(yield func(*claim) bool) {
		lists := [][]*claim{c.wide}
		if w.prefix.IsSingleIP() {
			lists = append(lists, c.single[w.prefix.Addr()])
		} else {
			for _, l := range c.single {
				lists = append(lists, l)
			}
		}
		for _, l := range lists {
			for _, g := range l {
				if g.overlaps(w) && !yield(g) {
					return
				}
			}
		}
	}
}
