package nft

// Partial: the same reading, of a part of a table, where only backends of a few
// services differ from what was applied last. The record says which, and that
// nobody has changed the ruleset since. So what belongs to these services is read
// when it is asked for, element by element, and the others are not read. Whatever
// this cannot tell is left to load, which reads everything.

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

const (
	// With more to read than this, reading everything is no slower.
	partialServices = 64
	partialElements = 4096
	// So many elements are read in a dump while one is read by itself.
	elementCost = 8
	// Slots are taken above those that were ever used, until there are so many.
	mostSlots = 1 << 24
)

// errNotPartial leaves it to load.
var errNotPartial = errors.New("a part of the table is not enough")

// source is where objects that were not read yet come from.
type source struct {
	conn  *wire.Conn
	table string
	asked uint32
	most  uint32 // that it may ask for
	err   error  // the first one; what was read then is not to be relied on
}

// fail keeps the first error of a partial reading.
func (o *objects) fail(err error) {
	if o.source != nil && o.source.err == nil {
		o.source.err = err
	}
}

// element is an element of a map, by its key.
func (o *objects) element(name, key string) (e ruleset.Element, ok bool) {
	m := o.maps[name]
	if m == nil {
		return e, false
	}
	if e, ok = m.elements[key]; ok || o.source == nil || o.source.err != nil {
		return e, ok
	}
	if o.source.asked++; o.source.asked > o.source.most {
		o.fail(errNotPartial)
		return e, false
	}
	var w wire.Encoder
	w.Raw(named(o.source.table, name))
	list := w.Begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	item := w.Begin(unix.NFTA_LIST_ELEM)
	data := w.Begin(unix.NFTA_SET_ELEM_KEY)
	w.Data(unix.NFTA_DATA_VALUE, key)
	w.End(data)
	w.End(item)
	w.End(list)
	b, err := o.source.conn.Request(ruleset.MsgType(unix.NFT_MSG_GETSETELEM), ruleset.Inet, w.Bytes())
	if errors.Is(err, unix.ENOENT) {
		return e, false
	}
	if err != nil {
		o.fail(err)
		return e, false
	}
	for e = range m.decoded(b) {
		if ok = m.spec.Holds(e) && e.Key == key; ok {
			m.elements[e.ID()] = e
		}
	}
	return e, ok
}

// chain is a chain by its name. In a partial reading one without rules counts as
// absent: none of ours is.
func (o *objects) chain(name string) *haveChain {
	c := o.chains[name]
	if c != nil || name == "" || o.source == nil || o.source.err != nil {
		return c
	}
	c = &haveChain{}
	o.chains[name] = c
	if err := o.readRules(o.source.conn, o.source.table, name); err != nil {
		o.fail(err)
	}
	if len(c.rules) == 0 {
		delete(o.chains, name)
		return nil
	}
	return c
}

// loadChanged returns a state that has the services whose backends differ from
// what the record says, and the profiles with these alone. It is nil where
// everything has to be read.
func (r *record) loadChanged(c *wire.Conn, applied map[string]ruleset.Element, profiles []*lb.Profile, o Options, asked func() request) (*State, []*lb.Profile) {
	generation, err := c.Generation()
	if err != nil || generation != r.generation || !r.canLoadPartially(o) {
		return nil, nil
	}
	part, ok := r.changedServices(profiles, asked().services)
	if !ok {
		return nil, nil
	}
	s, err := r.loadPart(c, o.Table, applied, part)
	if err != nil {
		return nil, nil
	}
	return s, part
}

// canLoadPartially reports whether a plan needs no more than the record and the
// services that differ.
func (r *record) canLoadPartially(o Options) bool {
	return r.digest != "" && o.Record && len(o.Params) == 0 && !o.Cut && o.Keep == 0 && (r.whole || !o.Prune) && r.slots < mostSlots
}

// changedServices are the services whose backends differ from what the record says.
// It fails where services were added or removed, or differ otherwise, or too many do.
func (r *record) changedServices(profiles []*lb.Profile, now []fingerprint) (part []*lb.Profile, ok bool) {
	if len(now) != len(r.services) {
		return nil, false
	}
	backends := make(map[[fingerprintSize]byte][fingerprintSize]byte, len(r.services))
	for _, f := range r.services {
		backends[f.frame] = f.backends
	}
	n := 0
	for _, p := range profiles {
		var services []lb.Service
		for i := range p.Services {
			was, known := backends[now[0].frame]
			if !known || n > partialServices {
				return nil, false
			}
			if was != now[0].backends {
				services = append(services, p.Services[i])
				n++
			}
			now = now[1:]
		}
		if len(services) > 0 {
			part = append(part, &lb.Profile{Name: p.Name, Sysctl: p.Sysctl, Services: services})
		}
	}
	return part, true
}

