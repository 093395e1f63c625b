package nft

// Load: what the kernel holds, read as profiles.

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"nlb/nft/ruleset"

	"nlb/lb"
	"nlb/nft/wire"
)

// loadTries bounds how often Load begins again because the ruleset changed
// under it.
const loadTries = 20

// State is a table as the kernel holds it.
type State struct {
	Table string
	// Generation is the number of the whole ruleset's generation, of all
	// tables in this network namespace.
	Generation uint32
	// Profiles are sorted by name, services too. Backends are sorted by
	// address; what a backend's SNAT is stands there, and the service's is the
	// first backend's.
	Profiles []*lb.Profile

	objects *objects
	// last is the record where only a part of the table was read; see partial.go.
	last *record
	// params are those that a table of an unknown layout remembers.
	params   []Param
	backends map[backendKey]haveBackend
	blocks   map[poolKey]block
	sources  map[string]block
	guards   map[string]uint32 // a guarded service's mark, by its chain
	refused  map[string]uint64 // what it has turned away
	kept     uint32            // bits of the connection mark that are somebody else's
	lists    map[string]bool   // sets of prefixes that services look into
	// owned has the elements in use: map -> id -> the service's chain.
	owned map[string]map[string]string
}

type haveBackend struct {
	mark        uint32
	drawn       bool // new connections may go to it
	state       lb.BackendState
	connections uint64
}

// Load reads a table. One that is not there gives an empty State. Errors:
// ErrForeign, ErrLayout, wire.ErrInterrupted where somebody changes the table
// all the time, *wire.Error.
func Load(c *wire.Conn, table string) (*State, error) {
	w := &writer{conn: c, table: table}
	defer w.close()
	for try := 0; ; try++ {
		s, err := w.read()
		if errors.Is(err, wire.ErrInterrupted) && try < loadTries {
			w.listen() // it may be another table that changes
			continue
		}
		return s, err
	}
}

func load(c *wire.Conn, table string) (*State, error) {
	before, err := c.Generation()
	if err != nil {
		return nil, fmt.Errorf("read the generation: %w", err)
	}
	o, err := read(c, table)
	if err != nil {
		return nil, err
	}
	after, err := c.Generation()
	if err != nil {
		return nil, fmt.Errorf("read the generation: %w", err)
	}
	if before != after {
		return nil, wire.ErrInterrupted
	}
	s := newState(table, o)
	s.Generation = after
	return s, nil
}

func newState(table string, o *objects) *State {
	s := &State{
		Table: table, objects: o,
		backends: make(map[backendKey]haveBackend, len(o.chains)), blocks: make(map[poolKey]block, len(o.chains)), sources: map[string]block{},
		guards: map[string]uint32{}, refused: map[string]uint64{}, lists: map[string]bool{}, owned: map[string]map[string]string{},
	}
	s.kept = readKept(o)
	x := extentIn(maps.Keys(o.maps))
	for _, m := range layout(table, x).Maps {
		s.owned[m.Name] = make(map[string]string, len(s.elements(m.Name)))
	}
	for _, name := range []string{paramsSet, appliedSet} {
		for id := range s.elements(name) {
			s.own("", name, id)
		}
	}
	s.readPools()
	listens := s.readListens(x.lengths)
	profiles := map[string]*lb.Profile{}
	for _, chain := range slices.Sorted(maps.Keys(o.chains)) {
		profile, service, ok := serviceOf(chain)
		if !ok {
			continue
		}
		// A chain that nothing leads to is one that went ahead of its service.
		read := s.readService(chain, service, listens[chain])
		if listens[chain] == nil {
			continue
		}
		p := profiles[profile]
		if p == nil {
			p = &lb.Profile{Name: profile}
			profiles[profile] = p
		}
		p.Services = append(p.Services, read)
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		slices.SortFunc(profiles[name].Services, func(a, b lb.Service) int { return strings.Compare(a.Name, b.Name) })
		s.Profiles = append(s.Profiles, profiles[name])
	}
	return s
}

func (s *State) elements(name string) map[string]ruleset.Element {
	if m := s.objects.maps[name]; m != nil {
		return m.elements
	}
	return nil
}

// own marks an element as used by a service, and returns it.
func (s *State) own(chain, name, key string) (ruleset.Element, bool) {
	e, ok := s.objects.element(name, key)
	if ok {
		s.owned[name][key] = chain
	}
	return e, ok
}

