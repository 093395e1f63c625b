package integration

// What real networks do: kinds of trouble that people meet with balancers. The table
// in docs/field.md leads here.

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// TestGhostsEnd: connections whose ends have vanished do not count for longer than the
// service says. Nothing is sent in them, and Linux would remember them for five days.
func TestGhostsEnd(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"backends: [{address: 10.2.0.11:8080, max-connections: 3}]", "limit: {connections-per-source: 3}, backends: [10.2.0.11:8080]"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11")
			profile := "profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", timeouts: {established: 2s}, " + limit + "}]\n"
			b.Apply(profile)
			if open := b.holdMost("tcp", "203.0.113.10:80", 5); len(open) > 3 {
				t.Fatalf("%d connections at once, want 3", len(open))
			}
			b.eventually("new clients are served beside silent connections", func() bool {
				c, err := b.dial("tcp", "203.0.113.10:80")
				if err == nil {
					c.Close()
				} else if !errors.Is(err, traffic.ErrRefused) {
					t.Errorf("%v, want it refused", err)
				}
				return err == nil
			})
		})
	}
}

// TestTimeouts: each state of a connection has the timeout that the service says.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply(`profile: shop
services:
  - name: web
    listen: "203.0.113.10:80"
    protocol: [tcp, udp]
    timeouts: {established: 3000s, close-wait: 4000s, half-open: 5000s, time-wait: 6000s, udp: 7000s, udp-idle: 8000s}
    backends: 10.2.0.11:8080
`)
	left := func(what string, state uint8, want time.Duration) {
		t.Helper()
		for _, got := range b.remembered(state) {
			if got <= want && got > want-time.Minute {
				return
			}
		}
		t.Errorf("%s: conntrack remembers it for %v, want %v", what, b.remembered(state), want)
	}
	if got := b.halfClosed(); got > 4000*time.Second || got < 3900*time.Second {
		t.Errorf("half closed: conntrack remembers it for %v, want 4000s", got)
	}
	b.Serve([]int{8080}, "10.2.0.11")
	open := map[string]*traffic.Conn{}
	for _, network := range []string{"tcp", "udp"} {
		c, err := b.dial(network, "203.0.113.10:80")
		b.Check(err)
		defer c.Close()
		open[network] = c
	}
	left("established", tcpEstablished, 3000*time.Second)
	left("a first datagram with its answer", notTCP, 8000*time.Second)
	b.Check(open["tcp"].Close())
	b.eventually("a connection has ended", func() bool { return len(b.remembered(tcpTimeWait)) > 0 })
	left("ended", tcpTimeWait, 6000*time.Second)
	b.NFT(b.Server, "add table inet mute\nadd chain inet mute in { type filter hook input priority 0; }\nadd rule inet mute in tcp flags syn drop\n")
	if _, err := b.dial("tcp", "203.0.113.10:80"); err == nil {
		t.Error("a server that is mute answers")
	}
	left("half open", tcpSynSent, 5000*time.Second)
	b.eventually("a flow of datagrams lasts", func() bool {
		_, err := open["udp"].Again()
		return err == nil && slices.ContainsFunc(b.remembered(notTCP), func(d time.Duration) bool { return d <= 7000*time.Second })
	})
	left("datagrams for longer", notTCP, 7000*time.Second)

	listed := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	if n := strings.Count(listed, "ct timeout timeouts-"); n != 2 {
		t.Errorf("nft lists %d policies, want 2:\n%s", n, listed)
	}
}

// TestAffinityLasts: a client with an open connection stays with its backend, whenever
// it opened its last one; and is forgotten when the connection has ended.
func TestAffinityLasts(t *testing.T) {
	t.Parallel()
	for _, family := range []struct{ vip, source, one, two string }{
		{"203.0.113.10:80", "10.1.0.%d/24", "10.2.0.11:8080", "10.2.0.12:8080"},
		{"[2001:db8::10]:80", "fd01::%d/64", "[fd02::11]:8080", "[fd02::12]:8080"},
	} {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(network+" "+family.vip, func(t *testing.T) {
				t.Parallel()
				b := newBed(t)
				b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
				b.Apply(fmt.Sprintf("profile: shop\nservices:\n  - {name: web, listen: %q, protocol: [tcp, udp], scheduler: random, affinity: 1s, backends: [%q, %q]}\n", family.vip, family.one, family.two))
				const clients = 16
				from := make([]traffic.Client, clients)
				open := make([]*traffic.Conn, clients)
				for i := range clients {
					prefix := fmt.Sprintf(family.source, 100+i)
					b.Address(b.Client, "eth0", prefix)
					from[i] = b.From()
					from[i].Source = netip.MustParsePrefix(prefix).Addr()
					var err error
					open[i], err = from[i].Dial(t.Context(), network, netip.MustParseAddrPort(family.vip))
					b.Check(err)
					defer open[i].Close()
				}
				at := b.clientsOf("shop/web", netip.MustParseAddrPort(family.vip).Addr())
				remembered := func(name string) int {
					return strings.Count(b.Witness(b.Balancer, "", "nft", "list", "map", "inet", "nlb", name), ": 0x")
				}
				b.eventually("the time since the last new connection is over", func() bool { return remembered(at.Set) == 0 })
				for i, c := range from {
					reply, err := c.Exchange(t.Context(), "tcp", netip.MustParseAddrPort(family.vip))
					b.Check(err)
					if reply.Backend != open[i].Reply.Backend {
						t.Errorf("client %d has a connection to %s and came to %s", i, open[i].Reply.Backend, reply.Backend)
					}
				}
				if network == "udp" {
					return // they live for a while
				}
				for _, c := range open {
					b.Check(c.Close())
				}
				b.eventually("clients without open connections are forgotten", func() bool { return remembered(at.Open)+remembered(at.Set) == 0 })
			})
		}
	}
}

// TestAffinityGroups: a client meets the same server in all services of a group,
// whatever their ports, and another one in all when that server has left one.
func TestAffinityGroups(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080, 8443}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12", "fd02::13")
	profile := func(weight int) string {
		return fmt.Sprintf(`profile: shop
