package nft

// Recall: what a plan needs to know where only backends of a few services
// differ from what was applied last. The record says which, and that nobody has
// changed the ruleset since; so these services are read, element by element,
// and the others are not. What recall does not know how to read, and whatever
// it stumbles over, is left to load, which reads everything.

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"nlb/nft/ruleset"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

const (
	// With more to read than this, reading everything is no slower.
	recallServices = 64
	recallElements = 4096
	// So many elements are read in a dump while one is read by itself.
	recallCost = 8
	// Slots are taken above those that were ever used, until there are so many.
	recallSlots = 1 << 24
)

// errNotRecalled leaves it to load.
var errNotRecalled = errors.New("it cannot be recalled")

// recall is a reading of a part of a table.
type recall struct {
	*objects
	conn  *wire.Conn
	table string
	asked uint32
	most  uint32 // that it may ask for
}

// recalled returns a state that has the services whose backends differ from
// what the record says, and the profiles with these alone. It is nil where
// everything has to be read.
func (r *record) recalled(c *wire.Conn, applied map[string]ruleset.Element, profiles []*lb.Profile, o Options, now func() []fingerprint) (*State, []*lb.Profile) {
	generation, err := c.Generation()
	if err != nil || generation != r.generation || !r.trusted(o) {
		return nil, nil
	}
	part, ok := r.differing(profiles, now())
	if !ok {
		return nil, nil
	}
	read := &recall{
		objects: &objects{exists: true, layout: currentLayout, maps: map[string]*haveMap{}, chains: map[string]*haveChain{}},
		conn:    c, table: o.Table, most: max(recallElements, r.slots/recallCost),
	}
	s, err := read.state(r, applied, part)
	if err != nil {
		return nil, nil
	}
	return s, part
}

// trusted reports whether a plan needs no more than the record and the
// services that differ.
func (r *record) trusted(o Options) bool {
	return r.digest != "" && o.Digest != "" && len(o.Params) == 0 && !o.Cut && (r.whole || !o.Prune) && r.slots < recallSlots
}

