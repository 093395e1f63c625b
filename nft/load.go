package nft

// Load: what the kernel holds, read as profiles.

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
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
	// address; what a backend's SNAT is stands there, and the service's is that of
	// the first backend on another host.
	Profiles []*lb.Profile

	*objects
	// last is the record where only a part of the table was read; see partial.go.
	last *memory
	// params are those that a table of an unknown layout remembers.
	params   []Param
	backends map[compile.BackendKey]haveBackend
	blocks   map[compile.PoolKey]compile.Block
	sources  map[string]compile.Block
	guards   map[string]uint32 // a guarded service's mark, by its chain
	clients  map[string]uint32 // the key of a service with affinity, likewise
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
	counted     bool   // see Options.Counted
	packets     uint64 // of mode: dsr
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

// emptyState is one that has read nothing yet.
func emptyState(table string, o *objects) *State {
	return &State{
		Table: table, objects: o,
		backends: make(map[compile.BackendKey]haveBackend, len(o.chains)), blocks: make(map[compile.PoolKey]compile.Block, len(o.chains)), sources: map[string]compile.Block{},
		guards: map[string]uint32{}, clients: map[string]uint32{}, refused: map[string]uint64{}, lists: map[string]bool{}, owned: map[string]map[string]string{},
	}
}

func newState(table string, o *objects) *State {
	s := emptyState(table, o)
	s.kept = o.kept()
	for _, name := range []string{compile.ParamsSet, compile.RecordSet} {
		for id := range s.elements(name) {
			s.own("", name, id)
		}
	}
	s.readPools()
	listens := s.readListens()
	profiles := map[string]*lb.Profile{}
	room := make([]lb.Service, 0, len(listens)) // a profile's are in a row, as their chains are
	for _, chain := range slices.Sorted(maps.Keys(o.chains)) {
		profile, service, ok := compile.ServiceOf(chain)
		if !ok {
			continue
		}
		// A chain that nothing leads to is one that went ahead of its service.
		if listens[chain] == nil {
			s.readService(&lb.Service{Name: service}, chain, nil)
			continue
		}
		room = append(room, lb.Service{Name: service})
		s.readService(&room[len(room)-1], chain, listens[chain])
		p := profiles[profile]
		if p == nil {
			p = &lb.Profile{Name: profile}
			profiles[profile] = p
		}
		p.Services = room[len(room)-1-len(p.Services) : len(room) : len(room)]
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		slices.SortFunc(profiles[name].Services, func(a, b lb.Service) int { return strings.Compare(a.Name, b.Name) })
		s.Profiles = append(s.Profiles, profiles[name])
	}
	return s
}

// own marks an element as used by a service, and returns it.
func (s *State) own(chain, name, key string) (ruleset.Element, bool) {
	e, ok := s.objects.element(name, key)
	if ok {
		if s.owned[name] == nil {
			s.owned[name] = make(map[string]string, len(s.elements(name)))
		}
		s.owned[name][key] = chain
	}
	return e, ok
}

// ownRefused counts what a service or backend has turned away.
func (s *State) ownRefused(chain string, mark uint32) {
	if e, ok := s.own(chain, compile.RefusedSet, ruleset.MarkBytes(mark)); ok {
		s.refused[chain] += e.More().Packets
	}
}

// readPools finds the SNAT addresses of each pool's chain.
func (s *State) readPools() {
	for name, c := range s.objects.chains {
		if !compile.IsPool(name) || len(c.rules) != 1 {
			continue
		}
		if b, ok := compile.ReadSources(c.rules[0].comment); ok {
			s.sources[name] = b
		}
	}
}

// poolAddrs are the addresses of a pool's chain.
func (s *State) poolAddrs(service string, f *compile.Family, chain string) []netip.Addr {
	if s.objects.chain(chain); s.objects.source != nil {
		s.readPools() // it was not there before
	}
	b := s.sources[chain]
	var out []netip.Addr
	for i := range b.Slots {
		e, ok := s.own(service, f.Sources, ruleset.MarkBytes(b.Base+i))
		if !ok {
			break
		}
		if a, ok := netip.AddrFromSlice([]byte(e.Data)); ok {
			out = append(out, a)
		}
	}
	return out
}

