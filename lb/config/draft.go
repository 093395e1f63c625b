package config

// A service while it is read, and how it is made whole: what it has from
// defaults and from its name, what is missing, and what does not agree.

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
)

// draft is a service while it is read.
type draft struct {
	lb.Service
	// listens says where the listens stand.
	listens []*node
	// members become Service.Backends; nil without the key backends.
	members []backendDraft
	// at says where keys stand that must agree with others; nil where a key is
	// missing, or was refused.
	at struct {
		name, role, iface, hashBy, hashSeed, snat, allow, deny *node
		health, failOpen, minUp, onDown, slowStart             *node
		mode, remember, onEmpty                                *node
		offload, devices, timeouts, helper, balance, unserved  *node
		scheduler, affinity, retry, syn, limit, randomPorts    *node
	}
	// checks says where the checks of health stand.
	checks []*node
	there  given
	// What was refused, so that nothing is said about what depends on it.
	badListen, badBackends, badScheduler, badSNAT, badHealth bool
}

// backendDraft is a backend while it is read.
type backendDraft struct {
	lb.Backend
	// at is where it stands; the others are where these keys do, nil where they
	// do not.
	at, name, weight, snat, log, priority, checkAt *node
	bad                                            bool // something was refused
}

// finish makes the service whole: what is missing, what contradicts, what
// depends on other keys. n is the service's mapping. base is what defaults
// says: a key that stands in the same place in both was not given by the
// service, and gives way where it does not fit.
func (s *draft) finish(d *decoder, n *node, base *draft) {
	serviceKeys.need(d, n, s.there, "name", lb.NameForm)
	serviceKeys.need(d, n, s.there, "listen", listenForms)
	if s.members == nil {
		serviceKeys.need(d, n, s.there, "backends", "a list of "+endpointForms)
	}
	s.badListen = s.badListen || s.Listen == nil
	s.badBackends = s.badBackends || s.members == nil
	s.finishMode(base)
	s.finishHash(d, base)
	s.spreadHost(d)
	s.finishBackends()
	if !s.badListen && !s.badBackends && !s.badSNAT && s.at.snat == base.at.snat {
		s.trimPool()
	}
	for i := range s.members {
		if b := &s.Backends[i]; b.Address.OfHost() {
			b.SNAT = lb.SNAT{Mode: lb.SNATNone}
		} else if s.members[i].snat == nil {
			b.SNAT = s.SNAT
		}
	}
	for c := range s.Contradictions {
		if s.refused(c.Keys) {
			continue
		}
		if at := s.blamed(&c, base); at != nil {
			d.refuse(at, &c.Problem)
		} else {
			s.giveWay(c.Keys[0])
		}
	}
	if s.SNAT.Mode == lb.SNATPool && len(s.SNAT.Pool) == 0 {
		s.SNAT = lb.SNAT{} // there is nobody who would use it
	}
}

// refused reports whether one of these keys was refused: nothing is said about
// what depends on it.
func (s *draft) refused(keys []string) bool {
	return slices.ContainsFunc(keys, func(key string) bool {
		return key == "listen" && s.badListen || key == "backends" && s.badBackends || key == "snat" && s.badSNAT ||
			key == "health" && s.badHealth || key == "scheduler" && s.badScheduler
	})
}

// blamed is where the key stands that is to be blamed for a contradiction. It is
// nil where a default gives way, and where no key stands.
func (s *draft) blamed(c *lb.Contradiction, base *draft) *node {
	switch c.Keys[0] {
	case "interface":
		if s.at.iface == base.at.iface && s.at.role != base.at.role {
			return nil
		}
		return s.at.iface
	case "deny":
		if s.at.deny == base.at.deny {
			return s.at.allow
		}
		return s.at.deny
	case "listen":
		return s.listens[c.Item]
	case "backends":
		return s.members[c.Item].at
	case "health":
		return s.checks[c.Item]
	case "priority":
		return s.members[c.Item].priority
	case "check-at":
		return s.members[c.Item].checkAt
	case "fleet":
		return cmp.Or(s.place(c.Keys[1]), s.at.name)
	case "mode", "timeouts", "balance", "snat": // none of them gives way
		return s.place(c.Keys[0])
	case "syn-protection":
		if c.Keys[1] != "protocol" {
			return s.at.syn
		}
	}
	if at := s.place(c.Keys[0]); at != base.place(c.Keys[0]) {
		return at
	}
	return nil
}

