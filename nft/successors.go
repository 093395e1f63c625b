package nft

// Successors: the numbers that backends get, and those that go on under another mark. The
// server is the same, and so are the destinations of its service; what differs is its
// number, its SNAT, the name of its service or profile, or whether its port is said.

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// numbers are those that profiles get beside what is there. A state that holds
// a part of a table keeps the numbers that it has.
func (s *State) numbers(kept uint32, profiles ...[]*lb.Profile) *compile.Numbers {
	n := compile.NewNumbers(kept, profiles...)
	h := compile.Held{Maps: maps.Keys(s.objects.maps), Blocks: map[compile.PoolKey]compile.Block{}, Sources: s.sources, Past: s.past}
	if s.last != nil {
		there := make(map[compile.BackendKey]uint32, len(s.backends))
		for key, b := range s.backends {
			there[key] = b.mark & compile.NumberMask
		}
		n.Keep(there, s.guards)
		h.FirstSlot, h.Free = s.last.slots, slices.Clone(s.last.free)
	}
	for name, e := range s.objects.allSlots() {
		// An older layout has other slots of these numbers.
		if n := ruleset.MarkOf(e.Key); n >= compile.InlineSlots || name == compile.InlineSlotsMap {
			h.Slots = append(h.Slots, n)
		}
	}
	most := uint32(len(h.Slots)) + maxRun
	for key, b := range s.blocks {
		if name, moves := s.objects.slotsOf(key, b); !moves {
			h.Blocks[key] = b
			if _, there := s.elements(name)[ruleset.MarkBytes(b.End()-1)]; !there && !b.Own && b.End()-b.Base <= most-uint32(len(h.Slots)) {
				h.Slots = slices.AppendSeq(h.Slots, b.All()) // one of several batches has made its rules alone
			}
		}
	}
	for _, f := range compile.Families {
		for key := range s.elements(f.Sources) {
			h.Addresses = append(h.Addresses, ruleset.MarkOf(key))
		}
	}
	n.Hold(h)
	n.HoldClients(s.clients, s.Generation, func(object string) bool { return s.objects.maps[object] != nil })
	return n
}

// renumbered are the profiles with a backend whose number another profile's
// backend has from now on.
func (s *State) renumbered(profiles []*lb.Profile, n *compile.Numbers) map[string]bool {
	out := map[string]bool{}
	for p, service := range lb.Services(profiles) {
		chain := compile.ChainOf(p.Name, service.Name)
		for i := range service.Backends {
			at := service.Backends[i].Address
			if s.backends[compile.BackendKey{Chain: chain, Address: at}].mark&compile.NumberMask != n.Backend(chain, at) {
				out[p.Name] = true
			}
		}
	}
	return out
}

// successor is the mark that a backend has from now on, and the chain of its
// service.
type successor struct {
	mark  uint32
	chain string
}

// successors are those of backends by their old marks, where something differs.
func (s *State) successors(profiles []*lb.Profile, n *compile.Numbers, servers func() flows.Servers) map[uint32]successor {
	out := map[uint32]successor{}
	for chain, was := range s.served(profiles) {
		find := finder(was.now)
		for _, b := range was.before.Backends {
			old := s.backends[compile.BackendKey{Chain: chain, Address: b.Address}].mark
			if now, ok := find(b.Address); ok {
				if mark := n.Mark(chain, now); mark != old {
					out[old] = successor{mark, chain}
				}
			} else if heir, ok := heirOf(servers(), was.before, b.Address); ok {
				out[old] = successor{heir.Mark, heir.Chain}
			}
		}
	}
	return out
}

// succession is a service as a table has it, and as it is to be; now is nil where it goes.
type succession struct{ before, now *lb.Service }

// served are the services that the table has, by their chains.
func (s *State) served(profiles []*lb.Profile) map[string]succession {
	if len(s.Profiles) == 0 {
		return nil
	}
	out, now := map[string]succession{}, byChain(profiles)
	for chain, before := range byChain(s.Profiles) {
		out[chain] = succession{before, now[chain]}
	}
	return out
}

// finder finds the backends of a service by their addresses.
func finder(s *lb.Service) func(lb.Endpoint) (*lb.Backend, bool) {
	const few = 16
	if s == nil {
		s = &lb.Service{}
	}
	if len(s.Backends) <= few {
		return func(a lb.Endpoint) (*lb.Backend, bool) {
			i := slices.IndexFunc(s.Backends, func(b lb.Backend) bool { return b.Address == a })
			if i < 0 {
				return nil, false
			}
			return &s.Backends[i], true
		}
	}
	index := make(map[lb.Endpoint]*lb.Backend, len(s.Backends))
	for i := range s.Backends {
		index[s.Backends[i].Address] = &s.Backends[i]
	}
	return func(a lb.Endpoint) (*lb.Backend, bool) { b, ok := index[a]; return b, ok }
}

