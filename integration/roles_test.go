package integration

// Where traffic comes from: roles, interfaces, prefixes, own addresses.

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// TestRoles: each role, asked by a client, by the balancer itself and by a
// backend.
func TestRoles(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	_, err := traffic.Serve(b.Balancer, "itself",
		traffic.Port{Network: "tcp", At: netip.MustParseAddrPort("10.1.0.1:8080")}, traffic.Port{Network: "udp", At: netip.MustParseAddrPort("10.1.0.1:8080")},
		traffic.Port{Network: "tcp", At: netip.MustParseAddrPort("[fd01::1]:8080")}, traffic.Port{Network: "udp", At: netip.MustParseAddrPort("[fd01::1]:8080")})
	b.Check(err)
	// Nothing but the default route covers what the client role takes.
	b.Via(b.Balancer, "10.1.0.2", "fd01::2")
	b.Apply(`profile: roles
defaults: {protocol: [tcp, udp]}
services:
  - {name: proxy, listen: ["203.0.113.1:80", "[2001:db8::1]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: client, role: client, listen: ["198.51.100.1:80", "[2001:db8:9::1]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: server, role: server, listen: ["10.1.0.1:81", "[fd01::1]:81"], backends: ["10.1.0.1:8080", "[fd01::1]:8080"]}
  - {name: not-own, role: server, listen: ["203.0.113.9:81", "[2001:db8::9]:81"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
`)
	tests := []struct {
		to                      string
		client, itself, backend bool
		answers                 string
	}{
		{"203.0.113.1:80", true, true, true, "10.2.0.11"},
		{"[2001:db8::1]:80", true, true, true, "fd02::11"},
		{"198.51.100.1:80", false, true, false, "10.2.0.11"},
		{"[2001:db8:9::1]:80", false, true, false, "fd02::11"},
		{"10.1.0.1:81", true, false, true, "itself"},
		{"[fd01::1]:81", true, false, true, "itself"},
		{"203.0.113.9:81", false, false, false, ""},
		{"[2001:db8::9]:81", false, false, false, ""},
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, tt := range tests {
			for _, who := range []struct {
				host *netlab.Host
				due  bool
			}{{b.Client, tt.client}, {b.Balancer, tt.itself}, {b.Server, tt.backend}} {
				want := ""
				if who.due {
					want = tt.answers
				}
				if got := b.Reaches(who.host, network, tt.to, want != ""); got != want {
					t.Errorf("%s from %s to %s: %q answers, want %q", network, who.host.Name(), tt.to, got, want)
				}
			}
		}
	}
}

// TestInterfaces: only what enters there, by name and by prefix of a name.
func TestInterfaces(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11")
	other := b.Host("other")
	b.Check(b.World.Link(other, "eth0", b.Balancer, "wg7"))
	b.Address(other, "eth0", "10.6.0.2/24", "fd06::2/64")
	b.Address(b.Balancer, "wg7", "10.6.0.1/24", "fd06::1/64")
	b.Via(other, "10.6.0.1", "fd06::1")
	b.Via(b.Balancer, "10.1.0.2", "fd01::2")
	b.Apply(`profile: interfaces
defaults: {protocol: [tcp, udp]}
services:
  - {name: named, interface: eth0, listen: ["203.0.113.1:80", "[2001:db8::1]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: prefix, interface: "wg*", listen: ["203.0.113.2:80", "203.0.113.3:80-90"], backends: ["10.2.0.11:8080"]}
  - {name: own, interface: "wg*", listen: ":99", backends: ["10.2.0.11:8080"]}
  - {name: any, listen: "203.0.113.1:80", backends: ["10.2.0.12:8080"]}
`)
	for _, network := range []string{"tcp", "udp"} {
		for _, tt := range []struct {
			from *netlab.Host
			to   string
			want string
		}{
			{b.Client, "203.0.113.1:80", "10.2.0.11"},
			{b.Client, "[2001:db8::1]:80", "fd02::11"},
			{other, "203.0.113.1:80", "10.2.0.12"},
			{other, "[2001:db8::1]:80", ""},
			{b.Balancer, "203.0.113.1:80", "10.2.0.12"},
			{b.Client, "203.0.113.2:80", ""},
			{other, "203.0.113.2:80", "10.2.0.11"},
			{other, "203.0.113.3:85", "10.2.0.11"},
			{other, "203.0.113.3:91", ""},
			{other, "10.6.0.1:99", "10.2.0.11"},
			{other, "10.1.0.1:99", "10.2.0.11"},
			{b.Client, "10.1.0.1:99", ""},
		} {
			if got := b.Reaches(tt.from, network, tt.to, tt.want != ""); got != tt.want {
				t.Errorf("%s from %s to %s: %q answers, want %q", network, tt.from.Name(), tt.to, got, tt.want)
			}
		}
	}
}

