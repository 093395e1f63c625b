//go:build linux

package lab

// Rehearsals, with a balancer that is as it should be, and with ones that are
// not.

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// requireNFT is for tests whose balancer is the nft program.
func requireNFT(t testing.TB) {
	t.Helper()
	netlabtest.Packets(t)
	netlabtest.Needs(t, "nft")
}

func service(name string, listen []lb.Listen, backends ...lb.Backend) lb.Service {
	return lb.Service{Name: name, Listen: listen, Protocols: []lb.Protocol{lb.TCP}, Backends: backends}
}

func with(s lb.Service, change func(*lb.Service)) lb.Service {
	change(&s)
	return s
}

func snat(b lb.Backend, mode lb.SNATMode, pool ...string) lb.Backend {
	b.SNAT.Mode = mode
	for _, a := range pool {
		b.SNAT.Pool = append(b.SNAT.Pool, netip.MustParseAddr(a))
	}
	return b
}

var (
	vip = []lb.Listen{listenAt("203.0.113.10", 80)}
	web = service("web", vip, backendAt("10.0.0.11:8080", 1), backendAt("10.0.0.12:8080", 1), backendAt("10.0.0.13:8080", 1))
)

// cases are services that must be as due.
var cases = []lb.Service{
	web,
	with(service("weights", vip, backendAt("10.0.0.11:8080", 5), backendAt("10.0.0.12", 1), backendAt("10.0.0.13:8080", 0)), func(s *lb.Service) {
		s.Listen = []lb.Listen{{Prefix: vip[0].Prefix, Ports: []lb.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8010}}}}
	}),
	with(web, func(s *lb.Service) { s.Name, s.Protocols = "udp", []lb.Protocol{lb.UDP, lb.TCP} }),
	with(web, func(s *lb.Service) {
		s.Name, s.Backends = "priorities", slices.Clone(s.Backends)
		s.Backends[0].Priority, s.Backends[1].Priority, s.Backends[2].Priority = 1, 2, 1
	}),
	with(web, func(s *lb.Service) { s.Name, s.Scheduler = "random", lb.Random }),
	with(web, func(s *lb.Service) { s.Name, s.Scheduler = "least-connections", lb.LeastConnections }),
	with(web, func(s *lb.Service) {
		s.Name, s.Scheduler, s.HashBy = "hash", lb.Hash, []lb.HashField{lb.SourceAddress}
	}),
	with(web, func(s *lb.Service) {
		s.Name, s.Scheduler, s.HashBy = "hash-ports", lb.Hash, []lb.HashField{lb.SourcePort, lb.DestinationAddress}
	}),
	with(web, func(s *lb.Service) {
		s.Name, s.Scheduler, s.HashBy = "consistent", lb.Consistent, []lb.HashField{lb.SourceAddress}
	}),
	with(web, func(s *lb.Service) {
		s.Name, s.Affinity = "affinity", &lb.Affinity{Timeout: time.Minute, Bits: 24, Bits6: 64}
	}),
	service("both",
		[]lb.Listen{listenAt("203.0.113.10", 80), listenAt("2001:db8::10", 80)},
		backendAt("10.0.0.11:8080", 1), backendAt("[fd00::11]:8080", 2), backendAt("[fd00::12]:8080", 1)),
	service("snat", vip,
		snat(backendAt("10.0.0.11:80", 1), lb.SNATNone), snat(backendAt("10.0.0.12:80", 1), lb.SNATVIP),
		snat(backendAt("10.0.0.13:80", 1), lb.SNATPool, "192.0.2.1", "192.0.2.2"), backendAt("10.0.0.14:80", 1)),
	service("snat6", []lb.Listen{listenAt("2001:db8::10", 443)},
		snat(backendAt("[fd00::1]:80", 1), lb.SNATNone), snat(backendAt("[fd00::2]:80", 1), lb.SNATVIP),
		snat(backendAt("[fd00::3]:80", 1), lb.SNATPool, "2001:db8:5::1", "2001:db8:5::2"), backendAt("[fd00::4]:80", 1)),
	with(service("parked", vip, backendAt("10.0.0.11:80", 0)), func(s *lb.Service) { s.Protocols = []lb.Protocol{lb.TCP, lb.UDP} }),
	with(service("silent", vip), func(s *lb.Service) { s.OnEmpty = lb.Drop }),
	with(web, func(s *lb.Service) { s.Name, s.Interface = "interface", "wan*" }),
	with(web, func(s *lb.Service) { s.Name, s.Role = "client", lb.RoleClient }),
	with(service("server", nil, backendAt("203.0.113.10:8080", 1), backendAt("10.0.0.11:8080", 1)), func(s *lb.Service) {
		s.Role, s.Listen = lb.RoleServer, []lb.Listen{listenAt("203.0.113.10", 80), {Ports: []lb.PortRange{{First: 81, Last: 81}}}}
	}),
	with(web, func(s *lb.Service) {
		s.Name, s.Listen = "capture", []lb.Listen{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Ports: []lb.PortRange{{First: 53, Last: 53}}}}
	}),
	with(web, func(s *lb.Service) {
		s.Name, s.Listen = "every-port", []lb.Listen{{Prefix: vip[0].Prefix, Ports: []lb.PortRange{lb.AllPorts}}}
		s.Backends = []lb.Backend{backendAt("10.0.0.11", 2), backendAt("10.0.0.12", 1)}
	}),
	with(web, func(s *lb.Service) {
		s.Name = "allow"
		s.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		s.Deny = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}
	}),
	with(web, func(s *lb.Service) {
		s.Name, s.Limit = "limits", lb.Limit{ConnectionsPerSource: 5, NewPerSource: lb.Rate{Events: 20, Per: time.Second}, Burst: 20}
		s.Protocols = []lb.Protocol{lb.TCP, lb.UDP}
	}),
	with(service("max", vip, backendAt("10.0.0.11:8080", 2), backendAt("10.0.0.12:8080", 1)), func(s *lb.Service) {
		s.Backends[0].MaxConnections = 20
		s.Protocols = []lb.Protocol{lb.TCP, lb.UDP}
	}),
	with(web, func(s *lb.Service) {
		s.Name, s.Limit = "limit", lb.Limit{New: lb.Rate{Events: 20, Per: time.Second}}
	}),
}

func TestAsDue(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	for _, s := range cases {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			w := &witness{t: t}
			r, err := rehearsed(t.Context(), []*lb.Profile{{Name: "p", Services: []lb.Service{s}}}, w, Options{Connections: 240})
			netlabtest.Must(t, err)
			if !r.OK() {
				t.Errorf("problems: %s", strings.Join(r.AllProblems(), "\n"))
			}
		})
	}
}

// rehearsed is the report of a lab that is built and taken down.
func rehearsed(ctx context.Context, profiles []*lb.Profile, b Balancer, o Options) (*Report, error) {
	l, err := New(ctx, profiles, b, o)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.Rehearse(ctx)
}
