package nft

// Partial: the same reading, of a part of a table, where only backends of a few
// services differ from what was applied last. The record says which, and that
// nobody has changed the ruleset since. So what belongs to these services is read
// when it is asked for, element by element, and the others are not read. Whatever
// this cannot tell is left to load, which reads everything.

import (
	"errors"
	"iter"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

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
	if e, ok = m.elements[key]; ok || m.whole || o.source == nil || o.source.err != nil {
		return e, ok
	}
	if err := o.ask(m, key); err != nil && !errors.Is(err, unix.ENOENT) {
		o.fail(err)
	}
	e, ok = m.elements[key]
	return e, ok
}

// mostAsked elements at once have answers that fit any socket.
const mostAsked = 32

// fetch has a partial reading read elements of a map in few requests, by their slots or
// marks. What is not there ends it; those behind that are read when they are asked for.
func (o *objects) fetch(name string, numbers iter.Seq[uint32]) {
	m := o.maps[name]
	if m == nil || m.whole || o.source == nil || o.source.err != nil {
		return
	}
	var keys []string
	for n := range numbers {
		key := ruleset.MarkBytes(n)
		if _, ok := m.elements[key]; !ok {
			keys = append(keys, key)
		}
	}
	for some := range slices.Chunk(keys, mostAsked) {
		if err := o.ask(m, some...); err != nil {
			return
		}
	}
}

// ask reads elements up to one that is not there.
func (o *objects) ask(m *haveMap, keys ...string) error {
	if o.source.asked += uint32(len(keys)); o.source.asked > o.source.most {
		return errNotPartial
	}
	var w wire.Encoder
	w.Raw(wire.Named(o.source.table, m.spec.Name))
	list := w.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, key := range keys {
		item := w.Nest(unix.NFTA_LIST_ELEM)
		data := w.Nest(unix.NFTA_SET_ELEM_KEY)
		w.Data(unix.NFTA_DATA_VALUE, key)
		w.Unnest(data)
		w.Unnest(item)
	}
	w.Unnest(list)
	return o.source.conn.Requests(wire.MsgType(unix.NFT_MSG_GETSETELEM), ruleset.Inet, w.Bytes(), len(keys), func(b []byte) error {
		for e := range m.decoded(b) {
			if m.spec.Holds(e) {
				m.elements[e.ID()] = e
			}
		}
		return nil
	})
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

// readWhole reads all elements of some maps, as far as they are there, in a partial
// reading.
func (o *objects) readWhole(table string, names ...string) {
	for _, name := range names {
		if m := o.maps[name]; m != nil {
			o.fail(m.read(o.source.conn, ruleset.Inet, table))
			m.whole = true
		}
	}
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

func byChain(profiles []*lb.Profile) map[string]*lb.Service {
	out := map[string]*lb.Service{}
	for p, s := range lb.Services(profiles) {
		out[compile.ChainOf(p.Name, s.Name)] = s
	}
	return out
}
