package integration

// What becomes of connections when the backends of a profile change: which are
// carried over, which are forgotten, and that nobody waits for it.

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// TestUnansweredConnectionsMove: clients that wait for a dead server reach
// another one as soon as the dead one is removed or drained.
func TestUnansweredConnectionsMove(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ name, listen, alive, dead, drop string }{
		{"IPv4", "203.0.113.10:80", "10.2.0.11:8080", "10.2.0.12:8080", "ip daddr 10.2.0.12 drop"},
		{"IPv6", "[2001:db8::10]:80", "[fd02::11]:8080", "[fd02::12]:8080", "ip6 daddr fd02::12 drop"},
	} {
		for _, how := range []string{"removed", "drained"} {
			t.Run(f.name+" "+how, func(t *testing.T) {
				t.Parallel()
				b := newBed(t)
				b.Serve([]int{8080}, netip.MustParseAddrPort(f.alive).Addr().String(), netip.MustParseAddrPort(f.dead).Addr().String())
				b.NFT(b.Server, "table inet dead { chain input { type filter hook input priority 0; "+f.drop+"; }; }")
				profile := func(backends string) string {
					return fmt.Sprintf("profile: shop\nservices: [{name: web, listen: %q, backends: [%s]}]\n", f.listen, backends)
				}
				b.Apply(profile(fmt.Sprintf("%q, %q", f.alive, f.dead)))
				const clients = 8
				replies, errs := make(chan traffic.Reply, clients), make(chan error, clients)
				client := b.From()
				client.Timeout = 15 * time.Second
				for range clients {
					go func() {
						r, err := client.Exchange(t.Context(), "tcp", netip.MustParseAddrPort(f.listen))
						replies <- r
						errs <- err
					}()
				}
				s := b.Load()
				eventually(t, "half of the clients wait", func() bool {
					waiting := 0
					b.Kernel(b.Balancer, func(c *wire.Conn) error {
						u, err := nft.ReadUsage(c, s)
						waiting = s.Use(u, "shop", "web", endpoint(f.dead)).Unanswered
						return err
					})
					return waiting >= clients/2
				})
				if how == "removed" {
					b.Apply(profile(fmt.Sprintf("%q", f.alive)))
				} else {
					b.Apply(profile(fmt.Sprintf("%q, {address: %q, weight: 0}", f.alive, f.dead)))
				}
				for range clients {
					b.Check(<-errs)
					if r := <-replies; r.Backend != netip.MustParseAddrPort(f.alive).Addr().String() {
						t.Errorf("%s answered", r.Backend)
					}
				}
			})
		}
	}
}

