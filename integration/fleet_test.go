package integration

// Services of a fleet: connections that come from another balancer, which conntrack
// here knows nothing of.

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"nlb/integration/lab/fleet"
	"nlb/integration/netlab/traffic"
)

// move has the balancer's conntrack forget all connections: to it, those that go on
// come from another balancer.
func (b *bed) move() {
	b.T.Helper()
	b.Check(b.Balancer.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
}

// again is how many connections go on, each with its backend.
func again(conns []*traffic.Conn) int {
	var n atomic.Int32
	var wait sync.WaitGroup
	for _, c := range conns {
		wait.Go(func() {
			was := c.Reply.Backend
			if r, err := c.Again(); err == nil && r.Backend == was {
				n.Add(1)
			}
		})
	}
	wait.Wait()
	return int(n.Load())
}

const fleetBackends = `backends: ["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080", "[fd02::11]:8080", "[fd02::12]:8080"]`

// fleetBed is a bed with a profile that has the service web, and open connections to
// it, of which some are of UDP.
func fleetBed(t *testing.T, file, service string) (*bed, []*traffic.Conn) {
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12")
	b.Apply("profile: shop\n" + file + `services:
  - {name: web, protocol: [tcp, udp], listen: ["203.0.113.10:80", "[2001:db8::10]:80"], ` + service + fleetBackends + "}\n")
	var conns []*traffic.Conn
	client := b.From()
	client.Timeout = time.Second
	for range 6 {
		for _, to := range []string{"203.0.113.10:80", "[2001:db8::10]:80"} {
			for _, network := range []string{"tcp", "udp"} {
				c, err := client.Dial(t.Context(), network, netip.MustParseAddrPort(to))
				b.Check(err)
				t.Cleanup(func() { c.Close() })
				conns = append(conns, c)
			}
		}
	}
	return b, conns
}

// TestPickedUp: connections go on where conntrack does not know them, past all limits,
// and none does without a fleet.
func TestPickedUp(t *testing.T) {
	t.Parallel()
	const hash = "scheduler: hash, hash-by: [source-address, source-port], snat: none, "
	for _, tt := range []struct {
		name, file, service string
		lost                int // of 24, half of them UDP
	}{
		{"alone", "", hash, 12},
		{"anycast", "fleet: anycast\n", strings.ReplaceAll(hash, "hash,", "consistent,"), 0},
		{"with limits", "fleet: anycast\n", hash + "limit: {new-per-source: 1/hour, burst: 12, new: 24/hour}, ", 12}, // UDP meets limits
		{"mesh", "fleet: mesh\n", hash, 0},
		{"beside what no service takes", "fleet: anycast\n", hash + "unserved: reject, ", 0},
		{"another service", "fleet: anycast\n", hash, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, conns := fleetBed(t, tt.file, tt.service)
			if tt.name == "another service" {
				b.NFT(b.Balancer, "table inet nlb { set seen { type mark; }; }") // the table was read and changed meanwhile
				b.Apply("profile: other\nservices: [{name: web, listen: \"203.0.113.99:80\", backends: \"10.2.0.11:8080\"}]\n")
			}
			b.move()
			if n := again(conns); len(conns)-n != tt.lost {
				t.Errorf("%d of %d connections were lost, want %d", len(conns)-n, len(conns), tt.lost)
			}
		})
	}
}

// TestPickedUpDenied: deny holds for connections in their middle.
func TestPickedUpDenied(t *testing.T) {
	t.Parallel()
	b, conns := fleetBed(t, "fleet: anycast\n", "scheduler: hash, snat: none, deny: 10.1.0.9, ")
	b.Address(b.Client, "eth0", "10.1.0.9/24")
	b.move()
	if n := again(conns); n != len(conns) {
		t.Errorf("%d of %d connections go on", n, len(conns))
	}
	b.Apply("profile: shop\nfleet: anycast\nservices: [{name: web, scheduler: hash, snat: none, deny: [10.1.0.2, \"fd01::2\"], listen: [\"203.0.113.10:80\", \"[2001:db8::10]:80\"], " + fleetBackends + "}]\n")
	b.move()
	if _, err := conns[0].Again(); !errors.Is(err, traffic.ErrRefused) {
		t.Errorf("a denied client's connection: %v, want a reset", err)
	}
}

