package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
)

// fate fails the test unless a client meets what it should: it is served, refused, or
// gets no answer.
func (b *bed) fate(of string, from *netlab.Host, network, to, want string) {
	b.T.Helper()
	c := traffic.Client{Host: from}
	if want == "silence" {
		c.Timeout = 200 * time.Millisecond
	}
	_, err := c.Exchange(b.T.Context(), network, netip.MustParseAddrPort(to))
	got := "served"
	switch {
	case errors.Is(err, traffic.ErrRefused):
		got = "refused"
	case errors.Is(err, traffic.ErrTimeout):
		got = "silence"
	case err != nil:
		got = err.Error()
	}
	if got != want {
		b.T.Errorf("%s: %s to %s: %s, want %s", of, network, to, got, want)
	}
}

func at(address string, port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr(address), port).String()
}

// forwarded counts the packets for an address that the balancer has forwarded since
// it was asked first.
func (b *bed) forwarded(address string) int {
	family := "ip"
	if netip.MustParseAddr(address).Is6() {
		family = "ip6"
	}
	table := fmt.Sprintf("%s witness", family)
	rule := fmt.Sprintf("add table %[1]s\nadd chain %[1]s seen { type filter hook forward priority -200; }\n", table)
	listed := b.Witness(b.Balancer, rule+"list table "+table+"\n", "nft", "-f", "-")
	found := regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(listed)
	if found == nil {
		b.NFT(b.Balancer, fmt.Sprintf("add rule %s seen %s daddr %s counter\n", table, family, address))
		return 0
	}
	n, err := strconv.Atoi(found[1])
	b.Check(err)
	return n
}

// ping reports whether an address answers an echo request.
func (b *bed) ping(from *netlab.Host, to string) bool {
	id := b.Client.NextPort() // another flow each time
	network, echo, answer := "ip4:icmp", []byte{8, 0, 0, 0, byte(id >> 8), byte(id), 0, 0}, byte(0)
	sum := 0xffff - (8<<8+int(id))%0xffff // RFC 1071
	echo[2], echo[3] = byte(sum>>8), byte(sum)
	if netip.MustParseAddr(to).Is6() {
		network, echo[0], answer = "ip6:ipv6-icmp", 128, 129 // the kernel writes the checksum (RFC 3542)
	}
	err := from.Do(func() error {
		c, err := net.Dial(network, to)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		_, err = c.Write(echo)
		got := append([]byte{255}, make([]byte, 99)...)
		for err == nil && got[0] != answer {
			_, _, err = c.(*net.IPConn).ReadFrom(got)
		}
		return err
	})
	return err == nil
}

// TestUnservedGoesRound: a packet for a routed address that no service takes goes to
// the router that it came from, and back, until its hop limit ends it; with unserved
// it ends here.
func TestUnservedGoesRound(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	far := b.Host("far")
	b.Check(b.World.Join(netlab.NewEnd(far, "eth0", "10.9.0.2/24", "fd09::2/64"), netlab.NewEnd(b.Client, "eth1", "10.9.0.1/24", "fd09::1/64")))
	b.Check(b.Client.Forward()) // it is the router, and everything else is behind the balancer
	b.Via(b.Balancer, "10.1.0.2", "fd01::2")
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	profile := func(unserved string) string {
		return "profile: shop\nservices:\n  - {name: web, unserved: " + unserved + `, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}`
	}
	for _, tt := range []struct {
		unserved, fate string
		loops          bool
	}{{"pass", "", true}, {"reject", "refused", false}, {"drop", "silence", false}, {"reject-all", "refused", false}, {"drop-all", "silence", false}} {
		b.Apply(profile(tt.unserved))
		for _, vip := range []string{"203.0.113.10", "2001:db8::10"} {
			for _, network := range []string{"tcp", "udp"} {
				before := b.forwarded(vip)
				if tt.loops {
					b.Reaches(far, network, at(vip, 81), false)
				} else {
					b.fate("unserved: "+tt.unserved, far, network, at(vip, 81), tt.fate)
				}
				if times := b.forwarded(vip) - before; tt.loops != (times > 10) || !tt.loops && times > 0 {
					t.Errorf("unserved: %s, %s to %s: forwarded %d times", tt.unserved, network, vip, times)
				}
			}
			before := b.forwarded(vip)
			b.ping(far, vip)
			if times := b.forwarded(vip) - before; tt.loops != (times > 10) {
				t.Errorf("unserved: %s, ping of %s: forwarded %d times", tt.unserved, vip, times)
			}
			b.fate("unserved: "+tt.unserved, far, "tcp", at(vip, 80), "served")
		}
	}
}

