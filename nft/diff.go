package nft

// Diff: what to send so that the kernel holds what is wanted. What stays is
// not touched, so it keeps its counters and its place in the round.
//
// A packet that is between two rules when a batch commits goes on with the old
// rules, but looks maps up in the new generation. So what a number leads to
// (slots, backends, pools) outlives its last user: it stays until the next
// plan, which sweeps it.

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// diff plans from a state to a ruleset. The ruleset holds the profiles of the
// scope only; everybody else's objects are left alone.
func diff(have *State, want *ruleset.Ruleset, inScope func(profile string) bool) *plan {
	p := &plan{table: want.Table, flowtables: want.Flowtables}
	if len(have.objects.chains) == 0 {
		p.main = make([]op, 0, 3*(len(want.Chains)+len(want.Maps))+100) // about: two rules for each, more of base chains
	}
	if have.objects.unknown {
		p.add(op{verb: remove, table: true})
	}
	if !have.objects.exists || have.objects.unknown {
		p.add(op{verb: add, table: true})
	}
	var late []op
	if have.last == nil { // a part leaves flow tables as they are
		late = p.changeFlowtables(have.objects.flowtables, want.Flowtables)
	}
	for _, m := range want.Maps {
		if have.objects.maps[m.Name] == nil {
			p.add(op{verb: add, mapping: m})
		}
	}
	chains := map[string]bool{}
	for _, c := range want.Chains {
		chains[c.Name] = true
		if have.objects.chains[c.Name] == nil {
			p.add(op{verb: add, chain: c})
		}
	}
	// Rules that nothing leads to yet, or that look at marks which nothing has yet.
	for _, c := range want.Chains {
		if (c.Hook == nil || c.Name == compile.PostroutingChain) && have.objects.chains[c.Name] == nil {
			p.rules(c, nil)
		}
	}
	p.before, p.main = p.main, p.main[len(p.main):]
	// The maps are in the packet's order. They are written against it: what is
	// met first comes last, for the case that it takes several batches.
	ours := func(name string) bool {
		profile, _, ok := compile.OwnerOf(name)
		return ok && inScope(profile)
	}
	for _, m := range slices.Backward(want.Maps) {
		switch m.Kind {
		case ruleset.Destinations, ruleset.Exemptions, ruleset.Addresses:
		case ruleset.OwnSlots, ruleset.Members, ruleset.Before: // the same place leads elsewhere at once
			p.change(m, compared(have.elements(m.Name), m, nil))
		case ruleset.Backends:
			p.change(m, have.immediate(m, func(e ruleset.Element) bool {
				if m.Verdicts() {
					return ours(e.Data)
				}
				return ours(have.owned[m.Name][e.ID()])
			}))
		default:
			p.numbered(have, m, ours)
		}
	}
	for _, c := range want.Chains {
		if h := have.objects.chains[c.Name]; h != nil {
			p.rules(c, h.rules)
		} else if c.Hook != nil && c.Name != compile.PostroutingChain {
			p.rules(c, nil)
		}
	}
	for _, m := range want.Maps {
		// A part of the services leaves them as they are.
		if (m.Kind == ruleset.Exemptions || m.Kind == ruleset.Addresses) && (have.last == nil || have.objects.maps[m.Name] == nil) {
			p.change(m, compared(have.elements(m.Name), m, nil))
		}
	}
	p.handOver(have, want, chains, ours)
	p.removals(have, want, chains, ours)
	p.main = append(p.main, late...)
	// What retired costs nothing, so it is no reason to send anything.
	if !p.empty() {
		for _, o := range p.sweep {
			o.sweeps = true
			p.add(o)
		}
	}
	return p
}

// carried is what is retired and stays so for once more.
func (s *State) carried() []run {
	if s.last == nil || s.last.sweeps {
		return nil
	}
	return s.last.retired
}

// freed are the slots that a plan sweeps. Which inline slots are free is read each time.
func (s *State) freed() (out []compile.Block) {
	if s.last == nil || !s.last.sweeps {
		return nil
	}
	for _, r := range s.last.retired {
		if first, end := max(r.first, compile.InlineSlots), r.first+r.count; r.mapping == compile.SlotsMap && first < end {
			out = append(out, compile.Block{Base: first, Slots: end - first})
		}
	}
	return out
}

