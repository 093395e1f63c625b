//go:build linux

package lab

// The site: the world of some profiles on paper. What hosts there are, which
// addresses they have, and which trials are made.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// site is what to build.
type site struct {
	ground   *Ground
	profiles []*lb.Profile
	families []lb.Family
	links    []link // from the balancer to clients; the first is for all that name none
	servers  link   // from the balancer to the backends
	owned    []netip.Addr
	remote   []netip.Addr // the backends' addresses, except those that are the balancer's
	direct   []netip.Addr // those that have a host of their own, for mode: dsr
	standins []standin
	trials   []*trial
	limits   []*probe
	clients  map[netip.Addr]place
	notes    []string
}

// link is a cable of the balancer to another host.
type link struct {
	name      string
	near, far map[lb.Family]netip.Prefix
	clients   []netip.Addr // at the far end, beside its own
}

// standin is a server to start, for one backend at all ports that it is used
// at.
type standin struct {
	at    lb.Endpoint
	local bool // on the balancer itself
	ports []traffic.Port
	vips  []netip.Addr // it listens there, too, on its own host
	// tunnel: packets come to it by one.
	tunnel bool
}

// draft plans a world for profiles. Without SCTP in the kernel there are no
// trials of it.
func draft(profiles []*lb.Profile, connections int, sctp bool) *site {
	s := &site{ground: Survey(profiles), profiles: profiles, clients: map[netip.Addr]place{}}
	all := services(profiles)
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		if slices.ContainsFunc(all, func(v *lb.Service) bool { return slices.Contains(v.Families(), f) }) {
			s.families = append(s.families, f)
		}
	}
	s.lay(all)
	for p, v := range lb.Services(profiles) {
		s.enroll(p, v, connections, sctp)
	}
	s.staff()
	return s
}

// lay plans the balancer's links.
func (s *site) lay(all []*lb.Service) {
	names := linkNames(all)
	inner := "backends"
	for slices.Contains(names, inner) {
		inner += "0"
	}
	s.servers = s.link(inner, 0)
	for i, n := range names {
		s.links = append(s.links, s.link(n, i+1))
	}
}

func (s *site) link(name string, n int) link {
	l := link{name: name, near: map[lb.Family]netip.Prefix{}, far: map[lb.Family]netip.Prefix{}}
	for _, f := range s.families {
		l.near[f], l.far[f] = s.ground.Transit(f, n)
		s.ground.links = append(s.ground.links, l.near[f].Masked())
	}
	return l
}

// mostNeighbours is how many backends of a service with mode: dsr or tunnel get a host.
const mostNeighbours = 64

// enroll plans the trials of a service.
func (s *site) enroll(p *lb.Profile, v *lb.Service, connections int, sctp bool) {
	if n := len(v.Backends); v.Mode.Direct() && n > mostNeighbours {
		s.note("%s/%s: it is not rehearsed, since with mode: %s each of its %d backends needs a host", p.Name, v.Name, v.Mode, n)
		return
	}
	if v.Balance == lb.Datagrams {
		s.note("%s/%s: it is not rehearsed, since nobody answers with balance: datagrams", p.Name, v.Name)
		return
	}
	at := max(0, slices.IndexFunc(s.links, func(l link) bool { return v.Interface == "" || matches(v.Interface, l.name) }))
	for _, f := range v.Families() {
		targets := s.targets(v, f, at)
		for _, proto := range v.Protocols {
			if proto == lb.SCTP && !sctp {
				s.note("%s/%s: SCTP is not rehearsed, since this kernel lacks it", p.Name, v.Name)
				continue
			}
			for _, host := range []bool{false, true} {
				switch {
				case v.Role == lb.RoleClient && !host, v.Role == lb.RoleServer && host:
					continue
				case host && v.Role == lb.RoleProxy && (v.Mode.Direct() || v.Interface != "" || v.Allow != nil || v.Deny != nil || len(v.Of(f)) == 0):
					continue // not this host's traffic, or nothing new to see
				}
				t := &trial{profile: p, service: v, family: f, protocol: proto, fromHost: host, link: at, targets: targets}
				if s.cast(t, t.size(connections)) {
					s.trials = append(s.trials, t)
				}
			}
		}
	}
	first := slices.IndexFunc(s.trials, func(t *trial) bool { return t.service == v && t.usable() && t.calls > 0 })
	if first >= 0 {
		s.limits = append(s.limits, s.probes(s.trials[first])...)
	}
}