// heirOf is the backend that serves what a service sent to an address.
func heirOf(s flows.Servers, service *lb.Service, address lb.Endpoint) (heir flows.Server, ok bool) {
	if len(service.Listen) == 0 || len(service.Protocols) == 0 {
		return flows.Server{}, false
	}
	l := service.Listen[0]
	to := netip.AddrPortFrom(l.Prefix.Addr(), l.Ports[0].First)
	port := address.Port
	if port == 0 {
		port = to.Port()
	}
	return s.Find(netip.AddrPortFrom(address.Addr, port), to, service.Protocols[0])
}

// carryCounters gives backends the counters that they had under another mark, or in
// another map.
func (s *State) carryCounters(want *ruleset.Ruleset, successors map[uint32]successor) {
	if len(s.backends) == 0 {
		return
	}
	before := map[string]string{}
	for old, now := range successors {
		before[ruleset.MarkBytes(now.mark)] = ruleset.MarkBytes(old)
	}
	for _, m := range want.Maps {
		if !m.Counter || m.Name == compile.RefusedSet {
			continue
		}
		for i := range m.Elements {
			e := &m.Elements[i]
			mark, other := before[e.Key]
			if _, stays := s.owned[m.Name][e.Key]; stays && !other {
				continue
			}
			if x, ok := s.counter(cmp.Or(mark, e.Key)); ok {
				x.Comment = e.More().Comment
				e.Extra = &x
			}
		}
	}
}

// clientMaps are the maps of clients of a ruleset.
func clientMaps(r *ruleset.Ruleset) map[string]*ruleset.Map {
	out := map[string]*ruleset.Map{}
	for _, m := range r.Maps {
		if compile.OfClients(m) {
			out[m.Name] = m
		}
	}
	return out
}

// remembers reports whether a service that is not ours has its clients in a map.
func (s *State) remembers(name string, ours func(chain string) bool) bool {
	for chain, key := range s.clients {
		if c := compile.ClientsAt(chain, compile.Families[0], key); !ours(chain) && (c.Set == name || c.Open == name) {
			return true
		}
	}
	return false
}

// renewKeys gives services other keys whose clients are carried over.
func (s *State) renewKeys(profiles []*lb.Profile, n *compile.Numbers, successors map[uint32]successor) {
	for _, now := range successors {
		n.RenewClients(now.chain)
	}
	for chain, was := range s.served(profiles) {
		if was.now != nil && alone(was.before) && alone(was.now) && was.before.Affinity.Timeout != was.now.Affinity.Timeout {
			n.RenewClients(chain)
		}
	}
}

// counter is that of a backend in use, by its mark.
func (s *State) counter(mark string) (ruleset.Extra, bool) {
	for _, f := range compile.Families {
		for _, name := range f.Servers() {
			if _, used := s.owned[name][mark]; used {
				e := s.elements(name)[mark]
				return ruleset.Extra{Packets: e.More().Packets, Bytes: e.More().Bytes}, true
			}
		}
	}
	return ruleset.Extra{}, false
}

// affinityMove is what some clients become: they are found elsewhere, by another key, or
// their backends have other marks.
type affinityMove struct {
	from, to compile.Clients
	timeout  time.Duration
	family   *compile.Family
	marks    map[uint32]uint32
}

// carryAffinity adds to a plan that clients stay with backends that go on under
// another mark, or in a service that remembers them elsewhere. It reads the maps
// that they are in.
func (w *writer) carryAffinity(have *State, p *plan) error {
	if w.forgets {
		return nil
	}
	carried, memory, moved := &plan{}, clientMemory{}, map[[2]string]bool{}
	for _, move := range have.affinityMoves(p) {
		clients, err := w.clients(have, move, memory)
		if err != nil {
			return err
		}
		var c change
		for _, e := range clients {
			mark, ok := move.marks[ruleset.MarkOf(e.Data)]
			if e.Key = e.Key[:move.family.IP.Addr.Size]; move.to.Key != 0 {
				e.Key += ruleset.MarkBytes(move.to.Key)
			}
			at := [2]string{move.to.Set, e.Key}
			if !ok || moved[at] { // or two services are one now
				continue
			}
			moved[at], e.Data = true, ruleset.MarkBytes(mark)
			c.fresh = append(c.fresh, e)
		}
		carried.change(p.affinities[move.to.Set], c)
	}
	// Once the maps are there.
	p.main = slices.Insert(p.main, 0, carried.main...)
	p.carries = !carried.empty()
	return nil
}

