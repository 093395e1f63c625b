package flows

// Servers: backends as conntrack sees them, by who answers for which destinations.

import (
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
)

// Server is a backend as conntrack sees it.
type Server struct {
	Mark    uint32
	Chain   string // the service's
	service *lb.Service
}

// Servers are backends by their addresses; port 0 stands for backends that keep
// the port.
type Servers map[netip.AddrPort][]Server

// Add adds the backends of profiles, with the marks that they have.
func (s Servers) Add(profiles []*lb.Profile, mark func(chain string, b *lb.Backend) uint32) {
	for p, service := range lb.Services(profiles) {
		chain := compile.ChainOf(p.Name, service.Name)
		for i := range service.Backends {
			b := &service.Backends[i]
			at := netip.AddrPortFrom(b.Address.Addr, b.Address.Port)
			s[at] = append(s[at], Server{mark(chain, b), chain, service})
		}
	}
}

// Of finds the backend that a connection is translated to.
func (s Servers) Of(f *conntrack.Flow) (mark uint32, ok bool) {
	_, to := f.Original()
	from, _ := f.Reply()
	one, ok := s.Find(from, to, lb.Protocol(f.Protocol))
	return one.Mark, ok
}

// Find is the backend at an address and port that serves a destination.
func (s Servers) Find(at, to netip.AddrPort, protocol lb.Protocol) (found Server, ok bool) {
	candidates := s[at]
	if at.Port() == to.Port() { // or it keeps the port
		candidates = slices.Concat(candidates, s[netip.AddrPortFrom(at.Addr(), 0)])
	}
	i := slices.IndexFunc(candidates, func(one Server) bool { return takes(one.service, to, protocol) })
	if i < 0 {
		return Server{}, false
	}
	return candidates[i], true
}

// takes reports whether a destination is one that a service listens on.
func takes(s *lb.Service, to netip.AddrPort, protocol lb.Protocol) bool {
	return slices.Contains(s.Protocols, protocol) && slices.ContainsFunc(s.Listen, func(l lb.Listen) bool {
		return (!l.Prefix.IsValid() || l.Prefix.Contains(to.Addr())) &&
			slices.ContainsFunc(l.Ports, func(r lb.PortRange) bool { return r.First <= to.Port() && to.Port() <= r.Last })
	})
}
