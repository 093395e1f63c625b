package integration

// nlb doctor: each fault is made in a namespace and found, and the command
// that the finding names mends it; before and after, there is nothing to mend.

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
)

// finding is one of nlb doctor --json.
type finding struct{ Level, Check, Subject, Problem, Why, Mend string }

// doctor runs nlb doctor on the balancer, and returns what is to be mended.
func (b *bed) doctor(args ...string) []finding {
	b.T.Helper()
	c := b.Balancer.Command(context.Background(), b.command(), append([]string{"doctor", "--json"}, args...)...)
	out, err := c.Output()
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && (!failed || exit.ExitCode() != 4) {
		b.T.Fatalf("nlb doctor: %v\n%s", err, exit.Stderr)
	}
	var value struct {
		OK       bool
		Findings []finding
		Unseen   []string
	}
	b.Check(json.Unmarshal(out, &value))
	if len(value.Unseen) > 0 {
		b.T.Errorf("not seen: %v", value.Unseen)
	}
	sick := slices.DeleteFunc(value.Findings, func(f finding) bool { return f.Level == "ok" })
	if value.OK != (len(sick) == 0) || value.OK == failed {
		b.T.Errorf("ok is %v, failed is %v, findings: %v", value.OK, failed, sick)
	}
	return sick
}

