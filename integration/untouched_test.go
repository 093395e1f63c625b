package integration

// What a listen would match and nlb leaves alone: connections that were open
// before the first apply, and this host's loopback addresses.

import (
	"net/netip"
	"strings"
	"testing"

	"nlb/integration/netlab/traffic"
)

// local serves an address of the balancer itself. Its answers say `local`.
func (b *bed) local(networks []string, to ...string) {
	b.T.Helper()
	var at []traffic.Port
	for _, a := range to {
		for _, network := range networks {
			at = append(at, traffic.Port{Network: network, At: netip.MustParseAddrPort(a)})
		}
	}
	_, err := traffic.Serve(b.Balancer, "local", at...)
	b.Check(err)
}

// TestOpenConnectionsStay: a first apply takes the new connections to an address
// that a local daemon serves, and none of those that are open.
func TestOpenConnectionsStay(t *testing.T) {
	t.Parallel()
	const profile = `profile: shop
services:
  - {name: web, listen: ["10.1.0.1:80", "[fd01::1]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: out, listen: ["203.0.113.9:80", "[2001:db8::9]:80"], backends: ["10.2.0.12:8080", "[fd02::12]:8080"]}
`
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11", "10.2.0.12", "fd02::12")
	b.local([]string{"tcp"}, "10.1.0.1:80", "[fd01::1]:80")
	// What this host has open itself stays as well.
	b.Address(b.Server, "eth0", "203.0.113.9/24", "2001:db8::9/64")
	b.Via(b.Balancer, "10.2.0.11", "fd02::11")
	b.Serve([]int{80}, "203.0.113.9", "2001:db8::9")
	var open []*traffic.Conn
	for range 5 {
		for _, to := range []string{"10.1.0.1:80", "[fd01::1]:80"} {
			c, err := b.dial("tcp", to)
			b.Check(err)
			open = append(open, c)
		}
		for _, to := range []string{"203.0.113.9:80", "[2001:db8::9]:80"} {
			c, err := traffic.Client{Host: b.Balancer}.Dial(t.Context(), "tcp", netip.MustParseAddrPort(to))
			b.Check(err)
			open = append(open, c)
		}
	}
	b.Apply(profile)
	for _, c := range open {
		was := c.Reply.Backend
		if r, err := c.Again(); err != nil || r.Backend != was {
			t.Errorf("a connection to %s that was open before the first apply: %q answers, %v", was, r.Backend, err)
		}
		c.Close()
	}
	for to, want := range map[string]string{"10.1.0.1:80": "10.2.0.11", "[fd01::1]:80": "fd02::11"} {
		if got := b.Ask("tcp", to).Backend; got != want {
			t.Errorf("a new connection to %s: %q answers, want %q", to, got, want)
		}
		if got := b.Reaches(b.Balancer, "tcp", to, true); got != want {
			t.Errorf("a new connection of the balancer to %s: %q answers, want %q", to, got, want)
		}
	}
}

// TestECN: a SYN that offers ECN has ECE and CWR set, and is balanced.
func TestECN(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.Apply(`profile: shop
services:
  - {name: web, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
`)
	b.Check(b.Client.SetSysctl("net.ipv4.tcp_ecn", "1"))
	b.Witness(b.Balancer, `table inet seen {
	counter offers { }
	chain pre {
		type filter hook prerouting priority -300
		tcp flags & (syn | ecn | cwr) == (syn | ecn | cwr) counter name offers
	}
}`, "nft", "-f", "-")
	for to, want := range map[string]string{"203.0.113.10:80": "10.2.0.11", "[2001:db8::10]:80": "fd02::11"} {
		if got := b.Ask("tcp", to).Backend; got != want {
			t.Errorf("%s: %q answers, want %q", to, got, want)
		}
	}
	if got := b.Witness(b.Balancer, "", "nft", "list", "counter", "inet", "seen", "offers"); !strings.Contains(got, "packets 2 ") {
		t.Errorf("the client did not offer ECN:\n%s", got)
	}
}

// TestLoopbackStays: what this host sends to a loopback address is not taken by
// a listen for all of this host's addresses or for any address, but by one that
// names it.
func TestLoopbackStays(t *testing.T) {
	t.Parallel()
	const backends = `, protocol: [tcp, udp], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}` + "\n"
	loopback := []string{"127.0.0.1:53", "127.0.0.53:53", "[::1]:53"}
	for _, tt := range []struct {
		name, service, taken, balanced string
	}{
		{"own addresses", `{name: dns, listen: ":53"`, "10.1.0.1:53", ""},
		{"any address", `{name: dns, listen: ["0.0.0.0/0:*", "[::/0]:50-60"]`, "10.1.0.1:53", ""},
		{"role client", `{name: dns, role: client, listen: ["0.0.0.0/0:53", "[::/0]:53"]`, "", ""},
		{"named", `{name: dns, listen: [":53", "127.0.0.53:53", "[::1]:53"]`, "10.1.0.1:53", "127.0.0.53:53 [::1]:53"},
		{"a prefix is named", `{name: dns, listen: ["0.0.0.0/0:53", "127.0.0.0/16:53", "[::/0]:53"]`, "10.1.0.1:53", "127.0.0.1:53 127.0.0.53:53"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
			b.local([]string{"tcp", "udp"}, loopback...)
			b.Apply("profile: own\nservices:\n  - " + tt.service + backends)
			for _, network := range []string{"tcp", "udp"} {
				for _, to := range loopback {
					want := "local"
					if strings.Contains(tt.balanced, to) {
						want = "" // 127.0.0.1 reaches no other machine
					}
					if got := b.Reaches(b.Balancer, network, to, want != ""); got != want {
						t.Errorf("%s to %s: %q answers, want %q", network, to, got, want)
					}
				}
				if tt.taken != "" {
					if got := b.Ask(network, tt.taken).Backend; got != "10.2.0.11" {
						t.Errorf("%s to %s: %q answers", network, tt.taken, got)
					}
				}
			}
		})
	}
}
