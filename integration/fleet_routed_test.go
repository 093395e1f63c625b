package integration

// Balancers that routers spread clients over: nlb run, BIRD or FRR with BFD, and
// conntrackd, as docs/fleet.md says.

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// routed is a fleet between two routers:
//
//	client 10.1.0.2 --- front --- 10.11.N.2 nN 10.12.N.2 --- back --- 10.2.0.11.. server
//
// Both routers spread by the client's address and port, so that answers meet the
// balancer that has seen the question.
type routed struct {
	fleetOf
	front, back *netlab.Host
	sync        *network
	file        string // of the profile: what is said for the file, and for the service
	service     string
}

func newRouted(t *testing.T, kind string, most, balancers int) *routed {
	f := &routed{fleetOf: newFleet(t, kind, most), file: "announce: {interface: lo, delay: 200ms, drain: 2s, track: eth0}\n"}
	w := f.World
	f.front, f.back = f.Host("front"), f.Host("back")
	f.sync = f.network("sync")
	f.Check(w.Join(netlab.NewEnd(f.Client, "eth0", "10.1.0.2/24", "fd01::2/64"), netlab.NewEnd(f.front, "clients", "10.1.0.1/24", "fd01::1/64")))
	f.Check(w.Join(netlab.NewEnd(f.Server, "eth0", "10.2.0.11/24", "10.2.0.12/24", "10.2.0.13/24", "fd02::11/64", "fd02::12/64", "fd02::13/64"),
		netlab.NewEnd(f.back, "servers", "10.2.0.1/24", "fd02::1/64")))
	for r, fields := range map[*netlab.Host]string{f.front: "0x11", f.back: "0x22"} { // source or destination, address and port
		f.Check(r.Forward())
		for _, p := range [][2]string{{"ipv4", "policy=3"}, {"ipv4", "fields=" + fields}, {"ipv4", "seed=7"}, {"ipv6", "policy=3"}, {"ipv6", "fields=" + fields}} {
			key, value, _ := strings.Cut(p[1], "=")
			if err := r.SetSysctl("net."+p[0]+".fib_multipath_hash_"+key, value); os.IsNotExist(err) {
				t.Skipf("SKIPPED, NOT PROVED: two routers cannot be made to agree (needs Linux >= 6.11): %v", err)
			} else {
				f.Check(err)
			}
		}
	}
	for i := 1; i <= balancers; i++ {
		h := f.Host(fmt.Sprintf("n%d", i))
		n := &node{bed: f.on(h), self: fmt.Sprintf("10.11.%d.2", i), dir: f.folder()}
		f.Check(w.Join(netlab.NewEnd(h, "eth0", n.self+"/24", fmt.Sprintf("fd11:%d::2/64", i), "fe80::2/64"),
			netlab.NewEnd(f.front, h.Name(), fmt.Sprintf("10.11.%d.1/24", i), fmt.Sprintf("fd11:%d::1/64", i))))
		f.Check(w.Link(h, "eth1", f.back, h.Name()))
		f.Address(h, "eth1", fmt.Sprintf("10.12.%d.2/24", i), fmt.Sprintf("fd12:%d::2/64", i), "fe80::2/64") // FRR waits for a link-local one
		f.Address(f.back, h.Name(), fmt.Sprintf("10.12.%d.1/24", i), fmt.Sprintf("fd12:%d::1/64", i))
		f.Check(h.AddRoute(netip.MustParsePrefix("10.2.0.0/24"), netip.MustParseAddr(fmt.Sprintf("10.12.%d.1", i))))
		f.Check(h.AddRoute(netip.MustParsePrefix("fd02::/64"), netip.MustParseAddr(fmt.Sprintf("fd12:%d::1", i))))
		f.sync.plug(h, "eth2", fmt.Sprintf("10.13.0.%d/24", i))
		f.Check(h.Forward())
		f.nodes = append(f.nodes, n)
	}
	f.serve()
	for i, r := range []*netlab.Host{f.front, f.back} {
		f.router(r, 11+i, balancers)
	}
	return f
}

// router starts BIRD on a router. Its BFD is slower than the balancers', who take what
// it says: the machine of the test has more to do than theirs.
func (f *routed) router(h *netlab.Host, network, balancers int) {
	f.T.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "router id 10.0.0.%d;\nprotocol device {}\n", network)
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&text, "protocol kernel { merge paths on; %s { export where source = RTS_BGP; }; }\n", family)
	}
	text.WriteString("protocol bfd { interface \"*\" { interval 300 ms; multiplier 3; }; }\n")
	const session = "protocol bgp { local as 65000; neighbor %s as 65001; bfd on; connect delay time 1; error wait time 1, 2; %s { import all; export none; }; }\n"
	for i := 1; i <= balancers; i++ {
		fmt.Fprintf(&text, session, fmt.Sprintf("10.%d.%d.2", network, i), "ipv4")
		fmt.Fprintf(&text, session, fmt.Sprintf("fd%d:%d::2", network, i), "ipv6")
	}
	dir := f.folder()
	file := filepath.Join(dir, "bird.conf")
	f.Check(os.WriteFile(file, []byte(text.String()), 0o644))
	f.bird(h, dir, file)
}

