package nft

// Partial: the same reading, of a part of a table, where only backends of a few
// services differ from what was applied last. The record says which, and that
// nobody has changed the ruleset since. So what belongs to these services is read
// when it is asked for, element by element, and the others are not read. Whatever
// this cannot tell is left to load, which reads everything.

import (
	"errors"
	"maps"
	"slices"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

const (
	// With more to read than this, reading everything is no slower.
	partialServices = 1024
	partialElements = 16384
	// So many elements are read in a dump while one is read by itself.
	elementCost = 8
	// The same while one is asked for that is not there.
	missCost = 16
	// Slots are taken above those that were ever used, until there are so many.
	mostSlots = 1 << 24
)

// errNotPartial leaves it to load.
var errNotPartial = errors.New("a part of the table is not enough")

// memory is what is known of a table without reading all of it: the record of what
// was applied last, and its elements.
type memory struct {
	record
	elements map[string]ruleset.Element
	// watch tells whether anybody else has changed the table since then; nil: the
	// ruleset's generation does.
	watch   *wire.Watch
	touched bool
	// sweeps: what is retired is swept by the next plan, not kept once more.
	sweeps bool
	free   []compile.Block // slots that were used and are not any more
	fixed  *fixed          // nil: it was not read, or may have changed
}

// current is the ruleset's generation, where nobody else has changed the table
// since the record was made.
func (m *memory) current(c *wire.Conn) (generation uint32, ok bool) {
	if m.watch == nil {
		generation, err := c.Generation()
		return generation, err == nil && generation == m.generation
	}
	generation, touched, err := m.watch.Touched(c)
	m.touched = m.touched || touched || err != nil
	return generation, !m.touched
}

// upToDate reports whether exactly this was applied last, nobody has changed
// the table since, and no flows of removed backends have to be looked after.
func (m *memory) upToDate(c *wire.Conn, o Options, asked func() request) (generation uint32, ok bool) {
	gone := slices.ContainsFunc(m.retired, func(r run) bool { return r.gone })
	if !o.Record || m.digest == "" || len(o.Params) > 0 || o.Cut || gone && m.watch == nil {
		return 0, false
	}
	generation, ok = m.current(c)
	return generation, ok && m.digest == asked().digest && slices.Equal(m.services, asked().services)
}

// loadChanged returns a state that has the services whose backends differ from
// what is known, and the profiles with these alone. It is nil where everything
// has to be read.
func (m *memory) loadChanged(c *wire.Conn, profiles []*lb.Profile, o Options, asked func() request) (*State, []*lb.Profile) {
	if _, ok := m.current(c); !ok || !m.canLoadPartially(o) {
		return nil, nil
	}
	part, ok := m.changedServices(profiles, asked().services)
	if !ok {
		return nil, nil
	}
	s, err := m.loadPart(c, o, part)
	if err != nil {
		return nil, nil
	}
	return s, part
}

// canLoadPartially reports whether a plan needs no more than the record and the
// services that differ. The table of family netdev is read as a whole.
func (r *record) canLoadPartially(o Options) bool {
	return !r.direct && r.digest != "" && o.Record && len(o.Params) == 0 && !o.Cut && (r.whole || !o.Prune) && r.slots < mostSlots
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
func (m *memory) loadPart(c *wire.Conn, o Options, part []*lb.Profile) (*State, error) {
	c.Watched(m.watch != nil)
	defer c.Watched(false)
	objects := &objects{
		family: ruleset.Inet, exists: true, layout: compile.LayoutVersion, maps: map[string]*haveMap{}, chains: map[string]*haveChain{},
		source: &source{conn: c, table: o.Table, most: max(partialElements, m.slots/elementCost)},
	}
	if err := m.readFixed(objects, o.Table); err != nil {
		return nil, err
	}
	wanted := byChain(part)
	if err := m.readObjects(objects, o.Table, wanted); err != nil {
		return nil, err
	}
	s := newState(o.Table, objects)
	s.last = m
	for chain, w := range byChain(s.Profiles) {
		w.Allow, w.Deny = wanted[chain].Allow, wanted[chain].Deny // these sets were not read
	}
	if err := s.checkMembers(wanted, o.Keep); err != nil {
		return nil, err
	}
	if err := s.checkNumbers(wanted); err != nil {
		return nil, err
	}
	generation, ok := m.current(c)
	if !ok {
		return nil, errNotPartial
	}
	s.Generation = generation
	err := objects.source.err
	objects.source = nil
	return s, err
}

// readObjects reads what is shared, and the chains of some services.
func (m *memory) readObjects(o *objects, table string, wanted map[string]*lb.Service) error {
	shared := compile.GroupMaps(wanted)
	for name := range o.maps {
		if _, chain, owned := compile.OwnerOf(name); owned && wanted[chain] == nil && !shared[name] || flows.IsMoving(name) {
			delete(o.maps, name)
		}
	}
	if o.maps[compile.RecordSet] == nil {
		return errNotPartial
	}
	o.maps[compile.RecordSet].elements = m.elements
	draws := compile.DrawsAgain(func(object string) bool { return o.maps[object] != nil })
	backends := 0
	for _, chain := range slices.Sorted(maps.Keys(wanted)) {
		backends += len(wanted[chain].Backends)
		if o.chain(chain) == nil {
			return errNotPartial
		}
		for _, f := range compile.Families {
			servers := compile.ServersOf(chain, f)
			o.readWhole(table, compile.OwnSlotsOf(chain, f), compile.BeforeOf(chain, f), compile.MembersOf(chain, f), servers)
			has := map[string]bool{compile.DrawChainOf(chain, f): draws, compile.SYNProxyOf(chain, f): wanted[chain].SYNProtection != nil, compile.HalfOpenOf(chain): wanted[chain].Limit.HalfOpen > 0, servers: o.maps[servers] != nil}
			for name, has := range has {
				if has {
					o.chain(name)
				}
			}
		}
		// Its destinations are those that it is to have.
		for name, e := range compile.Destinations(chain, wanted[chain]) {
			if o.maps[name] == nil {
				return errNotPartial
			}
			o.maps[name].elements[e.ID()] = e
		}
	}
	if uint32(backends)*missCost > m.slots {
		o.readWhole(table, compile.VerdictsSet) // most have none
	}
	if m.sweeps {
		m.readRetired(o)
	}
	return o.source.err
}

// readRetired reads what waits to be swept. Where nobody else can have changed it
// is there, and its keys are enough.
func (m *memory) readRetired(o *objects) {
	for _, run := range m.retired {
		for i := uint32(0); i < run.count && o.source.err == nil; i++ {
			name, key := run.mapOf(run.first+i), ruleset.MarkBytes(run.first+i)
			if m.watch == nil {
				o.element(name, key)
			} else if of := o.maps[name]; of != nil {
				of.elements[key] = ruleset.Element{Key: key}
			}
		}
	}
}

// checkMembers fails where what is shared may have to change: it follows from the
// backends of all services, and these are others, or have other sources.
func (s *State) checkMembers(wanted map[string]*lb.Service, keep uint32) error {
	shared := s.kept != 0
	for _, m := range s.objects.maps {
		shared = shared || m.spec != nil && (m.spec.Kind == ruleset.Exemptions || m.spec.Kind == ruleset.Pools)
	}
	if s.kept != keep {
		return errNotPartial
	}
	if !shared {
		return nil
	}
	have := byChain(s.Profiles)
	for chain, w := range wanted {
		h := have[chain]
		if h == nil || len(h.Backends) != len(w.Backends) {
			return errNotPartial
		}
		find := finder(h)
		for i := range w.Backends {
			b := &w.Backends[i]
			if old, ok := find(b.Address); !ok || !old.EffectiveSNAT().Equal(b.EffectiveSNAT()) {
				return errNotPartial
			}
		}
	}
	return nil
}

// fixed is what changes of backends leave as it is: which maps there are, and the
// chains of all services.
type fixed struct {
	specs  map[string]*ruleset.Map
	shared []*ruleset.Chain
	chains map[string]*haveChain
}

// readFixed reads what is fixed, where it is not known.
func (m *memory) readFixed(o *objects, table string) (err error) {
	if o.inline, err = readSet(o.source.conn, ruleset.Inet, table, compile.NewInlineSlots()); err != nil {
		return err
	}
	if m.fixed == nil {
		if err := o.readSpecs(o.source.conn, table); err != nil {
			return err
		}
		for _, c := range o.shared {
			o.chain(c.Name)
		}
		if len(o.flowtables) > 0 || o.source.err != nil {
			return nil // devices come and go without a commit
		}
		m.fixed = &fixed{map[string]*ruleset.Map{}, o.shared, maps.Clone(o.chains)}
		for name, there := range o.maps {
			m.fixed.specs[name] = there.spec
		}
		return nil
	}
	for name, spec := range m.fixed.specs {
		o.maps[name] = &haveMap{spec: spec, elements: map[string]ruleset.Element{}}
	}
	o.shared, o.chains = m.fixed.shared, maps.Clone(m.fixed.chains)
	return nil
}

// checkNumbers fails where the number of a backend that comes or goes may have
// to do with that of another one: somebody else has it, or the number after it,
// which is where those go that come second.
func (s *State) checkNumbers(wanted map[string]*lb.Service) error {
	differs := map[uint32]bool{}
	stays := map[compile.BackendKey]bool{}
	for chain, w := range wanted {
		for _, b := range w.Backends {
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

// digest is that of what was applied; to make all of the profiles takes time, and only
// links go by more than their names.
func (t *Table) digest() string {
	if t.options.links == nil {
		return digestOf(t.profiles, t.options)
	}
	return digestOf(t.all(), t.options)
}

// differing are the services of a part whose backends differ from what was
// applied; their fingerprints are brought up to date. It fails where one differs
// otherwise.
func (t *Table) differing(part []*lb.Profile, services []fingerprint) (changed []*lb.Profile, ok bool) {
	seen := map[position]bool{}
	for profile, s := range lb.Services(part) {
		at, _ := t.placeOf(compile.ChainOf(profile.Name, s.Name))
		if seen[at] {
			continue
		}
		seen[at] = true
		if at.number >= len(services) {
			return nil, false
		}
		p, f, now := t.profiles[at.profile], &services[at.number], t.updated[at]
		frame, backends := lb.Fingerprint(saltOf(t.options, p.Name), now)
		if frame != f.frame {
			return nil, false
		}
		if backends == f.backends {
			continue
		}
		f.backends = backends
		if n := len(changed); n == 0 || changed[n-1].Name != p.Name {
			changed = append(changed, &lb.Profile{Name: p.Name, Sysctl: p.Sysctl})
		}
		last := changed[len(changed)-1]
		last.Services = append(last.Services, *now)
	}
	return changed, true
}