// TestSameServers: changes that leave the servers and destinations alone keep
// UDP flows, affinity, live connections and counters, whatever becomes of the
// marks.
func TestSameServers(t *testing.T) {
	t.Parallel()
	const clients = 6
	profile := func(name, service, web, dns string) string {
		return fmt.Sprintf(`profile: %[1]s
services:
  - {name: web%[2]s, listen: "203.0.113.10:80", affinity: 10m, scheduler: random, backends: [%[3]s]}
  - {name: dns%[2]s, listen: "203.0.113.10:53", protocol: udp, scheduler: random, backends: [%[4]s]}
  - {name: web6%[2]s, listen: "[2001:db8::10]:80", affinity: 10m, scheduler: random, backends: ["fd02::11", "fd02::12"]}
`, name, service, web, dns)
	}
	const two = "10.2.0.11, 10.2.0.12"
	for _, change := range []struct{ name, after string }{
		{"order, name and weight", profile("shop", "", "{address: 10.2.0.12, name: b, weight: 3}, 10.2.0.11", "{address: 10.2.0.12, weight: 2}, 10.2.0.11")},
		{"snat", profile("shop", "", "{address: 10.2.0.11, snat: 10.2.0.1}, 10.2.0.12", "{address: 10.2.0.11, snat: 10.2.0.1}, 10.2.0.12")},
		{"the port is said", profile("shop", "", `"10.2.0.11:80", "10.2.0.12:80"`, `"10.2.0.11:53", "10.2.0.12:53"`)},
		{"services renamed", profile("shop", "-new", two, two)},
		{"profile renamed", profile("store", "", two, two)},
	} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{80, 53}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
			b.Apply(profile("shop", "", two, two))
			var flows, live []*traffic.Conn // held, or they would be closed
			stays := map[string]string{}    // who answered, by the client and what it asked
			ask := func(source, network, to string) (string, *traffic.Conn) {
				c := b.From()
				c.Source = netip.MustParseAddr(source)
				conn, err := c.Dial(t.Context(), network, netip.MustParseAddrPort(to))
				b.Check(err)
				return conn.Reply.Backend, conn
			}
			for i := range clients {
				v4, v6 := fmt.Sprintf("10.1.0.%d", 100+i), fmt.Sprintf("fd01::%d", 100+i)
				b.Address(b.Client, "eth0", v4+"/24", v6+"/64")
				for source, to := range map[string]string{v4: "203.0.113.10:80", v6: "[2001:db8::10]:80"} {
					who, conn := ask(source, "tcp", to)
					stays[source] = who
					live = append(live, conn)
				}
				_, conn := ask(v4, "udp", "203.0.113.10:53")
				flows = append(flows, conn)
			}
			var result *nft.Result
			b.Kernel(b.Balancer, func(c *wire.Conn) (err error) {
				result, err = nft.Apply(t.Context(), c, []*lb.Profile{b.Parse(change.after)}, nft.Options{Table: "nlb", Prune: true})
				return err
			})
			if result.Ended > 0 {
				t.Errorf("%d flows were ended", result.Ended)
			}
			for _, c := range flows {
				was := c.Reply.Backend
				now, err := c.Again()
				b.Check(err)
				if now.Backend != was {
					t.Errorf("a flow went from %s to %s", was, now.Backend)
				}
			}
			for _, source := range slices.Sorted(maps.Keys(stays)) {
				to := "203.0.113.10:80"
				if strings.Contains(source, ":") {
					to = "[2001:db8::10]:80"
				}
				who, conn := ask(source, "tcp", to)
				if who != stays[source] {
					t.Errorf("%s went from %s to %s", source, stays[source], who)
				}
				live = append(live, conn)
			}
			for _, c := range live {
				_, err := c.Again()
				b.Check(err)
			}
			s := b.Load()
			connections, open := 0, 0
			b.Kernel(b.Balancer, func(c *wire.Conn) error {
				u, err := nft.ReadUsage(c, s)
				for _, p := range s.Profiles {
					for _, service := range p.Services {
						for _, one := range service.Backends {
							stats := s.Stats(p.Name, service.Name, one.Address, u)
							connections += int(stats.Connections)
							open += stats.Live
						}
					}
				}
				return err
			})
			runtime.KeepAlive(live)
			// Each client has two TCP connections of each family, and a flow.
			if connections != 5*clients || open != 5*clients {
				t.Errorf("%d connections are counted, %d are live, want %d", connections, open, 5*clients)
			}
		})
	}
}

// TestFlushKeepsConnections: what is open when the table is flushed goes on,
// until it ends or is cut.
func TestFlushKeepsConnections(t *testing.T) {
	t.Parallel()
	const profile = `profile: shop
services: [{name: web, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}]
`
	flush := func(b *bed, cut bool) *nft.Result {
		var result *nft.Result
		b.Kernel(b.Balancer, func(c *wire.Conn) (err error) {
			_, result, err = nft.Flush(t.Context(), c, nil, nft.Options{Table: "nlb", Cut: cut})
			return err
		})
		return result
	}
	open := func(b *bed) []*traffic.Conn {
		var out []*traffic.Conn
		for _, to := range []string{"203.0.113.10:80", "[2001:db8::10]:80"} {
			c := b.From()
			c.Timeout, c.Reset = 2*time.Second, true
			conn, err := c.Dial(t.Context(), "tcp", netip.MustParseAddrPort(to))
			b.Check(err)
			out = append(out, conn)
		}
		return out
	}
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprint("cut ", cut), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
			// The balancer itself would answer, if nothing were translated.
			b.Address(b.Balancer, "lo", "203.0.113.10/32", "2001:db8::10/128")
			b.Apply(profile)
			conns := open(b)
			result := flush(b, cut)
			if want := map[bool]int{false: 2, true: 0}[cut]; result.Open != want {
				t.Errorf("%d connections are said to go on, want %d", result.Open, want)
			}
			for _, c := range conns {
				if _, err := c.Again(); (err == nil) == cut {
					t.Errorf("after the flush: %v", err)
				}
			}
			if _, err := b.From().Exchange(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80")); err == nil {
				t.Error("a new connection is still balanced")
			}
			if cut {
				if b.Load().Exists() {
					t.Error("the table is still there")
				}
				return
			}
			b.undrifted("what the flush left")
			b.Apply(profile)
			for _, c := range conns {
				_, err := c.Again()
				b.Check(err)
				b.Check(c.Close())
			}
			flush(b, false)
			if b.Load().Exists() {
				t.Error("the table is still there, although nothing is open")
			}
		})
	}
}