// settings are those of a node's place.
func (n *node) settings() []string {
	i := strings.TrimSuffix(strings.TrimPrefix(n.self, "10.11."), ".2")
	return []string{
		"self=" + n.self, "as=65001", "front=10.11." + i + ".1/65000", "back=10.12." + i + ".1/65000",
		"front=fd11:" + i + "::1/65000", "back=fd12:" + i + "::1/65000",
	}
}

// run starts nlb run on the nodes, and BIRD, on the last one FRR.
func (f *routed) run() {
	f.T.Helper()
	profile := f.profile(false)
	for i, n := range f.nodes {
		n.agent = n.bed.agent(profile)
		if i == len(f.nodes)-1 {
			n.frr(n.render(n.dir, "frr", profile, n.settings()...))
		} else {
			n.bird(n.Balancer, n.dir, n.render(n.dir, "bird", profile, n.settings()...))
		}
	}
}

func (f *routed) profile(less bool) string { return f.shop(f.file, f.service, less) }

// frr starts FRR's daemons on a node, which become another user.
func (n *node) frr(file string) {
	n.T.Helper()
	none := filepath.Join(n.dir, "none.conf")
	n.Check(os.Chmod(n.dir, 0o777))
	n.Check(os.WriteFile(none, nil, 0o644))
	for _, program := range []string{"zebra", "bfdd", "bgpd"} {
		args := []string{"-f", none, "-i", filepath.Join(n.dir, program+".pid"), "-z", filepath.Join(n.dir, "zserv.api"), "--vty_socket", n.dir, "-P", "0", "--log", "stdout"}
		if program == "bfdd" {
			args = append(args, "--bfdctl", filepath.Join(n.dir, "bfdd.ctl"))
		}
		n.start(n.Balancer, n.dir, "/usr/lib/frr/"+program, args...)
		n.eventually(program+" answers", func() bool {
			return strings.Contains(n.output(n.Balancer, "vtysh", "--vty_socket", n.dir, "-d", program, "-c", "show version"), "FRRouting")
		})
	}
	n.Witness(n.Balancer, "", "vtysh", "--vty_socket", n.dir, "-f", file)
}

// spread waits until both routers send to so many balancers; where it is to all, also until
// each of these has found all servers up: who comes back finds one after the other, and
// clients that it gets meanwhile draw among those.
func (f *routed) spread(balancers int) {
	f.T.Helper()
	for _, n := range f.nodes {
		if balancers == len(f.nodes) {
			f.eventually(n.Balancer.Name()+" has found all servers up", n.serves)
		}
	}
	f.sends(f.front, balancers, "203.0.113.10", "2001:db8::10")
	f.sends(f.back, balancers, "default", "default")
}

// serves reports whether all servers are up for a node.
func (n *node) serves() bool {
	for _, s := range lb.Services(n.Load().Profiles) {
		if slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.State != lb.Up }) {
			return false
		}
	}
	return true
}

// sends waits until a router sends to so many balancers what goes there by IPv4 and by
// IPv6.
func (f *routed) sends(r *netlab.Host, balancers int, to ...string) {
	f.T.Helper()
	for i, family := range []string{"-4", "-6"} {
		f.eventually(fmt.Sprintf("%s sends to %d balancers (%s)", r.Name(), balancers, family), func() bool {
			return strings.Count(f.output(r, "ip", family, "route", "show", to[i]), "via ") == balancers
		})
	}
}

// kill lets a node neither send nor hear, as if its links were cut; undo ends that.
func (n *node) kill() (undo func()) { return n.cut(`!= "lo"`) }

// cut cuts the links whose names match this word of nft.
func (n *node) cut(links string) (undo func()) {
	n.T.Helper()
	n.NFT(n.Balancer, strings.ReplaceAll(`table inet cut {
	chain in { type filter hook prerouting priority -500; iifname LINKS drop; }
	chain out { type filter hook postrouting priority 500; oifname LINKS drop; }
}
`, "LINKS", links))
	return func() { n.NFT(n.Balancer, "delete table inet cut\n") }
}