// shell runs a command line on a host, with nlb in its path.
func (b *bed) shell(h *netlab.Host, line string) {
	b.T.Helper()
	c := b.Command(h, "sh", "-ec", line)
	c.Env = append(c.Env, "PATH="+filepath.Dir(b.command())+":"+os.Getenv("PATH"))
	if out, err := c.CombinedOutput(); err != nil {
		b.T.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// fault is something that goes wrong on the balancer.
type fault struct {
	name string
	// profile is applied, services of it; empty: that of the bed.
	profile string
	// ready makes the host fit for the profile before it is applied, in a shell.
	ready string
	// break makes the fault, in a shell; empty: the profile itself is at fault.
	breaks string
	// file is given to doctor in place of what is in the kernel, with NAME for
	// its path in breaks.
	file bool
	// The finding: its level and check, and a part of what it says.
	level, check, says string
	// probe is an address that a client connects to; it does so in vain as long
	// as the fault is there.
	probe string
	// lasts says that the finding's command is not run: it needs a person.
	lasts bool
	// also allows other findings beside it, by their checks.
	also []string
}

const shop = `profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", protocol: [tcp, udp], backends: ["10.2.0.11:8080"]}
  - {name: six, listen: "[2001:db8::10]:80", protocol: [tcp, udp], backends: ["[fd02::11]:8080"]}
`

func one(service string) string { return "profile: shop\nservices:\n  - " + service + "\n" }

// failing is a profile whose checks fail, although its server answers.
func failing(open string) string {
	return one(`{name: web, listen: "203.0.113.10:80", health: {check: exec, command: ["false"], interval: 100ms, fall: 1}, fail-open: ` + open + `, backends: ["10.2.0.11:8080"]}`)
}

// findsDown has an agent find that, and end.
const findsDown = `nlb run --socket NAME.sock --allow-exec NAME 2>/dev/null & for _ in $(seq 600); do ! nlb show | grep "down .*exit" || break; sleep 0.05; done; kill -INT $!; wait`

// TestDoctor: faults of parameters, addresses and routes.
func TestDoctor(t *testing.T) {
	t.Parallel()
	diagnose(t, hostFaults)
}

var hostFaults = []fault{
	{name: "forwarding", breaks: "sysctl -w net.ipv4.ip_forward=0", level: "fail", check: "forwarding", says: "net.ipv4.ip_forward is 0", probe: "203.0.113.10:80"},
	{name: "IPv6 forwarding", breaks: "sysctl -w net.ipv6.conf.all.forwarding=0", level: "fail", check: "forwarding", says: "net.ipv6.conf.all.forwarding is 0", probe: "[2001:db8::10]:80"},
	{
		name: "a fleet that picks nothing up", profile: "fleet: anycast\n" + one(`{name: web, scheduler: hash, snat: none, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`),
		breaks: "sysctl -w net.netfilter.nf_conntrack_tcp_loose=0", level: "fail", check: "conntrack", says: "net.netfilter.nf_conntrack_tcp_loose is 0",
	},
	{
		name: "forwarding of a link", profile: one(`{name: web, listen: "203.0.113.10:80", interface: eth0, backends: ["10.2.0.11:8080"]}`),
		breaks: "sysctl -w net.ipv4.conf.eth0.forwarding=0", level: "fail", check: "forwarding", says: "what comes by eth0 is not forwarded", probe: "203.0.113.10:80",
	},
	{
		name: "forwarding of the backends' link", breaks: "sysctl -w net.ipv4.conf.eth1.forwarding=0",
		level: "fail", check: "forwarding", says: "what comes by eth1 is not forwarded", probe: "203.0.113.10:80",
	},
	{
		name: "the default route was advertised", breaks: "sysctl -w net.ipv6.conf.eth0.accept_ra=1; ip address add fd09::5/64 dev eth0 valid_lft 1000 preferred_lft 1000",
		level: "fail", check: "router-advertisements", says: "there is no IPv6 default route any more",
	},
	{
		name: "the default route is advertised", ready: "ip address add 2001:db8::10/128 dev lo", breaks: "sysctl -w net.ipv6.conf.eth0.accept_ra=1; ip -6 route add default via fd01::2 dev eth0 proto ra",
		level: "warn", check: "router-advertisements", says: "the IPv6 default route will go",
	},
	{
		name: "a protected listen without a route", profile: one(protected),
		level: "fail", check: "listen", says: "nobody answers what comes for 203.0.113.10; it is on no interface, and there is no route", probe: "203.0.113.10:80",
	},
	{
		name: "a listen that nobody answers for", profile: one(`{name: web, listen: "10.1.0.50:80", backends: ["10.2.0.11:8080"]}`),
		level: "warn", check: "listen", says: "it is in the network 10.1.0.0/24 of eth0", probe: "10.1.0.50:80",
	},
	{
		name: "an IPv6 listen that nobody answers for", profile: one(`{name: web, listen: "[fd01::50]:80", backends: ["[fd02::11]:8080"]}`),
		level: "warn", check: "listen", says: "it is in the network fd01::/64 of eth0", probe: "[fd01::50]:80",
	},
	{
		name: "role server and another's address", profile: one(`{name: web, role: server, listen: "203.0.113.10:80", backends: ["10.2.0.1:8080"]}`),
		level: "fail", check: "listen", says: "it is none of them", probe: "203.0.113.10:80",
	},
	{
		name: "role client without any route", profile: one(`{name: web, role: client, listen: "198.51.100.1:80", backends: ["10.2.0.11:8080"]}`),
		level: "fail", check: "listen", says: "programs of this host cannot connect", lasts: true,
	},
	{
		name: "no such interface", profile: one(`{name: web, listen: "203.0.113.10:80", interface: eth9, backends: ["10.2.0.11:8080"]}`),
		level: "fail", check: "listen", says: "there is no interface eth9", probe: "203.0.113.10:80", lasts: true,
	},
	{
		name: "the interface is down", profile: one(`{name: web, listen: "203.0.113.10:80", interface: eth0, backends: ["10.2.0.11:8080"]}`),
		breaks: "ip link set eth0 down", level: "fail", check: "listen", says: "interface eth0 is down", probe: "203.0.113.10:80",
	},
	{
		name: "the listen's link is down", ready: "ip address add 203.0.113.10/32 dev eth0", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`),
		breaks: "ip link set eth0 down", level: "fail", check: "listen", says: "cannot be reached over eth0", probe: "203.0.113.10:80",
	},
	{
		name: "rp_filter and clients with another way back", ready: "ip route add 198.51.100.0/24 via 10.2.0.11",
		profile: one(`{name: web, listen: "203.0.113.10:80", interface: eth0, allow: [198.51.100.0/24], backends: ["10.2.0.11:8080"]}`),
		breaks:  "sysctl -w net.ipv4.conf.eth0.rp_filter=1", level: "fail", check: "rp-filter", says: "clients such as 198.51.100.1 that come by eth0 are dropped",
	},
	{
		name: "rp_filter and the default route elsewhere", ready: "ip route add default via 10.2.0.15; ip address add 203.0.113.10/32 dev eth0",
		profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`),
		breaks:  "sysctl -w net.ipv4.conf.all.rp_filter=1", level: "warn", check: "rp-filter", says: "clients beyond its own networks that come by eth0 are dropped",
	},
	{
		name: "rp_filter and a backend in two networks", ready: "ip link add eth2 type veth peer name eth3; ip link set eth3 up; ip link set eth2 up; ip address add 10.2.0.9/24 dev eth2",
		breaks: "sysctl -w net.ipv4.conf.eth2.rp_filter=1", level: "warn", check: "rp-filter", says: "it is in the networks of eth1 and eth2",
	},
	{
		name: "no route", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.9.0.1:8080"]}`),
		level: "fail", check: "route", says: "it is in none of 10.1.0.0/24 on eth0, 10.2.0.0/24 on eth1", probe: "203.0.113.10:80", lasts: true,
	},
	{name: "a blackhole", breaks: "ip route add blackhole 10.2.0.11", level: "fail", check: "route", says: "a blackhole route drops it", probe: "203.0.113.10:80", lasts: true},
	{name: "unreachable", breaks: "ip route add unreachable 10.2.0.11", level: "fail", check: "route", says: "an unreachable route", probe: "203.0.113.10:80", lasts: true},
	{name: "prohibited", breaks: "ip route add prohibit 10.2.0.11", level: "fail", check: "route", says: "a prohibit route forbids it", probe: "203.0.113.10:80", lasts: true},
	{name: "an IPv6 blackhole", breaks: "ip route add blackhole fd02::11", level: "fail", check: "route", says: "a blackhole route drops it", probe: "[2001:db8::10]:80", lasts: true},
	{name: "the backends' link is off", breaks: "ip link set eth1 down", level: "fail", check: "route", says: "its network is that of eth1, which is down", probe: "203.0.113.10:80", lasts: true, also: []string{"route"}},
	{
		name: "the wrong interface", breaks: "ip route add 10.2.0.11 via 10.1.0.2", level: "warn", check: "route",
		says: "although eth1 has an address in 10.2.0.0/24", probe: "203.0.113.10:80", lasts: true,
	},
	{
		name: "a rule for what comes by a link", profile: one(`{name: web, listen: "203.0.113.10:80", interface: eth0, backends: ["10.2.0.11:8080"]}`),
		breaks: "ip rule add iif eth0 lookup 100; ip route add blackhole default table 100", level: "fail", check: "route", says: "what comes by eth0 does not get to it", probe: "203.0.113.10:80", lasts: true,
	},
	{
		name: "masquerade and a route with src", breaks: "ip address add 10.9.0.1/32 dev lo; ip route change 10.2.0.0/24 dev eth1 src 10.9.0.1", lasts: true,
		level: "warn", check: "source", says: "it sees 10.2.0.1, and the route to it says 10.9.0.1",
	},
	{
		name: "masquerade and an IPv6 route with src", breaks: "ip address add fd09::1/128 dev lo nodad; ip -6 route add fd02::11 dev eth1 src fd09::1", lasts: true,
		level: "warn", check: "source", says: "it sees fd02::1, and the route to it says fd09::1",
	},
	{
		name: "masquerade and another network's address first", ready: "ip address flush dev eth1 scope global; ip address add 10.77.0.1/16 dev eth1; ip address add 10.2.0.1/24 dev eth1; ip address add 10.2.0.5/24 dev eth1; ip address add fd02::1/64 dev eth1 nodad",
		breaks: "ip route change 10.2.0.0/24 dev eth1 src 10.2.0.5", lasts: true, level: "warn", check: "source", says: "it sees 10.2.0.1, and the route to it says 10.2.0.5",
	},
	{
		name: "snat none and clients beside the backend", profile: one(`{name: web, listen: "203.0.113.10:80", snat: none, allow: [10.2.0.0/24], backends: ["10.2.0.11:8080"]}`),
		level: "fail", check: "return", says: "This is certain", lasts: true,
	},
	{
		name: "snat none and a listen beside the backend", ready: "ip address add 10.2.0.50/24 dev eth1",
		profile: one(`{name: web, listen: "10.2.0.50:80", snat: none, backends: ["10.2.0.11:8080"]}`),
		level:   "warn", check: "return", says: "answers to clients in 10.2.0.0/24 do not come back", lasts: true,
	},
	{
		name: "snat none and another gateway", ready: "ip address add 203.0.113.10/32 dev lo; ip route add default via 10.2.0.15", profile: one(`{name: web, listen: "203.0.113.10:80", snat: none, backends: ["10.2.0.11:8080"]}`),
		level: "warn", check: "return", says: "which is probably 10.2.0.15", lasts: true,
	},
	{
		name: "snat none and the way of the clients", ready: "ip address add 203.0.113.10/32 dev lo; ip route add default via 10.1.0.2", profile: one(`{name: web, listen: "203.0.113.10:80", snat: none, backends: ["198.51.100.7:8080"]}`),
		level: "warn", check: "return", says: "the way to it is the default route, by 10.1.0.2", lasts: true,
	},
	{
		name: "snat vip that nobody answers for", profile: one(`{name: web, listen: "10.2.0.50:80", snat: vip, backends: ["10.2.0.11:8080"]}`),
		level: "fail", check: "return", says: "it sees 10.2.0.50, in its own network 10.2.0.0/24", probe: "10.2.0.50:80", also: []string{"listen"},
	},
	{
		name: "a snat address that nobody answers for", profile: one(`{name: web, listen: "203.0.113.10:80", snat: 10.2.0.77, backends: ["10.2.0.11:8080"]}`),
		level: "fail", check: "return", says: "it sees 10.2.0.77", probe: "203.0.113.10:80",
	},
	{
		name: "this host, at a loopback address alone", ready: "ip address add 203.0.113.10/32 dev lo", profile: one(`{name: web, listen: "203.0.113.10:80", backends: [":8081"]}`),
		level: "fail", check: "route", says: "a program waits at port 8081 of a loopback address alone", probe: "203.0.113.10:80", lasts: true,
	},
	{
		name: "this host, where nobody waits", profile: one(`{name: web, listen: "203.0.113.10:80", backends: [":8089"]}`),
		level: "warn", check: "route", says: "no program of this host waits at port 8089", probe: "203.0.113.10:80", lasts: true,
	},
	{
		name: "this host, without an address", profile: one(`{name: web, listen: "203.0.113.10:80", interface: eth0, backends: [":8090"]}`), breaks: "ip address flush dev eth0; ip route add default dev eth0",
		level: "fail", check: "route", says: "there is no IPv4 address where its clients come in", lasts: true, also: []string{"rp-filter", "listen"},
	},
	{
		name: "a listen on the loopback", profile: one(`{name: web, listen: "127.0.0.1:81", backends: ["10.2.0.11:8080"]}`),
		level: "fail", check: "loopback", says: "get no answer from it",
	},
	{
		name: "a listen on the loopback with snat vip", profile: one(`{name: web, listen: "127.0.0.1:81", snat: vip, backends: ["10.2.0.11:8080"]}`),
		level: "fail", check: "loopback", says: "with snat vip the backend would see a loopback address", lasts: true,
	},
	{
		name: "a listen on the IPv6 loopback", profile: one(`{name: web, listen: "[::1]:81", backends: ["[fd02::11]:8080"]}`),
		level: "fail", check: "loopback", says: "cannot leave the host", lasts: true,
	},
	{
		name:   "bridged frames",
		ready:  "ip link add br0 type bridge; ip link set br0 up; for i in 2 3; do ip link add p$i type veth peer name q$i; ip link set p$i master br0; ip link set p$i up; done; sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
		breaks: "sysctl -w net.bridge.bridge-nf-call-iptables=1", level: "warn", check: "bridge", says: "frames that br0 only passes on are balanced too",
	},
	{name: "a rule of somebody in our table", breaks: "nft insert rule inet nlb prerouting tcp dport 80 accept", level: "fail", check: "rules", says: "chain prerouting: a rule is not of nlb", probe: "203.0.113.10:80"},
	{name: "an element of somebody in our table", breaks: "nft add element inet nlb services4 { 192.0.2.1 . tcp . 80 : accept }", level: "warn", check: "rules", says: "element services4 { 192.0.2.1 . tcp . 80 }: it is not of nlb"},
	{name: "a chain of somebody in our table", breaks: "nft add chain inet nlb evil { type filter hook forward priority 0\\; policy drop\\; }", level: "warn", check: "rules", says: "chain evil: it is not of nlb", probe: "203.0.113.10:80"},
	{name: "rules that were deleted", file: true, breaks: "nft flush chain inet nlb postrouting", level: "fail", check: "rules", says: "chain postrouting: 5 rules are missing"},
	{name: "a map that was emptied", file: true, breaks: "nft flush map inet nlb services4", level: "fail", check: "rules", says: "chain shop/web: nothing leads to it", also: []string{"rules"}},
	{name: "dormant", breaks: "nft add table inet nlb { flags dormant\\; }", level: "fail", check: "rules", says: "is turned off", probe: "203.0.113.10:80"},
	{name: "another profile", file: true, breaks: "sed -i s/8080/8081/ NAME", level: "warn", check: "rules", says: "the kernel differs from the profiles in 4 objects"},
	{name: "a profile that is not there", file: true, breaks: "nlb flush", level: "warn", check: "rules", says: "not in the kernel: shop"},
	{name: "a listen that is taken", file: true, breaks: "nlb flush; sed s/shop/other/ NAME | nlb apply -", level: "fail", check: "rules", says: "an apply would refuse", lasts: true, also: []string{"rules"}},
	{
		name: "held down while nobody checks", file: true, profile: failing("none"), breaks: findsDown,
		level: "warn", check: "health", says: "it is held down by health, and nobody checks it; found at ", probe: "203.0.113.10:80", also: []string{"health"},
	},
	{
		name: "health is ignored", profile: failing("all-down"), breaks: findsDown,
		level: "warn", check: "health", says: "too few backends are up", lasts: true,
	},
	{
		name: "all are drained", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`), breaks: "nlb drain shop/web/10.2.0.11:8080",
		level: "fail", check: "health", says: "no backend takes IPv4 connections: they are refused; 10.2.0.11:8080 is drained by order", probe: "203.0.113.10:80",
	},
	{ // as a new network namespace has it
		name: "pings are forbidden", file: true, profile: one(`{name: web, listen: "203.0.113.10:80", health: icmp, backends: ["10.2.0.11:8080"]}`),
		level: "warn", check: "health", says: "net.ipv4.ping_group_range is ", lasts: true,
	},
	{
		name: "a way that loops", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`),
		breaks: "ip route add default via 10.1.0.2", level: "warn", check: "listen", says: "what is for 203.0.113.10, but for no service of it, leaves again; it is on no interface, and the route goes by 10.1.0.2 on eth0. If",
	},
	{
		name: "a program under a listen", profile: one(`{name: web, listen: "10.2.0.1:8080", backends: ["10.2.0.11:8080"]}`),
		level: "warn", check: "socket", says: "a program of this host waits at tcp 10.2.0.1:8080, too; nlb takes what the network sends to 10.2.0.1:8080", lasts: true,
	},
	{
		name: "a program under all own addresses", profile: one(`{name: web, listen: ":8080", backends: ["10.2.0.11:8080"]}`),
		level: "warn", check: "socket", says: "a program of this host waits at tcp 10.2.0.1:8080, too", lasts: true,
	},
	{
		name: "a backend that is a service", ready: "ip address add 203.0.113.11/32 dev lo",
		profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["203.0.113.11:81"]}`) + `  - {name: inner, listen: "203.0.113.11:81", backends: ["10.2.0.11:8080"]}` + "\n",
		level:   "fail", check: "chained", says: "it is what shop/inner listens on", probe: "203.0.113.10:80", lasts: true,
	},
	{name: "somebody else's table", file: true, breaks: "nlb flush; nft add table inet nlb", level: "fail", check: "rules", says: "was not made by nlb", lasts: true},
}

// TestDoctorRouter: where nlb has turned forwarding on, and nothing filters, everybody
// gets to every port of the backends. The mend leaves what is balanced.
func TestDoctorRouter(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080, 9090}, "10.2.0.11", "fd02::11")
	for _, p := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		b.Check(b.Balancer.SetSysctl(p, "0"))
	}
	b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", shop))
	past := []string{"10.2.0.11:9090", "[fd02::11]:9090"}
	for _, to := range past {
		if b.Reaches(b.Client, "tcp", to, true) == "" {
			t.Errorf("%s does not answer", to)
		}
	}
	found := b.doctor()
	if len(found) != 2 || found[0].Problem != "this host forwards IPv4 for everybody" || found[1].Problem != "this host forwards IPv6 for everybody" {
		t.Fatalf("found: %+v", found)
	}
	b.shell(b.Balancer, found[0].Mend)
	if sick := b.doctor(); len(sick) > 0 {
		t.Errorf("after %q: %+v", found[0].Mend, sick)
	}
	for _, to := range past {
		if b.Reaches(b.Client, "tcp", to, false) != "" {
			t.Errorf("%s still answers", to)
		}
	}
	for _, to := range []string{"203.0.113.10:80", "[2001:db8::10]:80"} {
		if b.Reaches(b.Client, "tcp", to, true) == "" {
			t.Errorf("%s does not answer", to)
		}
	}
}

// TestDoctorSockets: a program that waits at all addresses is in the way of a service
// on all own addresses, also for IPv4 at a socket of IPv6; it is not in the way of one on
// a single address. A port that is published is a backend where a program waits there.
func TestDoctorSockets(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.standIns()
	_, err := traffic.Serve(b.Balancer, "all", traffic.Port{Network: "udp", At: netip.MustParseAddrPort("[::]:5353")})
	b.Check(err)
	apply := func(service string) []finding {
		b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", one(service)))
		return b.doctor()
	}
	if found := apply(`{name: dns, protocol: udp, listen: "10.1.0.1:5353", backends: ["10.2.0.11:53"]}`); len(found) > 0 {
		t.Errorf("a single address: %+v", found)
	}
	for _, listen := range []string{":5353", "10.1.0.0/24:5353"} {
		found := apply(`{name: dns, protocol: udp, listen: "` + listen + `", backends: ["10.2.0.11:53"]}`)
		if covered := listen[0] == ':'; covered && (len(found) != 1 || !strings.Contains(found[0].Problem, "udp [::]:5353")) || !covered && len(found) > 0 {
			t.Errorf("%s: %+v", listen, found)
		}
	}
	b.shell(b.Balancer, strings.Replace(published, "8081", "8080", 1))
	if found := apply(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.1:8080"]}`); len(found) > 0 {
		t.Errorf("a published port where a program waits: %+v", found)
	}
	if b.Reaches(b.Client, "tcp", "203.0.113.10:80", true) == "" {
		t.Error("a published port where a program waits does not answer")
	}
}