// TestMovingFlowsTakesNoTurn: while one apply moves the flows of a removed
// backend, another one is not kept waiting, and leaves it alone.
func TestMovingFlowsTakesNoTurn(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{53}, "10.2.0.11", "10.2.0.12")
	profile := func(name, listen, backends string) *lb.Profile {
		return b.Parse(fmt.Sprintf("profile: %s\nservices: [{name: dns, listen: %q, protocol: udp, backends: [%s]}]\n", name, listen, backends))
	}
	// Turns are ports of sockets, which are opened where the balancer is.
	apply := func(o nft.Options, p *lb.Profile) (result *nft.Result) {
		o.Table = "nlb"
		err := b.Balancer.Do(func() error {
			c, err := wire.Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			result, err = nft.Apply(context.WithoutCancel(t.Context()), c, []*lb.Profile{p}, o)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return result
	}
	apply(nft.Options{}, profile("one", "203.0.113.10:53", "10.2.0.11, 10.2.0.12"))
	for range 4 {
		conn, err := b.From().Dial(t.Context(), "udp", netip.MustParseAddrPort("203.0.113.10:53"))
		b.Check(err)
		defer conn.Close()
	}
	moved := make(chan *nft.Result)
	go func() {
		moved <- apply(nft.Options{Settle: 3 * time.Second}, profile("one", "203.0.113.10:53", "10.2.0.11"))
	}()
	eventually(t, "flows are moving", b.moving)
	apply(nft.Options{}, profile("two", "203.0.113.20:53", "10.2.0.11"))
	select {
	case <-moved:
		t.Error("the second apply waited for the first one's flows")
	default:
	}
	if !b.moving() {
		t.Error("the second apply took away what moves the first one's flows")
	}
	if r := <-moved; r.Ended == 0 {
		t.Error("no flow was moved")
	}
	if drift := b.Load().Drift(); len(drift) > 0 || b.moving() {
		t.Errorf("left behind: %v", drift)
	}
}

// meddled is a transport beside which somebody changes nlb's table, before the first
// message of which is is true.
type meddled struct {
	wire.Transport
	is      func(batches int, b []byte) bool
	meddle  func()
	batches int
}

func (m *meddled) Send(b []byte) error {
	if m.meddle != nil && m.is(m.batches, b) {
		m.meddle()
		m.meddle = nil
	}
	if netlabtest.IsBatch(b) {
		m.batches++
	}
	return m.Transport.Send(b)
}

// TestMovingSeesOthers: what somebody else changes between an apply and the moving of its
// flows is not taken for what nlb left: the next apply puts it right.
func TestMovingSeesOthers(t *testing.T) {
	t.Parallel()
	for name, is := range map[string]func(batches int, b []byte) bool{
		"before the flows move": func(batches int, b []byte) bool { return batches == 1 && !netlabtest.IsBatch(b) },
		"as they begin to move": func(_ int, b []byte) bool { return netlabtest.IsBatch(b) && bytes.Contains(b, []byte("moving")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{53}, "10.2.0.11", "10.2.0.12")
			profile := func(backends string) []*lb.Profile {
				return []*lb.Profile{b.Parse("profile: shop\nservices: [{name: dns, listen: \"203.0.113.10:53\", protocol: udp, backends: [" + backends + "]}]\n")}
			}
			apply := func(m *meddled, profiles []*lb.Profile) {
				b.Check(b.Balancer.Do(func() error {
					transport, err := wire.Open()
					if err != nil {
						return err
					}
					m.Transport = transport
					c := wire.NewConn(m)
					defer c.Close()
					_, err = nft.Apply(t.Context(), c, profiles, nft.Options{Table: "nlb", Record: true})
					return err
				}))
			}
			apply(&meddled{}, profile("10.2.0.11, 10.2.0.12"))
			for range 4 {
				conn, err := b.From().Dial(t.Context(), "udp", netip.MustParseAddrPort("203.0.113.10:53"))
				b.Check(err)
				defer conn.Close()
			}
			m := &meddled{is: is, meddle: func() { b.NFT(b.Balancer, "flush chain inet nlb postrouting") }}
			apply(m, profile("10.2.0.11"))
			if m.meddle != nil || len(b.Load().Drift()) == 0 {
				t.Fatal("nobody has meddled")
			}
			apply(&meddled{}, profile("10.2.0.11"))
			if drift := b.Load().Drift(); len(drift) > 0 {
				t.Errorf("it stays: %v", drift)
			}
		})
	}
}

