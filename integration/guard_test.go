package integration

// What acts on a new connection before it is balanced, and what holds on to a
// backend: limits, affinity, drain, removal.

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

func (b *bed) dial(network, to string) (*traffic.Conn, error) {
	return b.From().Dial(b.T.Context(), network, netip.MustParseAddrPort(to))
}

// holdMost opens connections until one is refused, and returns how many it
// could; they end with the test.
func (b *bed) holdMost(network, to string, atMost int) []*traffic.Conn {
	b.T.Helper()
	var open []*traffic.Conn
	for len(open) < atMost {
		c, err := b.dial(network, to)
		if errors.Is(err, traffic.ErrRefused) {
			break
		}
		b.Check(err)
		b.T.Cleanup(func() { c.Close() })
		open = append(open, c)
	}
	return open
}

// TestConnectionLimits: over the limit a connection is refused while the others
// live, and taken when one has ended.
func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, service, backend string }{
		{"per source", "    limit: {connections-per-source: 3}\n", ""},
		{"of a backend", "", ", max-connections: 3"},
	} {
		for _, family := range []struct{ vip, backend string }{{"203.0.113.10:80", "10.2.0.11:8080"}, {"[2001:db8::10]:80", "[fd02::11]:8080"}} {
			t.Run(tt.name+" "+family.backend, func(t *testing.T) {
				b := newBed(t)
				b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
				profile := fmt.Sprintf("profile: shop\nservices:\n  - name: web\n    listen: \"%s\"\n%s    backends: [{address: \"%s\"%s}]\n",
					family.vip, tt.service, family.backend, tt.backend)
				b.Apply(profile)
				open := b.holdMost("tcp", family.vip, 5)
				if len(open) != 3 {
					t.Fatalf("%d connections at once, want 3", len(open))
				}
				for _, c := range open {
					if _, err := c.Again(); err != nil {
						t.Errorf("a live connection broke: %v", err)
					}
				}
				if got := b.Load().Refused("shop", "web"); got != 1 {
					t.Errorf("%d refused are counted, want 1", got)
				}
				// An apply that is about something else does not forget them.
				b.Apply(strings.Replace(profile, "name: web\n", "name: web\n    scheduler: random\n", 1))
				if _, err := b.dial("tcp", family.vip); !errors.Is(err, traffic.ErrRefused) {
					t.Errorf("after another apply: %v, want it refused", err)
				}
				open[0].Close()
				deadline := time.Now().Add(5 * time.Second)
				for {
					c, err := b.dial("tcp", family.vip)
					if err == nil {
						c.Close()
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("after one has ended: %v", err)
					}
					time.Sleep(50 * time.Millisecond)
				}
			})
		}
	}
}

// TestRateLimits: a burst, and then no more.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.Apply(`profile: shop
defaults: {protocol: [tcp, udp]}
services:
  - {name: source, listen: ["203.0.113.1:80", "[2001:db8::1]:80"], limit: {new-per-source: 1/hour, burst: 5}, backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: all, listen: ["203.0.113.2:80"], limit: {new: 4/hour}, backends: ["10.2.0.11:8080"]}
`)
	taken := func(source, to string) int {
		n := 0
		for range 12 {
			c := traffic.Client{Host: b.Client, Source: netip.MustParseAddr(source)}
			if _, err := c.Exchange(t.Context(), "tcp", netip.MustParseAddrPort(to)); err == nil {
				n++
			} else if !errors.Is(err, traffic.ErrRefused) {
				t.Errorf("%s: %v, want it refused", to, err)
			}
		}
		return n
	}
	b.Address(b.Client, "eth0", "10.1.0.9/24", "fd01::9/64")
	for _, tt := range []struct {
		source, to string
		want       int
	}{
		{"10.1.0.2", "203.0.113.1:80", 5},
		{"10.1.0.9", "203.0.113.1:80", 5},
		{"10.1.0.2", "203.0.113.1:80", 0},
		{"fd01::2", "[2001:db8::1]:80", 5},
		{"fd01::9", "[2001:db8::1]:80", 5},
		{"10.1.0.2", "203.0.113.2:80", 4},
		{"10.1.0.9", "203.0.113.2:80", 0},
	} {
		// The kernel's buckets hold what the burst says, or one more where the
		// first is taken as the bucket is made.
		if got := taken(tt.source, tt.to); got < tt.want || got > tt.want+1 {
			t.Errorf("from %s, %s took %d, want %d", tt.source, tt.to, got, tt.want)
		}
	}
}

// TestDrain: weight 0 takes no new connections and lets the live ones go on.
func TestDrain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.Apply(web + backends(8080, 1, 1))
	live, err := b.dial("tcp", "203.0.113.10:80")
	b.Check(err)
	defer live.Close()
	weights := []int{1, 1}
	if live.Reply.Backend == "10.2.0.11" {
		weights[0] = 0
	} else {
		weights[1] = 0
	}
	b.Apply(web + backends(8080, weights...))
	if got := count(b.Row("tcp", "203.0.113.10:80", 10)); got[live.Reply.Backend] != 0 {
		t.Errorf("the drained backend gets new connections: %v", got)
	}
	if _, err := live.Again(); err != nil {
		t.Errorf("its live connection broke: %v", err)
	}
	var counted nft.Usage
	b.Kernel(b.Balancer, func(c *wire.Conn) (err error) { counted, err = nft.ReadUsage(c); return err })
	s := b.Load()
	if got := s.Stats("shop", "web", endpoint(live.Reply.Local.String()), counted).Live; got != 1 {
		t.Errorf("show says that %d are left, want 1", got)
	}
}

// TestRemovedBackend: its UDP flows move with the next datagram, the last
// backend included; its TCP connections go on unless they are cut; another
// service's flows to the same server are not touched.
func TestRemovedBackend(t *testing.T) {
	t.Parallel()
	for _, family := range []struct{ one, two, a, b string }{
		{"203.0.113.1:80", "203.0.113.2:80", "10.2.0.11:8080", "10.2.0.12:8080"},
		{"[2001:db8::1]:80", "[2001:db8::2]:80", "[fd02::11]:8080", "[fd02::12]:8080"},
	} {
		t.Run(family.one, func(t *testing.T) {
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
			profile := func(servers ...string) string {
				return fmt.Sprintf(`profile: shop
