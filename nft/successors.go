package nft

// Successors: backends that go on under another mark. The server is the same,
// and so are the destinations of its service; what differs is its number, its
// SNAT, the name of its service or profile, or whether its port is said. And whether
// the number of one that comes or goes is free.

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
)

// serversOf are the backends of profiles, with the marks that they get.
func serversOf(profiles []*lb.Profile, n *compile.Numbers) flows.Servers {
	out := flows.Servers{}
	out.Add(profiles, n.Mark)
	return out
}

// successor is the mark that a backend has from now on, and the chain of its
// service.
type successor struct {
	mark  uint32
	chain string
}

// successors are those of backends by their old marks, where something differs.
func (s *State) successors(wanted []*lb.Profile, n *compile.Numbers, all func() flows.Servers) map[uint32]successor {
	out := map[uint32]successor{}
	services := byChain(wanted)
	for chain, service := range byChain(s.Profiles) {
		find := finder(services[chain])
		for _, b := range service.Backends {
			old := s.backends[compile.BackendKey{Chain: chain, Address: b.Address}].mark
			if now, ok := find(b.Address); ok {
				if mark := n.Mark(chain, now); mark != old {
					out[old] = successor{mark, chain}
				}
			} else if heir, ok := heirOf(all(), service, b.Address); ok {
				out[old] = successor{heir.Mark, heir.Chain}
			}
		}
	}
	return out
}

// finder finds the backends of a service by their addresses.
func finder(s *lb.Service) func(lb.Endpoint) (*lb.Backend, bool) {
	const few = 16
	if s == nil {
		return func(lb.Endpoint) (*lb.Backend, bool) { return nil, false }
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

// carryCounters gives backends the counters that they had under another mark.
func (s *State) carryCounters(want *ruleset.Ruleset, successors map[uint32]successor) {
	if len(successors) == 0 {
		return
	}
	counted := map[string]ruleset.Extra{}
	for old, now := range successors {
		for _, f := range compile.Families {
			for _, name := range f.Servers() {
				if e, ok := s.elements(name)[ruleset.MarkBytes(old)]; ok {
					counted[ruleset.MarkBytes(now.mark)] = ruleset.Extra{Packets: e.More().Packets, Bytes: e.More().Bytes}
				}
			}
		}
	}
	for _, m := range want.Maps {
		if !m.Counter || m.Name == compile.RefusedSet {
			continue
		}
		for i := range m.Elements {
			e := &m.Elements[i]
			if x, ok := counted[e.Key]; ok {
				x.Comment = e.More().Comment
				e.Extra = &x
			}
		}
	}
}

// affinityMove is what a map of clients has to become.
type affinityMove struct {
	from string
	to   *ruleset.Map
}

// carryAffinity adds to a plan that clients stay with backends that go on under
// another mark.
func (w *writer) carryAffinity(have *State, p *plan) error {
	carried := &plan{}
	for _, move := range have.affinityMoves(p) {
		clients, err := readSet(w.conn, w.table, &ruleset.Map{Name: move.from, Key: move.to.Key, Data: move.to.Data})
		if err != nil {
			return fmt.Errorf("read the clients of %s: %w", move.from, err)
		}
		var c change
		for _, id := range slices.Sorted(maps.Keys(clients)) {
			e := clients[id]
			now, ok := p.successors[ruleset.MarkOf(e.Data)]
			if !ok || e.More().Expires < aboutToExpire {
				continue
			}
			old := e
			e.Data = ruleset.MarkBytes(now.mark)
			if move.from == move.to.Name {
				c.replace(old, e)
			} else {
				c.fresh = append(c.fresh, e)
			}
		}
		carried.change(move.to, c)
	}
	// Once the maps are there.
	p.main = slices.Insert(p.main, 0, carried.main...)
	p.carries = !carried.empty()
	return nil
}

// aboutToExpire is when a client is not worth being carried over: it may be
// gone before the batch is committed, which the kernel would then refuse.
const aboutToExpire = 2 * time.Second

// affinityMoves are the maps of clients whose backends have another mark now.
func (s *State) affinityMoves(p *plan) []affinityMove {
	if len(p.successors) == 0 {
		return nil
	}
	targets := map[string]*ruleset.Map{}
	for _, m := range p.affinities {
		targets[m.Name] = m
	}
	var out []affinityMove
	seen := map[[2]string]bool{}
	for key, b := range s.backends {
		now, ok := p.successors[b.mark]
		if !ok {
			continue
		}
		for _, f := range compile.Families {
			from, to := compile.AffinityMap(key.Chain, f), compile.AffinityMap(now.chain, f)
			if seen[[2]string{from, to}] || targets[to] == nil || f.Family != lb.FamilyOf(key.Address.Addr) {
				continue
			}
			seen[[2]string{from, to}] = true
			out = append(out, affinityMove{from, targets[to]})
		}
	}
	slices.SortFunc(out, func(a, b affinityMove) int {
		return cmp.Or(strings.Compare(a.from, b.from), strings.Compare(a.to.Name, b.to.Name))
	})
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