// differing are the services whose backends differ. It fails where services
// were added or removed, or differ otherwise, or too many do.
func (r *record) differing(profiles []*lb.Profile, now []fingerprint) (part []*lb.Profile, ok bool) {
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
			if !known || n > recallServices {
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

// state reads these services.
func (r *recall) state(rec *record, applied map[string]ruleset.Element, part []*lb.Profile) (*State, error) {
	if err := r.readSpecs(r.conn, r.table); err != nil {
		return nil, err
	}
	wanted := byChain(part)
	for name := range r.maps {
		_, chain, owned := ownerOf(name)
		switch {
		case strings.HasPrefix(name, exemptTier().name):
			return nil, errNotRecalled // they depend on all services
		case owned && wanted[chain] == nil:
			delete(r.maps, name)
		}
	}
	if r.maps[appliedSet] == nil {
		return nil, errNotRecalled
	}
	r.maps[appliedSet].elements = applied
	for _, c := range layout(r.table, extentIn(maps.Keys(r.maps))).Chains {
		if err := r.chain(c.Name); err != nil {
			return nil, err
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(wanted)) {
		if err := r.service(chain, wanted[chain]); err != nil {
			return nil, err
		}
	}
	if err := r.retired(rec.retired); err != nil {
		return nil, err
	}
	s := newState(r.table, r.objects)
	s.last = rec
	for chain, w := range byChain(s.Profiles) {
		w.Allow, w.Deny = wanted[chain].Allow, wanted[chain].Deny // these sets were not read
	}
	if err := r.checkNumbers(s, wanted); err != nil {
		return nil, err
	}
	generation, err := r.conn.Generation()
	if err == nil && generation != rec.generation {
		err = errNotRecalled
	}
	s.Generation = generation
	return s, err
}

func byChain(profiles []*lb.Profile) map[string]*lb.Service {
	out := map[string]*lb.Service{}
	for _, p := range profiles {
		for i := range p.Services {
			out[chainOf(p.Name, p.Services[i].Name)] = &p.Services[i]
		}
	}
	return out
}

// chain reads the rules of a chain. One without rules counts as absent: none of
// ours is.
func (r *recall) chain(name string) error {
	r.chains[name] = &haveChain{}
	if err := r.readRules(r.conn, r.table, name); err != nil {
		return err
	}
	if len(r.chains[name].rules) == 0 {
		delete(r.chains, name)
	}
	return nil
}

// element reads one element of a map, and reports whether it is there.
func (r *recall) element(name, key string) (e ruleset.Element, ok bool, err error) {
	m := r.maps[name]
	if m == nil {
		return e, false, nil
	}
	if r.asked++; r.asked > r.most {
		return e, false, errNotRecalled
	}
	var w wire.Encoder
	w.Raw(named(r.table, name))
	list := w.Begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	item := w.Begin(unix.NFTA_LIST_ELEM)
	data := w.Begin(unix.NFTA_SET_ELEM_KEY)
	w.Data(unix.NFTA_DATA_VALUE, key)
	w.End(data)
	w.End(item)
	w.End(list)
	b, err := r.conn.Request(ruleset.MsgType(unix.NFT_MSG_GETSETELEM), ruleset.Inet, w.Bytes())
	if errors.Is(err, unix.ENOENT) {
		return e, false, nil
	}
	if err != nil {
		return e, false, err
	}
	for e = range m.decoded(b) {
		if ok = m.spec.Holds(e) && e.Key == key; ok {
			m.elements[e.ID()] = e
		}
	}
	return e, ok, nil
}

// service reads a service.
func (r *recall) service(chain string, s *lb.Service) error {
	// Its destinations are those that it is to have.
	for name, e := range destinations(chain, s) {
		if r.asked++; r.asked > r.most || r.maps[name] == nil {
			return errNotRecalled
		}
		r.maps[name].elements[e.ID()] = e
	}
	if err := r.chain(chain); err != nil {
		return err
	}
	if r.chains[chain] == nil {
		return errNotRecalled
	}
	for _, rule := range r.chains[chain].rules {
		if p, ok := parsePoolInfo(rule.comment); ok {
			if err := r.pool(p.block); err != nil {
				return err
			}
		}
		if id, ok := guardOf(rule.comment); ok {
			if _, _, err := r.element(refusedSet, ruleset.MarkBytes(id)); err != nil {
				return err
			}
		}
	}
	return nil
}

// pool reads what a block of slots leads to.
func (r *recall) pool(b block) error {
	seen := map[string]bool{}
	for i := b.base; i < b.end(); i++ {
		e, ok, err := r.element(slotMapOf(b.base), ruleset.MarkBytes(i))
		if err != nil {
			return err
		}
		if !ok {
			return errNotRecalled
		}
		if seen[e.Data] {
			continue
		}
		seen[e.Data] = true
		if err := r.backend(e.Data); err != nil {
			return err
		}
	}
	return nil
}

// backend reads all that there is of a backend's mark.
func (r *recall) backend(mark string) error {
	for _, name := range markMaps() {
		e, ok, err := r.element(name, mark)
		switch {
		case err != nil:
			return err
		case ok && name == poolsMap:
			return errNotRecalled // other services may use the same addresses
		case ok && name == backendsMap:
			if err := r.chain(e.Data); err != nil {
				return err
			}
		}
	}
	return nil
}

// markMaps are the maps whose keys are the marks of backends.
func markMaps() []string {
	out := []string{stickySet, backendsMap, poolsMap, refusedSet}
	for _, f := range families {
		out = append(out, f.endpoints, f.addresses)
	}
	return out
}

// retired reads what waits to be swept.
func (r *recall) retired(runs []run) error {
	for _, run := range runs {
		for i := range run.count {
			name := run.mapping
			if name == slotsMap {
				name = slotMapOf(run.first + i)
			}
			if _, _, err := r.element(name, ruleset.MarkBytes(run.first+i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkNumbers fails where the number of a backend that comes or goes may have
// to do with that of another one: somebody else has it, or the number after it,
// which is where those go that come second.
func (r *recall) checkNumbers(s *State, wanted map[string]*lb.Service) error {
	differs := map[uint32]bool{}
	stays := map[backendKey]bool{}
	for chain, w := range wanted {
		for _, b := range w.Backends {
			if b.SNAT.Mode == lb.SNATPool {
				return errNotRecalled
			}
			key := backendKey{chain, b.Address}
			if _, known := s.backends[key]; known {
				stays[key] = true
				continue
			}
			i := key.firstNumber()
			used, err := r.used(i)
			if err != nil {
				return err
			}
			if used || differs[i] {
				return errNotRecalled
			}
			differs[i] = true
		}
	}
	for key, b := range s.backends {
		if !stays[key] {
			differs[b.mark&indexMask] = true
		}
	}
	for i := range differs {
		next := (i + 1) & indexMask
		used, err := r.used(next)
		if err != nil {
			return err
		}
		if used || differs[next] {
			return errNotRecalled
		}
	}
	return nil
}

// used reports whether a backend or a guard has a number.
func (r *recall) used(number uint32) (bool, error) {
	marks := []uint32{serviceMark | number}
	for _, m := range snatModes {
		marks = append(marks, modeMark(m)|number)
	}
	for _, mark := range marks {
		for _, name := range markMaps() {
			if _, ok, err := r.element(name, ruleset.MarkBytes(mark)); ok || err != nil {
				return ok, err
			}
		}
	}
	return false, nil
}
