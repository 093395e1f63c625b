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
	backend := lb.Backend{Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.11")}, Weight: 1}
	service := &lb.Service{Backends: []lb.Backend{backend}}
	text := func(width int, color bool) string {
		var b bytes.Buffer
		c := NewConsole("nlb", nil, &b, &b)
		c.Width, c.Out.Color = width, color
		s := snapshotService{
			Name: "web", Listen: []string{"203.0.113.10:80,443", "203.0.113.11:80", "[2001:db8::1]:80"}, Protocol: []string{"tcp"},
			Role: "server", SNAT: "vip", profile: "shop", service: service,
			Backends: []snapshotBackend{
				{Name: "one", Address: "10.0.0.11:8080", Weight: 1, Share: 1, Connections: 12345678},
				{Name: "10.0.0.12:8080", Address: "10.0.0.12:8080"},
			},
		}
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