// TestPrefixesAndOwnAddresses: a single address before a prefix, a longer one
// before a shorter, and any before this host's own; and a wildcard leaves what the balancer itself sends
// to its backends alone.
func TestPrefixesAndOwnAddresses(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080, 80, 81}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12")
	b.Apply(`profile: wide
defaults: {protocol: [tcp, udp]}
services:
  - {name: all, listen: ["0.0.0.0/0:80", "[::/0]:80"], backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: inner, listen: ["203.0.113.0/26:80", "[2001:db8::/120]:80"], backends: ["10.2.0.13:8080", "[fd02::12]:8080"]}
  - {name: one, listen: ["203.0.113.7:80", "[2001:db8::7]:80"], backends: ["10.2.0.12:8080", "[fd02::12]:8080"]}
  - {name: some, listen: "203.0.113.128/25:81", backends: ["10.2.0.12", "10.2.0.13"]}
  - {name: own, listen: ":8080", backends: ["10.2.0.13:8080"]}
`)
	for _, network := range []string{"tcp", "udp"} {
		for _, tt := range []struct {
			from *netlab.Host
			to   string
			want string
		}{
			{b.Client, "203.0.113.77:80", "10.2.0.11"},
			{b.Client, "[2001:db8::777]:80", "fd02::11"},
			{b.Client, "203.0.113.1:80", "10.2.0.13"},
			{b.Client, "[2001:db8::1]:80", "fd02::12"},
			{b.Client, "203.0.113.7:80", "10.2.0.12"},
			{b.Client, "[2001:db8::7]:80", "fd02::12"},
			{b.Client, "203.0.113.127:81", ""},
			{b.Client, "203.0.113.200:81", "10.2.0.12"},
			{b.Client, "203.0.113.255:81", "10.2.0.13"},
			{b.Client, "10.1.0.1:8080", "10.2.0.13"},
			{b.Client, "10.2.0.1:8080", "10.2.0.13"},
			{b.Client, "10.2.0.12:8080", "10.2.0.12"},
			{b.Balancer, "10.1.0.1:8080", "10.2.0.13"},
			// The backend of the wildcard, asked by the balancer: itself. Another
			// server at that port is in the prefix.
			{b.Balancer, "10.2.0.11:80", "10.2.0.11"},
			{b.Balancer, "[fd02::11]:80", "fd02::11"},
			{b.Balancer, "10.2.0.13:80", "10.2.0.11"},
		} {
			if got := b.Reaches(tt.from, network, tt.to, tt.want != ""); got != tt.want {
				t.Errorf("%s from %s to %s: %q answers, want %q", network, tt.from.Name(), tt.to, got, tt.want)
			}
		}
	}
}

// TestAllow: who may connect; the others are refused at once, and counted.
func TestAllow(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.Apply(`profile: guarded
defaults: {protocol: [tcp, udp]}
services:
  - name: deny
    listen: ["203.0.113.1:80", "[2001:db8::1]:80"]
    deny: [10.1.0.0/29, "fd01::/125"]
    backends: ["10.2.0.11:8080", "[fd02::11]:8080"]
  - name: allow
    listen: ["203.0.113.2:80", "[2001:db8::2]:80"]
    allow: [10.1.0.0/24, "fd01::/64"]
    deny: [10.1.0.2, "fd01::2"]
    backends: ["10.2.0.11:8080", "[fd02::11]:8080"]
`)
	clients := []string{"10.1.0.9", "fd01::9", "10.7.0.1", "fd07::1"}
	b.Address(b.Client, "eth0", "10.1.0.9/24", "fd01::9/64")
	b.Address(b.Client, "lo", "10.7.0.1/32", "fd07::1/128")
	b.Check(b.Balancer.AddRoute(netip.MustParsePrefix("10.7.0.1/32"), netip.MustParseAddr("10.1.0.2")))
	b.Check(b.Balancer.AddRoute(netip.MustParsePrefix("fd07::1/128"), netip.MustParseAddr("fd01::2")))
	due := map[string][2]bool{ // at deny, at allow
		"10.1.0.2": {false, false}, "fd01::2": {false, false},
		"10.1.0.9": {true, true}, "fd01::9": {true, true},
		"10.7.0.1": {true, false}, "fd07::1": {true, false},
	}
	refused := [2]uint64{}
	for _, network := range []string{"tcp", "udp"} {
		for _, client := range append(clients, "10.1.0.2", "fd01::2") {
			source := netip.MustParseAddr(client)
			for i := range 2 {
				to := fmt.Sprintf("203.0.113.%d:80", i+1)
				if source.Is6() {
					to = fmt.Sprintf("[2001:db8::%d]:80", i+1)
				}
				c := traffic.Client{Host: b.Client, Source: source}
				_, err := c.Exchange(t.Context(), network, netip.MustParseAddrPort(to))
				switch {
				case due[client][i] && err != nil:
					t.Errorf("%s %s to %s: %v", network, client, to, err)
				case !due[client][i] && !errors.Is(err, traffic.ErrRefused):
					t.Errorf("%s %s to %s: %v, want it refused", network, client, to, err)
				case !due[client][i]:
					refused[i]++
				}
			}
		}
	}
	s := b.Load()
	for i, name := range []string{"deny", "allow"} {
		if got := s.Refused("guarded", name); got != refused[i] {
			t.Errorf("%s counts %d refused, want %d", name, got, refused[i])
		}
	}
}

