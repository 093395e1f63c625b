package integration

// Events of conntrack: servers that refuse.

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/wire"
)

// watch hears of connections that the balancer's backends refuse.
func (b *bed) watch() *conntrack.Events {
	b.T.Helper()
	var events *conntrack.Events
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		// The socket is one of this namespace, whatever becomes of c.
		return b.Balancer.Do(func() (err error) {
			events, err = conntrack.Watch(c, compile.OursMark, compile.OursMask)
			return err
		})
	})
	b.T.Cleanup(func() { events.Close() })
	return events
}

// next is the mark of the next refused connection.
func (b *bed) next(e *conntrack.Events) []uint32 {
	b.T.Helper()
	heard := make(chan []uint32, 1)
	go func() {
		marks, err := e.Next()
		if err != nil {
			b.T.Errorf("next: %v", err)
		}
		heard <- marks
	}()
	select {
	case marks := <-heard:
		return marks
	case <-time.After(20 * time.Second):
		b.T.Fatal("nothing is heard of a refused connection")
		return nil
	}
}

// TestRefusalsAreHeard: of a server that refuses there is one event for each
// connection, with its mark, and of all others none.
func TestRefusalsAreHeard(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ serving, refusing, silent, serves, refuses, drops string }{
		{"203.0.113.1:80", "203.0.113.2:80", "203.0.113.3:80", "10.2.0.11", "10.2.0.12", "10.2.0.13"},
		{"[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80", "fd02::11", "fd02::12", "fd02::13"},
	} {
		t.Run(f.serving, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, f.serves)
			b.NFT(b.Server, "table inet t { chain in { type filter hook input priority 0; ip daddr 10.2.0.13 drop; ip6 daddr fd02::13 drop; }; }")
			at := func(address string) string {
				return netip.AddrPortFrom(netip.MustParseAddr(address), 8080).String()
			}
			profile := fmt.Sprintf("profile: shop\nservices:\n  - {name: serving, listen: %q, protocol: [tcp, udp], backends: [%q]}\n  - {name: refusing, listen: %q, protocol: [tcp, udp], backends: [%q]}\n  - {name: silent, listen: %q, protocol: [tcp, udp], backends: [%q]}\n",
				f.serving, at(f.serves), f.refusing, at(f.refuses), f.silent, at(f.drops))
			b.Apply(profile)
			for _, state := range []string{"syn_sent", "close"} {
				b.Check(b.Balancer.SetSysctl("net/netfilter/nf_conntrack_tcp_timeout_"+state, "1"))
			}
			parsed := b.Parse(profile)
			mark := compile.NewNumbers(0, []*lb.Profile{parsed}).Mark("shop/refusing", &parsed.Services[1].Backends[0])

			events := b.watch()
			served := b.From()
			served.Reset = true // so that it ends in the same state
			for _, network := range []string{"tcp", "udp"} {
				_, err := served.Exchange(t.Context(), network, netip.MustParseAddrPort(f.serving))
				b.Check(err)
			}
			short := b.From()
			short.Timeout = 200 * time.Millisecond
			for _, network := range []string{"tcp", "udp"} {
				if _, err := short.Exchange(t.Context(), network, netip.MustParseAddrPort(f.silent)); !errors.Is(err, traffic.ErrTimeout) {
					t.Fatalf("%s to a silent server: %v", network, err)
				}
				if _, err := b.From().Exchange(t.Context(), network, netip.MustParseAddrPort(f.refusing)); !errors.Is(err, traffic.ErrRefused) {
					t.Fatalf("%s to a server that refuses: %v", network, err)
				}
			}
			// The entries of the others go by themselves.
			b.awaitFlows(conntrack.Filter{Protocol: unix.IPPROTO_TCP}, func(n int) bool { return n == 0 })
			if _, err := b.From().Exchange(t.Context(), "tcp", netip.MustParseAddrPort(f.refusing)); !errors.Is(err, traffic.ErrRefused) {
				t.Fatal(err)
			}
			// Each of the two, and nothing before, between or behind.
			for range 2 {
				if got := b.next(events); !slices.Equal(got, []uint32{mark}) {
					t.Errorf("refused: %#x, want %#x", got, mark)
				}
			}
			rest := make(chan error)
			go func() {
				marks, err := events.Next()
				if err == nil {
					err = fmt.Errorf("further refusals: %#x", marks)
				}
				rest <- err
			}()
			time.Sleep(100 * time.Millisecond)
			b.Check(events.Close())
			if err := <-rest; !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// awaitFlows waits until the balancer has as many connections of a filter as are
// wanted.
func (b *bed) awaitFlows(f conntrack.Filter, enough func(n int) bool) {
	b.T.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		n := 0
		b.Kernel(b.Balancer, func(c *wire.Conn) error {
			return conntrack.List(c, f, func(*conntrack.Flow) { n++ })
		})
		if enough(n) {
			return
		}
		if time.Now().After(end) {
			b.T.Fatalf("the balancer has %d connections", n)
		}
	}
}

