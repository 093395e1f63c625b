package integration

// Uplinks: a host that marks connections by the link they came in on, and
// sends the answers out there by policy routing.

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// uplinks gives the balancer a second way to the client, eth2, and marks
// connections that come by it with a bit of a mask. The client drops answers
// to the second address that come by the first way.
func (b *bed) uplinks(bit, mask uint32) {
	b.T.Helper()
	b.Check(b.World.Link(b.Client, "eth1", b.Balancer, "eth2"))
	b.Address(b.Client, "eth1", "10.3.0.2/24", "fd03::2/64")
	b.Address(b.Balancer, "eth2", "10.3.0.1/24", "fd03::1/64")
	b.Address(b.Client, "lo", "198.51.100.7/32", "2001:db8:7::7/128")
	b.Via(b.Balancer, "10.1.0.2", "fd01::2")
	b.Check(b.Balancer.Do(func() error {
		link, err := netlink.LinkByName("eth2")
		if err != nil {
			return err
		}
		inside, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		for _, f := range []struct {
			family             int
			all, gateway, near string
		}{{netlink.FAMILY_V4, "0.0.0.0/0", "10.3.0.2", "10.2.0.0/24"}, {netlink.FAMILY_V6, "::/0", "fd03::2", "fd02::/64"}} {
			rule := netlink.NewRule()
			rule.Family, rule.Mark, rule.Mask, rule.Table, rule.Priority = f.family, bit, &mask, 2, 100
			if err := netlink.RuleAdd(rule); err != nil {
				return err
			}
			_, all, _ := net.ParseCIDR(f.all)
			_, near, _ := net.ParseCIDR(f.near)
			for _, r := range []*netlink.Route{
				{LinkIndex: link.Attrs().Index, Dst: all, Gw: net.ParseIP(f.gateway), Table: 2},
				{LinkIndex: inside.Attrs().Index, Dst: near, Table: 2},
			} {
				if err := netlink.RouteAdd(r); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	b.Witness(b.Balancer, fmt.Sprintf(`table inet wan {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		meta mark set ct mark and %[1]d
		meta mark 0 iifname "eth2" ct mark set ct mark or %[2]d
		meta mark 0 meta mark set ct mark and %[1]d
	}
}`, mask, bit), "nft", "-f", "-")
	b.Witness(b.Client, `table inet uplink {
	chain pre {
		type filter hook prerouting priority raw; policy accept;
		iifname "eth0" ip saddr 10.3.0.1 drop
		iifname "eth0" ip6 saddr fd03::1 drop
	}
}`, "nft", "-f", "-")
}

const uplinkProfile = `profile: shop
defaults: {protocol: [tcp, udp]}
services:
  - {name: masquerade, listen: ["10.3.0.1:80", "[fd03::1]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: none, listen: ["10.3.0.1:81", "[fd03::1]:81"], snat: none, backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: list, listen: ["10.3.0.1:82", "[fd03::1]:82"], snat: [10.2.0.1, "fd02::1"], backends: ["10.2.0.12:8080", "[fd02::12]:8080"]}
  - {name: full, listen: ["10.3.0.1:83", "[fd03::1]:83"], backends: [{address: "10.2.0.11:8080", max-connections: 1}, "10.2.0.12:8080", "[fd02::11]:8080"]}
  - {name: ports, listen: ["10.3.0.1:8080"], backends: ["10.2.0.13"]}
`

// TestUplinks: answers leave by the link that the connection came by, since nlb
// leaves the bits of the connection mark alone that policy routing looks at.
func TestUplinks(t *testing.T) {
	t.Parallel()
	for _, mask := range []uint32{0x3f00, 0xff0000} {
		t.Run(fmt.Sprintf("%#x", mask), func(t *testing.T) {
			b := newBed(t)
			bit := mask & -mask << 1
			b.uplinks(bit, mask)
			b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12")
			b.Witness(b.Balancer, uplinkProfile, b.command(), "apply", "-")
			asked := map[string]int{}
			for _, port := range []int{80, 81, 82, 83, 83, 83, 8080} {
				for _, network := range []string{"tcp", "udp"} {
					for from, to := range map[string]string{"198.51.100.7": "10.3.0.1", "2001:db8:7::7": "fd03::1"} {
						if port == 8080 && from != "198.51.100.7" {
							continue
						}
						c := traffic.Client{Host: b.Client, Source: netip.MustParseAddr(from)}
						at := netip.AddrPortFrom(netip.MustParseAddr(to), uint16(port))
						conn, err := c.Dial(t.Context(), network, at)
						if err != nil {
							t.Errorf("%s %s: %v", network, at, err)
							continue
						}
						defer conn.Close()
						asked[fmt.Sprintf("%d %s", port, conn.Reply.Backend)]++
					}
				}
			}
			if n := asked["83 10.2.0.11"]; n != 1 {
				t.Errorf("a backend with max-connections 1 has %d connections", n)
			}
			b.Kernel(b.Balancer, func(c *wire.Conn) error {
				s, err := nft.Load(c, "nlb")
				if err != nil {
					return err
				}
				usage, err := nft.ReadUsage(c, s)
				for _, service := range s.Profiles[0].Services {
					for _, backend := range service.Backends {
						port := map[string]int{"masquerade": 80, "none": 81, "list": 82, "full": 83, "ports": 8080}[service.Name]
						want := asked[fmt.Sprintf("%d %s", port, backend.Address.Addr)]
						if got := s.Stats("shop", service.Name, backend.Address, usage).Live; got != want {
							t.Errorf("%s of %s: %d live connections, want %d", backend.Name, service.Name, got, want)
						}
					}
				}
				if d := s.Drift(); len(d) > 0 {
					t.Errorf("drift: %v", d)
				}
				return err
			})
			// What nft prints loads again, and says the same.
			text := b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "nlb")
			b.Witness(b.Server, text, "nft", "-f", "-")
			if again := b.Witness(b.Server, "", "nft", "list", "table", "inet", "nlb"); withoutCounts(again) != withoutCounts(text) {
				t.Errorf("loaded again:\n%s\nwas\n%s", again, text)
			}
			if got := b.Witness(b.Balancer, uplinkProfile, b.command(), "apply", "-"); !strings.Contains(got, "no change") {
				t.Errorf("a second apply: %s", got)
			}
		})
	}
}

// withoutCounts are the lines of a listing without elements, whose counters and
// timeouts change.
func withoutCounts(listing string) string {
	var out []string
	for line := range strings.Lines(listing) {
		if !strings.Contains(line, "counter packets") && !strings.Contains(line, "expires") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// TestUplinksLater: connections outlive an apply that finds policy routing and
// gives the backends other numbers, and one that finds it gone.
func TestUplinksLater(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11")
	const profile = `profile: shop
services:
  - {name: web, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], protocol: [tcp, udp], affinity: 10m, backends: ["10.2.0.11:8080", "10.2.0.12:8080", "[fd02::11]:8080"]}
`
	parsed := b.Parse(profile)
	var open []*traffic.Conn
	for _, keep := range []uint32{0, 0x3f00, 0xff0000, 0} {
		b.Kernel(b.Balancer, func(c *wire.Conn) error {
			_, err := nft.Apply(t.Context(), c, []*lb.Profile{parsed}, nft.Options{Table: "nlb", Keep: keep})
			return err
		})
		for _, c := range open {
			was := c.Reply.Backend
			if r, err := c.Again(); err != nil || r.Backend != was {
				t.Errorf("after an apply that keeps %#x: %q answers in place of %q, %v", keep, r.Backend, was, err)
			}
		}
		for _, network := range []string{"tcp", "udp"} {
			for _, to := range []string{"203.0.113.10:80", "[2001:db8::10]:80"} {
				c, err := b.dial(network, to)
				b.Check(err)
				defer c.Close()
				open = append(open, c)
			}
		}
	}
	if live := b.live("shop", "web"); live != len(open) {
		t.Errorf("%d live connections are counted, want %d", live, len(open))
	}
}

// live are the live connections of a service.
func (b *bed) live(profile, service string) (n int) {
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		s, err := nft.Load(c, "nlb")
		if err != nil {
			return err
		}
		usage, err := nft.ReadUsage(c, s)
		for i := range s.Profiles[0].Services {
			for _, backend := range s.Profiles[0].Services[i].Backends {
				n += s.Stats(profile, service, backend.Address, usage).Live
			}
		}
		return err
	})
	return n
}
