package integration

// Balancers that routers spread clients over: nlb run, BIRD or FRR with BFD, and
// conntrackd, as docs/fleet.md says.

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// routed is a fleet between two routers:
//
//	client 10.1.0.2 --- front --- 10.11.N.2 nN 10.12.N.2 --- back --- 10.2.0.11.. server
//
// Both routers spread by the client's address and port, so that answers meet the
// balancer that has seen the question.
type routed struct {
	*bed
	front, back *netlab.Host
	sync        *network
	nodes       []*node
	routers     []*daemon // BIRD on front and back
}

func newRouted(t *testing.T, balancers int) *routed {
	netlabtest.Packets(t)
	w := netlabtest.NewWorld(t)
	f := &routed{bed: &bed{&netlabtest.Bed{Bed: &netlab.Bed{World: w}, T: t}}}
	f.Client, f.Server, f.front, f.back = f.Host("client"), f.Host("server"), f.Host("front"), f.Host("back")
	f.sync = f.network("sync")
	f.Check(w.Join(netlab.NewEnd(f.Client, "eth0", "10.1.0.2/24"), netlab.NewEnd(f.front, "clients", "10.1.0.1/24")))
	f.Check(w.Join(netlab.NewEnd(f.Server, "eth0", "10.2.0.11/24", "10.2.0.12/24", "10.2.0.13/24"), netlab.NewEnd(f.back, "servers", "10.2.0.1/24")))
	for r, fields := range map[*netlab.Host]string{f.front: "0x11", f.back: "0x22"} { // source or destination, address and port
		f.Check(r.Forward())
		for key, value := range map[string]string{"hash_policy": "3", "hash_fields": fields, "hash_seed": "7"} {
			if err := r.SetSysctl("net.ipv4.fib_multipath_"+key, value); os.IsNotExist(err) {
				t.Skipf("SKIPPED, NOT PROVED: two routers cannot be made to agree (needs Linux >= 6.11): %v", err)
			} else {
				f.Check(err)
			}
		}
	}
	for i := 1; i <= balancers; i++ {
		h := f.Host(fmt.Sprintf("n%d", i))
		n := &node{bed: f.on(h), self: fmt.Sprintf("10.11.%d.2", i), dir: f.folder()}
		f.Check(w.Join(netlab.NewEnd(h, "eth0", n.self+"/24"), netlab.NewEnd(f.front, h.Name(), fmt.Sprintf("10.11.%d.1/24", i))))
		f.Check(w.Link(h, "eth1", f.back, h.Name()))
		f.Address(h, "eth1", fmt.Sprintf("10.12.%d.2/24", i))
		f.Address(f.back, h.Name(), fmt.Sprintf("10.12.%d.1/24", i))
		f.Check(h.AddRoute(netip.MustParsePrefix("10.2.0.0/24"), netip.MustParseAddr(fmt.Sprintf("10.12.%d.1", i))))
		f.sync.plug(h, "eth2", fmt.Sprintf("10.13.0.%d/24", i))
		f.Check(h.Forward())
		f.nodes = append(f.nodes, n)
	}
	f.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	for i, r := range []*netlab.Host{f.front, f.back} {
		f.routers = append(f.routers, f.router(r, 11+i, balancers))
	}
	return f
}

// router starts BIRD on a router. Its BFD is slower than the balancers', who take what
// it says: the machine of the test has more to do than theirs.
func (f *routed) router(h *netlab.Host, network, balancers int) *daemon {
	f.T.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "router id 10.0.0.%d;\nprotocol device {}\nprotocol kernel { merge paths on; ipv4 { export where source = RTS_BGP; }; }\n", network)
	text.WriteString("protocol bfd { interface \"*\" { interval 300 ms; multiplier 3; }; }\n")
	for i := 1; i <= balancers; i++ {
		fmt.Fprintf(&text, "protocol bgp n%d { local as 65000; neighbor 10.%d.%d.2 as 65001; bfd on; connect delay time 1; error wait time 1, 2; ipv4 { import all; export none; }; }\n", i, network, i)
	}
	dir := f.folder()
	file := filepath.Join(dir, "bird.conf")
	f.Check(os.WriteFile(file, []byte(text.String()), 0o644))
	return f.bird(h, dir, file)
}

// settings are those of a node's place.
func (n *node) settings() []string {
	i := strings.TrimSuffix(strings.TrimPrefix(n.self, "10.11."), ".2")
	return []string{"self=" + n.self, "as=65001", "front=10.11." + i + ".1/65000", "back=10.12." + i + ".1/65000"}
}

