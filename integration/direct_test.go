package integration

// Direct: services whose packets go to the backends as they are, and whose answers go
// past the balancer (mode: dsr).

import (
	"fmt"
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
	plug := func(h *netlab.Host, link string, addresses ...string) {
		port := "to-" + h.Name()
		l.Check(w.Link(h, link, l.backplane, port))
		l.Witness(l.backplane, "", "ip", "link", "set", port, "master", "br0")
		l.Address(h, link, addresses...)
	}
	plug(l.router, "eth1", "10.2.0.254/24", "fd02::254/64")
	l.Check(l.router.Forward())
	plug(l.Balancer, "eth0", "10.2.0.1/24", "fd02::1/64")
	l.Via(l.Balancer, "10.2.0.254", "fd02::254")
	for _, vip := range vips {
		l.route(vip)
	}
	for i := range 3 {
		b := host(fmt.Sprintf("b%d", i+1))
		plug(b, "eth0", fmt.Sprintf("10.2.0.%d/24", 11+i), fmt.Sprintf("fd02::%d/64", 11+i))
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
	_ = time.Second
}
