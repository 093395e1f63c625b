//go:build linux

package view

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"nlb/lb"
)

// A table as a person reads it: without what is not known, with a long list of
// destinations wrapped, and with colors on a terminal only.
func TestTable(t *testing.T) {
	vip := lb.SNAT{Mode: lb.SNATVIP}
	backend := func(name, address string, weight int) lb.Backend {
		e := netip.MustParseAddrPort(address)
		return lb.Backend{Name: name, Address: lb.Endpoint{Addr: e.Addr(), Port: e.Port()}, Weight: weight, SNAT: vip}
	}
	listen := func(prefix string, ports ...uint16) lb.Listen {
		l := lb.Listen{Prefix: netip.MustParsePrefix(prefix)}
		for _, port := range ports {
			l.Ports = append(l.Ports, lb.PortRange{First: port, Last: port})
		}
		return l
	}
	service := &lb.Service{
		Name:      "web",
		Listen:    []lb.Listen{listen("203.0.113.10/32", 80, 443), listen("203.0.113.11/32", 80), listen("2001:db8::1/128", 80)},
		Protocols: []lb.Protocol{lb.TCP}, Role: lb.RoleServer, SNAT: vip,
		Backends: []lb.Backend{
			backend("one", "10.0.0.11:8080", 1), backend("10.0.0.12:8080", "10.0.0.12:8080", 0), backend("[fd00::1]:80", "[fd00::1]:80", 1),
		},
	}
	text := func(width int, color bool) string {
		var b bytes.Buffer
		c := NewConsole("nlb", nil, &b, &b)
		c.Width, c.Out.Color = width, color
		s := snapshotService{profile: "shop", service: service}
		for i := range 2 {
			b := &service.Backends[i]
			s.Backends = append(s.Backends, snapshotBackend{Backend: b, values: b.Values(service), Share: float64(b.Weight)})
		}
		s.Backends[0].Connections = 12345678
		c.PrintSnapshot(&Snapshot{Profiles: []snapshotProfile{{"shop", []snapshotService{s}}}})
		return b.String()
	}
	want := strings.Join([]string{
		"shop/web  tcp  round-robin  snat vip  role server",
		"  203.0.113.10:80,443 203.0.113.11:80",
		"  [2001:db8::1]:80",
		"  backend         address         weight   share  connections",
		"  one             10.0.0.11:8080       1  100.0%     12345678",
		"  10.0.0.12:8080                       0       -            0",
		"",
	}, "\n")
	if got := text(50, false); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := text(110, false); !strings.HasPrefix(got, "shop/web  203.0.113.10:80,443 203.0.113.11:80 [2001:db8::1]:80  tcp") {
		t.Errorf("got\n%s", got)
	}
	if got := text(50, true); !strings.HasPrefix(got, "\x1b[1mshop/web\x1b[0m  tcp") {
		t.Errorf("got\n%q", got)
	}
}
