package lbtest

// Random profiles that are much like each other.

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"nlb/lb"
)

// Alike is a profile of few small services that others of its kind share, changed:
// what one apply after another meets. No two conflict where their names, p0 to
// p9, differ. Some are not valid: a listen may have no backend of its family, and
// pools have addresses of both.
func Alike(r *rand.Rand, name string) *lb.Profile {
	p := &lb.Profile{Name: name}
	for i := range r.IntN(4) {
		s := lb.Service{Name: fmt.Sprintf("s%d", i), Protocols: []lb.Protocol{lb.TCP}}
		if r.IntN(3) == 0 {
			s.Protocols = append(s.Protocols, lb.UDP)
		}
		// Every service has addresses of its own, so that no two conflict.
		octet := int(name[1]-'0')*10 + i
		port := uint16(80 + r.IntN(3))
		ports := []lb.PortRange{{First: port, Last: port}}
		if r.IntN(4) == 0 {
			ports = []lb.PortRange{{First: port, Last: port + 10}}
		}
		s.Scheduler = lb.Scheduler(r.IntN(len(lb.Words[lb.Scheduler]())))
		if s.Scheduler.Hashes() {
			s.HashBy, s.HashSeed = []lb.HashField{lb.SourceAddress}, uint32(r.IntN(3))
		}
		s.OnEmpty = lb.OnEmpty(r.IntN(2))
		for _, v6 := range []bool{false, true} {
			if v6 && r.IntN(2) == 0 {
				continue
			}
			vip, server := "203.0.113.%d", "10.0.0.%d"
			if v6 {
				vip, server = "2001:db8::%d", "fd00::%d"
			}
			a := netip.MustParseAddr(fmt.Sprintf(vip, octet))
			s.Listen = append(s.Listen, lb.Listen{Prefix: netip.PrefixFrom(a, a.BitLen()), Ports: ports})
			snat := alikeSNAT(r)
			for b := range 5 {
				if r.IntN(2) == 0 {
					continue
				}
				e := lb.Endpoint{Addr: netip.MustParseAddr(fmt.Sprintf(server, b+1)), Port: 8080}
				if r.IntN(5) == 0 {
					e.Port = 0
				}
				s.Backends = append(s.Backends, lb.Backend{Name: e.String(), Address: e, Weight: r.IntN(5), Priority: 1, SNAT: snat})
			}
		}
		p.Services = append(p.Services, s)
	}
	return p
}

func alikeSNAT(r *rand.Rand) lb.SNAT {
	s := lb.SNAT{Mode: lb.SNATMode(r.IntN(4))}
	if s.Mode == lb.SNATPool {
		for i := range 1 + r.IntN(3) {
			s.Pool = append(s.Pool, netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1)), netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", i+1)))
		}
	}
	return s
}
