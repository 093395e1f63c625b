package config

// What the keys of a service have to do with each other.

import (
	"fmt"
	"net/netip"
	"slices"

	"nlb/lb"
)

// finish makes the service whole: what is missing, what contradicts, what
// depends on other keys. n is the service's mapping. base is what defaults
// says: a key that stands in the same place in both was not given by the
// service, and gives way where it does not fit.
func (s *draft) finish(d *decoder, n *node, base *draft) {
	serviceKeys.need(d, n, s.there, "name", nameValues)
	serviceKeys.need(d, n, s.there, "listen", listenForms)
	if s.members == nil {
		serviceKeys.need(d, n, s.there, "backends", "a list of "+endpointForms)
	}
	s.badListen = s.badListen || s.Listen == nil
	s.badBackends = s.badBackends || s.members == nil
	s.finishHash(d, base)
	s.finishInterface(d, base)
	s.finishClients(d, base)
	if !s.badListen && !s.badBackends {
		s.finishFamilies(d, base)
		s.finishLoops(d)
	}
	if !s.badBackends {
		s.finishSlots(d)
	}
	s.finishBackends()
}

func (s *draft) finishHash(d *decoder, base *draft) {
	if s.Scheduler == lb.Hash {
		if s.HashBy == nil {
			s.HashBy = []lb.HashField{lb.SourceAddress}
		}
		if s.at.hashSeed == nil {
			s.HashSeed = lb.DefaultSeed(s.Name)
		}
		return
	}
	s.HashBy, s.HashSeed = nil, 0
	if s.badScheduler {
		return
	}
	if s.at.hashBy != base.at.hashBy {
		unhashed(d, s.at.hashBy, "hash-by")
	}
	if s.at.hashSeed != base.at.hashSeed {
		unhashed(d, s.at.hashSeed, "hash-seed")
	}
}

// unhashed notes a key that only the scheduler hash looks at.
func unhashed(d *decoder, at *node, name string) {
	if at != nil {
		d.fail(at, name+" has no meaning without scheduler: hash", "scheduler: hash beside it", "")
	}
}

func (s *draft) finishInterface(d *decoder, base *draft) {
	if s.Role != lb.RoleClient || s.at.iface == nil {
		return
	}
	if s.at.iface != base.at.iface || s.at.role == base.at.role {
		d.fail(s.at.iface, "interface has no meaning with role: client", "one of them", "what this host itself sends enters nowhere")
	}
	s.Interface = ""
}

func (s *draft) finishClients(d *decoder, base *draft) {
	at := s.at.deny
	if at == base.at.deny {
		at = s.at.allow
	}
	if at == nil {
		return
	}
	for _, p := range s.Allow {
		if _, found := slices.BinarySearchFunc(s.Deny, p, netip.Prefix.Compare); found {
			d.fail(at, fmt.Sprintf("%s is in both allow and deny", p), "it in one of them", "")
		}
	}
}

// families says which IP versions something has.
type families struct{ v4, v6 bool }

func (f families) has(a netip.Addr) bool { return a.Is4() && f.v4 || a.Is6() && f.v6 }

func (f families) with(a netip.Addr) families { return families{f.v4 || a.Is4(), f.v6 || a.Is6()} }

// finishFamilies checks that listens and backends are of the same families,
// and that there are addresses of them for SNAT.
func (s *draft) finishFamilies(d *decoder, base *draft) {
	var listens, members families
	own := false
	for _, l := range s.Listen {
		if l.Prefix.IsValid() {
			listens = listens.with(l.Prefix.Addr())
		} else {
			own = true
		}
	}
	for i := range s.members {
		m := &s.members[i]
		members = members.with(m.Address.Addr)
		if !own && !listens.has(m.Address.Addr) {
			d.fail(m.at, fmt.Sprintf("backend %s is %s, and no listen is", m.Address, lb.FamilyOf(m.Address.Addr)),
				"a listen of each family that has backends", "")
		}
	}
	for i, l := range s.Listen {
		if l.Prefix.IsValid() && len(s.members) > 0 && !members.has(l.Prefix.Addr()) {
			d.fail(s.listens[i], fmt.Sprintf("listen %s is %s, and no backend is", l, lb.FamilyOf(l.Prefix.Addr())),
				"a backend of each family that is listened on", "")
		}
	}
	if s.SNAT.Mode != lb.SNATPool || s.badSNAT {
		return
	}
	if own {
		none := len(s.members) == 0
		listens = families{listens.v4 || members.v4 || none, listens.v6 || members.v6 || none}
	}
	s.finishPool(d, listens, s.at.snat == base.at.snat)
}