// events have nodes leave, return, and be killed and return, and backends go and come.
func (f *routed) events() {
	t := f.T
	t.Helper()
	f.run()
	all := len(f.nodes)
	f.spread(all)
	first, second, last := f.nodes[0], f.nodes[1], f.nodes[all-1]
	var undo func()
	kill := func(n *node) {
		undo = n.kill()
		f.spread(all - 1)
	}
	back := func() {
		undo()
		f.spread(all)
	}
	f.happens(event{what: "a balancer leaves", do: func() {
		if err := first.agent.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		f.spread(all - 1)
	}})
	f.happens(event{what: "it returns", do: func() {
		first.agent.begin()
		f.spread(all)
	}})
	f.happens(event{what: "another one's links are cut", serversSpeak: true, do: func() { kill(second) }})
	f.happens(event{what: "it returns", do: back})
	f.happens(event{what: "a backend is removed, and a balancer's links are cut", removes: true, do: func() {
		rewrite(f.profile(true), f.nodes...)
		kill(last)
	}})
	back()
	f.happens(event{what: "it is added, and a balancer's links are cut", adds: true, do: func() {
		rewrite(f.profile(false), f.nodes...)
		kill(second)
	}})
	back()
}

// linkEvents cut one link of a node alone.
func (f *routed) linkEvents() {
	f.T.Helper()
	f.run()
	all, n := len(f.nodes), f.nodes[0]
	f.spread(all)
	var undo func()
	f.happens(event{what: "the link to the servers alone is cut", do: func() {
		undo = n.cut(`"eth1"`)
		f.spread(all - 1) // its checks fail, so it announces nothing
	}})
	f.happens(event{what: "it is mended", do: func() {
		undo()
		f.spread(all)
	}})
	port := n.Balancer.Name() // of the router, to this balancer
	f.Check(f.front.SetSysctl("net.ipv6.conf."+port+".keep_addr_on_down", "1"))
	f.happens(event{what: "the link to the clients alone has no carrier", do: func() {
		f.Check(f.front.Cut(port))
		f.spread(all - 1) // track names it
	}})
	f.happens(event{what: "it has one again", do: func() {
		f.Check(f.front.Mend(port))
		f.spread(all)
	}})
	others := f.opened(openOnes())
	f.happens(event{what: "the link to the clients alone is cut, and the balancer told to end", do: func() {
		undo = n.cut(`"eth0"`)
		f.sends(f.front, all-1, "203.0.113.10", "2001:db8::10")
		f.sends(f.back, all, "default", "default") // nothing says that it is of no use
		stuck := lost(others, silent)
		figures(f.T, "| %s: the link to the clients alone is cut, and nothing done | %d get no answer | | |", f.kind, len(stuck))
		if err := n.agent.end(syscall.SIGTERM); err != nil {
			f.T.Error(err)
		}
		f.spread(all - 1)
	}})
	f.happens(event{what: "it is mended, and begins again", do: func() {
		undo()
		n.agent.begin()
		f.spread(all)
	}})
}

// TestFleetMesh: three balancers draw on their own, and know each other's connections.
func TestFleetMesh(t *testing.T) {
	if !*full {
		t.Skip("SKIPPED, NOT PROVED: it runs BIRD, FRR and conntrackd for 30 seconds; -full does")
	}
	t.Parallel()
	for _, program := range []string{"bird", "conntrackd", "/usr/lib/frr/bgpd"} {
		netlabtest.Needs(t, program)
	}
	f := newRouted(t, "mesh", 2, 3)
	for i, n := range f.nodes {
		with := []string{fmt.Sprintf("self=10.13.0.%d", i+1), "interface=eth2"}
		for j := range f.nodes {
			if j != i {
				with = append(with, fmt.Sprintf("peer=10.13.0.%d", j+1))
			}
		}
		n.conntrackd(n.Balancer, n.dir, n.render(n.dir, "conntrackd", f.profile(false), with...))
	}
	f.events()
}

// TestFleetAnycast: three balancers know nothing of each other.
func TestFleetAnycast(t *testing.T) {
	if !*full {
		t.Skip("SKIPPED, NOT PROVED: it runs BIRD and FRR for 50 seconds; -full does")
	}
	t.Parallel()
	for _, program := range []string{"bird", "/usr/lib/frr/bgpd"} {
		netlabtest.Needs(t, program)
	}
	for name, happen := range map[string]func(*routed){"nodes": (*routed).events, "links": (*routed).linkEvents} {
		t.Run(name, func(t *testing.T) {
			f := newRouted(t, "anycast", 0, 3)
			f.service = "    scheduler: consistent\n    hash-by: [source-address, source-port]\n"
			happen(f)
		})
	}
}
