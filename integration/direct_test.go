package integration

// Direct: services whose packets go to the backends as they are, and whose answers go
// past the balancer (mode: dsr).

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/compile"
	compiled "nlb/nft/direct"
	"nlb/nft/wire"
)

// lan is a world in which balancer, backends and the router to the client are on one
// network. The backends have the addresses of the services on lo. What they answer goes
// to the router, and never passes the balancer.
//
//	client 10.1.0.2 --- router 10.2.0.254 --+-- 10.2.0.1 balancer
//	                                        +-- 10.2.0.11, .12, .13 backends
type lan struct {
	*bed
	router, backplane *netlab.Host
	backends          []*netlab.Host
}

var vips = []string{"203.0.113.10", "2001:db8::10"}

// directText is the table of family netdev for profiles on the balancer of a bed.
func directText(b *bed, profiles []*lb.Profile) string {
	links, err := netlabtest.Links(b.Balancer)(profiles)
	b.Check(err)
	r := compiled.Ruleset("nlb", profiles, nil, compile.NewNumbers(0, profiles), links, func(string) bool { return false })
	if r == nil {
		return ""
	}
	return r.String()
}

// plug joins a host with the network.
func (l *lan) plug(h *netlab.Host, link string, addresses ...string) {
	l.T.Helper()
	port := "to-" + h.Name()
	l.Check(l.World.Link(h, link, l.backplane, port))
	l.Witness(l.backplane, "", "ip", "link", "set", port, "master", "br0")
	l.Address(h, link, addresses...)
}

// plugBalancer joins the balancer with it.
func (l *lan) plugBalancer() {
	l.T.Helper()
	l.plug(l.Balancer, "eth0", "10.2.0.1/24", "fd02::1/64")
	l.Via(l.Balancer, "10.2.0.254", "fd02::254")
}

func newLAN(t testing.TB) *lan {
	t.Helper()
	netlabtest.Packets(t)
	w := netlabtest.NewWorld(t)
	host := func(name string) *netlab.Host { return netlabtest.NewHost(t, w, name) }
	l := &lan{bed: &bed{&netlabtest.Bed{Bed: &netlab.Bed{World: w}, T: t}}}
	l.Client, l.router, l.backplane, l.Balancer = host("client"), host("router"), host("switch"), host("balancer")
	l.Check(w.Join(netlab.NewEnd(l.Client, "eth0", "10.1.0.2/24", "fd01::2/64"), netlab.NewEnd(l.router, "eth0", "10.1.0.1/24", "fd01::1/64")))
	l.Witness(l.backplane, "", "ip", "link", "add", "br0", "type", "bridge")
	l.Witness(l.backplane, "", "ip", "link", "set", "br0", "up")
	l.plug(l.router, "eth1", "10.2.0.254/24", "fd02::254/64")
	l.Check(l.router.Forward())
	l.plugBalancer()
	for _, vip := range vips {
		l.route(vip)
	}
	for i := range 3 {
		b := host(fmt.Sprintf("b%d", i+1))
		l.plug(b, "eth0", fmt.Sprintf("10.2.0.%d/24", 11+i), fmt.Sprintf("fd02::%d/64", 11+i))
		l.Via(b, "10.2.0.254", "fd02::254")
		for _, s := range []string{"all", "lo"} {
			l.Check(b.SetSysctl("net/ipv4/conf/"+s+"/arp_ignore", "1"))
			l.Check(b.SetSysctl("net/ipv4/conf/"+s+"/arp_announce", "2"))
		}
		var ports []traffic.Port
		for _, vip := range vips {
			a := netip.MustParseAddr(vip)
			l.Address(b, "lo", netip.PrefixFrom(a, a.BitLen()).String())
			for _, network := range []string{"tcp", "udp"} {
				ports = append(ports, traffic.Port{Network: network, At: netip.AddrPortFrom(a, 80)}, traffic.Port{Network: network, At: netip.AddrPortFrom(a, 81)})
			}
		}
		_, err := traffic.Serve(b, b.Name(), ports...)
		l.Check(err)
		l.backends = append(l.backends, b)
	}
	return l
}

