package integration

// Two balancers as one: nlb run, keepalived and conntrackd, as docs/fleet.md says.

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
	fleetOf
	front, back *network
	keys        string // of the service, beside those that all have
}

func newPair(t *testing.T, keys string) *pair {
	p := &pair{fleetOf: newFleet(t, "pair", 0), keys: keys}
	p.front, p.back = p.network("front"), p.network("back")
	p.front.plug(p.Client, "eth0", "10.1.0.2/24", "fd01::2/64")
	for _, net := range []string{"203.0.113.0/24", "2001:db8::/64"} {
		p.Check(p.Client.AddLinkRoute(netip.MustParsePrefix(net), "eth0"))
	}
	p.back.plug(p.Server, "eth0", "10.2.0.11/24", "10.2.0.12/24", "10.2.0.13/24", "fd02::11/64", "fd02::12/64", "fd02::13/64")
	p.Via(p.Server, "10.2.0.1", "fd02::1")
	for i := range 2 {
		h := p.Host(fmt.Sprintf("n%d", i+1))
		n := &node{bed: p.on(h), self: fmt.Sprintf("10.1.0.%d", 21+i), dir: p.folder()}
		p.front.plug(h, "eth0", n.self+"/24", fmt.Sprintf("fd01::%d/64", 21+i))
		p.back.plug(h, "eth1", fmt.Sprintf("10.2.0.%d/24", 21+i), fmt.Sprintf("fd02::%d/64", 21+i))
		p.Check(h.Forward())
		p.nodes = append(p.nodes, n)
	}
	p.serve()
	return p
}

// run starts all daemons of a node, in the order of their units.
func (p *pair) run(n, other *node) {
	p.T.Helper()
	profile := p.shop("", p.keys, false)
	n.agent = n.bed.agent(profile)
	with := []string{
		"self=" + n.self, "peer=" + other.self, "interface=eth0",
		"back-interface=eth1", "back-address=10.2.0.1/24", "back-address=fd02::1/64", "track-file=" + n.faultFile(),
	}
	n.conntrackd(n.Balancer, n.dir, n.render(n.dir, "conntrackd", profile, with...))
	file := n.render(n.dir, "keepalived", profile, with...)
	n.start(n.Balancer, n.dir, "keepalived", "-n", "-l", "-P", "-f", file, "-p", filepath.Join(n.dir, "keepalived.pid"), "-r", filepath.Join(n.dir, "vrrp.pid"))
}

// faultFile is what keepalived tracks.
func (n *node) faultFile() string { return filepath.Join(filepath.Dir(n.agent.socket), "fault") }

func (n *node) keepalivedConf() string { return filepath.Join(n.dir, "keepalived.conf") }

// moving are the addresses that one of the two has.
var moving = []string{"203.0.113.10", "2001:db8::10", "10.2.0.1", "fd02::1"}

// master waits until one of the two has the addresses of both sides, and the other
// none, and returns both.
func (p *pair) master(due *node) (has, other *node) {
	p.T.Helper()
	p.eventually("one has the addresses", func() bool {
		for i, n := range p.nodes {
			other = p.nodes[1-i]
			if (due == nil || n == due) && p.has(n) == len(moving) && p.has(other) == 0 {
				has = n
				return true
			}
		}
		return false
	})
	return has, other
}

// has is how many of the addresses that move a node has.
func (p *pair) has(n *node) (count int) {
	p.T.Helper()
	all := p.Witness(n.Balancer, "", "ip", "-o", "address", "show")
	for _, a := range moving {
		if strings.Contains(all, " "+a+"/") {
			count++
		}
	}
	return count
}

// cut takes a node off both networks, and waits until the other one has the addresses.
// First it has clients and servers look for the addresses anew. They may still send to the
// node that had them before, which balances on.
func (p *pair) cut(n, other *node) {
	p.T.Helper()
	for i, address := range moving {
		h, link := p.Client, "eth0"
		if i >= len(moving)/2 {
			h, link = p.Server, "eth1"
		}
		_, mac, _ := strings.Cut(p.Witness(n.Balancer, "", "ip", "-o", "link", "show", link), "link/ether ")
		p.Witness(h, "", "ip", "neigh", "flush", "to", address)
		p.eventually("what is sent to "+address+" goes to it", func() bool {
			return strings.Contains(p.Witness(h, "", "ip", "neigh", "show", "to", address), mac[:17])
		})
	}
	p.front.join(n.Balancer, false)
	p.back.join(n.Balancer, false)
	p.eventually("the other one has the addresses", func() bool { return p.has(other) == len(moving) })
}

// mend ends that, once the node has noticed that it is off. It waits until the node is
// ready to take over.
func (p *pair) mend(n, other *node) {
	p.T.Helper()
	says := func(what string) func() bool {
		return func() bool {
			b, _ := os.ReadFile(n.faultFile())
			return string(b) == what
		}
	}
	p.eventually("it knows that it reaches nobody", says("1\n"))
	p.front.join(n.Balancer, true)
	p.back.join(n.Balancer, true)
	p.eventually("it reaches its servers", says("0\n"))
	p.master(other)
}

// TestFleetPair: a balancer that is told to end, one that comes back, and one whose
// links are cut lose no connection. With syn-protection, too: conntrackd also sends how
// sequence numbers and timestamps are translated.
func TestFleetPair(t *testing.T) {
	if !*full {
		t.Skip("SKIPPED, NOT PROVED: it runs keepalived and conntrackd for 20 seconds; -full does")
	}
	t.Parallel()
	for _, program := range []string{"keepalived", "conntrackd", "conntrack"} {
		netlabtest.Needs(t, program)
	}
	for name, keys := range map[string]string{"nat": "", "synproxy": "    syn-protection: synproxy\n"} {
		t.Run(name, func(t *testing.T) { testPair(t, newPair(t, keys)) })
	}
}

func testPair(t *testing.T, p *pair) {
	p.run(p.nodes[0], p.nodes[1])
	p.run(p.nodes[1], p.nodes[0])
	has, other := p.master(nil)
	daemons := []string{"keepalived", "conntrackd"}
	has.wantFindings("as nlb render has it", daemons, "--socket", has.agent.socket)
	kept := has.keepalivedConf()
	p.Check(os.WriteFile(kept, []byte("vrrp_instance a {\n\tadvert_int 0.1\n\tvirtual_ipaddress { 203.0.113.10/32 }\n}\n"), 0o644))
	has.wantFindings("by hand", daemons, "--socket", has.agent.socket,
		kept+": a host that dies is noticed after 3 seconds", kept+": this host keeps the addresses when nobody is up to serve")

	p.happens(event{what: "nlb run of the one that serves is told to end", do: func() {
		if err := has.agent.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		p.master(other)
	}})
	p.happens(event{what: "it is back", do: func() {
		has.agent.begin()
		time.Sleep(time.Second) // nobody takes the addresses back
		p.master(other)
	}})
	p.happens(event{what: "the links of the one that serves are cut", serversSpeak: true, do: func() { p.cut(other, has) }})
	p.mend(other, has)
	p.happens(event{what: "a backend is removed, and the links of the one that serves are cut", removes: true, do: func() {
		rewrite(p.shop("", p.keys, true), p.nodes...)
		p.cut(has, other)
	}})
	p.mend(has, other)
	p.happens(event{what: "it is added, and the links of the one that serves are cut", adds: true, do: func() {
		rewrite(p.shop("", p.keys, false), p.nodes...)
		p.cut(other, has)
	}})
}