// run starts nlb run on the nodes, and BIRD, on the last one FRR.
func (f *routed) run(profile string) {
	f.T.Helper()
	for i, n := range f.nodes {
		n.agent = n.bed.agent(profile)
		if i == len(f.nodes)-1 {
			n.frr(n.render(n.dir, "frr", profile, n.settings()...))
		} else {
			n.bird(n.Balancer, n.dir, n.render(n.dir, "bird", profile, n.settings()...))
		}
	}
}

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

// spread waits until both routers send to so many balancers.
func (f *routed) spread(balancers int) {
	f.T.Helper()
	for r, to := range map[*netlab.Host]string{f.front: "203.0.113.10", f.back: "default"} {
		f.eventually(fmt.Sprintf("%s sends to %d balancers", r.Name(), balancers), func() bool {
			return strings.Count(f.output(r, "ip", "route", "show", to), "via ") == balancers
		})
	}
}

// kill lets a node neither send nor hear, as if its links were cut; undo ends that.
func (n *node) kill() (undo func()) {
	n.T.Helper()
	n.NFT(n.Balancer, `table inet cut {
	chain in { type filter hook prerouting priority -500; iifname != "lo" drop; }
	chain out { type filter hook postrouting priority 500; oifname != "lo" drop; }
}
`)
	return func() { n.NFT(n.Balancer, "delete table inet cut\n") }
}

// events have nodes leave, return, and be killed and return, and report what that
// costs. most is how many open connections may be lost each time.
func (f *routed) events(kind string, most int) {
	t := f.T
	t.Helper()
	all := len(f.nodes)
	conns := f.opened(openOnes())
	event := func(what string, do func()) {
		t.Helper()
		stream := f.stream(vipWeb, false)
		do()
		lost := len(conns) - again(conns)
		time.Sleep(beyond)
		longest, failed := gap(f.stopped(stream))
		figures(t, "%s, %s: %d of %d open connections lost; longest gap of new ones %s, %d failed", kind, what, lost, len(conns), longest.Round(time.Millisecond), failed)
		if lost > most {
			t.Errorf("%s: %d of %d lost, at most %d may be", what, lost, len(conns), most)
		}
		if lost > 0 {
			conns = f.opened(openOnes())
		}
	}
	first, second := f.nodes[0], f.nodes[1]
	event("a node leaves", func() {
		if err := first.agent.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		f.spread(all - 1)
	})
	event("it returns", func() {
		first.agent.begin()
		f.spread(all)
	})
	var back func()
	event("another one is killed", func() {
		back = second.kill()
		f.spread(all - 1)
	})
	event("it returns", func() {
		back()
		f.spread(all)
	})
}

const routedShop = `profile: shop
announce: {interface: lo, delay: 200ms, drain: 2s}
%sservices:
  - name: web
    listen: 203.0.113.10:80
    snat: none
    scheduler: %s
    health: {check: tcp, interval: 200ms}
    backends: ["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"]
`

// TestFleetMesh: three balancers draw on their own, and know each other's connections.
func TestFleetMesh(t *testing.T) {
	if !*full {
		t.Skip("SKIPPED, NOT PROVED: it runs BIRD, FRR and conntrackd for 30 seconds; -full does")
	}
	t.Parallel()
	for _, program := range []string{"bird", "conntrackd", "/usr/lib/frr/bgpd"} {
		netlabtest.Needs(t, program)
	}
	f := newRouted(t, 3)
	profile := fmt.Sprintf(routedShop, "fleet: mesh\n", "round-robin")
	for i, n := range f.nodes {
		with := []string{fmt.Sprintf("self=10.13.0.%d", i+1), "interface=eth2"}
		for j := range f.nodes {
			if j != i {
				with = append(with, fmt.Sprintf("peer=10.13.0.%d", j+1))
			}
		}
		n.conntrackd(n.Balancer, n.dir, n.render(n.dir, "conntrackd", profile, with...))
	}
	f.run(profile)
	f.spread(3)
	f.events("mesh", 2)
}

// TestFleetAnycast: three balancers know nothing of each other.
func TestFleetAnycast(t *testing.T) {
	if !*full {
		t.Skip("SKIPPED, NOT PROVED: it runs BIRD and FRR for 30 seconds; -full does")
	}
	t.Parallel()
	for _, program := range []string{"bird", "/usr/lib/frr/bgpd"} {
		netlabtest.Needs(t, program)
	}
	f := newRouted(t, 3)
	profile := fmt.Sprintf(routedShop, "fleet: anycast\n", "consistent\n    hash-by: [source-address, source-port]")
	f.run(profile)
	f.spread(3)
	f.events("anycast", 0)
}