// route has the router send an address to the balancer.
func (l *lan) route(vip string) {
	l.T.Helper()
	via := "10.2.0.1"
	a := netip.MustParseAddr(vip)
	if a.Is6() {
		via = "fd02::1"
	}
	l.Check(l.router.AddRoute(netip.PrefixFrom(a, a.BitLen()), netip.MustParseAddr(via)))
}

const direct = `profile: shop
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    protocol: [tcp, udp]
    mode: dsr
    scheduler: consistent
`

// members is a list of backends of both families, but some.
func members(without ...int) string {
	var out []string
	for i := range 3 {
		if !slices.Contains(without, i+1) {
			out = append(out, fmt.Sprintf("10.2.0.%d", 11+i), fmt.Sprintf("%q", fmt.Sprintf("fd02::%d", 11+i)))
		}
	}
	return "    backends: [" + strings.Join(out, ", ") + "]\n"
}

// TestDirect: packets of both families and protocols reach all backends as the client
// has sent them, and answers come back, whatever the balancer forwards.
func TestDirect(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.Check(l.Balancer.SetSysctl("net/ipv4/ip_forward", "0"))
	result := l.Apply(direct + members())
	if result.Batches != 1 {
		t.Errorf("both tables took %d batches", result.Batches)
	}
	for _, vip := range vips {
		for _, network := range []string{"tcp", "udp"} {
			met := map[string]int{}
			to := netip.AddrPortFrom(netip.MustParseAddr(vip), 80)
			for range 40 {
				r := l.Ask(network, to.String())
				met[r.Backend]++
				if r.Local != to || r.Seen != r.From {
					t.Fatalf("%s: the backend sees %s to %s, the client is %s", network, r.Seen, r.Local, r.From)
				}
			}
			if len(met) != 3 {
				t.Errorf("%s %s: %v", network, vip, met)
			}
		}
	}
	if n := strings.TrimSpace(l.Witness(l.Balancer, "", "sh", "-c", "cat /proc/net/nf_conntrack | grep -c 203.0.113.10 || true")); n != "0" {
		t.Errorf("%s connections are tracked", n)
	}
	if r := l.Apply(direct + members()); r.Messages != 0 {
		t.Errorf("applied again: %d messages, %v", r.Messages, r.Changes)
	}
	if changes := lb.Compare(l.Load().Profiles, []*lb.Profile{l.Parse(direct + members())}); len(changes) > 0 {
		t.Errorf("read back, the profile differs: %v", changes)
	}
	l.Kernel(l.Balancer, func(c *wire.Conn) error {
		_, _, err := nft.Flush(t.Context(), c, nil, nft.Options{Table: "nlb"})
		return err
	})
	if left := l.Witness(l.Balancer, "", "nft", "list", "ruleset"); left != "" {
		t.Errorf("a flush leaves\n%s", left)
	}
}

// TestDirectListing: what nft lists of the table loads again, and is the same then.
func TestDirectListing(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.Apply(direct+"    remember: 60s\n"+members(), `profile: other
services:
  - {name: hash, mode: dsr, scheduler: hash, interface: eth0, listen: ["203.0.113.11:80-90,443", "[2001:db8::11]:*"], hash-by: [source-address, source-port, destination-address, destination-port, protocol], hash-seed: 0, backends: ["10.2.0.11", "fd02::12"]}
  - {name: port, mode: dsr, scheduler: hash, listen: "203.0.113.12:80-90", hash-by: source-port, backends: [{address: "10.2.0.11", weight: 0}]}
  - {name: none, mode: dsr, scheduler: hash, listen: "203.0.113.13:80", backends: []}
`)
	listing := l.Witness(l.Balancer, "", "nft", "list", "table", "netdev", "nlb")
	l.Witness(l.Balancer, "delete table netdev nlb\n"+listing, "nft", "-f", "-")
	if again := l.Witness(l.Balancer, "", "nft", "list", "table", "netdev", "nlb"); again != listing {
		t.Errorf("listed\n%s\nand loaded\n%s", listing, again)
	}
}

