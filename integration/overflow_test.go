package integration

// What becomes of connections that draw a backend with max-connections which is
// full.

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"nlb/integration/netlab/traffic"
)

// hold opens connections from an address, the client's where none is given, and
// counts who took them. They end with the test.
func (b *bed) hold(network, from, to string, n int) (open map[string][]*traffic.Conn, refused int) {
	b.T.Helper()
	open = map[string][]*traffic.Conn{}
	for range n {
		c := b.From()
		if from != "" {
			c.Source = netip.MustParseAddr(from)
		}
		conn, err := c.Dial(b.T.Context(), network, netip.MustParseAddrPort(to))
		if errors.Is(err, traffic.ErrRefused) {
			refused++
			continue
		}
		b.Check(err)
		b.T.Cleanup(func() { conn.Close() })
		open[conn.Reply.Backend] = append(open[conn.Reply.Backend], conn)
	}
	return open, refused
}

// limited are the addresses of a service and of its servers.
type limited struct{ vip, first, second string }

// profile is one of a service with some keys, and of as many backends as there are keys of
// backends.
func (f limited) profile(service string, backends ...string) string {
	for i, address := range []string{f.first, f.second}[:len(backends)] {
		backends[i] = fmt.Sprintf("{address: %q, %s}", at(address, 8080), backends[i])
	}
	return fmt.Sprintf("profile: shop\nservices: [{name: web, listen: %q, %s, backends: [%s]}]\n", f.vip, service, strings.Join(backends, ", "))
}

var overflowFamilies = []limited{
	{"203.0.113.10:80", "10.2.0.11", "10.2.0.12"},
	{"[2001:db8::10]:80", "fd02::11", "fd02::12"},
}

// TestFullBackendSpills: what is too much for a backend goes to another.
func TestFullBackendSpills(t *testing.T) {
	t.Parallel()
	for _, f := range overflowFamilies {
		for _, tt := range []struct {
			scheduler string
			refused   int // at most, of those beyond the limit
		}{{"round-robin", 0}, {"least-connections", 0}, {"random", 0}, {"hash, hash-by: [source-port]", 20}, {"consistent, hash-by: [source-port]", 20}} {
			for _, network := range []string{"tcp", "udp"} {
				t.Run(fmt.Sprintf("%s %s %s", f.vip, tt.scheduler, network), func(t *testing.T) {
					b := newBed(t)
					b.Serve([]int{8080}, f.first, f.second)
					b.Apply(f.profile("protocol: [tcp, udp], scheduler: "+tt.scheduler, "max-connections: 3", "weight: 1"))
					open, refused := b.hold(network, "", f.vip, 60)
					if n := len(open[f.first]); n != 3 {
						t.Errorf("%s has %d connections, want 3", f.first, n)
					}
					if refused > tt.refused {
						t.Errorf("%d were refused, want at most %d", refused, tt.refused)
					}
					if got := b.Load().Refused("shop", "web"); got != uint64(refused) {
						t.Errorf("%d refused are counted, want %d", got, refused)
					}
				})
			}
		}
	}
}