// TestPickedUpLater: a mesh that draws in turn waits for the entry.
func TestPickedUpLater(t *testing.T) {
	t.Parallel()
	b, conns := fleetBed(t, "fleet: mesh\n", "snat: none, ")
	b.move()
	if _, err := conns[0].Again(); !errors.Is(err, traffic.ErrTimeout) {
		t.Errorf("a connection without an entry: %v, want silence", err)
	}
}

// TestPickedUpNotOwn: connections that a socket of this host has stay with it, although
// they go to an address of the fleet; so do those that it has opened itself.
func TestPickedUpNotOwn(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.local([]string{"tcp"}, "10.1.0.1:80", "[fd01::1]:80")
	var conns []*traffic.Conn
	for _, to := range []string{"10.1.0.1:80", "[fd01::1]:80"} {
		c, err := b.dial("tcp", to)
		b.Check(err)
		defer c.Close()
		conns = append(conns, c)
	}
	b.Apply(`profile: shop
fleet: anycast
services: [{name: web, scheduler: hash, snat: none, listen: ["10.1.0.1:80", "[fd01::1]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}]
`)
	if n := again(conns); n != len(conns) {
		t.Errorf("%d of %d connections to this host go on", n, len(conns))
	}
	if got := b.Ask("tcp", "10.1.0.1:80").Backend; got != "10.2.0.11" {
		t.Errorf("a new connection: %q answers", got)
	}
}

// TestStrays: a server that speaks before the client, in a connection that this
// balancer does not know, harms it only where strays pass.
func TestStrays(t *testing.T) {
	t.Parallel()
	for _, pass := range []bool{false, true} {
		t.Run(map[bool]string{false: "dropped", true: "passed on"}[pass], func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			var servers []*traffic.Server
			for _, a := range []string{"10.2.0.11:8080", "[fd02::11]:8080"} {
				s, err := traffic.Serve(b.Server, a, traffic.Port{Network: "tcp", At: netip.MustParseAddrPort(a)})
				b.Check(err)
				servers = append(servers, s)
			}
			b.Apply(`profile: shop
fleet: anycast
services: [{name: web, scheduler: hash, snat: none, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}]
`)
			if pass {
				b.NFT(b.Balancer, "flush chain inet nlb strays")
			}
			var conns []*traffic.Conn
			for _, to := range []string{"203.0.113.10:80", "[2001:db8::10]:80"} {
				c, err := b.dial("tcp", to)
				b.Check(err)
				defer c.Close()
				conns = append(conns, c)
			}
			b.move()
			for _, s := range servers {
				s.Push()
			}
			time.Sleep(50 * time.Millisecond) // for what answers it
			if n := again(conns); (n == len(conns)) == pass {
				t.Errorf("%d of %d connections go on", n, len(conns))
			}
		})
	}
}

