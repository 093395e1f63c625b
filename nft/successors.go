package nft

// Successors: backends that go on under another mark. The server is the same,
// and so are the destinations of its service; what differs is its number, its
// SNAT, the name of its service or profile, or whether its port is said.

import (
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// servers are the backends of profiles, with the marks that they get.
func (n *numbers) servers(profiles []*lb.Profile) servers {
	out := servers{}
	out.add(profiles, n.mark)
	return out
}

// mark is the mark of a backend.
func (n *numbers) mark(chain string, b *lb.Backend) uint32 {
	return modeMark(b.SNAT.Mode) | n.backend(chain, b.Address)
}

// successors are the new marks of backends by their old ones, where these
// differ.
func (s *State) successors(wanted []*lb.Profile, n *numbers, all func() servers) map[uint32]uint32 {
	out := map[uint32]uint32{}
	services := byChain(wanted)
	for chain, service := range byChain(s.Profiles) {
		find := finder(services[chain])
		for _, b := range service.Backends {
			old := s.backends[backendKey{chain, b.Address}].mark
			var mark uint32
			now, ok := find(b.Address)
			if ok {
				mark = n.mark(chain, now)
			} else {
				mark, ok = all().heir(service, b.Address)
			}
			if ok && mark != old {
				out[old] = mark
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

// heir is the backend that serves what a service sent to an address.
func (s servers) heir(service *lb.Service, address lb.Endpoint) (mark uint32, ok bool) {
	if len(service.Listen) == 0 || len(service.Protocols) == 0 {
		return 0, false
	}
	l := service.Listen[0]
	to := netip.AddrPortFrom(l.Prefix.Addr(), l.Ports[0].First)
	port := address.Port
	if port == 0 {
		port = to.Port()
	}
	return s.find(netip.AddrPortFrom(address.Addr, port), to, service.Protocols[0])
}

// carryCounters gives backends the counters that they had under another mark.
func (s *State) carryCounters(want *ruleset.Ruleset, successors map[uint32]uint32) {
	if len(successors) == 0 {
		return
	}
	counted := map[string]ruleset.Extra{}
	for old, mark := range successors {
		for _, f := range families {
			for _, name := range []string{f.endpoints, f.addresses} {
				if e, ok := s.elements(name)[ruleset.MarkBytes(old)]; ok {
					counted[ruleset.MarkBytes(mark)] = ruleset.Extra{Packets: e.More().Packets, Bytes: e.More().Bytes}
				}
			}
		}
	}
	for _, m := range want.Maps {
		if !m.Counter || m.Name == refusedSet {
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