// narrow makes the link to the client take packets of 1,300 bytes only, which nobody says
// to servers in advance.
func (l *lan) narrow() {
	l.T.Helper()
	l.Witness(l.router, "", "ip", "link", "set", "eth0", "mtu", "1300")
	l.Witness(l.Client, "", "ip", "route", "change", "default", "via", "10.1.0.1", "mtu", "1300", "advmss", "1460")
	l.Witness(l.Client, "", "ip", "-6", "route", "change", "default", "via", "fd01::1", "mtu", "1300", "advmss", "1440")
}

// TestDirectErrors: where the link to the client takes packets of 1,300 bytes only, the
// servers learn it from ICMP errors, which come to the balancer.
func TestDirectErrors(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	const long = 64 << 10
	l.narrow()
	for _, b := range l.backends {
		for _, vip := range vips {
			l.Check(b.Do(func() error {
				listener, err := net.Listen("tcp", net.JoinHostPort(vip, "82"))
				if err != nil {
					return err
				}
				t.Cleanup(func() { listener.Close() })
				go func() {
					for {
						c, err := listener.Accept()
						if err != nil {
							return
						}
						go func() { _, _ = c.Write(make([]byte, long)); c.Close() }()
					}
				}()
				return nil
			}))
		}
	}
	for _, profile := range []string{
		direct, direct + "    remember: 60s\n", direct + "    interface: eth0\n",
		strings.Replace(direct, "consistent", "hash\n    hash-by: [source-address, source-port, destination-address, destination-port, protocol]", 1),
	} {
		l.Apply(strings.NewReplacer(":80", ":82", "udp", "sctp").Replace(profile) + members())
		for _, vip := range vips {
			hang := 0
			for range 9 {
				for _, b := range l.backends {
					l.Witness(b, "", "ip", "route", "flush", "cache")
					l.Witness(b, "", "ip", "-6", "route", "flush", "cache")
				}
				l.Check(l.Client.Do(func() error {
					c, err := net.DialTimeout("tcp", net.JoinHostPort(vip, "82"), 3*time.Second)
					if err != nil {
						return err
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(3 * time.Second))
					if n, _ := io.Copy(io.Discard, c); n != long {
						hang++
					}
					return nil
				}))
			}
			if hang > 0 {
				t.Errorf("%s: %d of 9 hang, with\n%s", vip, hang, profile)
			}
		}
	}
}

