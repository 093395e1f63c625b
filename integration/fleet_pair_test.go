package integration

// Two balancers as one: nlb run, keepalived and conntrackd, as docs/fleet.md says.

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// vipWeb is what clients of fleets connect to.
const vipWeb = "203.0.113.10:80"

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

// network is a switch: a bridge in a host of its own.
type network struct {
	*bed
	at *netlab.Host
}

func (b *bed) network(name string) *network {
	b.T.Helper()
	n := &network{b, b.Host(name)}
	b.Witness(n.at, "", "ip", "link", "add", "br0", "type", "bridge")
	b.Witness(n.at, "", "ip", "link", "set", "br0", "up")
	return n
}

// plug joins a host with the switch.
func (n *network) plug(h *netlab.Host, link string, addresses ...string) {
	n.T.Helper()
	n.Check(n.World.Link(h, link, n.at, h.Name()))
	n.join(h, true)
	n.Address(h, link, addresses...)
}

// join has the switch pass frames of a host on, or not: its link stays up.
func (n *network) join(h *netlab.Host, pass bool) {
	n.T.Helper()
	if pass {
		n.Witness(n.at, "", "ip", "link", "set", h.Name(), "master", "br0")
	} else {
		n.Witness(n.at, "", "ip", "link", "set", h.Name(), "nomaster")
	}
}

// pair is two balancers between a network of clients and one of servers.
type pair struct {
	*bed
	front, back *network
	nodes       []*node
}

func newPair(t *testing.T) *pair {
	netlabtest.Packets(t)
	w := netlabtest.NewWorld(t)
	p := &pair{bed: &bed{&netlabtest.Bed{Bed: &netlab.Bed{World: w}, T: t}}}
	p.Client, p.Server = p.Host("client"), p.Host("server")
	p.front, p.back = p.network("front"), p.network("back")
	p.front.plug(p.Client, "eth0", "10.1.0.2/24")
	p.Check(p.Client.AddLinkRoute(netip.MustParsePrefix("203.0.113.0/24"), "eth0"))
	p.back.plug(p.Server, "eth0", "10.2.0.11/24", "10.2.0.12/24", "10.2.0.13/24")
	p.Via(p.Server, "10.2.0.1")
	for i := range 2 {
		h := p.Host(fmt.Sprintf("n%d", i+1))
		n := &node{bed: p.on(h), self: fmt.Sprintf("10.1.0.%d", 21+i), dir: p.folder()}
		p.front.plug(h, "eth0", n.self+"/24")
		p.back.plug(h, "eth1", fmt.Sprintf("10.2.0.%d/24", 21+i))
		p.Check(h.Forward())
		p.nodes = append(p.nodes, n)
	}
	p.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	return p
}

const pairShop = `profile: shop
fleet: pair
services:
  - name: web
    listen: 203.0.113.10:80
    snat: none
    health: {check: tcp, interval: 200ms}
    backends: ["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"]
`

// run starts all daemons of a node, in the order of their units.
func (p *pair) run(n, other *node) {
	p.T.Helper()
	n.agent = n.bed.agent(pairShop)
	with := []string{
		"self=" + n.self, "peer=" + other.self, "interface=eth0", "back-interface=eth1", "back-address=10.2.0.1/24",
		"track-file=" + filepath.Join(filepath.Dir(n.agent.socket), "fault"),
	}
	n.conntrackd(n.Balancer, n.dir, n.render(n.dir, "conntrackd", pairShop, with...))
	file := n.render(n.dir, "keepalived", pairShop, with...)
	n.start(n.Balancer, n.dir, "keepalived", "-n", "-l", "-P", "-f", file, "-p", filepath.Join(n.dir, "keepalived.pid"), "-r", filepath.Join(n.dir, "vrrp.pid"))
}

func (n *node) keepalivedConf() string { return filepath.Join(n.dir, "keepalived.conf") }

// master waits until one of the two has the addresses of both sides, and the other
// none, and returns both.
func (p *pair) master(due *node) (has, other *node) {
	p.T.Helper()
	p.eventually("one has the addresses", func() bool {
		for i, n := range p.nodes {
			other = p.nodes[1-i]
			if due != nil && n != due {
				continue
			}
			if p.has(n, "203.0.113.10") && p.has(n, "10.2.0.1") && !p.has(other, "203.0.113.10") && !p.has(other, "10.2.0.1") {
				has = n
				return true
			}
		}
		return false
	})
	return has, other
}

// has reports whether a node has an address.
func (p *pair) has(n *node, address string) bool {
	p.T.Helper()
	return strings.Contains(p.Witness(n.Balancer, "", "ip", "-o", "address", "show", "to", address), address+"/")
}

// opened are connections of a client, all through one address.
func (b *bed) opened(n int) []*traffic.Conn {
	b.T.Helper()
	var out []*traffic.Conn
	for range n {
		c, err := traffic.Client{Host: b.Client, Timeout: 20 * time.Second}.Dial(b.T.Context(), "tcp", netip.MustParseAddrPort(vipWeb))
		b.Check(err)
		b.T.Cleanup(func() { c.Close() })
		out = append(out, c)
	}
	return out
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

// beyond is how long new connections are made when an event is over.
const beyond = 200 * time.Millisecond

// openOnes is how many connections tests of fleets hold open.
func openOnes() int {
	if *full {
		return 300
	}
	return 60
}

// TestFleetPair: a balancer that is told to end, one that comes back, and one whose
// links are cut lose no connection.
func TestFleetPair(t *testing.T) {
	if !*full {
		t.Skip("SKIPPED, NOT PROVED: it runs keepalived and conntrackd for 20 seconds; -full does")
	}
	t.Parallel()
	for _, program := range []string{"keepalived", "conntrackd"} {
		netlabtest.Needs(t, program)
	}
	p := newPair(t)
	p.run(p.nodes[0], p.nodes[1])
	p.run(p.nodes[1], p.nodes[0])
	has, other := p.master(nil)
	conns := p.opened(openOnes())
	daemons := []string{"keepalived", "conntrackd"}
	has.wantFindings("as nlb render has it", daemons, "--socket", has.agent.socket)
	kept := has.keepalivedConf()
	p.Check(os.WriteFile(kept, []byte("vrrp_instance a {\n\tadvert_int 0.1\n\tvirtual_ipaddress { 203.0.113.10/32 }\n}\n"), 0o644))
	has.wantFindings("by hand", daemons, "--socket", has.agent.socket,
		kept+": a host that dies is noticed after 3 seconds", kept+": this host keeps the addresses when nobody is up to serve")

	report := func(what string, stream *traffic.Loading) {
		t.Helper()
		lost := len(conns) - again(conns)
		time.Sleep(beyond)
		longest, failed := gap(p.stopped(stream))
		figures(t, "pair, %s: %d of %d open connections lost; longest gap of new ones %s, %d failed", what, lost, len(conns), longest.Round(time.Millisecond), failed)
		if lost > 0 {
			t.Errorf("%s: %d of %d lost", what, lost, len(conns))
		}
	}
	stream := p.stream(vipWeb, false)
	if err := has.agent.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	p.master(other)
	report("its nlb run is told to end", stream)

	has.agent.begin()
	stream = p.stream(vipWeb, false)
	time.Sleep(time.Second) // nobody takes the addresses back
	p.master(other)
	report("it is back", stream)

	stream = p.stream(vipWeb, false)
	p.front.join(other.Balancer, false)
	p.back.join(other.Balancer, false)
	p.eventually("the first one has the address again", func() bool { return p.has(has, "203.0.113.10") })
	report("the links of the other one are cut", stream)
}