// TestAnsweredElsewhere: a handshake that a server answers by way of another balancer is
// late, and not reset by this one, which has the address.
func TestAnsweredElsewhere(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"203.0.113.10:80", "[2001:db8::10]:80"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
			b.Address(b.Balancer, "lo", "203.0.113.10/32", "2001:db8::10/128")
			b.Check(b.Balancer.SetSysctl("net.ipv4.conf.all.accept_local", "1")) // of the answer
			b.Apply(`profile: shop
fleet: mesh
services: [{name: web, snat: none, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}]
`)
			b.NFT(b.Balancer, `table inet elsewhere {
	chain translate {
		tcp sport set 80
		ip saddr set 203.0.113.10
		ip6 saddr set 2001:db8::10
	}
	chain answers {
		type filter hook prerouting priority -310
		tcp sport 8080 tcp flags & (syn|ack) == syn|ack limit rate 1/hour burst 1 packets notrack jump translate
	}
}
`)
			client := b.From()
			client.Timeout = 10 * time.Second
			if _, err := client.Exchange(t.Context(), "tcp", netip.MustParseAddrPort(to)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFleetParameters: what a fleet needs of the kernel is set, remembered and put
// back, and a profile that may not set it is refused.
func TestFleetParameters(t *testing.T) {
	t.Parallel()
	const loose, liberal = "net.netfilter.nf_conntrack_tcp_loose", "net.netfilter.nf_conntrack_tcp_be_liberal"
	b := newBed(t)
	set := func(value string) {
		b.Check(errors.Join(b.Balancer.SetSysctl(loose, value), b.Balancer.SetSysctl(liberal, value)))
	}
	holds := func(when, want string) {
		for _, name := range []string{loose, liberal} {
			if got, err := b.Balancer.Sysctl(name); got != want || err != nil {
				t.Errorf("%s: %s is %s, want %s (%v)", when, name, got, want, err)
			}
		}
	}
	set("0")
	const services = "services: [{name: web, scheduler: hash, snat: none, listen: \"203.0.113.10:80\", backends: \"10.2.0.11:8080\"}]\n"
	kept := b.write("kept.yaml", "fleet: anycast\nsysctl: keep\n"+services)
	b.shell(b.Balancer, "nlb apply "+kept+" 2>&1 | grep -F 'says sysctl: keep, and "+liberal+" is 0, not 1'")
	holds("refused", "0")
	b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", "fleet: anycast\n"+services))
	holds("applied", "1")
	b.shell(b.Balancer, "nlb flush --sysctl")
	holds("flushed", "0")
}

// rehearsedFleet is a profile for nlb lab --fleet.
func rehearsedFleet(kind, scheduler string) string {
	return "fleet: " + kind + `
defaults: {scheduler: ` + scheduler + `, hash-by: [source-address, source-port], snat: none}
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    limit: {new-per-source: 40/second, burst: 40}
    backends: ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080", "10.0.0.14:8080", "[fd00::11]:8080", "[fd00::12]:8080", "[fd00::13]:8080", "[fd00::14]:8080"]
`
}

// TestRehearsedFleet: with fleet: anycast no connection is lost where a balancer comes or
// goes, and few where backends change at the same moment. Without a fleet some are, so
// the rehearsal finds them.
func TestRehearsedFleet(t *testing.T) {
	t.Parallel()
	const steps, backendSteps = 12, 4
	run := func(t *testing.T, nobody bool, profile string) (code int, r fleet.Report) {
		if *full { // alone it would wait behind all other tests
			t.Parallel()
		}
		c := rehearsal(t, nobody, []byte(profile), "150")
		c.Args = append(c.Args, "--fleet", "3", "--json")
		code, out, errs := rehearse(t, c)
		if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Steps) != steps {
			t.Fatalf("exit %d, %v, %d steps\n%s%s", code, err, len(r.Steps), out, errs)
		}
		for _, s := range r.Steps {
			figures(t, "fleet: %s: %s: %d of %d lost, %d of %d new failed", r.Fleet, s.What, s.Lost, s.Of, s.Failed, s.New)
		}
		return code, r
	}
	keeps := func(scheduler string) func(t *testing.T, nobody bool) {
		return func(t *testing.T, nobody bool) {
			code, r := run(t, nobody, rehearsedFleet("anycast", scheduler))
			if code != 0 {
				t.Errorf("exit %d", code)
			}
			for i, s := range r.Steps {
				if i < steps-backendSteps && s.Lost > 0 || s.Most >= 0 && s.Lost > s.Most {
					t.Errorf("%s: %d connections were lost, at most %d may be", s.What, s.Lost, s.Most)
				}
			}
		}
	}
	t.Run("consistent", func(t *testing.T) {
		if *full {
			users(t, keeps("consistent"))
			return
		}
		keeps("consistent")(t, false)
	})
	if !*full {
		return
	}
	t.Run("hash", func(t *testing.T) { keeps("hash")(t, false) })
	t.Run("alone", func(t *testing.T) {
		_, r := run(t, false, rehearsedFleet("none", "consistent"))
		for _, s := range r.Steps[:steps-backendSteps] {
			if s.Lost == 0 || s.Most != -1 {
				t.Errorf("%s: %d connections were lost, and %d may be", s.What, s.Lost, s.Most)
			}
		}
	})
}