// TestDirectFragments: all fragments of a datagram reach the backend that the first
// reaches.
func TestDirectFragments(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.Apply(direct + members())
	for _, vip := range vips {
		lost, met := 0, map[string]int{}
		for range 9 {
			c, err := l.From().Dial(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
			l.Check(err)
			_, err = c.Write(make([]byte, 3000))
			l.Check(err)
			answer := make([]byte, 5000)
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			if n, _ := c.Read(answer); n < 3000 || !strings.HasPrefix(string(answer), c.Reply.Backend+" ") {
				lost++
			}
			met[c.Reply.Backend]++
			c.Close()
		}
		if lost > 0 || len(met) < 2 {
			t.Errorf("%s: %d of 9 datagrams were lost; %v", vip, lost, met)
		}
	}
}

// flows are connections of TCP and of UDP that stay open.
type flows map[string][]*traffic.Conn

func (l *lan) flows(n int) flows {
	l.T.Helper()
	out := flows{}
	for _, network := range []string{"tcp", "udp"} {
		for i := range n {
			c, err := l.From().Dial(l.T.Context(), network, netip.AddrPortFrom(netip.MustParseAddr(vips[i%2]), 80))
			l.Check(err)
			l.T.Cleanup(func() { c.Close() })
			out[network] = append(out[network], c)
		}
	}
	return out
}

// again sends on all of them, and counts those that are broken, or answered by another
// backend, by their network and the backend that they had.
func (f flows) again() (lost map[string]int) {
	lost = map[string]int{}
	for network, all := range f {
		for _, c := range all {
			was := c.Reply.Backend
			if r, err := c.Again(); err != nil || r.Backend != was {
				lost[network+" "+was]++
			}
		}
	}
	return lost
}

// TestDirectRemembers: a backend that leaves, or drains, breaks none of the flows that it
// has, and gets no others. One that is down keeps those of TCP.
func TestDirectRemembers(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	const remember = direct + "    remember: 60s\n    health: tcp\n"
	l.Apply(remember + members())
	open := l.flows(20)
	check := func(what string, want map[string]int) {
		t.Helper()
		if got := open.again(); !maps.Equal(got, want) {
			t.Errorf("%s: %v flows were broken or moved, want %v", what, got, want)
		}
	}
	shun := func(what, name string) {
		t.Helper()
		for _, to := range vips {
			if row := l.Row("tcp", netip.AddrPortFrom(netip.MustParseAddr(to), 80).String(), 20); slices.Contains(row, name) {
				t.Errorf("%s: %s gets new connections: %v", what, name, row)
			}
		}
	}
	check("at first", nil)
	l.Apply(remember + members(3))
	check("b3 has left", nil)
	l.narrow()
	for _, c := range open["udp"] {
		if c.Reply.Backend != "b3" {
			continue
		}
		answered := false
		for try := 0; try < 5 && !answered; try++ { // the first answer is too long
			_, err := c.Write(make([]byte, 1290))
			l.Check(err)
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			n, _ := c.Read(make([]byte, 2000))
			answered = n > 1290
		}
		if !answered {
			t.Errorf("b3 has left, and does not learn what the link to %s takes", c.LocalAddr())
		}
	}
	shun("b3 has left", "b3")
	l.Apply(remember + members(2, 3))
	check("b2 has left, too", nil)
	shun("b2 has left, too", "b2")
	if r := l.Apply(remember + members(2, 3)); r.Messages != 0 {
		t.Errorf("applied again: %d messages", r.Messages)
	}
	l.Apply(remember + members())
	check("all are back", nil)
	drained := strings.NewReplacer("10.2.0.12", "{address: 10.2.0.12, weight: 0}", `"fd02::12"`, `{address: "fd02::12", weight: 0}`).Replace(members())
	l.Apply(remember + drained)
	check("b2 drains", nil)
	shun("b2 drains", "b2")
	p := l.Parse(remember + members())
	udp := 0
	for _, c := range open["udp"] {
		if c.Reply.Backend == "b1" {
			udp++
		}
	}
	for i := range p.Services[0].Backends {
		if b := &p.Services[0].Backends[i]; strings.HasSuffix(b.Name, "11") {
			b.State, b.Standing.Verdict = lb.Down, lb.VerdictDown
		}
	}
	l.Kernel(l.Balancer, func(c *wire.Conn) error {
		_, err := nft.Apply(t.Context(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Links: netlabtest.Links(l.Balancer)})
		return err
	})
	check("b1 is down", map[string]int{"udp b1": udp})
	shun("b1 is down", "b1")
	check("b1 is still down", nil)
}

// TestDirectForgets: without remember, flows of other backends than the one that leaves
// stay, as the scheduler says; with it, a backend that has left goes in the end.
func TestDirectForgets(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.Apply(direct + members())
	open := l.flows(20)
	l.Apply(direct + members(3))
	lost, of := open.again(), 0
	for what, n := range lost {
		if of += n; strings.HasSuffix(what, " b3") {
			of -= n
		}
	}
	if lost["tcp b3"] == 0 || of > 8 {
		t.Errorf("without remember, these flows were broken or moved: %v", lost)
	}
	const remember = direct + "    remember: 1s\n"
	l.Apply(remember + members())
	l.Row("udp", "203.0.113.10:80", 20)
	gone := func() bool {
		return !strings.Contains(l.Witness(l.Balancer, "", "nft", "list", "map", "netdev", "nlb", "backends4"), "10.2.0.13")
	}
	l.Apply(remember + members(3))
	if gone() {
		t.Error("b3 is gone, while flows may remember it")
	}
	for i := 0; !gone(); i++ {
		if i == 20 {
			t.Fatal("b3 stays, although no flow remembers it")
		}
		time.Sleep(time.Second)
		l.Apply(remember + strings.Replace(members(3), "10.2.0.12", fmt.Sprintf("{address: 10.2.0.12, weight: %d}", i+2), 1))
	}
}

// TestDirectInterface: an interface that goes and comes back, with another number, takes
// packets again, once the table is applied.
func TestDirectInterface(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.Check(l.Balancer.Do(func() error {
		c, err := wire.Dial()
		l.Check(err)
		defer c.Close()
		table := nft.Open(c, "nlb", wire.Dial)
		defer table.Close()
		o := nft.Options{Links: netlabtest.Links(l.Balancer), Record: true}
		profiles := []*lb.Profile{l.Parse(direct + members())}
		touched := func(want bool) {
			t.Helper()
			if got, err := table.Touched(); err != nil || got != want {
				t.Fatalf("touched: %v, %v", got, err)
			}
		}
		apply := func() {
			t.Helper()
			r, err := table.Apply(t.Context(), profiles, o)
			if err != nil || len(r.Changes) > 0 && r.Messages == 0 {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		apply()
		touched(false)
		l.Ask("tcp", "203.0.113.10:80")
		l.Check(l.Balancer.Unlink("eth0"))
		touched(true)
		apply()
		l.plugBalancer()
		touched(true)
		apply()
		touched(false)
		for _, vip := range vips {
			l.Ask("tcp", netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String())
		}
		l.Witness(l.Balancer, "", "nft", "delete", "table", "netdev", "nlb")
		touched(true)
		apply()
		l.Ask("udp", "203.0.113.10:80")
		return nil
	}))
}

// TestDirectProfiles: profiles have their part of the table each, and the last one takes
// it away. A service changes its mode in place.
func TestDirectProfiles(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	other := strings.NewReplacer("shop", "other", ":80", ":81").Replace(direct)
	links := netlabtest.Links(l.Balancer)
	flush := func(names ...string) {
		t.Helper()
		l.Kernel(l.Balancer, func(c *wire.Conn) error {
			_, _, err := nft.Flush(t.Context(), c, names, nft.Options{Table: "nlb", Links: links})
			return err
		})
	}
	tables := func() string { return l.Witness(l.Balancer, "", "nft", "list", "tables") }
	l.Apply(direct + members())
	l.Apply(other + "    interface: eth0\n" + members())
	l.Ask("tcp", "203.0.113.10:80")
	l.Ask("tcp", "203.0.113.10:81")
	flush("shop")
	if who := l.Reaches(l.Client, "tcp", "203.0.113.10:80", false); who != "" {
		t.Errorf("%s answers for a service that is gone", who)
	}
	l.Ask("udp", "[2001:db8::10]:81")
	flush("other")
	if left := tables(); left != "" {
		t.Errorf("the last flush leaves %s", left)
	}
	l.Apply(direct + members())
	nat := "profile: shop\nservices:\n  - {name: web, listen: \"203.0.113.10:80\", backends: [10.2.0.11, 10.2.0.12, 10.2.0.13]}\n"
	l.Apply(nat)
	if left := tables(); left != "table inet nlb\n" {
		t.Errorf("without dsr there are %s", left)
	}
	l.Apply(direct + members())
	l.Ask("tcp", "203.0.113.10:80")
	l.NFT(l.Balancer, "flush ruleset")
	l.NFT(l.Balancer, "add table netdev nlb")
	l.Kernel(l.Balancer, func(c *wire.Conn) error {
		_, err := nft.Apply(t.Context(), c, []*lb.Profile{l.Parse(direct + members())}, nft.Options{Table: "nlb", Links: links})
		if !errors.Is(err, nft.ErrForeign) {
			t.Errorf("beside a table of somebody else: %v", err)
		}
		return nil
	})
	l.Apply(nat)
	if now := tables(); now != "table netdev nlb\ntable inet nlb\n" {
		t.Errorf("there are %s", now)
	}
}

// TestDirectRouter: a backend behind a router is refused.
func TestDirectRouter(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.Kernel(l.Balancer, func(c *wire.Conn) error {
		p := l.Parse(strings.Replace(direct+members(), "10.2.0.12", "10.1.0.2", 1))
		_, err := nft.Apply(t.Context(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Links: netlabtest.Links(l.Balancer)})
		if err == nil || !strings.Contains(err.Error(), "backend 10.1.0.2 of service shop/web is behind the router 10.2.0.254") {
			t.Errorf("applied: %v", err)
		}
		return nil
	})
}

// TestDirectDoctor: nothing is wrong with backends that own the address silently. One that
// answers for it is found, and one that is not there.
func TestDirectDoctor(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	path := l.write("shop.yaml", direct+members())
	l.shell(l.Balancer, "nlb apply "+path)
	for _, args := range [][]string{nil, {path}} {
		if sick := l.doctor(args...); len(sick) > 0 {
			t.Errorf("doctor %v: healthy: %+v", args, sick)
		}
	}
	found := func(level, says string, of ...string) {
		t.Helper()
		for _, f := range l.doctor() {
			if !slices.Contains(of, f.Subject) || f.Level != level || f.Check != "direct" || !strings.Contains(f.Problem+"; "+f.Why, says) {
				t.Errorf("another finding: %+v", f)
			} else {
				of = slices.DeleteFunc(of, func(s string) bool { return s == f.Subject })
			}
		}
		if len(of) > 0 {
			t.Errorf("nothing was found of %s", of)
		}
	}
	l.shell(l.backends[1], "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.lo.arp_ignore=0")
	found("fail", "it answers ARP for 203.0.113.10", "shop/web 10.2.0.12")
	l.shell(l.backends[1], "sysctl -qw net.ipv4.conf.all.arp_ignore=1; ip addr add 2001:db8::10/128 dev eth0 nodad")
	found("fail", "it answers neighbour discovery for 2001:db8::10", "shop/web fd02::12")
	l.shell(l.backends[1], "ip addr del 2001:db8::10/128 dev eth0; ip addr del 10.2.0.12/24 dev eth0")
	l.shell(l.Balancer, "ip neigh flush all")
	found("fail", "it does not answer ARP", "shop/web 10.2.0.12")

	other := l.write("other.yaml", `services: [{name: far, mode: dsr, scheduler: hash, listen: "198.51.100.9:80", backends: ["10.2.0.11"]}]`)
	lost := func() bool {
		return slices.ContainsFunc(l.doctor(other), func(f finding) bool {
			return f.Subject == "other/far" && strings.HasPrefix(f.Problem, "nothing that comes for 198.51.100.9")
		})
	}
	l.shell(l.Balancer, "ip route add unreachable 198.51.100.9")
	if !lost() {
		t.Error("nothing says where its packets come in, and that is not found")
	}
	l.shell(l.Balancer, "ip route replace 198.51.100.9 dev eth0")
	if lost() {
		t.Error("the route says where its packets come in")
	}
}

// TestDirectLab: the lab rehearses mode: dsr, beside services whose connections are
// translated to the same servers.
func TestDirectLab(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	path := b.write("shop.yaml", direct+"    remember: 60s\n"+members()+`  - {name: nat, listen: "203.0.113.20:80", backends: ["10.2.0.11:8080", "10.2.0.14:8080"]}
  - {name: inside, interface: eth1, mode: dsr, scheduler: hash, listen: "203.0.113.30:80-90", backends: [10.2.0.11, 10.2.0.15]}
`)
	c := b.Command(b.Client, b.command(), "lab", "--connections", "100", path)
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all as due: 3 services") || !strings.Contains(string(out), "of its ") {
		t.Errorf("%v\n%s", err, out)
	}
}
