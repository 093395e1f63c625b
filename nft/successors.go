package nft

// Successors: backends that go on under another mark. The server is the same,
// and so are the destinations of its service; what differs is its number, its
// SNAT, the name of its service or profile, or whether its port is said.

import (
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
			for _, name := range []string{f.Endpoints, f.Addresses} {
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

// clients are a map of clients, and the destination in the keys that are meant;
// empty: they have none.
type clients struct{ name, at string }

// way is from where to where clients move, and for how long they live there.
type way struct {
	from, to clients
	timeout  time.Duration
}

// affinityMove is what some clients become: they are found elsewhere, live for
// another time, or their backends have other marks.
type affinityMove struct {
	way
	marks map[uint32]uint32
}

// remembered are the clients that a map has, and sorted, by their destinations.
type remembered struct {
	all map[string]ruleset.Element
	at  map[string][]ruleset.Element
}

func (w *writer) readClients(have *State, of *ruleset.Map) (r remembered, err error) {
	if have.objects.maps[of.Name] == nil {
		return r, nil
	}
	if r.all, err = readSet(w.conn, w.table, of); err != nil {
		return r, fmt.Errorf("read the clients of %s: %w", of.Name, err)
	}
	r.at = map[string][]ruleset.Element{}
	for _, id := range slices.Sorted(maps.Keys(r.all)) {
		at := id[of.Key[0].Padded():]
		r.at[at] = append(r.at[at], r.all[id])
	}
	return r, nil
}

// carryAffinity adds to a plan that clients stay with backends that go on under
// another mark, or in a service that remembers them otherwise.
func (w *writer) carryAffinity(have *State, p *plan) error {
	carried, known, seen := &plan{}, map[string]remembered{}, map[[2]string]bool{}
	for _, move := range have.affinityMoves(p) {
		to := p.affinities[move.to.name]
		from := &ruleset.Map{Name: move.from.name, Key: to.Key[:1], Data: to.Data}
		if move.from.at != "" {
			from.Key = compile.SharedKey
		}
		for _, m := range []*ruleset.Map{from, to} {
			if _, ok := known[m.Name]; !ok {
				var err error
				if known[m.Name], err = w.readClients(have, m); err != nil {
					return err
				}
			}
		}
		var c change
		for _, e := range known[from.Name].at[move.from.at] {
			mark, ok := move.marks[ruleset.MarkOf(e.Data)]
			if !ok || e.More().Expires < aboutToExpire {
				continue
			}
			x := *e.More()
			x.Timeout, x.Expires = move.timeout, min(x.Expires, move.timeout) // or no listing of it would load
			e.Key = strings.TrimSuffix(e.Key, move.from.at) + move.to.at
			e.Data, e.Extra = ruleset.MarkBytes(mark), &x
			if seen[[2]string{to.Name, e.Key}] {
				continue // two services are one now
			}
			seen[[2]string{to.Name, e.Key}] = true
			if was, ok := known[to.Name].all[e.ID()]; !ok {
				c.fresh = append(c.fresh, e)
			} else if (was.Data != e.Data || was.More().Timeout != x.Timeout) && was.More().Expires >= aboutToExpire {
				c.replace(was, e)
			}
		}
		carried.change(to, c)
	}
	// Once the maps are there.
	p.main = slices.Insert(p.main, 0, carried.main...)
	p.carries = !carried.empty()
	return nil
}

// aboutToExpire is when a client is not worth being carried over: it may be
// gone before the batch is committed, which the kernel would then refuse.
const aboutToExpire = 2 * time.Second

// affinityMoves are those of clients whose backends have another mark now, or whose
// service has them elsewhere.
func (s *State) affinityMoves(p *plan) []affinityMove {
	if len(p.affinities) == 0 {
		return nil
	}
	had, wanted := byChain(s.Profiles), byChain(p.profiles)
	found := map[way]map[uint32]uint32{}
	for key, b := range s.backends {
		now, other := p.successors[b.mark]
		if !other {
			now = successor{b.mark, key.Chain}
		}
		old, service := had[key.Chain], wanted[now.chain]
		if old == nil || old.Affinity == nil || service == nil || service.Affinity == nil {
			continue
		}
		f := compile.FamilyOf(lb.FamilyOf(key.Address.Addr))
		w := way{timeout: service.Affinity.Timeout}
		w.from.name, w.from.at = compile.ClientsOf(key.Chain, old, f)
		if own := compile.OwnClients(key.Chain, f); s.objects.maps[own] != nil { // as of an older nlb
			w.from = clients{name: own}
		}
		w.to.name, w.to.at = compile.ClientsOf(now.chain, service, f)
		same := !other && w.from == w.to && w.timeout == old.Affinity.Timeout
		if same || p.affinities[w.to.name] == nil || s.objects.maps[w.from.name] == nil {
			continue
		}
		if found[w] == nil {
			found[w] = map[uint32]uint32{}
		}
		found[w][b.mark] = now.mark
	}
	var out []affinityMove
	for w, marks := range found {
		out = append(out, affinityMove{w, marks})
	}
	order := func(m affinityMove) string {
		return strings.Join([]string{m.from.name, m.from.at, m.to.name, m.to.at}, " ")
	}
	slices.SortFunc(out, func(a, b affinityMove) int { return strings.Compare(order(a), order(b)) })
	return out
}