// note notes something once.
func (s *site) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(s.notes, n) {
		s.notes = append(s.notes, n)
	}
}

// targets are addresses and ports that a service listens on; the balancer gets
// those that it has to own.
func (s *site) targets(v *lb.Service, f lb.Family, at int) []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range v.Listen {
		var addrs []netip.Addr
		switch {
		case !l.Prefix.IsValid() || v.Role == lb.RoleServer && l.Prefix.Contains(s.links[at].near[f].Addr()):
			addrs = []netip.Addr{s.links[at].near[f].Addr()}
		case lb.FamilyOf(l.Prefix.Addr()) != f:
			continue
		case l.Prefix.IsSingleIP():
			addrs = []netip.Addr{l.Prefix.Addr()}
		default:
			addrs = s.within(l.Prefix)
		}
		if v.Role == lb.RoleServer || v.Role == lb.RoleProxy && l.Prefix.IsSingleIP() && !v.Mode.Direct() {
			s.own(addrs...)
		}
		for _, a := range addrs {
			for _, p := range ports(l) {
				out = append(out, netip.AddrPortFrom(a, p))
			}
		}
	}
	return some(out, mostTargets)
}

// within are two addresses of a prefix that no narrower listen takes.
func (s *site) within(p netip.Prefix) []netip.Addr {
	var narrower []netip.Prefix
	for _, v := range lb.Services(s.profiles) {
		for _, l := range v.Listen {
			if l.Prefix.IsValid() && l.Prefix.Bits() > p.Bits() && p.Overlaps(l.Prefix) {
				narrower = append(narrower, l.Prefix)
			}
		}
	}
	var inside []netip.Prefix
	for _, example := range []string{"203.0.113.0/24", "2001:db8::/64", "2001:db8:ffff::/64"} { // RFC 5737, RFC 3849
		if e := netip.MustParsePrefix(example); p.Bits() < e.Bits() && p.Overlaps(e) {
			inside = append(inside, e)
		}
	}
	return s.ground.pick(lb.FamilyOf(p.Addr()), 2, p.Addr().BitLen(), append(inside, p), narrower, s.ground.free)
}

func (s *site) own(addrs ...netip.Addr) {
	for _, a := range addrs {
		if !slices.Contains(s.owned, a) && !s.near(a) {
			s.owned = append(s.owned, a)
			s.ground.used[a] = true
		}
	}
}

// near reports whether an address is one of the balancer's on its links.
func (s *site) near(a netip.Addr) bool {
	return slices.ContainsFunc(append(s.links, s.servers), func(l link) bool { return l.near[lb.FamilyOf(a)].Addr() == a })
}

// local reports whether an address is the balancer's own.
func (s *site) local(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || slices.Contains(s.owned, a) || s.near(a)
}

// cast gives a trial its clients; false: nobody may connect.
func (s *site) cast(t *trial, n int) bool {
	v, f := t.service, t.family
	if len(t.targets) == 0 {
		s.note("%s/%s: no free address was found in what it listens on", t.profile.Name, v.Name)
		return false
	}
	bits := cmp.Or(t.sticky(), t.targets[0].Addr().BitLen())
	keeps := t.sticky() > 0 || t.perClient() > 0 || v.Scheduler.Hashes()
	if t.fromHost && !keeps && v.Allow == nil && v.Deny == nil {
		return true // the kernel's choice of source
	}
	if t.fromHost && v.Role == lb.RoleProxy {
		n = min(n, 8)
	}
	// Clients of which one state is kept are the trial's own; others serve
	// many trials.
	own := t.sticky() > 0 || t.perClient() > 0
	t.clients = s.recruit(f, n, bits, v.Allow, v.Deny, own, t)
	if v.Allow != nil || v.Deny != nil {
		t.strangers = s.strangers(t)
	}
	if len(t.clients) == 0 {
		s.note("%s/%s: no %s address was found for clients that allow and deny let in", t.profile.Name, v.Name, f)
		t.calls = 0
		return len(t.strangers) > 0
	}
	if t.sticky() > 0 && t.usable() {
		t.calls = min(t.calls, 4*len(t.clients))
	}
	if q := t.perClient(); q > 0 {
		t.calls = min(t.calls, q*len(t.clients))
	}
	return true
}

