package nft

// Drift: what is in our table that nlb did not put there, or that it put there
// otherwise. What packets fill, and what waits to be swept, is none. A Table that stays
// open watches for it.

import (
	"fmt"
	"maps"
	"slices"

	"nlb/nft/compile"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// Drift is a difference between a table and what nlb made of it.
type Drift struct {
	// Object is a chain or a map: "chain prerouting".
	Object string
	// What is the matter: "a rule is not of nlb".
	What string
	// Foreign says that the object itself is not of nlb, so that an apply
	// leaves it alone.
	Foreign bool
	// Handles are those of rules that are not of nlb.
	Handles []uint64
}

// Drift is what an apply of the profiles that the state holds would change.
func (s *State) Drift() []Drift {
	if !s.objects.exists || s.isLeftover() {
		return nil
	}
	p := s.planTo(goal{profiles: s.Profiles, inScope: func(string) bool { return true }, Options: Options{Table: s.Table, Keep: s.kept, asIs: true}})
	var out []Drift
	if s.objects.layout == compile.LayoutVersion { // an older one has other objects
		for _, d := range s.tallies(p) {
			out = append(out, d.drift()...)
		}
	}
	fixed := map[string]bool{}
	for _, c := range compile.Layout(s.Table, maps.Keys(s.objects.maps)).Chains {
		fixed[c.Name] = true
	}
	served := byChain(s.Profiles)
	for _, name := range slices.Sorted(maps.Keys(s.objects.chains)) {
		_, _, owned := compile.OwnerOf(name)
		_, _, service := compile.ServiceOf(name)
		switch {
		case service && served[name] == nil:
			out = append(out, Drift{Object: "chain " + name, What: "nothing leads to it"})
		case !fixed[name] && !owned && !compile.IsPool(name) && !flows.IsMoving(name):
			out = append(out, Drift{Object: "chain " + name, What: "it is not of nlb", Foreign: true})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.objects.maps)) {
		out = append(out, s.strayElements(s.objects.maps[name])...)
		if _, _, service := compile.OwnerOf(name); !service && s.objects.maps[name].spec == nil && !flows.IsMoving(name) {
			out = append(out, Drift{Object: "map " + name, What: "it is not of nlb", Foreign: true})
		}
	}
	return out
}

// strayElements are those of a map of services that lead to no service. An
// apply leaves them alone.
func (s *State) strayElements(m *haveMap) []Drift {
	if m.spec == nil || m.spec.Kind != ruleset.Destinations {
		return nil
	}
	var out []Drift
	for _, id := range slices.Sorted(maps.Keys(m.elements)) {
		e := m.elements[id]
		if _, _, ok := compile.ServiceOf(e.Data); !ok {
			out = append(out, Drift{
				Object: fmt.Sprintf("element %s { %s }", m.spec.Name, m.spec.KeyText(e)), What: "it is not of nlb", Foreign: true,
			})
		}
	}
	return out
}

// tally counts the differences of one object.
type tally struct {
	object                           string
	absent                           bool
	foreign, missing, other, changed int
	noun                             string
	handles                          []uint64
}

// tallies sorts the operations of a plan by their objects. The order of slots
// follows that of a profile, which the state does not know, so what they lead
// to is passed over; so are operations that sweep.
func (s *State) tallies(p *plan) []*tally {
	var out []*tally
	of := func(object, noun string) *tally {
		i := slices.IndexFunc(out, func(t *tally) bool { return t.object == object })
		if i < 0 {
			out, i = append(out, &tally{object: object, noun: noun}), len(out)
		}
		return out[i]
	}
	ops := p.ops()
	for i, o := range ops {
		switch {
		case o.table, o.flowtable != nil: // devices come and go by themselves
		case o.mapping != nil && o.elements == nil, o.chain != nil && o.rule == nil && o.handle == 0:
			if o.verb != add {
				continue // swept
			}
			if o.mapping != nil {
				of("map "+o.mapping.Name, "element").absent = true
			} else {
				of("chain "+o.chain.Name, "rule").absent = true
			}
		case o.mapping != nil:
			if o.mapping.Kind == ruleset.Slots || o.mapping.Kind == ruleset.Before || o.mapping.Kind == ruleset.Record {
				continue
			}
			replaced := i+1 < len(ops) && ops[i+1].joined && ops[i+1].mapping != nil
			tallyElements(o, replaced, of)
		default:
			s.tallyRule(o, of("chain "+o.chain.Name, "rule"))
		}
	}
	return out
}

// tallyElements counts the elements of an operation. What is removed from maps
// that packets do not come to first is swept.
func tallyElements(o op, replaced bool, of func(object, noun string) *tally) {
	m := o.mapping
	switch {
	case o.verb == add && o.joined:
		of("map "+m.Name, "element").changed += len(o.elements)
	case o.verb == add:
		of("map "+m.Name, "element").missing += len(o.elements)
	case !replaced && (m.Kind == ruleset.Destinations || m.Kind == ruleset.Exemptions || m.Kind == ruleset.Addresses || m.Kind == ruleset.Backends || m.Kind == ruleset.OwnSlots || m.Kind == ruleset.Members):
		of("map "+m.Name, "element").foreign += len(o.elements)
	}
}

func (s *State) tallyRule(o op, t *tally) {
	c := s.objects.chains[o.chain.Name]
	if c == nil || t.absent {
		return // it says so already
	}
	i := slices.IndexFunc(c.rules, func(r haveRule) bool { return r.handle == o.handle })
	switch {
	case o.verb == add:
		t.missing++
	case i >= 0 && c.rules[i].fingerprint == "":
		t.foreign++
		t.handles = append(t.handles, o.handle)
	default:
		t.other++
	}
}

func (t *tally) drift() []Drift {
	if t.absent {
		return []Drift{{Object: t.object, What: "it is missing"}}
	}
	var out []Drift
	for _, d := range []struct {
		n    int
		what string
	}{{t.foreign, "not of nlb"}, {t.missing, "missing"}, {t.changed, "changed"}, {t.other, "not as nlb made it"}} {
		switch {
		case d.n == 1:
			out = append(out, Drift{Object: t.object, What: article(t.noun) + " is " + d.what})
		case d.n > 1:
			out = append(out, Drift{Object: t.object, What: fmt.Sprintf("%d %ss are %s", d.n, t.noun, d.what)})
		}
	}
	if t.foreign > 0 {
		out[0].Handles = t.handles
	}
	return out
}

func article(noun string) string {
	if noun == "element" {
		return "an " + noun
	}
	return "a " + noun
}

// untouched reports whether nobody has changed the ruleset since the last apply.
func (s *State) untouched() bool {
	r := decodeRecord(s.elements(compile.RecordSet))
	return r.digest != "" && r.generation == s.Generation
}

// listen begins to watch the table. What cleanups change does not count.
func (t *Table) listen() (*wire.Watch, error) {
	w, err := t.conn.Watch(ruleset.Inet, t.name)
	if err == nil {
		for _, c := range t.pending {
			w.Trust(c.Conn)
		}
	}
	return w, err
}

// mostHeard is how many objects of ours a watch hears of.
const mostHeard = 1000

// hush ends the watch ahead of a large commit; follow begins a new one. While anybody
// listens, in any network namespace, the kernel writes a report of each object, and
// keeps all until the end: a page for each of a million slots.
func (t *Table) hush(w *writer, p *plan) {
	if t.watch != nil && w.watch == t.watch && !w.dry && p.objects() > mostHeard {
		_ = t.watch.Close()
		t.watch, w.watch, w.borrowed = nil, nil, false
	}
}

// follow makes the watch go on behind a commit of ours, and reports whether
// anybody else may have changed the table.
func (t *Table) follow(generation uint32) (touched bool) {
	var err error
	if t.watch == nil {
		if t.watch, err = t.listen(); err == nil {
			return t.watch.Generation() != generation
		}
		return true
	}
	_, touched, err = t.watch.Touched(t.conn)
	return touched || err != nil
}

// Intact reports that nobody else has changed the table, or removed it, since the last
// commit of ours. It stays false until an Apply, which repairs. It costs one question
// to the kernel, where others change other tables as well.
func (t *Table) Intact() bool {
	if t.memory == nil {
		return false
	}
	t.isPending()
	_, ok := t.memory.current(t.conn)
	return ok
}

// Touched reports that the table is not Intact, or that routes or interfaces of services
// with mode: dsr or tunnel have changed.
func (t *Table) Touched() (bool, error) {
	if !t.Intact() {
		return true, nil
	}
	return t.linksChanged()
}
