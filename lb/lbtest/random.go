package lbtest

// Random profiles. The same source gives the same ones.

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"nlb/lb"
)

// Profile is a valid profile with a bit of everything.
func Profile(r *rand.Rand) *lb.Profile {
	const nameRunes = "abcXYZ019-_."
	name := func() string {
		b := make([]byte, 1+r.IntN(5))
		for i := range b {
			b[i] = nameRunes[r.IntN(len(nameRunes))]
		}
		return string(b)
	}
	p := &lb.Profile{Name: name(), Sysctl: lb.SysctlPolicy(r.IntN(2))}
	if r.IntN(3) == 0 {
		a := lb.AnnounceDefault
		a.Interface = "lo"
		if p.Announce = &a; r.IntN(2) == 0 {
			a.Delay, a.Drain, a.Track = 0, time.Second, []string{"eth0", "eth1"}[:1+r.IntN(2)]
		}
	}
	used, fleet := map[string]bool{}, []lb.Fleet{0, 0, 0, lb.FleetPair, lb.FleetAnycast, lb.FleetMesh}[r.IntN(6)]
	for range r.IntN(5) {
		s := Service(r)
		if s.Name = name(); used[s.Name] {
			continue
		}
		if s.Fleet = fleet; fleet != lb.FleetNone && s.Validate() != nil {
			continue
		}
		used[s.Name] = true
		if s.Scheduler.Hashes() && r.IntN(2) == 0 {
			s.HashSeed = lb.DefaultSeed(s.Name)
		}
		if s.Log != nil && r.IntN(2) == 0 {
			s.Log.Prefix = s.Name + " "
		}
		p.Services = append(p.Services, s)
		p.GuardAnnounced()
		if lb.Conflicts([]*lb.Profile{p}) != nil || announced(p) {
			p.Services = p.Services[:len(p.Services)-1]
		}
	}
	return p
}

// announced reports whether a profile announces what it cannot.
func announced(p *lb.Profile) bool {
	_, bad := p.AnnounceProblem()
	return bad != nil
}

// Service is a valid service without a name, with a bit of everything.
func Service(r *rand.Rand) lb.Service {
	s := balanced(r)
	health(r, &s)
	return s
}