// ownRefused counts what a service or backend has turned away.
func (s *State) ownRefused(chain string, mark uint32) {
	if e, ok := s.own(chain, refusedSet, ruleset.MarkBytes(mark)); ok {
		s.refused[chain] += e.More().Packets
	}
}

// readPools finds the SNAT addresses of each pool's chain.
func (s *State) readPools() {
	for name, c := range s.objects.chains {
		if !strings.HasPrefix(name, poolPrefix) || len(c.rules) != 1 {
			continue
		}
		words := strings.Fields(c.rules[0].comment)
		if len(words) != 3 || words[1] != "sources" {
			continue
		}
		b, ok := parseBlock(words[2])
		for _, f := range families {
			if ok && words[0] == f.Family.String() {
				s.sources[name] = b
			}
		}
	}
}

// poolAddrs are the addresses of a pool's chain.
func (s *State) poolAddrs(service string, f *family, chain string) []netip.Addr {
	b := s.sources[chain]
	var out []netip.Addr
	for i := range b.slots {
		e, ok := s.own(service, f.sources, ruleset.MarkBytes(b.base+i))
		if !ok {
			break
		}
		if a, ok := netip.AddrFromSlice([]byte(e.Data)); ok {
			out = append(out, a)
		}
	}
	return out
}

// readListens finds what leads to each chain.
func (s *State) readListens(lengths []prefixLength) map[string]*listens {
	out := map[string]*listens{}
	for _, t := range tiers(lengths) {
		if t.exempt {
			continue
		}
		for _, f := range t.families() {
			for _, e := range s.elements(t.mapName(f)) {
				if isRetired(&e) {
					continue
				}
				if out[e.Data] == nil {
					out[e.Data] = &listens{role: t.role, ports: map[netip.Prefix]map[lb.Protocol][]lb.PortRange{}}
				}
				out[e.Data].add(t.parse(f, e))
			}
		}
	}
	return out
}

// listens are the destinations of one service.
type listens struct {
	iface string
	role  lb.Role
	ports map[netip.Prefix]map[lb.Protocol][]lb.PortRange
}

func (l *listens) add(iface string, p netip.Prefix, proto lb.Protocol, r lb.PortRange) {
	l.iface = iface
	if l.ports[p] == nil {
		l.ports[p] = map[lb.Protocol][]lb.PortRange{}
	}
	l.ports[p][proto] = append(l.ports[p][proto], r)
}

func portOf(b string) uint16 { return binary.BigEndian.Uint16([]byte(b[:2])) }

// fill sets what a service listens on.
func (l *listens) fill(s *lb.Service) {
	if l == nil {
		return
	}
	s.Interface, s.Role = l.iface, l.role
	protocols := map[lb.Protocol]bool{}
	for _, prefix := range slices.SortedFunc(maps.Keys(l.ports), netip.Prefix.Compare) {
		var ports []lb.PortRange
		for proto, r := range l.ports[prefix] {
			protocols[proto] = true
			ports = r
		}
		slices.SortFunc(ports, func(a, b lb.PortRange) int { return cmp.Compare(a.First, b.First) })
		s.Listen = append(s.Listen, lb.Listen{Prefix: prefix, Ports: ports})
	}
	s.Protocols = slices.Sorted(maps.Keys(protocols))
}

func (s *State) readService(chain, name string, l *listens) lb.Service {
	out := lb.Service{Name: name}
	l.fill(&out)
	for _, r := range s.objects.chains[chain].rules {
		if r.comment == "role server" {
			out.Role = lb.RoleServer
		}
		if s.readGuard(chain, r.comment, &out) || readAffinity(r.comment, &out) {
			continue
		}
		p, ok := parsePoolInfo(r.comment)
		if !ok {
			continue
		}
		out.Scheduler, out.HashBy, out.HashSeed = p.service.Scheduler, p.service.HashBy, p.service.HashSeed
		if p.service.OnEmpty != lb.Reject {
			out.OnEmpty = p.service.OnEmpty // told by the families that are empty
		}
		s.blocks[poolKey{chain, p.family}] = p.block
		out.Backends = append(out.Backends, s.readBackends(chain, familyOf(p.family), p.block)...)
	}
	for i := range out.Backends {
		if b := &out.Backends[i]; b.Log == nil {
			b.Log = out.Log
		}
	}
	if len(out.Backends) > 0 {
		out.SNAT = out.Backends[0].SNAT
	}
	return out
}