// recruit finds clients and puts them where the trial begins: sources of its
// own, or those that other trials from there have too.
func (s *site) recruit(f lb.Family, n, bits int, inside, outside []netip.Prefix, own bool, t *trial) []netip.Addr {
	if inside != nil && !slices.ContainsFunc(inside, func(p netip.Prefix) bool { return lb.FamilyOf(p.Addr()) == f }) {
		return nil
	}
	const host = -1
	here := place{t.link, !own}
	if t.fromHost {
		here.link = host
	}
	network := t.limitBits()
	apart := own && network > 0
	if apart {
		bits = min(bits, network)
	}
	addrs := s.ground.pick(f, n, bits, inside, outside, func(a netip.Addr) bool {
		p, ok := s.clients[a]
		if apart && anyIn(s.clients, a, network) {
			return false
		}
		return !ok && s.ground.free(a) || ok && !own && p == here
	})
	for _, a := range addrs {
		if _, ok := s.clients[a]; ok {
			continue
		}
		s.clients[a] = here
		if t.fromHost {
			s.own(a)
		} else {
			s.links[t.link].clients = append(s.links[t.link].clients, a)
		}
	}
	return addrs
}

// place is where a client is, and whether several trials use it.
type place struct {
	link   int
	shared bool
}

// strangers are clients that deny names, or that allow does not.
func (s *site) strangers(t *trial) []netip.Addr {
	v, f := t.service, t.family
	full := t.targets[0].Addr().BitLen()
	var out []netip.Addr
	for _, p := range v.Deny {
		out = append(out, s.recruit(f, 1, full, []netip.Prefix{p}, nil, false, t)...)
	}
	if v.Allow != nil {
		out = append(out, s.recruit(f, 2, full, nil, slices.Concat(v.Allow, v.Deny), false, t)...)
	}
	return some(out, outsiders)
}

// staff plans the stand-ins: one for each backend, at the ports at which the
// trials reach it.
func (s *site) staff() {
	index := map[lb.Endpoint]int{}
	taken := map[traffic.Port]bool{}
	for _, t := range s.trials {
		for _, b := range t.backends() {
			if a := b.Address.Addr; a.Is6() && a.IsLinkLocalUnicast() {
				continue // nobody can be there without naming a link, which a profile cannot
			}
			i, ok := index[b.Address]
			if !ok {
				i = len(s.standins)
				index[b.Address] = i
				local := s.local(b.Address.Addr)
				s.standins = append(s.standins, standin{at: b.Address, local: local})
				switch a := b.Address.Addr; {
				case local || slices.Contains(s.remote, a) || slices.Contains(s.direct, a):
				case s.isDirect(a):
					s.direct = append(s.direct, a)
				default:
					s.remote = append(s.remote, a)
				}
			}
			for _, to := range t.targets {
				s.standins[i].tunnel = s.standins[i].tunnel || t.service.Mode == lb.Tunnel
				if vips := &s.standins[i].vips; t.service.Mode.Direct() && !slices.Contains(*vips, to.Addr()) {
					*vips = append(*vips, to.Addr())
				}
				port := b.Address.Port
				if port == 0 {
					port = to.Port()
				}
				p := traffic.Port{Network: t.protocol.String(), At: netip.AddrPortFrom(s.server(t, b), port)}
				if !taken[p] {
					taken[p] = true
					s.standins[i].ports = append(s.standins[i].ports, p)
				}
			}
		}
	}
}

// server is the address at which connections of a trial meet a backend. Of the balancer
// itself, it is that of the link where they enter, or the loopback address.
func (s *site) server(t *trial, b lb.Backend) netip.Addr {
	switch {
	case !b.Address.OfHost():
		return b.Address.Addr
	case !t.fromHost:
		return s.links[t.link].near[t.family].Addr()
	case t.family == lb.IPv6:
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// isAt reports whether the server of a backend is at a port.
func (s *site) isAt(b lb.Backend, p traffic.Port) bool {
	if b.Address.OfHost() {
		i := slices.IndexFunc(s.standins, func(one standin) bool { return one.at == b.Address })
		return i >= 0 && slices.Contains(s.standins[i].ports, p)
	}
	return p.At.Addr() == b.Address.Addr && (b.Address.Port == 0 || b.Address.Port == p.At.Port())
}

// isDirect reports whether an address is a backend's of a service with mode: dsr or
// tunnel.
func (s *site) isDirect(a netip.Addr) bool {
	return slices.ContainsFunc(services(s.profiles), func(v *lb.Service) bool {
		return v.Mode.Direct() && slices.ContainsFunc(v.Backends, func(b lb.Backend) bool { return b.Address.Addr == a })
	})
}
