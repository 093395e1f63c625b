package integration

// What befalls fleets of real daemons, and what it costs: rows of the table in
// docs/fleet.md.

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// fleetVIPs are what clients of fleets connect to, and fleetRate is how many begin to in a second,
// to each.
var fleetVIPs = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.10:80"), netip.MustParseAddrPort("[2001:db8::10]:80")}

const fleetRate = 150

// fleetServers are the backends; the last one of each family comes and goes.
var fleetServers = []string{"10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080", "[fd02::11]:8080", "[fd02::12]:8080", "[fd02::13]:8080"}

// node is a balancer of a fleet, as a bed's.
type node struct {
	*bed
	self  string // its address towards the others
	dir   string
	agent *agent
}

// on is the bed with another balancer.
func (b *bed) on(h *netlab.Host) *bed {
	return &bed{&netlabtest.Bed{Bed: &netlab.Bed{World: b.World, Client: b.Client, Balancer: h, Server: b.Server}, T: b.T}}
}

// fleetOf is balancers that serve the same addresses, between clients and servers.
type fleetOf struct {
	*bed
	kind string
	// most is how many of the open connections an event may cost, beside those that it
	// has to.
	most    int
	nodes   []*node
	servers []*traffic.Server
	conns   []*traffic.Conn
}

// newFleet is one without its hosts but a client and a server.
func newFleet(t *testing.T, kind string, most int) fleetOf {
	netlabtest.Packets(t)
	f := fleetOf{bed: &bed{&netlabtest.Bed{Bed: &netlab.Bed{World: netlabtest.NewWorld(t)}, T: t}}, kind: kind, most: most}
	f.Client, f.Server = f.Host("client"), f.Host("server")
	return f
}

// serve starts the servers, which greet who connects.
func (f *fleetOf) serve() {
	f.T.Helper()
	for _, a := range fleetServers {
		at := netip.MustParseAddrPort(a)
		s, err := traffic.Serve(f.Server, at.Addr().String(), traffic.Port{Network: "tcp", At: at})
		f.Check(err)
		f.servers = append(f.servers, s)
	}
}

// shop is a profile of the fleet. less leaves the last backend of each family out.
func (f *fleetOf) shop(file, service string, less bool) string {
	backends := slices.Clone(fleetServers)
	if less {
		backends = slices.DeleteFunc(backends, leaves)
	}
	return "profile: shop\nfleet: " + f.kind + "\n" + file + `services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    snat: none
    health: {check: tcp, interval: 200ms}
` + service + `    backends: ["` + strings.Join(backends, `", "`) + "\"]\n"
}

// leaves reports whether a backend is one that comes and goes.
func leaves(backend string) bool { return strings.Contains(backend, "13") }

// rewrite has nodes read another profile.
func rewrite(profile string, nodes ...*node) {
	for _, n := range nodes {
		n.agent.rewrite(profile)
	}
}

// openOnes is how many connections tests of fleets hold open.
func openOnes() int {
	if *full {
		return 300
	}
	return 60
}

// opened are connections of a client, to each address in turn.
func (f *fleetOf) opened(n int) []*traffic.Conn {
	f.T.Helper()
	var out []*traffic.Conn
	for i := range n {
		c, err := traffic.Client{Host: f.Client, Timeout: 8 * time.Second}.Dial(f.T.Context(), "tcp", fleetVIPs[i%len(fleetVIPs)])
		f.Check(err)
		f.T.Cleanup(func() { c.Close() })
		out = append(out, c)
	}
	return out
}

// lost are those of connections that fail, all asked at once.
func lost(conns []*traffic.Conn, fails func(*traffic.Conn) bool) (out []*traffic.Conn) {
	gone := make([]bool, len(conns))
	var wait sync.WaitGroup
	for i, c := range conns {
		wait.Go(func() { gone[i] = fails(c) })
	}
	wait.Wait()
	for i, c := range conns {
		if gone[i] {
			out = append(out, c)
		}
	}
	return out
}

// silent reports whether a client that speaks gets no answer of its server.
func silent(c *traffic.Conn) bool {
	was := c.Reply.Backend
	r, err := c.Again()
	return err != nil || r.Backend != was
}

