package nft

// Usage: what conntrack holds for backends.

import (
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/nft/conntrack"
	"nlb/nft/wire"
)

// Use is what conntrack holds for a backend.
type Use struct {
	// Entries counts by protocol, those of connections that have ended
	// included: each of them holds its port.
	Entries map[lb.Protocol]int
	// Live counts connections that have not ended.
	Live map[lb.Protocol]int
	// Unanswered counts live TCP and SCTP connections that the backend has not
	// answered.
	Unanswered int
}

// Usage is what conntrack holds for connections with a mark of ours, by the
// backend's number.
type Usage map[uint32]*counts

// counts are the connections of one number.
type counts struct {
	entries, live [3]int // by protocolIndex
	unanswered    int
}

var protocols = [3]lb.Protocol{lb.TCP, lb.UDP, lb.SCTP}

func (t *counts) add(f *conntrack.Flow) {
	i := 0
	switch lb.Protocol(f.Protocol) {
	case lb.UDP:
		i = 1
	case lb.SCTP:
		i = 2
	}
	t.entries[i]++
	if f.Ended {
		return
	}
	t.live[i]++
	if !f.Answered && protocols[i] != lb.UDP {
		t.unanswered++
	}
}

// ReadUsage lists the connections with a mark of ours, once; the kernel
// filters. A number that none of the states has may be one that another
// machine or an older profile gave: such a connection counts for the backend
// that it is translated to.
func ReadUsage(c *wire.Conn, states ...*State) (Usage, error) {
	out, known := Usage{}, map[uint32]bool{}
	for _, s := range states {
		for _, b := range s.backends {
			known[b.mark&indexMask] = true
		}
	}
	var servers map[netip.AddrPort][]server
	err := conntrack.List(c, conntrack.Filter{Mark: oursMark, Mask: oursMask}, func(f *conntrack.Flow) {
		n := f.Mark & indexMask
		if !known[n] && len(known) > 0 {
			if servers == nil {
				servers = serversOf(states)
			}
			n = translatedTo(servers, f, n)
		}
		if out[n] == nil {
			out[n] = &counts{}
		}
		out[n].add(f)
	})
	return out, err
}

// server is a backend as conntrack sees it: who answers for which
// destinations.
type server struct {
	number  uint32
	service *lb.Service
}

// serversOf are the backends of some states by their addresses; port 0 stands
// for backends that keep the port.
func serversOf(states []*State) map[netip.AddrPort][]server {
	out := map[netip.AddrPort][]server{}
	for _, s := range states {
		for _, p := range s.Profiles {
			for i := range p.Services {
				service := &p.Services[i]
				for _, b := range service.Backends {
					at := netip.AddrPortFrom(b.Address.Addr, b.Address.Port)
					mark := s.backends[backendKey{chainOf(p.Name, service.Name), b.Address}].mark
					out[at] = append(out[at], server{mark & indexMask, service})
				}
			}
		}
	}
	return out
}

// translatedTo is the number of the backend that a connection is translated
// to; n where there is none.
func translatedTo(servers map[netip.AddrPort][]server, f *conntrack.Flow, n uint32) uint32 {
	_, listen := f.Original()
	answers, _ := f.Reply()
	for _, at := range []netip.AddrPort{answers, netip.AddrPortFrom(answers.Addr(), 0)} {
		for _, s := range servers[at] {
			if takes(s.service, listen, lb.Protocol(f.Protocol)) {
				return s.number
			}
		}
	}
	return n
}

// takes reports whether a destination is one that a service listens on.
func takes(s *lb.Service, to netip.AddrPort, protocol lb.Protocol) bool {
	return slices.Contains(s.Protocols, protocol) && slices.ContainsFunc(s.Listen, func(l lb.Listen) bool {
		return (!l.Prefix.IsValid() || l.Prefix.Contains(to.Addr())) &&
			slices.ContainsFunc(l.Ports, func(r lb.PortRange) bool { return r.First <= to.Port() && to.Port() <= r.Last })
	})
}

// Use is what conntrack holds for a backend of the state.
func (s *State) Use(u Usage, profile, service string, address lb.Endpoint) Use {
	if b, ok := s.backends[backendKey{chainOf(profile, service), address}]; ok {
		return u[b.mark&indexMask].use()
	}
	return Use{}
}

func (t *counts) use() Use {
	if t == nil {
		return Use{}
	}
	out := Use{Entries: map[lb.Protocol]int{}, Live: map[lb.Protocol]int{}, Unanswered: t.unanswered}
	for i, p := range protocols {
		if t.entries[i] > 0 {
			out.Entries[p] = t.entries[i]
		}
		if t.live[i] > 0 {
			out.Live[p] = t.live[i]
		}
	}
	return out
}

// Orphans sums up what is there for backends that none of the states has. Each
// table of nlb in a namespace has its own.
func Orphans(u Usage, states ...*State) Use {
	known := map[uint32]bool{}
	for _, s := range states {
		for _, b := range s.backends {
			known[b.mark&indexMask] = true
		}
	}
	var sum counts
	for n, t := range u {
		if known[n] {
			continue
		}
		for i := range protocols {
			sum.entries[i] += t.entries[i]
			sum.live[i] += t.live[i]
		}
		sum.unanswered += t.unanswered
	}
	return sum.use()
}

// Stats are the figures of a backend.
type Stats struct {
	// Connections counts new connections since the backend came.
	Connections uint64
	// Live is what conntrack holds now, without what has ended.
	Live int
}

// Stats returns the figures of a backend of the state.
func (s *State) Stats(profile, service string, address lb.Endpoint, u Usage) Stats {
	b := s.backends[backendKey{chainOf(profile, service), address}]
	out := Stats{Connections: b.connections}
	if t := u[b.mark&indexMask]; t != nil {
		for _, n := range t.live {
			out.Live += n
		}
	}
	return out
}
