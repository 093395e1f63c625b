//go:build linux

package lab

// Foresight: what will not work, or may surprise, by reading the profiles
// alone.

import (
	"fmt"
	"net/netip"
	"slices"

	"nlb/lb"
)

// foresee returns the problems of a site's profiles, and adds to its notes.
func foresee(s *site) []string {
	problems := []string{}
	for p, v := range lb.Services(s.profiles) {
		name := p.Name + "/" + v.Name
		for _, b := range v.Backends {
			for _, problem := range slices.Concat(s.reflected(v, b), unreachable(b), insiders(v, b)) {
				problems = append(problems, fmt.Sprintf("%s: backend %s %s", name, b.Name, problem))
			}
		}
		for _, n := range surprises(name, v) {
			s.note("%s", n)
		}
	}
	return problems
}

// reflected finds a backend that is what some service listens on. A connection
// is translated once: it ends on the balancer itself, which is only meant where
// the service is one of its own.
func (s *site) reflected(v *lb.Service, b lb.Backend) []string {
	if v.Role == lb.RoleServer {
		return nil
	}
	for p, w := range lb.Services(s.profiles) {
		for _, l := range w.Listen {
			if !takes(w, l, v, b) {
				continue
			}
			who := p.Name + "/" + w.Name
			if w == v {
				who = "the service itself"
			}
			return []string{fmt.Sprintf("is what %s listens on: a connection is not balanced twice, so it ends on the balancer", who)}
		}
	}
	return nil
}

// takes reports whether a listen of w is the very address of a backend of v.
// A prefix that happens to hold the backend captures its clients' traffic, and
// not what nlb has translated.
func takes(w *lb.Service, l lb.Listen, v *lb.Service, b lb.Backend) bool {
	if w.Role == lb.RoleClient || !l.Prefix.IsValid() || !l.Prefix.IsSingleIP() || l.Prefix.Addr() != b.Address.Addr {
		return false
	}
	common := slices.ContainsFunc(w.Protocols, func(p lb.Protocol) bool { return slices.Contains(v.Protocols, p) })
	if b.Address.Port == 0 {
		return common && w == v // with the same port, by what port 0 means
	}
	return common && slices.ContainsFunc(l.Ports, func(r lb.PortRange) bool { return r.First <= b.Address.Port && b.Address.Port <= r.Last })
}

// unreachable finds an address that packets of the network cannot be sent to.
func unreachable(b lb.Backend) []string {
	switch a := b.Address.Addr; {
	case a.IsLinkLocalUnicast():
		return []string{"is a link-local address: it is not reached through a router"}
	case a.IsMulticast():
		return []string{"is a multicast address"}
	}
	return nil
}

// insiders finds a backend that answers its clients directly, past the
// balancer.
func insiders(v *lb.Service, b lb.Backend) []string {
	if b.SNAT.Mode != lb.SNATNone || v.Role == lb.RoleClient {
		return nil
	}
	for _, p := range v.Allow {
		if near := neighbourhood(b.Address.Addr); near.Bits() <= p.Bits() && near.Contains(p.Addr()) {
			return []string{fmt.Sprintf("is in one network with clients %s, and snat is none: it answers them directly, past the balancer, and they "+
				"do not know the answer; use snat masquerade", p)}
		}
	}
	return nil
}

// neighbourhood is the network that an address usually is in.
func neighbourhood(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// surprises are worth a note.
func surprises(name string, v *lb.Service) []string {
	var out []string
	for _, f := range v.Families() {
		if !slices.ContainsFunc(v.Of(f), func(b lb.Backend) bool { return b.Weight > 0 }) {
			what := map[lb.OnEmpty]string{lb.Reject: "refused", lb.Drop: "dropped"}[v.OnEmpty]
			out = append(out, fmt.Sprintf("%s: no %s backend can take a connection: all are %s", name, f, what))
		}
	}
	for _, l := range v.Listen {
		if v.Role == lb.RoleClient || !l.Prefix.IsValid() || !l.Prefix.IsSingleIP() {
			continue
		}
		near := neighbourhood(l.Prefix.Addr())
		if slices.ContainsFunc(v.Backends, func(b lb.Backend) bool {
			return b.SNAT.Mode == lb.SNATNone && near.Contains(b.Address.Addr) && b.Address.Addr != l.Prefix.Addr()
		}) {
			out = append(out, fmt.Sprintf("%s: snat is none, and backends are in the network of %s, %s: clients that are in it too get their answers "+
				"past the balancer, and drop them", name, l.Prefix.Addr(), near))
		}
	}
	return out
}
