package flows

// Earlier: connections from before a service came. Conntrack translates a connection
// by its first packet only, so a UDP flow that began while nobody balanced its
// destination, as after somebody has flushed all rules, reaches no backend for as long
// as its client goes on to send.

import (
	"net/netip"
	"slices"
	"sync"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
)

// Came are the services of profiles that are new, or listen elsewhere than they did.
// had are those before, by their chains.
func Came(had map[string]*lb.Service, profiles []*lb.Profile) (out []*lb.Service) {
	for p, s := range lb.Services(profiles) {
		switch before := had[compile.ChainOf(p.Name, s.Name)]; {
		case s.Mode.Direct(), s.Balance == lb.Datagrams, len(s.Backends) == 0: // not translated
		case before == nil, !within(s, before):
			out = append(out, s)
		}
	}
	return out
}

// within reports whether a service listens nowhere but where it did before. What was read
// in part does not say where that was: then it stays there.
func within(s, before *lb.Service) bool {
	return len(before.Listen) == 0 || !slices.ContainsFunc(s.Listen, func(l lb.Listen) bool {
		return !slices.ContainsFunc(before.Listen, func(had lb.Listen) bool { return had.Prefix == l.Prefix && slices.Equal(had.Ports, l.Ports) })
	})
}

// destinations are where services listen: single addresses and ports by themselves, so
// that many services take no longer than one.
type destinations struct {
	single map[netip.AddrPort][]*lb.Service
	others []*lb.Service
}

func destinationsOf(services []*lb.Service) destinations {
	out := destinations{single: map[netip.AddrPort][]*lb.Service{}}
	for _, s := range services {
		for _, l := range s.Listen {
			if !l.Prefix.IsSingleIP() || len(l.Ports) != 1 || l.Ports[0].First != l.Ports[0].Last {
				out.others = append(out.others, s)
				continue
			}
			at := netip.AddrPortFrom(l.Prefix.Addr(), l.Ports[0].First)
			out.single[at] = append(out.single[at], s)
		}
	}
	return out
}

func (d destinations) has(to netip.AddrPort, protocol lb.Protocol) bool {
	is := func(s *lb.Service) bool { return takes(s, to, protocol) }
	return slices.ContainsFunc(d.single[to], is) || slices.ContainsFunc(d.others, is)
}

// forgetEarlier makes conntrack forget connections to services that came, where nobody
// has answered them and nobody has translated them. Their next packet is balanced.
// What it cannot forget is as it was before.
func (c *Cleanup) forgetEarlier() {
	came := sync.OnceValue(func() destinations { return destinationsOf(c.Came) })
	earlier := func(f *conntrack.Flow) bool {
		_, to := f.Original()
		from, _ := f.Reply()
		return from == to && came().has(to, lb.Protocol(f.Protocol))
	}
	_ = c.each(conntrack.Filter{Unanswered: true}, earlier, func(f *conntrack.Flow) error { return conntrack.Delete(c.Conn, f) })
}
