package integration

// What reaches whom: families, protocols, ports, and the source address that
// the backend sees.

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/traffic"
)

// TestSourceSeenByBackend: every snat mode, for both families and protocols.
func TestSourceSeenByBackend(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.Address(b.Balancer, "lo", "192.0.2.1/32", "192.0.2.2/32", "2001:db8:2::1/128", "2001:db8:2::2/128")
	tests := []struct{ snat, v4, v6 string }{
		{"masquerade", "10.2.0.1", "fd02::1"},
		{"none", "10.1.0.2", "fd01::2"},
		{"vip", "203.0.113.10", "2001:db8::10"},
		{"[192.0.2.1, \"2001:db8:2::1\"]", "192.0.2.1", "2001:db8:2::1"},
		{"[192.0.2.1, 192.0.2.2, \"2001:db8:2::1\", \"2001:db8:2::2\"]", "192.0.2.1 192.0.2.2", "2001:db8:2::1 2001:db8:2::2"},
	}
	for _, tt := range tests {
		t.Run(tt.snat, func(t *testing.T) {
			b := b.with(t)
			b.Apply(fmt.Sprintf(`profile: shop
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    protocol: [tcp, udp]
    snat: %s
    backends: ["10.2.0.11:8080", "[fd02::11]:8080"]
`, tt.snat))
			for vip, want := range map[string]string{"203.0.113.10:80": tt.v4, "[2001:db8::10]:80": tt.v6} {
				for _, network := range []string{"tcp", "udp"} {
					seen := map[string]bool{}
					wanted := strings.Fields(want)
					// One of several is drawn at random.
					for i := 0; i < 4 || i < 100 && len(seen) < len(wanted); i++ {
						seen[b.Ask(network, vip).Seen.Addr().String()] = true
					}
					for _, a := range wanted {
						if !seen[a] {
							t.Errorf("%s %s: the backend never saw %s, but %v", network, vip, a, seen)
						}
						delete(seen, a)
					}
					if len(seen) > 0 {
						t.Errorf("%s %s: the backend also saw %v", network, vip, seen)
					}
				}
			}
		})
	}
}

// TestBackendsOwnSNAT: what a backend says overrides the service.
func TestBackendsOwnSNAT(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.Apply(web + `    snat: none
    backends:
      - 10.2.0.11:8080
      - {address: "10.2.0.12:8080", snat: vip}
`)
	want := map[string]string{"10.2.0.11": "10.1.0.2", "10.2.0.12": "203.0.113.10"}
	for range 4 {
		if r := b.Ask("tcp", "203.0.113.10:80"); r.Seen.Addr().String() != want[r.Backend] {
			t.Errorf("%s saw %s, want %s", r.Backend, r.Seen.Addr(), want[r.Backend])
		}
	}
}