// withoutClients makes an apply begin again without the clients that it would carry, where
// the kernel has no room for them.
func (w *writer) withoutClients(p *plan, err error) error {
	if refused, ok := errors.AsType[*wire.Error](err); ok && p.carries && refused.Errno == unix.ENFILE {
		w.forgets = true
		return wire.ErrStale
	}
	return err
}

// clientMemory is what maps of clients hold, by the keys of services.
type clientMemory map[string]map[uint32][]ruleset.Element

// clients are those that a move is about. Those of which only an open connection is
// known begin as if they had just opened it: what counts connections begins with none.
func (w *writer) clients(have *State, move *affinityMove, memory clientMemory) ([]ruleset.Element, error) {
	var out []ruleset.Element
	seen := map[string]bool{}
	for _, name := range []string{move.from.Set, move.from.Open} {
		if memory[name] == nil {
			var err error
			if memory[name], err = w.readClients(have, name, move); err != nil {
				return nil, fmt.Errorf("read the clients of %s: %w", name, err)
			}
		}
		for _, e := range memory[name][move.from.Key] {
			x := ruleset.Extra{Timeout: move.timeout, Expires: move.timeout}
			if name == move.from.Set { // no listing loads with more than the timeout
				x.Expires = min(x.Expires, e.More().Expires)
			}
			if !seen[e.Key] && x.Expires > 0 {
				e.Extra = &x
				seen[e.Key] = true
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// readClients reads one of the maps that a move is from.
func (w *writer) readClients(have *State, name string, move *affinityMove) (map[uint32][]ruleset.Element, error) {
	out := map[uint32][]ruleset.Element{}
	if have.objects.maps[name] == nil {
		return out, nil
	}
	address := move.family.IP.Addr
	spec := &ruleset.Map{Name: name, Key: ruleset.Type{address}, Data: ruleset.Type{ruleset.Mark}}
	if move.from.Key != 0 {
		spec.Key = append(spec.Key, ruleset.Mark)
	}
	all, err := readSet(w.conn, ruleset.Inet, w.table, spec)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		e, key := all[id], uint32(0)
		if move.from.Key != 0 {
			key = ruleset.MarkOf(e.Key[address.Size:])
		}
		out[key] = append(out[key], e)
	}
	return out, err
}

// affinityMoves are those of clients whose backends have another mark now, or whose
// service has them elsewhere.
func (s *State) affinityMoves(p *plan) []*affinityMove {
	if s.last != nil || len(s.Profiles) == 0 { // no plan for a part has other keys
		return nil
	}
	wanted := byChain(p.profiles)
	found := map[[2]compile.Clients]*affinityMove{}
	for chain, old := range byChain(s.Profiles) {
		if !alone(old) {
			continue
		}
		for _, f := range compile.Families {
			from := compile.ClientsAt(chain, f, s.clients[chain])
			for _, b := range old.Of(f.Family) {
				mark := s.backends[compile.BackendKey{Chain: chain, Address: b.Address}].mark
				now, other := p.successors[mark]
				if !other {
					now = successor{mark, chain}
				}
				service := wanted[now.chain]
				if service == nil || !alone(service) {
					continue
				}
				profile, _, _ := compile.ServiceOf(now.chain)
				to := p.numbers.ClientsOf(profile, service, f)
				if from == to || p.affinities[to.Set] == nil {
					continue
				}
				move := found[[2]compile.Clients{from, to}]
				if move == nil {
					move = &affinityMove{from: from, to: to, timeout: service.Affinity.Timeout, family: f, marks: map[uint32]uint32{}}
					found[[2]compile.Clients{from, to}] = move
				}
				move.marks[mark] = now.mark
			}
		}
	}
	out := slices.Collect(maps.Values(found))
	slices.SortFunc(out, func(a, b *affinityMove) int {
		return cmp.Or(strings.Compare(a.from.Set, b.from.Set), strings.Compare(a.to.Set, b.to.Set), cmp.Compare(a.from.Key, b.from.Key), cmp.Compare(a.to.Key, b.to.Key))
	})
	return out
}

// alone reports whether a service remembers clients, and no group does so for it.
func alone(s *lb.Service) bool { return s.Affinity != nil && s.Affinity.Group == "" }