// TestUnservedOwn: where this host has the address, unserved keeps clients from its
// daemons, but for the way in by the link that has it; that is for those who ask.
func TestUnservedOwn(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.Address(b.Balancer, "lo", "203.0.113.10/32", "2001:db8::10/128")
	addresses := map[string]string{"203.0.113.10": "lo", "2001:db8::10": "lo", "10.1.0.1": "link", "fd01::1": "link"}
	var ports []traffic.Port
	for a := range addresses {
		for _, network := range []string{"tcp", "udp"} {
			ports = append(ports, traffic.Port{Network: network, At: netip.AddrPortFrom(netip.MustParseAddr(a), 22)})
		}
	}
	daemon, err := traffic.Serve(b.Balancer, "daemon", ports...)
	b.Check(err)
	defer daemon.Close()
	open, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:22"))
	b.Check(err)
	for _, tt := range []struct{ unserved, lo, link string }{
		{"pass", "served", "served"},
		{"reject", "refused", "served"},
		{"drop", "silence", "served"},
		{"reject-all", "refused", "refused"},
		{"drop-all", "silence", "silence"},
	} {
		b.Apply("profile: shop\nservices:\n  - {name: web, unserved: " + tt.unserved + `, listen: ["203.0.113.10:80", "[2001:db8::10]:80", "10.1.0.1:80", "[fd01::1]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}`)
		for a, on := range addresses {
			want := map[string]string{"lo": tt.lo, "link": tt.link}[on]
			for _, network := range []string{"tcp", "udp"} {
				b.fate("unserved: "+tt.unserved, b.Client, network, at(a, 22), want)
			}
			b.fate("unserved: "+tt.unserved, b.Client, "tcp", at(a, 80), "served")
			if !b.ping(b.Client, a) {
				t.Errorf("unserved: %s: no echo from %s", tt.unserved, a)
			}
		}
		if _, err := open.Again(); err != nil {
			t.Errorf("unserved: %s: a connection that was open to a daemon: %v", tt.unserved, err)
		}
	}
}

// TestUnservedOfSeveral: an address is one thing for all services and profiles that
// listen on it, and the strictest word holds for as long as somebody says it.
func TestUnservedOfSeveral(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11")
	b.Address(b.Balancer, "lo", "203.0.113.10/32")
	one := func(name string, port int, unserved string) string {
		return fmt.Sprintf("profile: %s\nservices:\n  - {name: web, unserved: %s, listen: \"203.0.113.10:%d\", backends: [\"10.2.0.11:8080\"]}", name, unserved, port)
	}
	for _, tt := range []struct {
		apply []string
		want  string
	}{
		{[]string{one("a", 80, "reject"), one("b", 81, "pass")}, "refused"},
		{[]string{one("b", 81, "drop")}, "silence"},
		{[]string{one("a", 80, "pass")}, "silence"},
		{[]string{one("b", 81, "reject")}, "refused"},
		{[]string{"profile: b\nservices: []"}, "refused"}, // the kernel's answer: nobody listens
	} {
		b.Apply(tt.apply...)
		b.fate(fmt.Sprintf("after %q", tt.apply), b.Client, "tcp", "203.0.113.10:99", tt.want)
		b.undrifted(fmt.Sprintf("after %q", tt.apply))
	}
}

// TestDoctorBorder: doctor finds what goes round, and forwarding that is open, until the
// profile says otherwise.
func TestDoctorBorder(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11")
	b.Check(b.Balancer.SetSysctl("net.ipv4.ip_forward", "0"))
	b.Via(b.Balancer, "10.1.0.2")
	profile := func(keys string) string {
		return "profile: shop\nservices:\n  - {name: web, " + keys + "listen: \"203.0.113.10:80\", backends: [\"10.2.0.11:8080\"]}"
	}
	for _, tt := range []struct {
		keys  string
		found int
	}{{"", 2}, {"unserved: reject, ", 1}, {"unserved: drop, forward: balanced, ", 0}} {
		b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", profile(tt.keys)))
		if found := b.doctor(); len(found) != tt.found {
			t.Errorf("%q: found %+v, want %d", tt.keys, found, tt.found)
		}
	}
}

// TestForwardBalanced: turning on forwarding opens nothing but the services.
func TestForwardBalanced(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080, 22}, "10.2.0.11", "fd02::11")
	client, err := traffic.Serve(b.Client, "client", traffic.Port{Network: "tcp", At: netip.MustParseAddrPort("10.1.0.2:25")})
	b.Check(err)
	defer client.Close()
	open, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("10.2.0.11:22"))
	b.Check(err)
	profile := func(forward, snat string) string {
		return "profile: shop\nservices:\n  - {name: web, protocol: [tcp, udp], forward: " + forward + ", snat: " + snat +
			`, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}`
	}
	other := "profile: other\nservices:\n  - {name: web, listen: \"203.0.113.11:80\", backends: [\"10.2.0.11:8080\"]}"
	b.Apply(profile("open", "none"), other) // conntrack comes to life
	if _, err := open.Again(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		forward, snat, want string
	}{
		{"open", "none", "served"}, {"balanced", "none", "silence"}, {"balanced", "masquerade", "silence"}, {"balanced", "vip", "silence"}, {"open", "none", "served"},
	} {
		b.Apply(profile(tt.forward, tt.snat))
		b.Apply(other) // of whom nobody else's wish depends
		for _, network := range []string{"tcp", "udp"} {
			for _, to := range []string{"10.2.0.11:22", "[fd02::11]:22"} {
				b.fate("past the service, forward: "+tt.forward, b.Client, network, to, tt.want)
			}
			for _, to := range []string{"203.0.113.10:80", "[2001:db8::10]:80"} {
				b.fate("forward: "+tt.forward+", snat: "+tt.snat, b.Client, network, to, "served")
			}
		}
		b.fate("what a backend begins itself, forward: "+tt.forward, b.Server, "tcp", "10.1.0.2:25", tt.want)
		if _, err := open.Again(); err != nil {
			t.Errorf("forward: %s: a connection that was forwarded before: %v", tt.forward, err)
		}
	}
}