// balanced is a service that nobody checks.
func balanced(r *rand.Rand) lb.Service {
	some := func() bool { return r.IntN(3) == 0 }
	addr := func(f lb.Family) netip.Addr {
		if f == lb.IPv4 {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 15: byte(r.IntN(256))})
	}
	prefix := func(f lb.Family) netip.Prefix {
		a := addr(f)
		p, _ := a.Prefix(a.BitLen() - r.IntN(2)*r.IntN(a.BitLen()))
		return p
	}
	rate := func() lb.Rate {
		return lb.Rate{Events: 1 + r.Uint64N(lb.MaxRate), Per: lb.Units[r.IntN(len(lb.Units))].Duration}
	}
	s := lb.Service{Protocols: []lb.Protocol{lb.TCP}}
	families := [][]lb.Family{{lb.IPv4}, {lb.IPv6}, {lb.IPv4, lb.IPv6}}[r.IntN(3)]
	for _, f := range families {
		l := lb.Listen{Prefix: prefix(f), Ports: []lb.PortRange{lb.AllPorts}}
		if r.IntN(4) > 0 {
			l.Ports = nil
			for port := 1 + r.IntN(20000); port < 65000 && len(l.Ports) < 3; port += 2 + r.IntN(20000) {
				l.Ports = append(l.Ports, lb.PortRange{First: uint16(port), Last: uint16(min(65535, port+r.IntN(2)*r.IntN(1000)))})
				port = int(l.Ports[len(l.Ports)-1].Last)
			}
		}
		s.Listen = append(s.Listen, l)
	}
	if some() {
		s.Listen = append(s.Listen, lb.Listen{Ports: []lb.PortRange{{First: 80, Last: 80}}})
	}
	if some() {
		s.Protocols = [][]lb.Protocol{{lb.UDP}, {lb.TCP, lb.UDP}, {lb.UDP, lb.SCTP}, {lb.TCP, lb.UDP, lb.SCTP}}[r.IntN(4)]
	}
	s.Role = lb.Role(r.IntN(3))
	if some() && s.Role != lb.RoleClient {
		s.Interface = []string{"eth0", "eth*", "br-lan.7", "e"}[r.IntN(4)]
	}
	if s.Scheduler = lb.Scheduler(r.IntN(len(lb.Words[lb.Scheduler]()))); s.Scheduler.Hashes() {
		s.HashSeed = r.Uint32()
		for f := lb.SourceAddress; f <= lb.ByProtocol; f++ {
			if some() || f == lb.ByProtocol && s.HashBy == nil {
				s.HashBy = append(s.HashBy, f)
			}
		}
	}
	if some() {
		s.Affinity = &lb.Affinity{Timeout: time.Duration(1+r.IntN(int(lb.MaxTimeout/time.Second))) * time.Second, Bits: 1 + r.IntN(32), Bits6: 1 + r.IntN(128)}
		if some() {
			s.Affinity.Timeout, s.Affinity.Bits, s.Affinity.Bits6 = 10*time.Minute, 32, 128
		}
		if some() {
			s.Affinity.Group = []string{"a", "9.b"}[r.IntN(2)]
		}
	}
	snat := func(families []lb.Family) lb.SNAT {
		out := lb.SNAT{Mode: lb.SNATMode(r.IntN(4))}
		out.Auto = out.Mode == lb.Masquerade && r.IntN(2) == 0
		if out.Mode == lb.SNATPool {
			for _, f := range families {
				a := addr(f)
				out.Pool = append(out.Pool, a, a.Next())
			}
		}
		return out
	}
	s.SNAT = snat(families)
	for range r.IntN(4) {
		s.Allow = append(s.Allow, prefix(families[0]))
		s.Deny = append(s.Deny, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(r.IntN(3))}), 16))
	}
	slices.SortFunc(s.Allow, netip.Prefix.Compare)
	slices.SortFunc(s.Deny, netip.Prefix.Compare)
	s.Allow, s.Deny = slices.Compact(s.Allow), slices.Compact(s.Deny)
	if some() {
		s.Limit = lb.Limit{ConnectionsPerSource: 1 + r.Uint32N(1<<31), New: rate()}
		if some() {
			s.Limit.NewPerSource = rate()
			s.Limit.Burst = uint32(s.Limit.NewPerSource.Events)
			if some() {
				s.Limit.Burst = 1 + r.Uint32N(1<<31)
			}
		}
		if some() {
			s.Limit.Bits, s.Limit.Bits6 = r.IntN(32), r.IntN(128)
		}
		if s.Role != lb.RoleClient && slices.Contains(s.Protocols, lb.TCP) {
			s.Limit.HalfOpen = r.Uint32N(lb.MaxHalfOpen + 1)
		}
	}
	log := func() *lb.Log {
		l := &lb.Log{Prefix: []string{"x", "a: ", "#", "'", " y ", "null", "[a]"}[r.IntN(7)], Level: lb.LogLevel(r.IntN(8))}
		if some() {
			l.Rate = rate()
		}
		return l
	}
	if some() {
		s.Log = log()
	}
	s.OnEmpty, s.OnRefuse = lb.OnEmpty(r.IntN(2)), lb.OnEmpty(r.IntN(2))
	if some() {
		return s
	}
	for _, f := range families {
		a := netip.MustParseAddr(map[lb.Family]string{lb.IPv4: "192.0.2.1", lb.IPv6: "2001:db8::"}[f])
		for range 1 + r.IntN(3) {
			b := lb.Backend{Address: lb.Endpoint{Addr: a, Port: uint16(r.IntN(2) * r.IntN(65536))}, Weight: 1, Priority: 1, SNAT: s.SNAT, Log: s.Log}
			b.Name = b.Address.String()
			if some() {
				b.Name = fmt.Sprintf("b%d.%d", f, len(s.Backends))
			}
			if some() {
				b.Weight = r.IntN(lb.MaxWeight + 1)
			}
			if some() {
				b.MaxConnections = r.Uint32()
			}
			if some() {
				b.SNAT = snat([]lb.Family{f})
			}
			if some() {
				b.Log = [](*lb.Log){nil, log()}[r.IntN(2)]
			}
			if usual := b.Name == b.Address.String(); r.IntN(8) == 0 { // this host itself
				b.Address, b.SNAT = lb.HostEndpoint(f, uint16(8000+len(s.Backends))), lb.SNAT{Mode: lb.SNATNone}
				if usual {
					b.Name = b.Address.String()
				}
			}
			s.Backends = append(s.Backends, b)
			a = a.Next()
		}
	}
	return s
}

// Named is a profile in which some backends are names, each once in its service,
// and nothing else is changed. Services of a group have the same ones, so they are left
// alone.
func Named(r *rand.Rand, p *lb.Profile) *lb.Profile {
	hosts := []lb.Host{
		{Name: "web"}, {Name: "web.example."}, {Name: "a-1_b.example.com"}, {Name: "x.example", SRV: true}, {Name: "_http._tcp.web.example", SRV: true},
	}
	for i := range p.Services {
		s := &p.Services[i]
		if s.Affinity != nil && s.Affinity.Group != "" {
			continue
		}
		s.Backends = slices.Clone(s.Backends)
		for j, k := range r.Perm(len(hosts))[:min(len(hosts), len(s.Backends))] {
			b := &s.Backends[j]
			if r.IntN(3) > 0 {
				continue
			}
			usual := b.Name == b.Where()
			b.Host, b.Address.Addr = hosts[k], netip.Addr{}
			if b.Host.SRV {
				b.Address.Port, b.Weight, b.Priority = 0, 1, min(b.Priority, 1)
			}
			if usual {
				b.Name = b.Where()
			}
		}
	}
	return p
}
