//go:build linux

package main

// The ways to get a connection to a server. All but the masquerading one leave
// the client's address as it is.

import (
	"context"
	"fmt"
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
	set    func(*netlab.Host) error
}

func ways() []way {
	return []way{
		{name: "direct routing", direct: true, set: func(*netlab.Host) error { return nil }},
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

func script(text string) func(*netlab.Host) error {
	return func(h *netlab.Host) error { return runOn(h, "", "sh", "-ec", text) }
}

// iptables is a rule for each protocol.
func iptables(program string) func(*netlab.Host) error {
	return script(`for p in tcp udp; do
	` + program + ` -t nat -A PREROUTING -d 203.0.113.10 -p $p --dport 80 -j DNAT --to-destination 10.2.0.11:8080
done`)
}

// nlb has so many services, of which the last is asked, with so many backends.
func nlb(services, each int, snat string) func(*netlab.Host) error {
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
	return func(h *netlab.Host) error { return runOn(h, b.String(), "nlb", "apply", "-") }
}

// runOn runs a program on a host.
func runOn(h *netlab.Host, stdin, name string, args ...string) error {
	c := h.Command(context.Background(), name, args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