// TestDownBackend: a server that is down gets no new connection, its UDP flows
// move, its TCP connections go on, and the table knows both what is wanted and
// what is effective.
func TestDownBackend(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{80, 53}, "10.2.0.11", "10.2.0.12")
	wanted := b.Parse(`profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", affinity: 10m, backends: [10.2.0.11, {address: 10.2.0.12, weight: 5, name: b2}]}
  - {name: dns, listen: "203.0.113.10:53", protocol: udp, backends: [10.2.0.11, {address: 10.2.0.12, weight: 5}]}
`)
	apply := func(known map[lb.BackendID]lb.Standing) (result *nft.Result) {
		b.Kernel(b.Balancer, func(c *wire.Conn) (err error) {
			result, err = nft.Apply(t.Context(), c, lb.Overlay([]*lb.Profile{wanted}, known, nil), nft.Options{Table: "nlb"})
			return err
		})
		return result
	}
	apply(nil)
	web, dns := netip.MustParseAddrPort("203.0.113.10:80"), netip.MustParseAddrPort("203.0.113.10:53")
	dial := func(network string, to netip.AddrPort) *traffic.Conn {
		for {
			c, err := b.From().Dial(t.Context(), network, to)
			b.Check(err)
			if c.Reply.Backend == "10.2.0.12" {
				return c
			}
		}
	}
	live, flow := dial("tcp", web), dial("udp", dns)
	server := endpoint("10.2.0.12:0")
	disabled := lb.Standing{Order: lb.OrderDisable}
	down := map[lb.BackendID]lb.Standing{
		{Profile: "shop", Service: "web", Address: server}: disabled, {Profile: "shop", Service: "dns", Address: server}: disabled,
	}
	result := apply(down)
	if len(result.Changes) > 0 || result.Batches != 1 {
		t.Errorf("%d batches, changes %v: what is wanted is the same", result.Batches, result.Changes)
	}
	if got := count(b.Row("tcp", web.String(), 4))["10.2.0.12"]; got > 0 {
		t.Errorf("%d new connections went to the server that is down", got)
	}
	if now, err := flow.Again(); err != nil || now.Backend != "10.2.0.11" {
		t.Errorf("the flow is with %s: %v", now.Backend, err)
	}
	if _, err := live.Again(); err != nil {
		t.Errorf("the open connection broke: %v", err)
	}
	s := b.Load()
	for _, service := range s.Profiles[0].Services {
		if one := service.Backends[1]; one.Weight != 5 || one.State != lb.Down {
			t.Errorf("%s: weight %d %s, want 5 down", service.Name, one.Weight, one.State)
		}
	}
	if drift := s.Drift(); len(drift) > 0 {
		t.Errorf("drift: %v", drift)
	}
	apply(nil)
	if s := b.Load(); s.Profiles[0].Services[0].Backends[1].State != lb.Up {
		t.Error("it stays down")
	}
	b.WantShares(count(b.Row("udp", dns.String(), 12)), map[string]int{"10.2.0.11": 2, "10.2.0.12": 10})
}

// eventually waits for something that is due.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(25 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is not so: %s", what)
		}
	}
}

// TestEarlierFlow: a UDP flow that began before there was a service is balanced as soon
// as there is one, although its client goes on without a pause. What a program of this
// host answers stays with it.
func TestEarlierFlow(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ name, vip, own, backend string }{
		{"IPv4", "203.0.113.10:8080", "203.0.113.10/32", "10.2.0.11:8080"},
		{"IPv6", "[2001:db8::10]:8080", "2001:db8::10/128", "[fd02::11]:8080"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, netip.MustParseAddrPort(f.backend).Addr().String())
			b.Address(b.Balancer, "lo", f.own)
			b.NFT(b.Balancer, "table inet tracks { chain c { type filter hook prerouting priority 0; ct state new counter; }; }")
			var c net.Conn
			b.Check(b.Client.Do(func() (err error) { c, err = net.Dial("udp", f.vip); return err }))
			defer c.Close()
			ask := func() bool { // a refusal of before is none of now
				_, _ = c.Write([]byte("?\n"))
				b.Check(c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)))
				_, err := c.Read(make([]byte, 512))
				return err == nil
			}
			for range 3 {
				if ask() {
					t.Fatal("somebody answers before there is a service")
				}
			}
			local := netip.AddrPortFrom(netip.MustParseAddrPort(f.vip).Addr(), 8081)
			_, err := traffic.Serve(b.Balancer, "local", traffic.Port{Network: "udp", At: local})
			b.Check(err)
			live, err := b.From().Dial(t.Context(), "udp", local)
			b.Check(err)
			defer live.Close()
			b.Apply(fmt.Sprintf("profile: shop\nservices: [{name: dns, listen: [%q, %q], protocol: udp, backends: [%q]}]\n", f.vip, local, f.backend))
			answered := false
			for deadline := time.Now().Add(10 * time.Second); !answered && time.Now().Before(deadline); {
				answered = ask()
			}
			if !answered {
				t.Error("it stays with nobody")
			}
			if got, err := live.Again(); err != nil || got.Backend != "local" {
				t.Errorf("what this host answered is answered by %q, %v", got.Backend, err)
			}
		})
	}
}