// diagnose makes each fault on a host of its own.
func diagnose(t *testing.T, faults []fault) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
			b.standIns()
			path := b.write("shop.yaml", map[bool]string{true: f.profile, false: shop}[f.profile != ""])
			var args []string
			if f.file {
				args = append(args, path)
			}
			b.shell(b.Balancer, f.ready)
			apply := "nlb apply " + path
			if f.breaks != "" {
				b.shell(b.Balancer, apply)
				if sick := b.doctor(args...); len(sick) > 0 {
					t.Fatalf("before the fault: %+v", sick)
				}
				apply = named(f.breaks, path)
			}
			b.shell(b.Balancer, apply)
			if f.probe != "" && b.Reaches(b.Client, "tcp", f.probe, false) != "" {
				t.Errorf("there is no fault: %s answers", f.probe)
			}
			found := b.found(f, args)
			if found == nil || f.lasts {
				return
			}
			b.shell(b.Balancer, found.Mend)
			sick := b.doctor(args...)
			for i := 0; len(sick) > 0 && i < 10; i++ {
				time.Sleep(50 * time.Millisecond) // a link needs some time to be up
				sick = b.doctor(args...)
			}
			if len(sick) > 0 {
				t.Errorf("after %q: %+v", found.Mend, sick)
			}
			if f.probe != "" && b.Reaches(b.Client, "tcp", f.probe, true) == "" {
				t.Errorf("after %q: %s does not answer", found.Mend, f.probe)
			}
		})
	}
}

