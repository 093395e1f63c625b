//go:build linux

package iptables

// The walk against the kernel: random rules are loaded with iptables-nft, packets are
// sent, and conntrack says what became of each.

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
	"nlb/nft/conntrack"
	"nlb/nft/wire"
)

var full = netlabtest.Full

func TestMain(m *testing.M) { netlabtest.Main(m) }

// kernelRule is a rule of what iptables takes in the table; its conditions fit the probes
// often.
func kernelRule(r *rand.Rand, table, chain string, depth int) string {
	some := func(n int) bool { return r.IntN(n) == 0 }
	not := func() string { return pick(r, "", "", "", "! ") }
	words := []string{"-A", chain}
	add := func(w ...string) { words = append(words, w...) }
	if some(3) {
		add(not() + "-d " + pick(r, "203.0.113.1", "203.0.113.2", "203.0.113.0/30", "203.0.113.0/24", "10.1.0.1", "10.2.0.11"))
	}
	if some(4) {
		add(not() + "-s " + pick(r, "10.1.0.2", "10.1.0.9", "10.1.0.8/30", "10.1.0.0/24", "10.2.0.1"))
	}
	ports, leaves := false, chain == "POSTROUTING"
	target := pick(r, "ACCEPT", "RETURN", "DNAT", "DNAT", "DNAT", "DNAT", "REDIRECT", "JUMP", "JUMP")
	switch {
	case table == "mangle":
		target = pick(r, "MARK", "MARK", "CONNMARK", "RETURN", "ACCEPT", "JUMP", "DROP")
	case leaves:
		target = pick(r, "MASQUERADE", "SNAT", "ACCEPT", "RETURN")
	}
	if ports = some(2) || target == "DNAT" || target == "REDIRECT"; ports {
		add("-p", pick(r, "tcp", "tcp", "udp"))
		switch r.IntN(4) {
		case 0:
			add(not() + "--dport " + pick(r, "80", "80:85", "81"))
		case 1:
			add("-m multiport " + not() + "--dports " + pick(r, "80,443", "79:81", "443"))
		case 2:
			add("-m conntrack --ctstate NEW")
		}
	}
	if some(4) && !leaves && chain != "OUTPUT" && !strings.HasPrefix(chain, "OWN") {
		add(not() + "-i " + pick(r, "eth0", "eth+", "eth1", "lo"))
	}
	if some(5) && !leaves {
		add("-m addrtype " + not() + "--dst-type LOCAL")
	}
	if some(4) {
		add("-m " + pick(r, "mark", "connmark") + " " + not() + "--mark " + pick(r, "0", "1", "0x1/0x1", "0x2/0x3"))
	}
	switch n := r.IntN(6); {
	case leaves: // their counters also see what is not balanced, which the walk leaves out
	case n == 0:
		every := 2 + r.IntN(3)
		add(fmt.Sprintf("-m statistic --mode nth --every %d --packet %d", every, r.IntN(every)))
	case n == 1:
		add("-m statistic --mode random --probability " + pick(r, "0.25", "0.5", "0.33333333349"))
	}
	switch target {
	case "DNAT":
		add("-j DNAT --to-destination " + pick(r, "10.2.0.11", "10.2.0.12:8080", "10.2.0.13:80", "10.2.0.11:8000-8010", "10.2.0.11:79-82", "10.2.0.12:6000-6010/80", "10.2.0.14:7001-7003 --random", "10.2.0.12-10.2.0.13"))
	case "REDIRECT":
		add("-j REDIRECT" + pick(r, "", " --to-ports 8080", " --to-ports 8080-8082", " --to-ports 8080-8082 --random"))
	case "SNAT":
		add("-j SNAT --to-source " + pick(r, "192.0.2.1", "10.2.0.1"))
	case "MARK":
		add("-j MARK " + pick(r, "--set-mark 1", "--set-xmark 0x2/0x3", "--or-mark 1"))
	case "CONNMARK":
		add("-j CONNMARK " + pick(r, "--save-mark", "--restore-mark", "--set-mark 1"))
	case "JUMP":
		if depth == 2 {
			add("-j RETURN")
		} else {
			add(pick(r, "-j", "-j", "-g") + fmt.Sprintf(" OWN%d", depth+1))
		}
	default:
		add("-j " + target)
	}
	return strings.Join(words, " ")
}