// readBackends finds the backends that a block of slots leads to.
func (s *State) readBackends(chain string, f *family, b block) []lb.Backend {
	slots, _ := s.slotsOf(b)
	counts := map[uint32]int{}
	for i := b.base; i < b.end(); i++ {
		e, ok := s.own(chain, slots, ruleset.MarkBytes(i))
		if !ok {
			s.objects.fail(errNotPartial)
			break // a block is without gaps
		}
		drawn := 0
		if i < b.base+b.slots {
			drawn = 1
		}
		counts[ruleset.MarkOf(e.Data)] += drawn // a parked one is there with 0
	}
	var out []lb.Backend
	for m, slots := range counts {
		if backend, ok := s.readBackend(chain, f, m, slots); ok {
			out = append(out, backend)
		}
	}
	slices.SortFunc(out, func(a, b lb.Backend) int {
		return cmp.Or(a.Address.Addr.Compare(b.Address.Addr), cmp.Compare(a.Address.Port, b.Address.Port))
	})
	return out
}

func (s *State) readBackend(chain string, f *family, m uint32, slots int) (lb.Backend, bool) {
	e, ok := s.own(chain, f.endpoints, ruleset.MarkBytes(m))
	if !ok {
		if e, ok = s.own(chain, f.addresses, ruleset.MarkBytes(m)); !ok {
			return lb.Backend{}, false
		}
	}
	b := lb.Backend{Weight: slots}
	b.Address.Addr, _ = netip.AddrFromSlice([]byte(e.Data[:f.ip.Addr.Size]))
	if len(e.Data) > f.ip.Addr.Size {
		b.Address.Port = portOf(e.Data[f.ip.Addr.Size:])
	}
	b.Name = b.Address.String()
	readBackendComment(e.More().Comment, &b)
	b.SNAT.Mode, _ = modeOf(m)
	if b.SNAT.Mode == lb.SNATPool {
		s.objects.fail(errNotPartial) // other services may use the same addresses
		pool, _ := s.own(chain, poolsMap, ruleset.MarkBytes(m))
		b.SNAT.Pool = s.poolAddrs(chain, f, pool.Data)
	}
	s.own(chain, stickySet, ruleset.MarkBytes(m))
	s.ownRefused(chain, whenFull(m))
	statements, _ := s.objects.element(backendsMap, ruleset.MarkBytes(m))
	if own := s.objects.chain(statements.Data); own != nil {
		for _, r := range own.rules {
			if _, err := fmt.Sscanf(r.comment, "max-connections %d", &b.MaxConnections); err != nil {
				b.Log = readLog(strings.TrimPrefix(r.comment, "log "))
			}
		}
	}
	s.backends[backendKey{chain, b.Address}] = haveBackend{mark: m, drawn: slots > 0, state: b.State, connections: e.More().Packets}
	return b, true
}

// readBackendComment reads what backendComment writes.
func readBackendComment(comment string, b *lb.Backend) {
	words := strings.Fields(comment)
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "name" && i+1 < len(words):
			i++
			b.Name = words[i]
		case words[i] == "weight" && i+1 < len(words):
			i++
			_, _ = fmt.Sscanf(words[i], "%d", &b.Weight)
		default:
			_ = b.State.UnmarshalText([]byte(words[i]))
		}
	}
}

// numbers are those that profiles get beside what is there. A state that holds
// a part of a table keeps the numbers that it has.
func (s *State) numbers(kept uint32, profiles ...[]*lb.Profile) *numbers {
	n := newNumbers()
	n.keepFree(kept, countBackends(profiles...))
	n.assign(profiles...)
	if s.last != nil {
		n.keep(s)
	}
	n.extent = extentIn(maps.Keys(s.objects.maps))
	var slots []uint32
	for _, e := range s.allSlots() {
		slots = append(slots, ruleset.MarkOf(e.Key))
	}
	n.freeSlot = newSpace(slots)
	for key, b := range s.blocks {
		if _, moves := s.slotsOf(b); !moves {
			n.slots[key] = b
		}
	}
	maps.Copy(n.sources, s.sources)
	if s.last != nil {
		n.freeSlot.next = s.last.slots
	}
	n.freeSource = newSpace(append(s.marks(families[0].sources), s.marks(families[1].sources)...))
	return n
}

func (s *State) marks(name string) []uint32 {
	var out []uint32
	for key := range s.elements(name) {
		out = append(out, ruleset.MarkOf(key))
	}
	return out
}

// Refused counts what allow, deny, limits and max-connections of a service have
// turned away since it came.
func (s *State) Refused(profile, service string) uint64 {
	return s.refused[chainOf(profile, service)]
}
