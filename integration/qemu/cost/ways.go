//go:build linux

package main

// The ways to get a connection to a server. All but the masquerading one leave
// the client's address as it is.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

var (
	virtual = unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 10}, Port: servicePort}
	server1 = unix.SockaddrInet4{Addr: [4]byte{10, 2, 0, 11}, Port: serverPort}
)

// backends are how many addresses the server has.
const backends = 3

// way is what the balancer does.
type way struct {
	name   string
	direct bool // clients ask the server itself
	set    func(*site) error
}

func ways() []way {
	return []way{
		{name: "direct routing", direct: true, set: func(*site) error { return nil }},
		{name: "nft, one DNAT rule, 1 backend", set: script(`nft -f - <<'END'
table ip hand {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr 203.0.113.10 tcp dport 80 dnat to 10.2.0.11:8080
		ip daddr 203.0.113.10 udp dport 80 dnat to 10.2.0.11:8080
	}
}
END`)},
		{name: "nlb, 1 backend", set: nlb(1, 1, "none")},
		{name: "nlb, 3 backends", set: nlb(1, backends, "none")},
		{name: "nlb, 3 backends, masquerade", set: nlb(1, backends, "masquerade")},
		{name: "nlb, 3 backends, the last of 1,000 services", set: nlb(1000, backends, "none")},
		{name: "iptables (legacy), 1 backend", set: iptables("iptables-legacy")},
		{name: "iptables (nf_tables), 1 backend", set: iptables("iptables-nft")},
		{name: "IPVS NAT, rr, 3 backends", set: script(`ip addr add 203.0.113.10/32 dev lo
for p in t u; do
	ipvsadm -A -$p 203.0.113.10:80 -s rr
	for n in 11 12 13; do ipvsadm -a -$p 203.0.113.10:80 -r 10.2.0.$n:8080 -m; done
done`)},
	}
}

func script(text string) func(*site) error {
	return func(s *site) error { return s.run("", "sh", "-ec", text) }
}

// iptables is a rule for each protocol.
func iptables(program string) func(*site) error {
	return script(`for p in tcp udp; do
	` + program + ` -t nat -A PREROUTING -d 203.0.113.10 -p $p --dport 80 -j DNAT --to-destination 10.2.0.11:8080
done`)
}

// nlb has so many services, of which the last is asked, with so many backends.
func nlb(services, each int, snat string) func(*site) error {
	var b strings.Builder
	b.WriteString("profile: cost\nservices:\n")
	for i := range services {
		listen := fmt.Sprintf("198.51.%d.%d:80", 100+i/250, 1+i%250)
		if i == services-1 {
			listen = "203.0.113.10:80"
		}
		fmt.Fprintf(&b, "  - name: s%d\n    listen: %s\n    protocol: [tcp, udp]\n    snat: %s\n    backends:\n", i, listen, snat)
		for n := range each {
			fmt.Fprintf(&b, "      - 10.2.0.%d:8080\n", 11+n)
		}
	}
	return func(s *site) error { return s.run(b.String(), "nlb", "apply", "-") }
}

// run runs a program on the balancer.
func (s *site) run(stdin, name string, args ...string) error {
	c := s.balancer.Command(context.Background(), name, args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// build makes the hosts: two networks with the balancer between them.
func build() (*site, error) {
	w, err := netlab.New()
	if err != nil {
		return nil, err
	}
	s := &site{world: w}
	for name, h := range map[string]**netlab.Host{"client": &s.client, "lb": &s.balancer, "server": &s.server} {
		if *h, err = w.Host(name); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	err = errors.Join(
		w.Link(s.client, "eth0", s.balancer, "eth0"),
		w.Link(s.balancer, "eth1", s.server, "eth0"),
		s.client.AddAddress("eth0", netip.MustParsePrefix("10.1.0.2/24")),
		s.balancer.AddAddress("eth0", netip.MustParsePrefix("10.1.0.1/24")),
		s.balancer.AddAddress("eth1", netip.MustParsePrefix("10.2.0.1/24")),
		s.server.AddAddress("eth0", netip.MustParsePrefix("10.2.0.11/24")),
		s.server.AddAddress("eth0", netip.MustParsePrefix("10.2.0.12/24")),
		s.server.AddAddress("eth0", netip.MustParsePrefix("10.2.0.13/24")),
		s.client.DefaultVia(netip.MustParseAddr("10.1.0.1")),
		s.server.DefaultVia(netip.MustParseAddr("10.2.0.1")),
		s.balancer.SetSysctl("net.ipv4.ip_forward", "1"),
	)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return s, os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}