defaults: {affinity: {timeout: 10m, group: web}}
services:
  - {name: plain, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], scheduler: random, backends: ["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080", "[fd02::11]:8080", "[fd02::12]:8080", "[fd02::13]:8080"]}
  - {name: tls, listen: ["203.0.113.10:443", "[2001:db8::10]:443"], scheduler: random, backends: ["10.2.0.13:8443", "10.2.0.12:8443", {address: "10.2.0.11:8443", weight: %d}, "[fd02::11]:8443", "[fd02::12]:8443", {address: "[fd02::13]:8443", max-connections: 100}]}
`, weight)
	}
	b.Apply(profile(1))
	var clients []traffic.Client
	for i := range 16 {
		for _, form := range []string{"10.1.0.%d/24", "fd01::%d/64"} {
			prefix := netip.MustParsePrefix(fmt.Sprintf(form, 100+i))
			b.Address(b.Client, "eth0", prefix.String())
			c := b.From()
			c.Source = prefix.Addr()
			clients = append(clients, c)
		}
	}
	ask := func(c traffic.Client, port uint16) string {
		vip := netip.MustParseAddr("203.0.113.10")
		if c.Source.Is6() {
			vip = netip.MustParseAddr("2001:db8::10")
		}
		reply, err := c.Exchange(t.Context(), "tcp", netip.AddrPortFrom(vip, port))
		b.Check(err)
		return reply.Local.Addr().String()
	}
	met := map[string]int{}
	for i, c := range clients {
		ports := []uint16{80, 443}
		if i%4 > 1 {
			ports = []uint16{443, 80}
		}
		first, second := ask(c, ports[0]), ask(c, ports[1])
		if met[first]++; first != second {
			t.Errorf("%s met %s at port %d, and %s at %d", c.Source, first, ports[0], second, ports[1])
		}
	}
	if len(met) < 4 {
		t.Errorf("all clients met the same servers: %v", met)
	}
	b.Apply(profile(0)) // 10.2.0.11 drains at port 443
	for _, c := range clients {
		tls := ask(c, 443)
		if plain := ask(c, 80); tls != plain || tls == "10.2.0.11" {
			t.Errorf("after a drain, %s met %s at port 443, and %s at 80", c.Source, tls, plain)
		}
	}
}

// TestLimitsCountNetworks: addresses of one network are one client of a limit, those of
// another one are another.
func TestLimitsCountNetworks(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.Apply(`profile: shop
services:
  - {name: new, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], limit: {new-per-source: 1/hour, burst: 5, prefix: 24, prefix6: 64}, backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: live, listen: ["203.0.113.10:81", "[2001:db8::10]:81"], limit: {connections-per-source: 5, prefix: 24, prefix6: 64}, backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
