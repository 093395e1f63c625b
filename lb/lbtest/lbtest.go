// Package lbtest has profiles for tests: fixed ones, large ones and random ones,
// and how to compare them.
package lbtest

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nlb/lb"
)

// Same compares what profiles say, not where it stands.
var Same = cmp.Options{
	cmpopts.IgnoreTypes(lb.Pos{}),
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, time.Time{}),
	cmpopts.EquateEmpty(),
}

// Fleet is a profile with many services of three backends each.
func Fleet(services int) *lb.Profile {
	p := &lb.Profile{Name: "fleet"}
	listen, backend := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("172.16.0.1")
	for i := range services {
		s := lb.Service{
			Name:      fmt.Sprintf("service-%05d", i),
			Listen:    []lb.Listen{{Prefix: netip.PrefixFrom(listen, 32), Ports: []lb.PortRange{{First: 80, Last: 80}}}},
			Protocols: []lb.Protocol{lb.TCP},
		}
		listen = listen.Next()
		for range 3 {
			e := lb.Endpoint{Addr: backend, Port: 8080}
			s.Backends = append(s.Backends, lb.Backend{Name: e.String(), Address: e, Weight: 1, Priority: 1})
			backend = backend.Next()
		}
		p.Services = append(p.Services, s)
	}
	return p
}