// place is where a key stands that contradictions blame.
func (s *draft) place(word string) *node {
	at := &s.at
	return map[string]*node{
		"role": at.role, "mode": at.mode, "remember": at.remember, "scheduler": at.scheduler, "affinity": at.affinity, "snat": at.snat,
		"limit": at.limit, "fail-open": at.failOpen, "min-up": at.minUp, "on-down": at.onDown, "slow-start": at.slowStart, "retry": at.retry,
		"timeouts": at.timeouts, "syn-protection": at.syn, "offload": at.offload, "devices": at.devices, "helper": at.helper,
		"balance": at.balance, "unserved": at.unserved, "random-ports": at.randomPorts,
	}[word]
}

// giveWay takes a default away that does not fit the service.
func (s *draft) giveWay(word string) {
	switch word {
	case "interface":
		s.Interface = ""
	case "fail-open":
		s.FailOpen = 0
	case "min-up":
		s.MinUp = lb.MinUp{}
	case "on-down":
		s.OnDown = lb.KeepConnections
	case "slow-start":
		s.SlowStart = 0
	case "offload":
		s.Offload = lb.OffloadNone
	case "devices":
		s.Devices = nil
	case "helper":
		s.Helper = lb.HelperNone
	case "syn-protection":
		s.SYNProtection = nil
	case "limit":
		s.Limit.HalfOpen = 0
	case "random-ports":
		s.RandomPorts = false
	case "unserved":
		s.Unserved = lb.UnservedPass
	case "remember":
		s.Remember = 0
	}
}

// finishMode gives the service what its mode has where it does not say itself.
func (s *draft) finishMode(base *draft) {
	said, onEmpty := s.SNAT, s.OnEmpty
	s.Preset()
	if s.SNAT.Mode != lb.SNATNone || s.at.snat != base.at.snat {
		s.SNAT = said
	}
	if s.Mode == lb.NAT || s.at.onEmpty != base.at.onEmpty {
		s.OnEmpty = onEmpty
	}
}

func (s *draft) finishHash(d *decoder, base *draft) {
	if s.Scheduler.Hashes() {
		if s.HashBy == nil {
			s.HashBy = s.Mode.HashBy()
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

// unhashed notes a key that only a scheduler that hashes looks at.
func unhashed(d *decoder, at *node, word string) {
	if at != nil {
		d.refuse(at, lb.NoMeaning(word))
	}
}

// trimPool leaves of a default pool the addresses of the service's families.
func (s *draft) trimPool() {
	served := s.Families()
	other := func(a netip.Addr) bool { return !slices.Contains(served, lb.FamilyOf(a)) }
	if slices.ContainsFunc(s.SNAT.Pool, other) {
		s.SNAT.Pool = slices.DeleteFunc(slices.Clone(s.SNAT.Pool), other)
	}
}

// spreadHost makes a backend of each family of a port of this host. Their names differ.
func (s *draft) spreadHost(d *decoder) {
	anyFamily := func(b backendDraft) bool { return b.ofHost() && !b.Address.OfHost() }
	if s.badListen || !slices.ContainsFunc(s.members, anyFamily) {
		return
	}
	var out []backendDraft
	families := s.HostFamilies()
	for _, b := range s.members {
		if !anyFamily(b) {
			out = append(out, b)
			continue
		}
		name := b.Name
		for _, f := range families {
			b.Address = lb.HostEndpoint(f, b.Address.Port)
			switch {
			case b.name == nil:
				b.Name = b.Address.String()
			case len(families) > 1:
				b.Name = name[:min(len(name), lb.MaxName-len("-ipv4"))] + "-" + strings.ToLower(f.String())
			}
			out = append(out, b)
		}
	}
	s.members = out
	s.once(d)
}

// finishBackends gives the backends the log that they have from the service.
func (s *draft) finishBackends() {
	s.Log = s.prefixed(s.Log)
	s.Backends = make([]lb.Backend, len(s.members))
	for i := range s.members {
		m := &s.members[i]
		b := m.Backend
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
