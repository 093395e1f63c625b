package nft

// Usage: what conntrack holds for backends.

import (
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/nft/compile"
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
	out, known, kept := Usage{}, map[uint32]bool{}, uint32(0)
	for _, s := range states {
		for _, b := range s.backends {
			known[b.mark&compile.NumberMask] = true
		}
		kept |= s.kept
	}
	var all servers
	err := conntrack.List(c, conntrack.Filter{Mark: compile.OursMark, Mask: compile.OursMask}, func(f *conntrack.Flow) {
		n := f.Mark & compile.NumberMask
		if !known[n] && known[n&^kept] {
			n &^= kept
		}
		if !known[n] && len(known) > 0 {
			if all == nil {
				all = servers{}
				for _, s := range states {
					all.add(s.Profiles, func(chain string, b *lb.Backend) uint32 {
						return s.backends[compile.BackendKey{Chain: chain, Address: b.Address}].mark
					})
				}
			}
			if mark, ok := all.of(f); ok {
				n = mark & compile.NumberMask
			}
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
	mark    uint32
	chain   string // the service's
	service *lb.Service
}

// servers are backends by their addresses; port 0 stands for backends that keep
// the port.
type servers map[netip.AddrPort][]server

func (s servers) add(profiles []*lb.Profile, mark func(chain string, b *lb.Backend) uint32) {
	for _, p := range profiles {
		for i := range p.Services {
			service := &p.Services[i]
			chain := compile.ChainOf(p.Name, service.Name)
			for k := range service.Backends {
				b := &service.Backends[k]
				at := netip.AddrPortFrom(b.Address.Addr, b.Address.Port)
				s[at] = append(s[at], server{mark(chain, b), chain, service})
			}
		}
	}
}

// of finds the backend that a connection is translated to.
func (s servers) of(f *conntrack.Flow) (mark uint32, ok bool) {
	_, to := f.Original()
	from, _ := f.Reply()
	one, ok := s.find(from, to, lb.Protocol(f.Protocol))
	return one.mark, ok
}

// find is the backend at an address and port that serves a destination.
func (s servers) find(at, to netip.AddrPort, protocol lb.Protocol) (found server, ok bool) {
	candidates := s[at]
	if at.Port() == to.Port() { // or it keeps the port
		candidates = slices.Concat(candidates, s[netip.AddrPortFrom(at.Addr(), 0)])
	}
	i := slices.IndexFunc(candidates, func(one server) bool { return takes(one.service, to, protocol) })
	if i < 0 {
		return server{}, false
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

// Use is what conntrack holds for a backend of the state.
func (s *State) Use(u Usage, profile, service string, address lb.Endpoint) Use {
	if b, ok := s.backends[compile.BackendKey{Chain: compile.ChainOf(profile, service), Address: address}]; ok {
		return u[b.mark&compile.NumberMask].use()
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
			known[b.mark&compile.NumberMask] = true
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
	b := s.backends[compile.BackendKey{Chain: compile.ChainOf(profile, service), Address: address}]
	out := Stats{Connections: b.connections}
	if t := u[b.mark&compile.NumberMask]; t != nil {
		for _, n := range t.live {
			out.Live += n
		}
	}
	return out
}