// removals deletes the chains and maps that nothing is left of.
func (p *plan) removals(have *State, want *ruleset.Ruleset, chains map[string]bool, ours func(name string) bool) {
	for _, o := range removeMoving() { // an apply that did not come to its end
		if have.objects.has(o) {
			p.add(o)
		}
	}
	wanted := map[string]bool{}
	for _, m := range want.Maps {
		wanted[m.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(have.objects.maps)) { // they lead to chains that go
		m := have.objects.maps[name]
		if compile.Lapses(name) && m.spec.Verdicts() && !wanted[name] && have.last == nil && len(m.elements) > 0 {
			p.add(op{verb: remove, mapping: m.spec, elements: sorted(slices.Collect(maps.Values(m.elements)))})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.objects.chains)) {
		drop := op{verb: remove, chain: &ruleset.Chain{Name: name}}
		switch {
		case chains[name]:
		case ours(name):
			p.add(drop)
		case compile.IsPool(name) && !have.poolInUse(name), name == compile.PostroutingChain && have.last == nil:
			p.sweep = append(p.sweep, drop)
		case compile.Lapses(name) && have.last == nil:
			p.add(drop)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.objects.maps)) {
		drop := op{verb: remove, mapping: &ruleset.Map{Name: name}}
		switch {
		case wanted[name]:
		case compile.OwnSlots(name) != nil:
			// A packet may be under way to it, where a service has drawn from it so far.
			// Nobody has the map of a service that is gone.
			gone := have.objects.chains[compile.OwnSlots(name).OfChain] == nil
			if (gone || ours(name)) && !have.draws(name) {
				p.sweep = append(p.sweep, drop)
			}
		case ours(name), compile.ClientsMap(name) != nil && have.last == nil && !have.remembers(name, ours):
			p.add(drop)
		case compile.IsClientSet(name) && !have.lists[name] && have.last == nil:
			p.sweep = append(p.sweep, drop)
		case compile.Lapses(name) && have.last == nil:
			p.add(drop)
		}
	}
}

// changeFlowtables plans to make the flow tables those that are wanted: what is new goes
// ahead of the rules, and what goes comes behind them.
func (p *plan) changeFlowtables(have []ruleset.Flowtable, want []*ruleset.Flowtable) (late []op) {
	for _, w := range want {
		there := ruleset.Flowtable{Name: w.Name, Hardware: w.Hardware}
		at := slices.IndexFunc(have, func(f ruleset.Flowtable) bool { return f.Name == w.Name })
		if at >= 0 {
			there = have[at]
		}
		without := func(devices, these []string) *ruleset.Flowtable {
			f := &ruleset.Flowtable{Name: w.Name, Hardware: w.Hardware}
			for _, d := range devices {
				if !slices.Contains(these, d) {
					f.Devices = append(f.Devices, d)
				}
			}
			return f
		}
		if fresh := without(w.Devices, there.Devices); at < 0 || len(fresh.Devices) > 0 {
			p.add(op{verb: add, flowtable: fresh})
		}
		if gone := without(there.Devices, w.Devices); len(gone.Devices) > 0 {
			late = append(late, op{verb: remove, flowtable: gone})
		}
	}
	for _, h := range have {
		known := h.Name == compile.SoftwareTable || h.Name == compile.HardwareTable
		if known && !slices.ContainsFunc(want, func(w *ruleset.Flowtable) bool { return w.Name == h.Name }) {
			late = append(late, op{verb: remove, flowtable: &ruleset.Flowtable{Name: h.Name}})
		}
	}
	return late
}

// has reports whether the chain or map of an operation is there.
func (o *objects) has(of op) bool {
	if of.chain != nil {
		return o.chains[of.chain.Name] != nil
	}
	return o.maps[of.mapping.Name] != nil
}

// draws reports whether a service draws from a map of slots of its own.
func (s *State) draws(name string) bool {
	for _, f := range compile.Families {
		key := compile.PoolKey{Chain: compile.OwnSlots(name).OfChain, Family: f.Family}
		if s.blocks[key].Own && compile.OwnSlotsOf(key.Chain, f) == name {
			return true
		}
	}
	return false
}

// past is what there is of the slots that a service and family has for itself, and the comments
// of its rules.
func (s *State) past(key compile.PoolKey) (slots, before map[string]ruleset.Element, comments []string) {
	if c := s.objects.chains[key.Chain]; c != nil {
		for _, r := range c.rules {
			comments = append(comments, r.comment)
		}
	}
	f := compile.FamilyOf(key.Family)
	return s.elements(compile.OwnSlotsOf(key.Chain, f)), s.elements(compile.BeforeOf(key.Chain, f)), comments
}

// poolInUse reports whether a backend that stays leads to a pool's chain.
func (s *State) poolInUse(chain string) bool {
	for id, e := range s.elements(compile.PoolsMap) {
		if _, used := s.owned[compile.PoolsMap][id]; used && e.Data == chain {
			return true
		}
	}
	return false
}

// rules makes the rules of a chain those that are wanted, in place.
func (p *plan) rules(c *ruleset.Chain, have []haveRule) {
	want, live := c.Rules, len(have) > 0
	for len(want) > 0 && len(have) > 0 && want[0].Fingerprint() == have[0].fingerprint {
		want, have = want[1:], have[1:]
	}
	for len(have) >= len(want) && len(want) > 0 && want[len(want)-1].Fingerprint() == have[len(have)-1].fingerprint {
		want, have = want[:len(want)-1], have[:len(have)-1]
	}
	joined := false
	for i := range max(len(want), len(have)) {
		o := op{verb: add, chain: c, joined: joined}
		if i < len(want) {
			o.rule = &want[i]
		}
		if i < len(have) {
			o.verb, o.handle = replace, have[i].handle
			if o.rule == nil {
				o.verb = remove
			}
		}
		p.add(o)
		joined = live
	}
}

// numbered brings a map up to date whose elements retire.
func (p *plan) numbered(have *State, m *ruleset.Map, ours func(name string) bool) {
	if m.Dynamic || m.Prefixes && have.objects.maps[m.Name] != nil {
		return // filled by packets; never changed
	}
	owned := have.owned[m.Name]
	c := compared(have.elements(m.Name), m, func(h ruleset.Element) bool {
		_, used := owned[h.ID()]
		return !used
	})
	if m.Verdicts() {
		for _, e := range c.new {
			p.leadsTo(have, e.Data)
		}
	}
	var retired []ruleset.Element
	for _, h := range c.gone {
		if owner, used := owned[h.ID()]; !used {
			retired = append(retired, h)
		} else if ours(owner) {
			p.retire = append(p.retire, leave{m, h.Key})
		}
	}
	c.gone = nil
	p.change(m, c)
	if len(retired) > 0 {
		p.sweep = append(p.sweep, op{verb: remove, mapping: m, elements: sorted(retired)})
	}
}

// immediate brings a map up to date whose elements go at once: without them a
// packet finds its way as if it had come later.
func (s *State) immediate(m *ruleset.Map, inScope func(ruleset.Element) bool) change {
	c := compared(s.elements(m.Name), m, nil)
	c.gone = slices.DeleteFunc(c.gone, func(h ruleset.Element) bool { return !inScope(h) })
	return c
}

// compared is what becomes of the elements of a map. One of which the comment alone differs
// goes on counting: the same backend under another name or weight. retired says which have
// to begin anew; nil: none.
func compared(have map[string]ruleset.Element, m *ruleset.Map, retired func(h ruleset.Element) bool) (c change) {
	if len(have) == 0 {
		return change{fresh: m.Elements}
	}
	there := 0
	for _, e := range m.Elements {
		h, ok := have[e.ID()]
		if ok {
			there++
		}
		switch {
		case !ok:
			c.fresh = append(c.fresh, e)
		case h.Data != e.Data, h.More().Packets != 0 && retired != nil && retired(h):
			c.replace(h, e)
		case h.More().Comment != e.More().Comment:
			x := *e.More()
			x.Packets, x.Bytes = h.More().Packets, h.More().Bytes
			e.Extra = &x
			c.replace(h, e)
		}
	}
	if there == len(have) {
		return c
	}
	wanted := make(map[string]bool, len(m.Elements))
	for _, e := range m.Elements {
		wanted[e.ID()] = true
	}
	for id, h := range have {
		if !wanted[id] {
			c.gone = append(c.gone, h)
		}
	}
	return c
}

// change is what becomes of the elements of a map.
type change struct{ gone, old, new, fresh []ruleset.Element }

func (c *change) replace(old, new ruleset.Element) {
	c.old, c.new = append(c.old, old), append(c.new, new)
}

func (p *plan) change(m *ruleset.Map, c change) {
	if len(c.gone) > 0 {
		p.add(op{verb: remove, mapping: m, elements: sorted(c.gone)})
	}
	if len(c.old) > 0 {
		p.add(op{verb: remove, mapping: m, elements: c.old})
		p.add(op{verb: add, mapping: m, elements: c.new, joined: true, pairs: true})
	}
	if len(c.fresh) > 0 {
		p.add(op{verb: add, mapping: m, elements: c.fresh})
	}
}

// sorted puts elements that come out of a Go map into an order: same plan,
// same bytes.
func sorted(elements []ruleset.Element) []ruleset.Element {
	slices.SortFunc(elements, func(a, b ruleset.Element) int { return strings.Compare(a.ID(), b.ID()) })
	return elements
}

// Diff says what Apply would do.
func Diff(c *wire.Conn, profiles []*lb.Profile, o Options) (*Result, error) {
	have, err := Load(c, o.Table)
	if errors.Is(err, ErrLayout) {
		have, err = unknownTable(c, o.Table)
	}
	if err != nil {
		return nil, err
	}
	o.asIs = true
	_, result, err := planFor(have, profiles, o, nil)
	if err == nil {
		result.compare()
	}
	return result, err
}