defaults: {protocol: [tcp, udp]}
services:
  - {name: one, listen: "%s", backends: [%s]}
  - {name: two, listen: "%s", backends: ["%s"]}
`, family.one, strings.Join(servers, ", "), family.two, family.a)
			}
			quote := func(s string) string { return `"` + s + `"` }
			b.Apply(profile(quote(family.a)))
			udp, err := b.dial("udp", family.one)
			b.Check(err)
			tcp, err := b.dial("tcp", family.one)
			b.Check(err)
			beside, err := b.dial("udp", family.two)
			b.Check(err)
			besideTCP, err := b.dial("tcp", family.two)
			b.Check(err)
			was := beside.Reply.Seen

			r := b.Apply(profile(quote(family.b)))
			if r.Ended != 1 {
				t.Errorf("%d flows were ended, want the one of UDP", r.Ended)
			}
			moved, err := udp.Again()
			b.Check(err)
			if moved.Backend != endpoint(family.b).Addr.String() {
				t.Errorf("the next datagram goes to %s", moved.Backend)
			}
			if _, err := tcp.Again(); err != nil {
				t.Errorf("a TCP connection to the removed backend broke: %v", err)
			}
			again, err := beside.Again()
			b.Check(err)
			if again.Backend != endpoint(family.a).Addr.String() || again.Seen != was {
				t.Errorf("another service's flow moved from %s to %s", was, again.Seen)
			}

			// The last backend goes: the next datagram finds nobody.
			if r := b.Apply(profile()); r.Ended != 1 {
				t.Errorf("%d flows were ended, want 1", r.Ended)
			}
			if again, err := udp.Again(); err == nil {
				t.Errorf("the last backend is gone, and %s answers", again.Backend)
			}
			// Cut, its TCP connection ends as well.
			b.Kernel(b.Balancer, func(c *wire.Conn) error {
				r, err := nft.Apply(t.Context(), c, []*lb.Profile{b.Parse(profile())}, nft.Options{Table: "nlb", Cut: true})
				if err == nil && r.Ended != 1 {
					t.Errorf("%d flows were cut, want 1", r.Ended)
				}
				return err
			})
			if _, err := tcp.Again(); err == nil {
				t.Error("the TCP connection was not cut")
			}
			if _, err := besideTCP.Again(); err != nil {
				t.Errorf("another service's TCP connection was cut: %v", err)
			}
		})
	}
}

// TestManyPrefixes: ten thousand of them in deny are one lookup.
func TestManyPrefixes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11")
	var list strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&list, "      - 172.%d.%d.%d/30\n", 16+i>>14, i>>6&255, i<<2&255)
	}
	b.Apply(web + "    deny:\n" + list.String() + "      - 10.1.0.9\n" + backends(8080, -1))
	b.Address(b.Client, "eth0", "10.1.0.9/24")
	b.Ask("tcp", "203.0.113.10:80")
	c := traffic.Client{Host: b.Client, Source: netip.MustParseAddr("10.1.0.9")}
	if _, err := c.Exchange(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80")); !errors.Is(err, traffic.ErrRefused) {
		t.Errorf("%v, want it refused", err)
	}
	if got := len(b.Load().Profiles[0].Services[0].Deny); got != 10001 {
		t.Errorf("%d prefixes are read back", got)
	}
	// Its rules are as many as those of a single prefix.
	rules := b.Witness(b.Balancer, "", "nft", "list", "chain", "inet", "nlb", "shop/web")
	if n := strings.Count(rules, "\n"); n > 9 {
		t.Errorf("the service's chain has %d lines:\n%s", n, rules)
	}
}