// TestAllBackendsFull: where all are full, a connection is refused, and taken
// as soon as one of them has room.
func TestAllBackendsFull(t *testing.T) {
	t.Parallel()
	for _, f := range overflowFamilies {
		t.Run(f.vip, func(t *testing.T) {
			b := newBed(t)
			b.Serve([]int{8080}, f.first, f.second)
			b.Apply(f.profile("scheduler: round-robin", "max-connections: 2", "max-connections: 2"))
			open, refused := b.hold("tcp", "", f.vip, 6)
			if len(open[f.first]) != 2 || len(open[f.second]) != 2 || refused != 2 {
				t.Errorf("%d and %d connections, and %d refused, want 2, 2 and 2", len(open[f.first]), len(open[f.second]), refused)
			}
			open[f.first][0].Close()
			deadline := time.Now().Add(5 * time.Second)
			for {
				if c, err := b.dial("tcp", f.vip); err == nil {
					if c.Reply.Backend != f.first {
						t.Errorf("%s takes one more, want %s", c.Reply.Backend, f.first)
					}
					c.Close()
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("nobody takes a connection after one has ended")
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

// TestFullBackendWaits: a connection that finds all full is taken where one ends within
// the second after which its client sends the SYN again.
func TestFullBackendWaits(t *testing.T) {
	t.Parallel()
	for _, f := range overflowFamilies {
		t.Run(f.vip, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, f.first, f.second)
			b.Apply(f.profile("protocol: [tcp, udp]", "max-connections: 1", "max-connections: 1"))
			open, _ := b.hold("tcp", "", f.vip, 2)
			if len(open[f.first]) != 1 || len(open[f.second]) != 1 {
				t.Fatalf("%v, want one connection of each backend", open)
			}
			if _, err := b.dial("udp", f.vip); !errors.Is(err, traffic.ErrRefused) {
				t.Errorf("a datagram: %v, want it refused", err)
			}
			refused := b.Load().Refused("shop", "web")
			time.AfterFunc(200*time.Millisecond, func() { open[f.second][0].Close() })
			c, err := b.dial("tcp", f.vip)
			b.Check(err)
			defer c.Close()
			if c.Reply.Backend != f.second {
				t.Errorf("%s takes it, want %s", c.Reply.Backend, f.second)
			}
			if got := b.Load().Refused("shop", "web"); got != refused {
				t.Errorf("%d refused are counted, want %d", got, refused)
			}
		})
	}
}

// TestRushKeepsLimit: of a rush a backend gets as many connections as it may, and no more.
func TestRushKeepsLimit(t *testing.T) {
	t.Parallel()
	const most, rush = 50, 400
	for _, f := range overflowFamilies {
		t.Run(f.vip, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, f.first)
			b.Apply(f.profile("scheduler: round-robin", fmt.Sprintf("max-connections: %d", most)))
			var wait sync.WaitGroup
			open := make([]*traffic.Conn, rush)
			for i := range open {
				wait.Go(func() { open[i], _ = b.dial("tcp", f.vip) })
			}
			wait.Wait()
			live := 0
			for _, c := range open {
				if c != nil {
					live++
					defer c.Close()
				}
			}
			if live != most {
				t.Errorf("%d connections live, want %d", live, most)
			}
		})
	}
}

// TestShortConnectionsSpill: where connections come and end faster than the kernel looks for
// ended ones, none is refused while a backend has room.
func TestShortConnectionsSpill(t *testing.T) {
	t.Parallel()
	for _, f := range overflowFamilies {
		t.Run(f.vip, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, f.first, f.second)
			b.Apply(f.profile("scheduler: round-robin", "max-connections: 5", "max-connections: 5, weight: 0"))
			if open, _ := b.hold("tcp", "", f.vip, 5); len(open[f.first]) != 5 {
				t.Fatalf("%v, want five connections of %s", open, f.first)
			}
			b.Apply(f.profile("scheduler: round-robin", "max-connections: 5", "max-connections: 5"))
			c := b.From()
			c.Reset = true
			for range 60 {
				reply, err := c.Exchange(t.Context(), "tcp", netip.MustParseAddrPort(f.vip))
				if err != nil || reply.Backend != f.second {
					t.Fatalf("%s answers, %v, want %s", reply.Backend, err, f.second)
				}
			}
		})
	}
}

// TestFullBackendRecovers: connections that a full backend sent on to another
// do not keep it full when its own have ended.
func TestFullBackendRecovers(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.Apply(`profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", backends: [{address: "10.2.0.11:8080", max-connections: 4}, "10.2.0.12:8080"]}
`)
	open, refused := b.hold("tcp", "", "203.0.113.10:80", 40)
	if len(open["10.2.0.11"]) != 4 || refused != 0 {
		t.Fatalf("%d connections and %d refused, want 4 and 0", len(open["10.2.0.11"]), refused)
	}
	for _, c := range open["10.2.0.11"] {
		c.Close()
	}
	time.Sleep(10*time.Second + 500*time.Millisecond) // it is passed over for so long
	open, refused = b.hold("tcp", "", "203.0.113.10:80", 8)
	if n := len(open["10.2.0.11"]); n != 3 || refused != 0 {
		t.Errorf("%d connections and %d refused, want 3, one less than its limit, and 0", n, refused)
	}
}

// TestAffinityLeavesFullBackend: a client whose backend is full gets another,
// and stays there.
func TestAffinityLeavesFullBackend(t *testing.T) {
	t.Parallel()
	for _, f := range overflowFamilies {
		t.Run(f.vip, func(t *testing.T) {
			b := newBed(t)
			b.Serve([]int{8080}, f.first, f.second)
			others := []string{"10.1.0.3", "10.1.0.4"}
			if netip.MustParseAddr(f.first).Is6() {
				others = []string{"fd01::3", "fd01::4"}
			}
			for _, a := range others {
				bits := netip.MustParseAddr(a).BitLen()
				b.Address(b.Client, "eth0", fmt.Sprintf("%s/%d", a, bits))
			}
			b.Apply(f.profile("affinity: 10m", "max-connections: 2", "weight: 1"))
			// One client has the first backend and no connection, others fill it.
			if home := b.Ask("tcp", f.vip).Backend; home != f.first {
				t.Fatalf("the first client got %s", home)
			}
			time.Sleep(100 * time.Millisecond) // its connection has ended by then
			var full map[string][]*traffic.Conn
			for _, a := range others {
				if open, _ := b.hold("tcp", a, f.vip, 2); len(open[f.first]) > 0 {
					full = open
				}
			}
			if len(full[f.first]) != 2 {
				t.Fatalf("the first backend has %d connections, want 2", len(full[f.first]))
			}
			if got := b.Row("tcp", f.vip, 3); count(got)[f.second] != 3 {
				t.Errorf("%v answer a client whose backend is full, want %s", got, f.second)
			}
			for _, c := range full[f.first] {
				c.Close()
			}
			if got := b.Row("tcp", f.vip, 3); count(got)[f.second] != 3 {
				t.Errorf("%v answer it afterwards, want %s", got, f.second)
			}
		})
	}
}
