package doctor

// Paths: the ways that the traffic of a service takes over the host, one for
// each of its backends, and the questions to the kernel that they raise.

import (
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
)

// path is from the clients of a service to one of its backends.
type path struct {
	profile string
	service *lb.Service
	backend lb.Backend
	family  lb.Family
	// at is the address of the backend: of this host itself, that which packets of
	// clients get; not valid where there is none.
	at netip.Addr
	// listens are those of the backend's family.
	listens []lb.Listen
	// in are the links that clients come by, as far as can be told: those that
	// the service names (sure), else those that have its addresses.
	in   []string
	sure bool
	// clients are some that are allowed; none where all are.
	clients []netip.Addr
}

// paths are those of all services that have backends, but for those with mode: dsr, whose
// packets are seen before they take any way.
func paths(h *Host, profiles []*lb.Profile) []*path {
	var out []*path
	for p, s := range lb.Services(profiles) {
		if s.Mode.Direct() {
			continue
		}
		in, sure := entrances(h, s)
		for _, b := range s.Backends {
			f, at := lb.FamilyOf(b.Address.Addr), b.Address.Addr
			if b.Address.OfHost() {
				at = h.redirects(s, f, in)
			}
			out = append(out, &path{
				profile: p.Name, service: s, backend: b, family: f, at: at, listens: listensOf(s, f),
				in: in, sure: sure, clients: clientsOf(h, s, f),
			})
		}
	}
	return out
}

// fromNetwork reports whether clients on the network are balanced, fromHost
// whether only this host itself is.
func (p *path) fromNetwork() bool { return p.service.Role != lb.RoleClient }
func (p *path) fromHost() bool    { return p.service.Role == lb.RoleClient }

// title names the service, subject the backend too.
func (p *path) title() string { return p.profile + "/" + p.service.Name }

func (p *path) subject() string { return p.title() + " " + p.backend.Name }

// listensOf are the listens of a family; one on the host's own addresses is of
// both.
func listensOf(s *lb.Service, f lb.Family) []lb.Listen {
	var out []lb.Listen
	for _, l := range s.Listen {
		if !l.Prefix.IsValid() || lb.FamilyOf(l.Prefix.Addr()) == f {
			out = append(out, l)
		}
	}
	return out
}

// entrances are the links that the clients of a service come by.
func entrances(h *Host, s *lb.Service) (in []string, sure bool) {
	if s.Role == lb.RoleClient {
		return nil, false
	}
	if s.Interface != "" {
		for _, l := range h.Links {
			if matches(s.Interface, l.Name) {
				in = append(in, l.Name)
			}
		}
		return in, true
	}
	for _, l := range s.Listen {
		if !l.Prefix.IsValid() || !l.Prefix.IsSingleIP() {
			continue
		}
		if holder := h.holder(l.Prefix.Addr()); holder != nil && !holder.Loopback && !slices.Contains(in, holder.Name) {
			in = append(in, holder.Name)
		}
	}
	return in, false
}

// redirects is the address of this host that the kernel gives to what it redirects: the
// first of the link where it enters, or a loopback address for what this host sends. Of
// several links it is that of the first one. Not valid: that link has none.
func (h *Host) redirects(s *lb.Service, f lb.Family, in []string) netip.Addr {
	var out netip.Addr
	for _, l := range h.Links {
		if l.Loopback != (s.Role == lb.RoleClient) || len(in) > 0 && !slices.Contains(in, l.Name) {
			continue
		}
		for _, a := range l.Addrs {
			if lb.FamilyOf(a.Addr()) == f && !a.Addr().IsLinkLocalUnicast() && !out.IsValid() {
				out = a.Addr()
			}
		}
	}
	return out
}

// matches reports whether a link is the one, or one of those, that a service
// names.
func matches(pattern, link string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(link, prefix)
	}
	return pattern == link
}

// maxClients bounds the clients that are tried.
const maxClients = 16

// clientsOf are hosts in the prefixes that a service allows, one in each: the
// first that is not this one.
func clientsOf(h *Host, s *lb.Service, f lb.Family) []netip.Addr {
	var out []netip.Addr
	for _, p := range s.Allow {
		a := p.Addr()
		if lb.FamilyOf(a) != f || p.Bits() == 0 || len(out) == maxClients {
			continue
		}
		if !p.IsSingleIP() {
			a = a.Next()
		}
		for p.Contains(a) && h.holder(a) != nil {
			a = a.Next()
		}
		if p.Contains(a) && !slices.ContainsFunc(s.Deny, func(d netip.Prefix) bool { return d.Contains(a) }) {
			out = append(out, a)
		}
	}
	return out
}

// Questions are those that an examination of profiles needs answers to.
func Questions(links []Link, profiles []*lb.Profile) []Question {
	h := &Host{Links: links}
	seen := map[Question]bool{}
	var out []Question
	ask := func(q Question) {
		if q.To.IsValid() && !seen[q] {
			seen[q] = true
			out = append(out, q)
		}
	}
	ask(Question{To: distant[lb.IPv4]})
	ask(Question{To: distant[lb.IPv6]})
	for _, s := range lb.Services(profiles) {
		if !s.Mode.Direct() {
			continue
		}
		for i := range s.Backends {
			ask(Question{To: s.Backends[i].Address.Addr})
		}
		for _, l := range s.Listen {
			ask(Question{To: l.Prefix.Addr()})
		}
	}
	for _, p := range paths(h, profiles) {
		ask(Question{To: p.at})
		for _, l := range p.listens {
			if l.Prefix.IsValid() {
				ask(Question{To: l.Prefix.Addr()})
			}
		}
		for _, a := range p.backend.SNAT.Of(p.family) {
			ask(Question{To: a})
		}
		for _, q := range p.arrivals() {
			ask(q)
			ask(Question{To: q.From})
		}
		for _, l := range h.others(p.at) {
			ask(reply(p, l))
		}
	}
	return out
}

// arrivals are the packets of clients to the backend, as they come in.
func (p *path) arrivals() []Question {
	clients := p.clients
	if len(clients) == 0 {
		clients = []netip.Addr{distant[p.family]}
	}
	var out []Question
	for _, in := range p.in {
		for _, c := range clients {
			out = append(out, Question{To: p.at, From: c, In: in})
		}
	}
	return out
}

// reply is a packet of the backend that comes by a link.
func reply(p *path, link string) Question {
	to := distant[p.family]
	if len(p.clients) > 0 {
		to = p.clients[0]
	}
	return Question{To: to, From: p.at, In: link}
}

// others are the links in whose networks an address is.
func (h *Host) others(a netip.Addr) []string {
	var out []string
	for i := range h.Links {
		l := &h.Links[i]
		if l.Up && !l.Loopback && slices.ContainsFunc(l.Addrs, func(own Addr) bool { return own.Contains(a) && !own.IsSingleIP() }) {
			out = append(out, l.Name)
		}
	}
	return out
}

// way is the route to the backend: of what the clients send, where it is known
// how that comes, else of what the host sends itself.
func (e *exam) way(p *path) Route { return e.Routes[Question{To: p.at}] }

// remote reports whether the backend is on another host that there is a way
// to.
func (e *exam) remote(p *path) bool { return e.way(p).Way == Out }