// loadPart reads the services of these profiles.
func (r *record) loadPart(c *wire.Conn, table string, applied map[string]ruleset.Element, part []*lb.Profile) (*State, error) {
	o := &objects{
		exists: true, layout: compile.LayoutVersion, maps: map[string]*haveMap{}, chains: map[string]*haveChain{},
		source: &source{conn: c, table: table, most: max(partialElements, r.slots/elementCost)},
	}
	if err := o.readSpecs(c, table); err != nil {
		return nil, err
	}
	wanted := byChain(part)
	for name, m := range o.maps {
		_, chain, owned := compile.OwnerOf(name)
		switch {
		case m.spec != nil && m.spec.Kind == ruleset.Exemptions:
			return nil, errNotPartial // they depend on all services
		case owned && wanted[chain] == nil:
			delete(o.maps, name)
		}
	}
	if o.maps[compile.RecordSet] == nil {
		return nil, errNotPartial
	}
	o.maps[compile.RecordSet].elements = applied
	for _, c := range compile.Layout(table, maps.Keys(o.maps)).Chains {
		o.chain(c.Name)
	}
	for _, chain := range slices.Sorted(maps.Keys(wanted)) {
		if o.chain(chain) == nil {
			return nil, errNotPartial
		}
		for _, f := range compile.Families {
			o.chain(compile.DrawChainOf(chain, f))
		}
		// Its destinations are those that it is to have.
		for name, e := range compile.Destinations(chain, wanted[chain]) {
			if o.maps[name] == nil {
				return nil, errNotPartial
			}
			o.maps[name].elements[e.ID()] = e
		}
	}
	for _, run := range r.retired {
		for i := uint32(0); i < run.count && o.source.err == nil; i++ {
			o.element(run.mapOf(run.first+i), ruleset.MarkBytes(run.first+i))
		}
	}
	s := newState(table, o)
	s.last = r
	for chain, w := range byChain(s.Profiles) {
		w.Allow, w.Deny = wanted[chain].Allow, wanted[chain].Deny // these sets were not read
	}
	if err := s.checkNumbers(wanted); err != nil {
		return nil, err
	}
	generation, err := c.Generation()
	if err == nil && generation != r.generation {
		err = errNotPartial
	}
	s.Generation = generation
	err = cmp.Or(o.source.err, err)
	o.source = nil
	return s, err
}

func byChain(profiles []*lb.Profile) map[string]*lb.Service {
	out := map[string]*lb.Service{}
	for _, p := range profiles {
		for i := range p.Services {
			out[compile.ChainOf(p.Name, p.Services[i].Name)] = &p.Services[i]
		}
	}
	return out
}

// checkNumbers fails where the number of a backend that comes or goes may have
// to do with that of another one: somebody else has it, or the number after it,
// which is where those go that come second.
func (s *State) checkNumbers(wanted map[string]*lb.Service) error {
	differs := map[uint32]bool{}
	stays := map[compile.BackendKey]bool{}
	for chain, w := range wanted {
		for _, b := range w.Backends {
			if b.SNAT.Mode == lb.SNATPool {
				return errNotPartial
			}
			key := compile.BackendKey{Chain: chain, Address: b.Address}
			if _, known := s.backends[key]; known {
				stays[key] = true
				continue
			}
			i := key.FirstNumber()
			if s.objects.used(i) || differs[i] {
				return errNotPartial
			}
			differs[i] = true
		}
	}
	for key, b := range s.backends {
		if !stays[key] {
			differs[b.mark&compile.NumberMask] = true
		}
	}
	for i := range differs {
		next := (i + 1) & compile.NumberMask
		if s.objects.used(next) || differs[next] {
			return errNotPartial
		}
	}
	return nil
}

// used reports whether a backend or a guard has a number.
func (o *objects) used(number uint32) bool {
	marks := compile.MarksWith(number)
	for name, m := range o.maps {
		if m.spec == nil || !m.spec.Kind.OfMarks() {
			continue
		}
		for _, mark := range marks {
			if _, ok := o.element(name, ruleset.MarkBytes(mark)); ok {
				return true
			}
		}
	}
	return false
}