// TestPorts: one port, ranges, lists, all ports; with the backend's port and
// with the one that the client chose.
func TestPorts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ports := []int{80, 443, 8000, 8005, 8010, 9999, 65535, 1}
	b.Serve(ports, "10.2.0.11", "fd02::11")
	for _, family := range []struct{ vip, backend string }{{"203.0.113.%d", "10.2.0.11"}, {"[2001:db8::%d]", "fd02::11"}} {
		vip := func(i int) string { return fmt.Sprintf(family.vip, i) }
		fixed := family.backend + ":9999"
		if strings.Contains(family.backend, ":") {
			fixed = "[" + family.backend + "]:9999"
		}
		b.Apply(fmt.Sprintf(`profile: ports
defaults:
  protocol: [tcp, udp]
services:
  - {name: single, listen: "%s:80", backends: ["%s"]}
  - {name: range, listen: "%s:8000-8010", backends: ["%s"]}
  - {name: list, listen: "%s:80,443,8000-8005", backends: ["%s"]}
  - {name: all, listen: "%s:*", backends: ["%s"]}
  - {name: to-one-port, listen: "%s:8000-8010", backends: ["%s"]}
`, vip(1), family.backend, vip(2), family.backend, vip(3), family.backend, vip(4), family.backend, vip(5), fixed))
		takes := map[int][]int{
			1: {80}, 2: {8000, 8005, 8010}, 3: {80, 443, 8000, 8005}, 4: ports, 5: {8000, 8005, 8010},
		}
		for host, open := range takes {
			for _, network := range []string{"tcp", "udp"} {
				for _, port := range open {
					want := uint16(port)
					if host == 5 {
						want = 9999
					}
					r := b.Ask(network, fmt.Sprintf("%s:%d", vip(host), port))
					if r.Local.Port() != want {
						t.Errorf("%s %s:%d came to port %d, want %d", network, vip(host), port, r.Local.Port(), want)
					}
				}
			}
		}
		// What is not listened on is not balanced: the balancer routes it away.
		for _, to := range []string{vip(1) + ":443", vip(2) + ":7999", vip(2) + ":8011", vip(3) + ":8006"} {
			c := b.From()
			c.Timeout = 100 * time.Millisecond
			if r, err := c.Exchange(t.Context(), "tcp", netip.MustParseAddrPort(to)); err == nil {
				t.Errorf("%s was balanced to %s", to, r.Local)
			}
		}
	}
}

// TestEmptyServiceRefuses: at once, unless it is to be silent.
func TestEmptyServiceRefuses(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply(`profile: shop
defaults:
  protocol: [tcp, udp]
services:
  - {name: none, listen: ["203.0.113.1:80", "[2001:db8::1]:80"], backends: []}
  - name: drained
    listen: ["203.0.113.2:80", "[2001:db8::2]:80"]
    backends: [{address: "10.2.0.11:8080", weight: 0}, {address: "[fd02::11]:8080", weight: 0}]
  - {name: silent, listen: ["203.0.113.3:80", "[2001:db8::3]:80"], on-empty: drop, backends: []}
`)
	c := b.From()
	for _, network := range []string{"tcp", "udp"} {
		for _, vip := range []string{"203.0.113.1:80", "[2001:db8::1]:80", "203.0.113.2:80", "[2001:db8::2]:80"} {
			c.Timeout = time.Second // when the client would ask again
			_, err := c.Exchange(t.Context(), network, netip.MustParseAddrPort(vip))
			if !errors.Is(err, traffic.ErrRefused) {
				t.Errorf("%s %s: %v, want it refused", network, vip, err)
			}
		}
		for _, vip := range []string{"203.0.113.3:80", "[2001:db8::3]:80"} {
			c.Timeout = 200 * time.Millisecond
			if _, err := c.Exchange(t.Context(), network, netip.MustParseAddrPort(vip)); !errors.Is(err, traffic.ErrTimeout) {
				t.Errorf("%s %s: %v, want silence", network, vip, err)
			}
		}
	}
}

// TestBothFamiliesBalanceApart: a service on both has a round for each.
func TestBothFamiliesBalanceApart(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12", "fd02::13")
	b.Apply(`profile: shop
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    backends: ["10.2.0.11:8080", "[fd02::11]:8080", "10.2.0.12:8080", "[fd02::12]:8080", "[fd02::13]:8080"]
`)
	var v4, v6 []string
	for range 30 {
		v4 = append(v4, b.Ask("tcp", "203.0.113.10:80").Backend)
		v6 = append(v6, b.Ask("tcp", "[2001:db8::10]:80").Backend)
	}
	b.WantShares(count(v4), map[string]int{"10.2.0.11": 15, "10.2.0.12": 15})
	b.WantShares(count(v6), map[string]int{"fd02::11": 10, "fd02::12": 10, "fd02::13": 10})
}