// listed are the prefixes of a set.
func (s *State) listed(set string) []netip.Prefix {
	s.lists[set] = true
	var out []netip.Prefix
	for _, e := range s.elements(set) {
		if p, ok := ruleset.PrefixOf(e.Key, e.End); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// readListens finds what leads to each chain.
func (s *State) readListens() map[string]*listens {
	out := map[string]*listens{}
	for _, t := range compile.Tiers(maps.Keys(s.objects.maps)) {
		if t.Exempt {
			continue
		}
		for _, f := range t.Families() {
			for _, e := range s.elements(t.MapName(f)) {
				if isRetired(&e) {
					continue
				}
				if out[e.Data] == nil {
					out[e.Data] = &listens{role: t.Role}
				}
				out[e.Data].add(t.Parse(f, e))
			}
		}
	}
	return out
}

// listens are the destinations of one service.
type listens struct {
	iface string
	role  lb.Role
	at    []listened
}

type listened struct {
	prefix netip.Prefix
	proto  lb.Protocol
	ports  lb.PortRange
}

func (l *listens) add(iface string, p netip.Prefix, proto lb.Protocol, r lb.PortRange) {
	l.iface, l.at = iface, append(l.at, listened{p, proto, r})
}

// fill sets what a service listens on.
func (l *listens) fill(s *lb.Service) {
	if l == nil {
		return
	}
	s.Interface, s.Role = l.iface, l.role
	slices.SortFunc(l.at, func(a, b listened) int {
		return cmp.Or(a.prefix.Compare(b.prefix), cmp.Compare(a.proto, b.proto), cmp.Compare(a.ports.First, b.ports.First))
	})
	var proto lb.Protocol // all have the same ports
	for _, at := range l.at {
		if n := len(s.Listen); n == 0 || s.Listen[n-1].Prefix != at.prefix {
			s.Listen, proto = append(s.Listen, lb.Listen{Prefix: at.prefix}), at.proto
		}
		if last := &s.Listen[len(s.Listen)-1]; at.proto == proto {
			last.Ports = append(last.Ports, at.ports)
		}
		s.Protocols = append(s.Protocols, at.proto)
	}
	slices.Sort(s.Protocols)
	s.Protocols = slices.Compact(s.Protocols)
}

// readService reads a service, of which the name is known.
func (s *State) readService(out *lb.Service, chain string, l *listens) {
	l.fill(out)
	for _, r := range s.objects.chains[chain].rules {
		if id, ok := compile.ReadGuardMark(r.comment, out); ok {
			s.guards[chain] = id
			s.ownRefused(chain, id)
		} else if family, b, ok := compile.ReadDraw(r.comment, out); ok {
			s.blocks[compile.PoolKey{Chain: chain, Family: family}] = b
			out.Backends = s.readBackends(out.Backends, chain, compile.FamilyOf(family), b)
		} else {
			compile.ReadRule(r.comment, out, s.listed)
			if key, ok := compile.ReadClientsKey(r.comment); ok {
				s.clients[chain] = key
			}
		}
	}
	for i := range out.Backends {
		b := &out.Backends[i]
		s.readOffload(chain, b, out)
		if b.Log == nil {
			b.Log = out.Log
		}
	}
	if out.SNAT = out.MembersSNAT(); out.SNAT.Auto {
		out.SNAT = lb.SNAT{Auto: true} // what was chosen is each backend's
	}
}

// readBackends appends the backends that a block of slots leads to.
func (s *State) readBackends(out []lb.Backend, chain string, f *compile.Family, b compile.Block) []lb.Backend {
	slots, _ := s.objects.slotsOf(compile.PoolKey{Chain: chain, Family: f.Family}, b)
	slot := func(key string) (ruleset.Element, bool) { return s.own(chain, slots, key) }
	if b.Own { // the whole map is the service's
		slot = func(key string) (ruleset.Element, bool) { return s.objects.element(slots, key) }
	}
	counts := map[uint32]int{}
	for i := range b.All() {
		e, ok := slot(ruleset.MarkBytes(i))
		if !ok {
			s.objects.fail(errNotPartial)
			break // a block is without gaps
		}
		drawn := 0
		if i < b.Base+b.Slots {
			drawn = 1
		}
		counts[ruleset.MarkOf(e.Data)] += drawn // a parked one is there with 0
	}
	servers := f.ServersBehind(slots)
	s.objects.fetch(servers[0], maps.Keys(counts)) // where nearly all are
	before := len(out)
	out = slices.Grow(out, len(counts))
	for m, slots := range counts {
		if e, address, ok := s.server(chain, f, servers, m); ok {
			out = append(out, lb.Backend{Name: address.String(), Address: address, Weight: slots, Priority: 1})
			s.readBackend(&out[len(out)-1], e, chain, f, m)
		}
	}
	slices.SortFunc(out[before:], func(a, b lb.Backend) int { return a.Address.Compare(b.Address) })
	return out
}

// readBackend reads a backend with this mark, of which the address is known, from its
// element e and all that else is about it.
func (s *State) readBackend(b *lb.Backend, e ruleset.Element, chain string, f *compile.Family, m uint32) {
	slots, mark := b.Weight, ruleset.MarkBytes(m)
	compile.ReadBackend(e.More().Comment, b)
	b.SNAT.Mode, _ = compile.ModeOf(m)
	if b.SNAT.Mode == lb.SNATPool {
		pool, _ := s.own(chain, compile.PoolsMap, mark)
		b.SNAT.Pool = s.poolAddrs(chain, f, pool.Data)
	}
	for _, set := range []string{compile.StickySet, compile.RetrySet, compile.RandomSet, compile.HalfOpenMap} {
		s.own(chain, set, mark)
	}
	if e, ok := s.own(chain, compile.VerdictsSet, mark); ok {
		compile.ReadStanding(e.More().Comment, &b.Standing)
	}
	s.ownRefused(chain, compile.FullMark(m))
	counted := false
	statements, _ := s.objects.element(compile.BackendsMap, mark)
	if own := s.objects.chain(statements.Data); own != nil {
		for _, r := range own.rules {
			counted = compile.ReadBackendRule(r.comment, b) || counted
		}
	}
	s.backends[compile.BackendKey{Chain: chain, Address: b.Address}] = haveBackend{mark: m, drawn: slots > 0, state: b.State, connections: e.More().Packets, packets: s.objects.packets(f, m) + s.objects.datagrams(chain, f, e.Data), counted: counted}
}

// server is the element that says where a backend is, and what it says.
func (s *State) server(chain string, f *compile.Family, servers []string, m uint32) (e ruleset.Element, at lb.Endpoint, ok bool) {
	for _, name := range servers {
		if e, ok = s.own(chain, name, ruleset.MarkBytes(m)); ok {
			return e, f.ReadServer(name, e.Data), true
		}
	}
	return e, at, false
}

// readOffload reads which way the service of a backend wants to be offloaded.
func (s *State) readOffload(chain string, b *lb.Backend, service *lb.Service) {
	mark := ruleset.MarkBytes(s.backends[compile.BackendKey{Chain: chain, Address: b.Address}].mark)
	for _, set := range compile.OffloadSets {
		if e, ok := s.own(chain, set, mark); ok {
			compile.ReadOffloadElement(set, e.More().Comment, service)
		}
	}
}

// kept are the bits of the connection mark that are somebody else's.
func (o *objects) kept() (kept uint32) {
	for _, f := range compile.Families {
		if c := o.chains[f.Deliver]; c != nil {
			for _, r := range c.rules {
				if bits, ok := compile.ReadKept(r.comment); ok {
					kept = bits
				}
			}
		}
	}
	return kept
}

// slotsOf names the map that holds a block. An older layout has all in one.
func (o *objects) slotsOf(key compile.PoolKey, b compile.Block) (name string, moves bool) {
	if b.Own {
		return compile.OwnSlotsOf(key.Chain, compile.FamilyOf(key.Family)), false
	}
	name = compile.SlotMapOf(b.Base)
	o.fetch(name, b.All())
	if _, ok := o.element(name, ruleset.MarkBytes(b.Base)); ok || name == compile.SlotsMap {
		return name, false
	}
	if _, ok := o.element(compile.SlotsMap, ruleset.MarkBytes(b.Base)); ok {
		return compile.SlotsMap, true
	}
	return name, false
}

func byChain(profiles []*lb.Profile) map[string]*lb.Service {
	out := map[string]*lb.Service{}
	for p, s := range lb.Services(profiles) {
		out[compile.ChainOf(p.Name, s.Name)] = s
	}
	return out
}

// Refused counts what allow, deny, limits and max-connections of a service have
// turned away since it came.
func (s *State) Refused(profile, service string) uint64 {
	return s.refused[compile.ChainOf(profile, service)]
}