// TestThisHost: a backend that is this host itself, whatever its addresses are, beside
// others, for what the network sends and what the balancer sends; its live connections
// are known, and it drains.
func TestThisHost(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	ports := []traffic.Port{{Network: "tcp", At: netip.MustParseAddrPort("[::]:8080")}}
	// A datagram's answer comes from where it was asked only where that is bound.
	for _, at := range []string{"10.1.0.1:8080", "127.0.0.1:8080", "[fd01::1]:8080", "[::1]:8080"} {
		ports = append(ports, traffic.Port{Network: "udp", At: netip.MustParseAddrPort(at)})
	}
	_, err := traffic.Serve(b.Balancer, "itself", ports...)
	b.Check(err)
	b.Via(b.Balancer, "10.1.0.2", "fd01::2")
	profile := func(weight int) string {
		return fmt.Sprintf(`profile: host
defaults: {protocol: [tcp, udp]}
services:
  - {name: far, listen: ["203.0.113.1:80", "[2001:db8::1]:80"], backends: [":8080"]}
  - {name: own, listen: ":80", snat: vip, backends: [":8080"]}
  - {name: sent, role: client, listen: ["198.51.100.1:80", "[2001:db8:9::1]:80"], backends: [":8080"]}
  - name: mixed
    listen: ["203.0.113.2:80", "[2001:db8::2]:80"]
    backends: [{address: ":8080", weight: %d}, "10.2.0.11:8080", "[fd02::11]:8080"]
`, weight)
	}
	b.Apply(profile(3))
	for _, network := range []string{"tcp", "udp"} {
		for _, tt := range []struct {
			to               string
			client, balancer string
		}{
			{"203.0.113.1:80", "itself", "itself"},
			{"[2001:db8::1]:80", "itself", "itself"},
			{"10.1.0.1:80", "itself", "itself"},
			{"[fd01::1]:80", "itself", "itself"},
			{"10.2.0.1:80", "itself", "itself"},
			{"198.51.100.1:80", "", "itself"},
			{"[2001:db8:9::1]:80", "", "itself"},
		} {
			for host, want := range map[*netlab.Host]string{b.Client: tt.client, b.Balancer: tt.balancer} {
				if got := b.Reaches(host, network, tt.to, want != ""); got != want {
					t.Errorf("%s from %s to %s: %q answers, want %q", network, host.Name(), tt.to, got, want)
				}
			}
		}
		if seen := b.Ask(network, "203.0.113.1:80").Seen.Addr().Unmap().String(); seen != "10.1.0.2" {
			t.Errorf("%s: this host saw %s, want the client", network, seen)
		}
		b.WantShares(b.many(network, "203.0.113.2:80", 40), map[string]int{"itself": 30, "10.2.0.11": 10})
		b.WantShares(b.many(network, "[2001:db8::2]:80", 40), map[string]int{"itself": 30, "fd02::11": 10})
	}
	s := b.Load()
	var usage nft.Usage
	b.Kernel(b.Balancer, func(c *wire.Conn) (err error) { usage, err = nft.ReadUsage(c, s); return err })
	live := s.Stats("host", "mixed", lb.HostEndpoint(lb.IPv4, 8080), usage)
	if live.Connections != 60 || live.Live == 0 {
		t.Errorf("mixed has %+v on this host, want 60 connections and some live", live)
	}
	b.Apply(profile(0))
	b.WantShares(b.many("tcp", "203.0.113.2:80", 10), map[string]int{"10.2.0.11": 10})
	b.undrifted("in the end")
}