// copied waits until all nodes know these connections. conntrackd tells them a moment late.
func (f *fleetOf) copied(conns []*traffic.Conn) {
	f.T.Helper()
	for _, n := range f.nodes {
		f.eventually("a node knows all connections", func() bool {
			known := ""
			for _, family := range []string{"ipv4", "ipv6"} {
				known += f.Witness(n.Balancer, "", "conntrack", "-L", "-f", family, "-p", "tcp", "--state", "ESTABLISHED")
			}
			return !slices.ContainsFunc(conns, func(c *traffic.Conn) bool {
				_, port, _ := net.SplitHostPort(c.LocalAddr().String())
				return !strings.Contains(known, " sport="+port+" dport=80 ")
			})
		})
	}
}

// beyond is how long new connections are made when an event is over.
const beyond = 200 * time.Millisecond

// event is one thing that happens: what the table calls it, and whether backends come or
// go meanwhile.
type event struct {
	what          string
	removes, adds bool
	serversSpeak  bool // first, when it is over, to connections whose clients do not
	do            func()
}

// happens has it happen while connections are open, and new ones are made, and reports
// what that costs. Those that were lost are opened again.
func (f *fleetOf) happens(e event) {
	t := f.T
	t.Helper()
	f.conns = append(f.conns, f.opened(openOnes()-len(f.conns))...)
	var listen []*traffic.Conn
	if e.serversSpeak {
		listen = f.opened(openOnes())
	}
	switch f.kind {
	case "pair":
		f.copied(slices.Concat(f.conns, listen))
	case "mesh": // a client that speaks first tells a node of its connection; a server does not
		f.copied(listen)
	}
	var streams []*traffic.Loading
	for _, to := range fleetVIPs {
		streams = append(streams, traffic.Load{From: f.Client, To: to, Rate: fleetRate, Timeout: 10 * time.Second}.Start(t.Context()))
	}
	e.do()
	gone := lost(f.conns, silent)
	f.conns = slices.DeleteFunc(f.conns, func(c *traffic.Conn) bool { return slices.Contains(gone, c) })
	time.Sleep(beyond)
	var longest time.Duration
	failed := 0
	for _, s := range streams {
		d, n := gap(f.stopped(s))
		longest, failed = max(longest, d), failed+n
	}
	theirs := len(slices.DeleteFunc(slices.Clone(gone), func(c *traffic.Conn) bool { return !leaves(c.Reply.Backend) }))
	row := fmt.Sprintf("| %s: %s | %d", f.kind, e.what, len(gone))
	most := f.most
	if e.removes {
		row += fmt.Sprintf(", of these %d of the removed one", theirs)
		most += theirs
	}
	figures(t, "%s | %d ms | %d |", row, longest.Milliseconds(), failed)
	if e.adds && f.kind == "anycast" {
		most += openOnes() / 50 // what was opened between two changes
	}
	if len(gone) > most {
		t.Errorf("%s: %d of %d lost, at most %d may be", e.what, len(gone), openOnes(), most)
		for _, c := range gone {
			r, err := c.Again()
			t.Logf("%v of backend %s: %v %v", c.LocalAddr(), c.Reply.Backend, r.Backend, err)
		}
	}
	if e.serversSpeak {
		f.serversSpeak(listen)
	}
}

// serversSpeak has the servers speak first.
func (f *fleetOf) serversSpeak(conns []*traffic.Conn) {
	f.T.Helper()
	for _, s := range f.servers {
		s.Push()
	}
	what, fails := "the servers speak first afterwards", func(c *traffic.Conn) bool { return c.Heard() != nil }
	if f.kind == "anycast" { // nobody can know who is meant, until the client speaks
		what, fails = what+", then the clients", silent
	}
	gone := lost(conns, fails)
	figures(f.T, "| %s: %s | %d | | |", f.kind, what, len(gone))
	if len(gone) > f.most {
		f.T.Errorf("%s: %d of %d lost, at most %d may be", what, len(gone), len(conns), f.most)
	}
	for _, c := range conns {
		c.Close()
	}
}

// gap is the longest time without a new connection that was served while some were
// tried, and how many failed.
func gap(all []traffic.Attempt) (longest time.Duration, failed int) {
	var end time.Time
	for _, a := range all {
		if a.Began.After(end) {
			end = a.Began
		}
	}
	served := []time.Time{end}
	for _, a := range all {
		if a.Err != nil {
			failed++
		} else if at := a.Began.Add(a.Took); at.Before(end) {
			served = append(served, at)
		}
	}
	slices.SortFunc(served, time.Time.Compare)
	for i := 1; i < len(served); i++ {
		longest = max(longest, served[i].Sub(served[i-1]))
	}
	return longest, failed
}