`)
	for _, network := range []struct{ form, vip string }{
		{"10.1.0.%d/24", "203.0.113.10"}, {"10.1.7.%d/24", "203.0.113.10"}, {"fd01::%d/64", "2001:db8::10"}, {"fd01:0:0:7::%d/64", "2001:db8::10"},
	} {
		var sources []netip.Addr
		for i := range 10 {
			p := netip.MustParsePrefix(fmt.Sprintf(network.form, 100+i))
			b.Address(b.Client, "eth0", p.String())
			sources = append(sources, p.Addr())
			if i == 0 && strings.Contains(network.form, "7") {
				b.Check(b.Balancer.AddLinkRoute(p.Masked(), "eth0"))
			}
		}
		for _, port := range []uint16{80, 81} {
			taken := 0
			for _, source := range sources {
				c := b.From()
				c.Source = source
				conn, err := c.Dial(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr(network.vip), port))
				if errors.Is(err, traffic.ErrRefused) {
					continue
				}
				b.Check(err)
				defer conn.Close()
				taken++
			}
			if taken != 5 {
				t.Errorf("%d of 10 clients like %s are served at port %d, want 5", taken, sources[0], port)
			}
		}
	}
}

// TestRefusalsAreSilent: with on-refuse: drop nobody hears anything, and it is counted.
func TestRefusalsAreSilent(t *testing.T) {
	t.Parallel()
	for _, what := range []string{
		"deny: 10.1.0.0/24, backends: [10.2.0.11:8080]",
		"limit: {connections-per-source: 1}, backends: [10.2.0.11:8080]",
		"backends: [{address: 10.2.0.11:8080, max-connections: 1}]",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11")
			b.Apply("profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", on-refuse: drop, " + what + "}]\n")
			var err error
			for i := 0; i < 2 && err == nil; i++ {
				var c *traffic.Conn
				if c, err = b.dial("tcp", "203.0.113.10:80"); err == nil {
					defer c.Close()
				}
			}
			if !errors.Is(err, traffic.ErrTimeout) {
				t.Errorf("%v, want silence", err)
			}
			if got := b.Load().Refused("shop", "web"); got == 0 {
				t.Error("it is not counted")
			}
		})
	}
}

// TestAnswersAreBounded: of many connections that are refused only some are answered.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply("profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", deny: 10.0.0.0/8, backends: [10.2.0.11:8080]}]\n")
	b.NFT(b.Client, "add table inet heard\nadd counter inet heard resets\nadd chain inet heard in { type filter hook prerouting priority -400; }\n"+
		"add rule inet heard in tcp flags rst counter name resets drop\n")
	const syns, atOnce, aSecond = 30_000, 1000, 1000
	from, vip := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddrPort("203.0.113.10:80")
	began := time.Now()
	b.Check(b.Client.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		for i := 0; i < syns && err == nil; i++ {
			syn := packet(from, vip.Addr(), unix.IPPROTO_TCP, segment(netip.AddrPortFrom(from, uint16(10_000+i)), vip, flagSYN, 1, 0))
			err = unix.Sendto(fd, syn, 0, &unix.SockaddrInet4{Addr: vip.Addr().As4()})
		}
		return errors.Join(err, unix.Close(fd))
	}))
	b.eventually("all are refused", func() bool { return b.Load().Refused("shop", "web") == syns })
	most := atOnce + aSecond*int(time.Since(began)/time.Second+1)
	var resets int
	_, listed, _ := strings.Cut(b.Witness(b.Client, "", "nft", "list", "counter", "inet", "heard", "resets"), "packets ")
	if _, err := fmt.Sscan(listed, &resets); err != nil {
		t.Fatal(err)
	}
	figures(t, "%d resets for %d connections that are refused", resets, syns)
	if resets < atOnce || resets > most || resets >= syns {
		t.Errorf("%d resets for %d refused connections, want %d to %d", resets, syns, atOnce, most)
	}
}

// TestChosenSourceSurvives: with snat: auto connections outlive a link that goes down and
// up; the source is what the route says, and masquerade's where it is not fixed.
func TestChosenSourceSurvives(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.shell(b.Balancer, "ip address add 10.2.0.7/24 dev eth1; ip route add 10.2.0.12 dev eth1 src 10.2.0.7")
	file := b.write("auto.yaml", "profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", snat: auto, backends: [10.2.0.11:8080, 10.2.0.12:8080]}]\n")
	apply := func() { b.Witness(b.Balancer, "", b.command(), "apply", file) }
	apply()
	var open []*traffic.Conn
	for range 4 {
		c, err := b.dial("tcp", "203.0.113.10:80")
		b.Check(err)
		defer c.Close()
		if want := map[string]string{"10.2.0.11": "10.2.0.1", "10.2.0.12": "10.2.0.7"}[c.Reply.Backend]; c.Reply.Seen.Addr().String() != want {
			t.Errorf("%s sees %s, want %s", c.Reply.Backend, c.Reply.Seen.Addr(), want)
		}
		open = append(open, c)
	}
	b.shell(b.Balancer, "ip link set eth1 down; ip link set eth1 up; ip address del 10.2.0.1/24 dev eth1; ip address add 10.2.0.1/24 dev eth1; ip address add 10.2.0.7/24 dev eth1 2>/dev/null; true")
	for _, c := range open {
		if _, err := c.Again(); err != nil {
			t.Errorf("a connection to %s broke: %v", c.Reply.Backend, err)
		}
	}
	shown := b.Witness(b.Balancer, "", b.command(), "show", "--json")
	if !strings.Contains(shown, `"snat":"auto"`) && !strings.Contains(shown, `"snat": "auto"`) {
		t.Errorf("show says another snat:\n%s", shown)
	}
	// An address that a lease gave is not named.
	b.shell(b.Balancer, "ip address change 10.2.0.1/24 dev eth1 valid_lft 1000 preferred_lft 1000")
	apply()
	for _, backend := range b.Load().Profiles[0].Services[0].Backends {
		if backend.Address.Addr.String() == "10.2.0.11" && backend.SNAT.Mode != lb.Masquerade {
			t.Errorf("an address that may go is named: %+v", backend.SNAT)
		}
	}
}

// TestChosenSourceFollows: the agent names another source once the route says so, and an
// address that goes for a moment stays named.
func TestChosenSourceFollows(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11")
	b.shell(b.Balancer, "ip address add 10.2.0.7/24 dev eth1")
	a := b.agent("profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", snat: auto, backends: [10.2.0.11:8080]}]\n")
	seen := func(source string) func() bool {
		return func() bool { return b.Ask("tcp", "203.0.113.10:80").Seen.Addr().String() == source }
	}
	a.eventually("the route's source", seen("10.2.0.1"))
	open, err := b.dial("tcp", "203.0.113.10:80")
	b.Check(err)
	defer open.Close()
	b.shell(b.Balancer, "ip route add 10.2.0.11 dev eth1 src 10.2.0.7")
	a.eventually("the other source", seen("10.2.0.7"))
	b.shell(b.Balancer, "ip route del 10.2.0.11; ip link set eth1 down; ip link set eth1 up")
	a.eventually("the source of the network", seen("10.2.0.1"))
	if _, err := open.Again(); err != nil {
		t.Errorf("the connection of before broke: %v", err)
	}
}

// States of TCP connections in conntrack (nf_conntrack_tcp.h).
const (
	notTCP         = 0
	tcpSynSent     = 1
	tcpEstablished = 3
	tcpTimeWait    = 7
)

// remembered says for how long the balancer's conntrack remembers the connections of a
// state.
func (b *bed) remembered(state uint8) (out []time.Duration) {
	b.T.Helper()
	b.Check(b.Balancer.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range flows {
			tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP)
			if ok && tcp.State == state || !ok && state == notTCP {
				out = append(out, time.Duration(f.TimeOut)*time.Second)
			}
		}
		return err
	}))
	return out
}