// finishPool checks that the addresses for SNAT are of the service's families.
// Of a default pool it takes those that are.
func (s *draft) finishPool(d *decoder, served families, isDefault bool) {
	var pool families
	for _, a := range s.SNAT.Pool {
		pool = pool.with(a)
		if !served.has(a) && !isDefault {
			d.fail(s.at.snat, fmt.Sprintf("snat has %s, and the service has no %s", a, lb.FamilyOf(a)),
				"addresses of the families that are listened on", "")
			return
		}
	}
	if isDefault && (pool.v4 && !served.v4 || pool.v6 && !served.v6) {
		s.SNAT.Pool = slices.DeleteFunc(slices.Clone(s.SNAT.Pool), func(a netip.Addr) bool { return !served.has(a) })
	}
	for i := range s.members {
		if m := &s.members[i]; m.snat == nil && !pool.has(m.Address.Addr) {
			d.fail(s.at.snat, fmt.Sprintf("snat has no %s address, and there are %[1]s backends", lb.FamilyOf(m.Address.Addr)),
				"an address of each family that has backends", "")
			return
		}
	}
	if len(s.SNAT.Pool) == 0 {
		s.SNAT = lb.SNAT{} // there is nobody who would use it
	}
}

// finishLoops refuses backends that are what the service listens on: a
// connection would be sent to where it came from.
func (s *draft) finishLoops(d *decoder) {
	own := make(map[lb.Endpoint]bool, len(s.Listen))
	for _, l := range s.Listen {
		if l.Prefix.IsSingleIP() {
			own[lb.Endpoint{Addr: l.Prefix.Addr()}] = true
			if r := l.Ports[0]; len(l.Ports) == 1 && r.First == r.Last {
				own[lb.Endpoint{Addr: l.Prefix.Addr(), Port: r.First}] = true
			}
		}
	}
	for i := range s.members {
		if m := &s.members[i]; own[m.Address] {
			d.fail(m.at, fmt.Sprintf("backend %s is what the service listens on", m.Address), "another address or port", "")
		}
	}
}

// finishSlots checks that the scheduling cycle of each family is not too long.
func (s *draft) finishSlots(d *decoder) {
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		var weights []int
		first := -1
		for i := range s.members {
			if m := &s.members[i]; lb.FamilyOf(m.Address.Addr) == f {
				weights = append(weights, m.Weight)
				if first < 0 {
					first = i
				}
			}
		}
		if n := lb.Cycle(weights); n > lb.MaxSlots {
			d.fail(s.members[first].at, fmt.Sprintf("the weights of the %s backends make %d slots", f, n),
				fmt.Sprintf("at most %d", lb.MaxSlots), "slots are the sum of the weights over their greatest common divisor: round the weights")
		}
	}
}

// finishBackends gives the backends what they have from the service.
func (s *draft) finishBackends() {
	s.Log = s.prefixed(s.Log)
	s.Backends = make([]lb.Backend, len(s.members))
	for i := range s.members {
		m := &s.members[i]
		b := m.Backend
		if m.snat == nil {
			b.SNAT = s.SNAT
		}
		if m.log == nil {
			b.Log = s.Log
		} else {
			b.Log = s.prefixed(b.Log)
		}
		s.Backends[i] = b
	}
}

// prefixed is a log with a prefix: the service's name where it has none.
func (s *draft) prefixed(l *lb.Log) *lb.Log {
	if l == nil || l.Prefix != "" {
		return l
	}
	named := *l
	named.Prefix = s.Name + " "
	return &named
}