// named puts the path of the profile into a command line.
func named(line, path string) string { return strings.ReplaceAll(line, "NAME", path) }

// standIns are servers on the balancer itself.
func (b *bed) standIns() {
	b.T.Helper()
	b.serveOn(b.Balancer, "itself", "10.2.0.1:8080", "127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8081", "0.0.0.0:8090")
}

// found returns the finding of a fault; nil: it is not there, or not alone.
func (b *bed) found(f fault, args []string) *finding {
	b.T.Helper()
	var out *finding
	for _, s := range b.doctor(args...) {
		switch {
		case out == nil && s.Level == f.level && s.Check == f.check && strings.Contains(s.Problem+"; "+s.Why, f.says):
			out = &s
		case slices.Contains(f.also, s.Check):
		default:
			b.T.Errorf("another finding: %+v", s)
		}
	}
	if out == nil {
		b.T.Errorf("not found: %s %s %q", f.level, f.check, f.says)
	}
	return out
}

// serveOn starts a stand-in backend on a host, for TCP.
func (b *bed) serveOn(h *netlab.Host, name string, at ...string) {
	b.T.Helper()
	var ports []traffic.Port
	for _, a := range at {
		ports = append(ports, traffic.Port{Network: "tcp", At: netip.MustParseAddrPort(a)})
	}
	_, err := traffic.Serve(h, name, ports...)
	b.Check(err)
}