// kernelRules are a ruleset for iptables-restore.
func kernelRules(r *rand.Rand) string {
	var b strings.Builder
	for _, table := range []string{"mangle", "nat"} {
		fmt.Fprintf(&b, "*%s\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n:OWN1 -\n:OWN2 -\n", table)
		for depth, chain := range []string{"", "OWN1", "OWN2"} {
			if depth > 0 {
				for range 1 + r.IntN(3) {
					b.WriteString(kernelRule(r, table, chain, depth) + "\n")
				}
				continue
			}
			for range 1 + r.IntN(5) {
				b.WriteString(kernelRule(r, table, pick(r, "PREROUTING", "PREROUTING", "OUTPUT"), 0) + "\n")
			}
			if table == "nat" {
				for range r.IntN(3) {
					b.WriteString(kernelRule(r, table, "POSTROUTING", 0) + "\n")
				}
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// sent is connections that are made: their first packets, from ports of their own.
type sent struct {
	hook     hook
	from     netip.Addr
	to       netip.AddrPort
	protocol lb.Protocol
	first, n int // of the source ports
}

func (p sent) String() string {
	return fmt.Sprintf("%s from %s to %s, hook %d", p.protocol, p.from, p.to, p.hook)
}

// thisHost are the balancer's addresses.
var thisHost = []string{"10.1.0.1", "203.0.113.2", "10.2.0.1", "127.0.0.1"}

// where is what conntrack, or the walk, says of a connection: its new destination, and
// what became of its source; empty: it was dropped.
func where(to netip.AddrPort, source string) string {
	if slices.Contains(thisHost, to.Addr().String()) {
		return fmt.Sprintf("this host :%d", to.Port())
	}
	return strings.TrimSpace(to.String() + " " + source)
}

// walk is what the walk says of connections: the shares of where they go.
type walk struct {
	*trace
	shares map[string]float64
	exact  bool // they are of all connections, whatever came before
}

func (p sent) walk(set *syntax.Ruleset) walk {
	var patterns []string
	for r := range set.Rules {
		for _, m := range r.Matches {
			if m, ok := m.(syntax.Interface); ok && !m.Leaving {
				patterns = append(patterns, m.Pattern)
			}
		}
	}
	budget := maxSteps
	interfaces := space.NewInterfaces(append(patterns, "eth0"))
	w := &walker{set: set, interfaces: interfaces, ways: waysOf(set), hook: p.hook, budget: &budget, indexes: map[indexKey]*index{}, changing: map[*syntax.Chain]bool{}, single: pointsOf(set)}
	single := func(a netip.Addr) space.Set { return space.Prefix(netip.PrefixFrom(a, a.BitLen())) }
	local := uint64(0)
	if slices.Contains(thisHost, p.to.Addr().String()) {
		local = 1
	}
	var in space.Set
	for _, range1 := range interfaces.Matching("eth0") {
		in = space.One(range1.Last.Low, range1.Last.Low)
	}
	region := space.Region{single(p.to.Addr()), space.Protocols(uint8(p.protocol)), space.Ports(lb.PortRange{First: p.to.Port(), Last: p.to.Port()}), in, space.One(local, local)}
	ends := w.run(region, single(p.from), "")
	if w.split != nil {
		panic(fmt.Sprintf("a single connection is parted: %+v", w.split))
	}
	out := walk{w.trace, map[string]float64{}, !w.entangled}
	for _, e := range ends {
		key := ""
		switch {
		case e.fate == balanced:
			to := netip.AddrPortFrom(e.to.addr, e.to.port)
			if e.to.redirected {
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), e.to.port)
			}
			if to.Port() == 0 {
				to = netip.AddrPortFrom(to.Addr(), p.to.Port())
			}
			source := ""
			switch {
			case e.masquerade:
				source = "10.2.0.1"
			case e.first.IsValid():
				source = e.first.String()
			}
			if source == p.from.String() {
				source = ""
			}
			key = where(to, source)
		case e.fate == unbalanced:
			key = where(p.to, "")
		}
		out.shares[key] += e.share.real
	}
	return out
}

// wire sends the first packets.
func (p sent) wire() error {
	for i := range p.n {
		kind := syscall.SOCK_STREAM
		if p.protocol == lb.UDP {
			kind = syscall.SOCK_DGRAM
		}
		fd, err := syscall.Socket(syscall.AF_INET, kind|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
		if err == nil {
			err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: p.first + i, Addr: p.from.As4()})
		}
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(p.to.Port()), Addr: p.to.Addr().As4()})
		}
		if p.protocol == lb.UDP && err == nil {
			_, err = syscall.Write(fd, []byte("?"))
		}
		_ = syscall.Close(fd)
		// EPERM: a rule of this host drops it. The others: it is under way.
		if err != nil && err != syscall.EINPROGRESS && err != syscall.EPERM {
			return fmt.Errorf("%s:%d to %s: %w", p.from, p.first+i, p.to, err)
		}
	}
	return nil
}

// arena is a client and a host with rules, behind which nobody answers.
type arena struct {
	*netlabtest.Bed
	conn *wire.Conn
}

func newArena(t *testing.T) *arena {
	netlabtest.Needs(t, "iptables-nft-restore")
	b := netlabtest.New(t)
	for _, line := range []string{
		"ip address add 203.0.113.2/32 dev lo", "ip route add default via 10.2.0.11",
		"sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0",
	} {
		words := strings.Fields(line)
		b.Witness(b.Balancer, "", words[0], words[1:]...)
	}
	b.NFT(b.Server, "table ip quiet { chain prerouting { type filter hook prerouting priority -400; policy drop; }; }")
	// What the host answers itself would be counted by its rules. Without the last rule the
	// kernel would track no connection where these translate none.
	b.NFT(b.Balancer, "table ip quiet { chain output { type filter hook output priority -400; tcp flags & rst == rst drop; icmp type destination-unreachable drop; ct state new counter; }; }")
	b.Address(b.Client, "eth0", "10.1.0.9/24")
	a := &arena{Bed: b}
	b.Check(b.Balancer.Do(func() error {
		c, err := wire.Dial()
		a.conn = c
		return err
	}))
	t.Cleanup(func() { _ = a.conn.Close() })
	return a
}