// TestLostRefusalsAreTold: a listener that does not keep up learns it, and hears
// on.
func TestLostRefusalsAreTold(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply("profile: shop\nservices:\n  - {name: web, listen: \"203.0.113.1:80\", backends: [\"10.2.0.11:8080\"]}\n")
	events := b.watch()
	const many = 12000 // of about 200 bytes, which take 768 in the socket's 2 MiB
	tally := b.From().Many(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.1:80"), many, 8)
	t.Log(tally)
	lost, heard := false, 0
	for !lost {
		marks, err := events.Next()
		heard += len(marks)
		lost = errors.Is(err, conntrack.ErrLost)
		if err != nil && !lost {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d were heard", heard, many)
	if len(b.next(events)) == 0 {
		t.Error("nothing is heard any more")
	}
}

// hearing is a transport that counts what it receives.
type hearing struct {
	wire.Transport
	received int
}

func (c *hearing) Receive(b []byte) (int, error) {
	n, err := c.Transport.Receive(b)
	c.received += n
	return n, err
}

// TestUnansweredAreFilteredByTheKernel: the answer to a question for unanswered
// connections does not grow with the answered ones.
func TestUnansweredAreFilteredByTheKernel(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11")
	b.silence("10.2.0.12")
	b.Apply("profile: shop\nservices:\n  - {name: web, listen: \"203.0.113.1:80\", backends: [\"10.2.0.11:8080\"]}\n  - {name: silent, listen: \"203.0.113.2:80\", backends: [\"10.2.0.12:8080\"]}\n")
	b.Row("tcp", "203.0.113.1:80", 50)
	ask := func(f conntrack.Filter) (flows, received int) {
		c := &hearing{}
		b.Check(b.Balancer.Do(func() (err error) { c.Transport, err = wire.Open(); return err }))
		defer c.Close()
		b.Check(conntrack.List(wire.NewConn(c), f, func(*conntrack.Flow) { flows++ }))
		return flows, c.received
	}
	f := conntrack.Filter{Mark: compile.OursMark, Mask: compile.OursMask}
	if n, size := ask(f); n != 50 || size < 50*100 {
		t.Fatalf("%d connections in %d bytes", n, size)
	}
	f.Unanswered = true
	if n, size := ask(f); n != 0 || size > 100 {
		t.Errorf("%d unanswered connections in %d bytes, want none in less than 100", n, size)
	}
	short := b.From()
	short.Timeout = 200 * time.Millisecond
	if _, err := short.Exchange(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.2:80")); !errors.Is(err, traffic.ErrTimeout) {
		t.Fatal(err)
	}
	if n, size := ask(f); n != 1 || size > 1000 {
		t.Errorf("%d unanswered connections in %d bytes, want one in less than 1000", n, size)
	}
}