// TestFromTheBalancerItself: role proxy also takes what this host sends.
func TestFromTheBalancerItself(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
	b.Address(b.Balancer, "lo", "203.0.113.10/32", "2001:db8::10/128")
	b.Apply(`profile: shop
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    protocol: [tcp, udp]
    backends: ["10.2.0.11:8080", "10.2.0.12:8080", "[fd02::11]:8080", "[fd02::12]:8080"]
`)
	c := traffic.Client{Host: b.Balancer}
	for _, network := range []string{"tcp", "udp"} {
		for vip, want := range map[string]map[string]int{
			"203.0.113.10:80":   {"10.2.0.11": 10, "10.2.0.12": 10},
			"[2001:db8::10]:80": {"fd02::11": 10, "fd02::12": 10},
		} {
			got := c.Many(t.Context(), network, netip.MustParseAddrPort(vip), 20, 1)
			b.Check(got.Err)
			b.WantShares(got.Backends, want)
		}
	}
}

// TestOneArmed: balancer, clients and backends share one network. It works
// since the balancer masquerades.
func TestOneArmed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	neighbour := b.Host("neighbour")
	b.Check(b.World.Link(neighbour, "eth0", b.Server, "eth1"))
	b.Address(neighbour, "eth0", "10.5.0.2/24")
	b.Address(b.Server, "eth1", "10.5.0.1/24")
	b.Check(b.Server.Forward())
	b.Via(neighbour, "10.5.0.1")
	b.Check(b.Server.AddRoute(netip.MustParsePrefix("203.0.113.0/24"), netip.MustParseAddr("10.2.0.1")))
	b.Check(b.Balancer.AddRoute(netip.MustParsePrefix("10.5.0.0/24"), netip.MustParseAddr("10.2.0.11")))
	// The neighbour is behind the server's own machine: an answer that is not
	// sent through the balancer would reach it straight.
	b.Apply(web + backends(8080, -1, -1))
	got := traffic.Client{Host: neighbour}.Many(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"), 20, 1)
	b.Check(got.Err)
	b.WantShares(got.Backends, map[string]int{"10.2.0.11": 10, "10.2.0.12": 10})
	// A backend that calls its own service gets an answer, its own included.
	got = traffic.Client{Host: b.Server}.Many(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"), 20, 1)
	b.Check(got.Err)
	b.WantShares(got.Backends, map[string]int{"10.2.0.11": 10, "10.2.0.12": 10})
}

// TestRandomPorts: backends see a port that is neither the client's nor the one after that
// of the connection before, with each kind of source; of a service beside, the client's.
func TestRandomPorts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.Address(b.Balancer, "eth1", "10.2.0.99/24", "fd02::99/64")
	service := func(port int, keys string) string {
		return fmt.Sprintf("  - {name: s%d, listen: [\"203.0.113.10:%d\", \"[2001:db8::10]:%d\"], %s, backends: [\"10.2.0.11:8080\", \"[fd02::11]:8080\"]}\n", port, port, port, keys)
	}
	b.Apply("profile: shop\nservices:\n" + service(81, "snat: masquerade, random-ports: true") + service(82, "snat: vip, random-ports: true") +
		service(83, "snat: [10.2.0.99, \"fd02::99\"], random-ports: true") + service(84, "snat: [10.2.0.99, \"fd02::99\"]") + service(85, "snat: masquerade"))
	const each = 34
	for port := uint16(81); port <= 85; port++ {
		for _, vip := range []string{"203.0.113.10", "2001:db8::10"} {
			kept, next, before := 0, 0, uint16(0)
			for range each {
				c, err := b.dial("tcp", at(vip, port))
				b.Check(err)
				seen := c.Reply.Seen.Port()
				if seen == c.Reply.From.Port() {
					kept++
				}
				if seen-before <= 2 {
					next++
				}
				before = seen
				c.Close()
			}
			random := port < 84
			if random && (kept > 2 || next > 2) || !random && kept < each-2 {
				t.Errorf("%s: of %d connections %d kept their ports, and %d had one of the next", at(vip, port), each, kept, next)
			}
		}
	}
}