// seen adds where connections went, as conntrack has it, by their source ports.
func (a *arena) seen(known map[uint16]string) {
	a.Check(conntrack.List(a.conn, conntrack.Filter{}, func(f *conntrack.Flow) {
		from, to := f.Original()
		server, client := f.Reply()
		source := "" // of what goes on as it was, nobody asks
		if client.Addr() != from.Addr() && server != to {
			source = client.Addr().String()
		}
		known[from.Port()] = where(server, source)
	}))
}

// forget makes conntrack forget all.
func (a *arena) forget() {
	const msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE
	a.Check(a.conn.Do(msgDelete, 0, 0, nil))
}

// try sends connections through rules, and compares.
func (a *arena) try(r *rand.Rand, what string) {
	text := kernelRules(r)
	a.Witness(a.Balancer, text, "iptables-nft-restore")
	lines, err := importer.Lines("rules", []byte(text))
	a.Check(err)
	sets, err := syntax.Parse("rules", lines, importer.New("rules", "", lines))
	a.Check(err)
	if len(sets) != 1 {
		a.T.Fatalf("%d rulesets", len(sets))
	}
	a.forget()
	all := make([]sent, kindsOfConnections)
	walks := make([]walk, len(all))
	passing, port := 0, 10000
	for i := range all {
		p := sent{
			hook: hook(r.IntN(4) / 3), from: netip.MustParseAddr(pick(r, "10.1.0.2", "10.1.0.9")),
			to: netip.MustParseAddrPort(pick(r, "203.0.113.1", "203.0.113.1", "203.0.113.2", "10.1.0.1") + pick(r, ":80", ":80", ":81", ":443")), protocol: []lb.Protocol{lb.TCP, lb.UDP}[r.IntN(2)],
		}
		host := a.Client
		if p.hook == output {
			host, p.from = a.Balancer, netip.MustParseAddr("10.1.0.1")
			p.to = netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), p.to.Port())
		}
		walks[i] = p.walk(sets[0])
		p.first, p.n = port, 4
		if len(walks[i].shares) > 1 {
			p.n = 60
		}
		if port += p.n; walks[i].shares[""] == 0 {
			passing += p.n
		}
		a.Check(host.Do(p.wire))
		all[i] = p
	}
	known := map[uint16]string{}
	for range 200 {
		if a.seen(known); len(known) >= passing {
			break
		}
		time.Sleep(10 * time.Millisecond) // packets may still be under way
	}
	for i, p := range all {
		if wrong := walks[i].compare(p, known); wrong != "" {
			a.T.Errorf("%s: %s\n%s", what, wrong, text)
		}
	}
}

// kindsOfConnections are how many are sent through each ruleset.
const kindsOfConnections = 6

// compare is in what the walk is wrong about connections; empty: in nothing.
func (w *walk) compare(p sent, known map[uint16]string) string {
	got := map[string]int{}
	for i := range p.n {
		got[known[uint16(p.first+i)]]++
	}
	for key := range got {
		if w.shares[key] == 0 {
			return fmt.Sprintf("%v: %d of %d went %q, the walk says %v", p, got[key], p.n, key, w.shares)
		}
	}
	for key, share := range w.shares {
		due, slack := share*float64(p.n), 3.0
		if w.chance {
			slack += 5.5 * math.Sqrt(due*(1-share))
		}
		if w.exact && !w.hash && math.Abs(float64(got[key])-due) > slack {
			return fmt.Sprintf("%v: %d of %d went %q, the walk says %.1f", p, got[key], p.n, key, due)
		}
	}
	return ""
}

// TestWalkIsKernel: what the walk says of random rules is what the kernel does with
// connections that meet them.
func TestWalkIsKernel(t *testing.T) {
	rulesets := 10
	if *full {
		rulesets = 1000
	}
	seed := uint64(time.Now().UnixNano())
	for half := range 2 {
		t.Run(fmt.Sprintf("half %d", half+1), func(t *testing.T) {
			t.Parallel()
			a := newArena(t)
			began := time.Now()
			for i := range rulesets {
				one := seed + uint64(2*i+half)
				if i == 0 && half == 0 {
					one = 1795826160818862451 // rules that translate nothing
				}
				a.try(rand.New(rand.NewPCG(one, 0)), fmt.Sprintf("seed %d", one))
				if t.Failed() {
					return
				}
			}
			t.Logf("figures: %d rulesets from seed %d, %d kinds of connections, %.0f s", rulesets, seed, rulesets*kindsOfConnections, time.Since(began).Seconds())
		})
	}
}
