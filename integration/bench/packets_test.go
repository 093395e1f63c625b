//go:build linux

package bench

// The packet's way: what a connection and a packet cost, on several paths that
// take turns. In a machine whose clock counts instructions it is these that are
// counted: integration/qemu.

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"nlb/integration/netlab/netlabtest"
)

const (
	// liveFlows is one round of packets of live connections, each `again` times.
	liveFlows = 1_000
	again     = 20
	// packetRounds is how many rounds there are for each of the others', countedRounds
	// those of live connections where instructions are counted, which differ little.
	packetRounds, countedRounds = 12, 4
	// warmUp rounds are not counted: they touch everything for the first time.
	warmUp = 2
)

// contender is a train on a path that takes part in turns.
type contender struct {
	name        string
	path        *path
	train       *train
	live        bool                   // its flows are established, and stay
	established bool                   // they are so already
	rest        time.Duration          // after which its flows are forgotten, where it is not conntrack that has them
	fresh       func(round int) *train // the train of a round, where each has other flows
	took        []time.Duration
	lost        int
}

// compete lets contenders take turns.
func compete(b *testing.B, contenders []*contender) {
	for _, c := range contenders {
		if c.live && !c.established {
			_, err := c.path.answered(&train{headers: c.train.headers[:liveFlows]})
			netlabtest.Must(b, err)
		}
	}
	undo, err := pin()
	netlabtest.Must(b, err)
	defer undo()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	turn := func(round int) {
		runtime.GC()
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			time.Sleep(max(c.rest, 5*time.Millisecond))
			if c.fresh != nil {
				c.train = c.fresh(round)
			}
			took, lost := c.path.send(b, c.train)
			if !c.live { // the kernel has one table of connections, in which those of others would be in the way
				netlabtest.Must(b, c.path.flows.ConntrackTableFlush(netlink.ConntrackTable))
			}
			if round >= warmUp {
				c.took = append(c.took, took/time.Duration(len(c.train.headers)))
				c.lost += lost
			}
		}
	}
	round := 0
	for ; round < warmUp; round++ {
		turn(round)
	}
	rounds := packetRounds
	if *least && contenders[0].live {
		rounds = countedRounds
	}
	for b.Loop() {
		for range rounds {
			turn(round)
			round++
		}
	}
	for _, c := range contenders {
		b.Logf("%s: %v a packet (%v..%v), %d of %d lost", c.name, median(c.took), slices.Min(c.took), slices.Max(c.took), c.lost, len(c.took)*len(c.train.headers))
		if *least {
			c.took = []time.Duration{slices.Min(c.took)}
		}
	}
}

// iptablesServices is how many services the rulesets of iptables have.
const iptablesServices = 100

// tracked has a chain that no forwarded packet meets, which turns conntrack on.
const tracked = "table inet track { chain in { type filter hook input priority 0; ct state established accept; }; }\n"

// nat is a table of NAT chains with such rules.
func nat(family, in, out string) string {
	return "table " + family + " hand {\n" + in + "\n}\nchain out { type nat hook postrouting priority srcnat; " + out + " }\n}\n"
}

// BenchmarkPackets has two parts: new connections, and packets of live ones.
func BenchmarkPackets(b *testing.B) {
	prepare(b)
	many, profiles, newFlows := size(10_000), size(1_000), size(20_000)
	apply := func(what string) *path {
		p := newPath(b)
		output(b, p.Balancer, "", *program, "apply", what)
		return p
	}
	load := func(script string, program ...string) *path {
		if _, err := exec.LookPath(program[0]); err != nil {
			b.Logf("NOT MEASURED: %s is not installed", program[0])
			return nil
		}
		p := newPath(b)
		output(b, p.Balancer, script, program...)
		return p
	}
	const in = "chain in { type nat hook prerouting priority dstnat; "
	one := apply(save(b, "one.yaml", fleet("fleet", 0, 1)))
	open := apply(save(b, "open.yaml", unchanged(fleet("fleet", 0, 1))))
	hundred := apply(save(b, "hundred.yaml", fleet("fleet", 0, iptablesServices)))
	fleet := apply(save(b, "many.yaml", fleet("fleet", 0, many)))
	inFolder := apply(folder(b, profiles))
	rule := fmt.Sprintf("%sip daddr %s udp dport %d dnat to %s:%d;", in, firstVIP, listenPort, firstBackend, backendPort)
	hand, bare := load(nat("ip", rule, "masquerade;"), "nft", "-f", "-"), load(nat("ip", rule, ""), "nft", "-f", "-")
	byMap := load(handMap(many), "nft", "-f", "-")
	forward, control := load(tracked, "nft", "-f", "-"), load(tracked, "nft", "-f", "-")
	empty := load(tracked+nat("inet", in, ""), "nft", "-f", "-")

	// IPVS has its own table of connections, and wants the address to be local.
	virtual := func(timeout string) *path {
		p := load(virtualServer, "ipvsadm", "-R")
		if p != nil {
			netlabtest.Must(b, p.Balancer.AddLocal(netip.PrefixFrom(firstVIP, 32)))
			output(b, p.Balancer, "", "ipvsadm", "--set", timeout, timeout, timeout)
		}
		return p
	}

	var all []*contender
	enter := func(p *path, name string, flows int, to func(int) netip.AddrPort) *contender {
		c := &contender{name: name, path: p}
		if p != nil {
			c.train = p.train(flows, to)
			all = append(all, c)
		}
		return c
	}
	add := func(p *path, name string, to func(int) netip.AddrPort) *contender {
		return enter(p, name, newFlows, to)
	}
	live := func(p *path, name string, to func(int) netip.AddrPort) *contender {
		c := enter(p, name, liveFlows, to)
		if c.live = true; c.train != nil {
			c.train.headers = slices.Repeat(c.train.headers, again)
		}
		return c
	}
	// beside is a row of two contenders, if the second was measured.
	beside := func(figure, yardstick *contender, name string, limit float64) {
		if yardstick.path != nil {
			compare(b, figure.name, figure.took, name, yardstick.took, limit)
		}
	}
	some, most := grouped(iptablesServices)+" services in turn", grouped(many)+" services in turn"

	b.Run("new", func(b *testing.B) {
		all = nil
		const opening = "new connection, "
		single := add(one, opening+"1 service", toService(0))
		passed := add(open, opening+"1 service, source unchanged", toService(0))
		plain := add(bare, "one hand-written DNAT rule, source unchanged", toService(0))
		other := add(one, opening+"forwarded beside nlb", toBackend)
		hot := add(fleet, opening+"one of "+grouped(many)+" services", toService(many/2))
		spread := add(fleet, opening+most, toServices(many))
		hundredth := add(hundred, opening+some, toServices(iptablesServices))
		profile := add(inFolder, opening+"one of "+grouped(profiles)+" profiles", toService(profiles/2))
		rule := add(hand, "one hand-written DNAT rule", toService(0))
		mapped := add(byMap, "a hand-written map, "+most, toServices(many))
		flat := add(load(cascade(false), "iptables-legacy-restore"), "iptables, a rule for each backend, "+some, toServices(iptablesServices))
		nested := add(load(cascade(true), "iptables-legacy-restore"), "iptables, a chain for each service, "+some, toServices(iptablesServices))
		ipvs := add(virtual("1"), "IPVS NAT, 1 service", toService(0))
		ipvs.rest = 1200 * time.Millisecond // its flows live for a second
		forwarded := add(forward, "forwarded, no NAT", toBackend)
		generator := add(forward, "the generator and its cable alone", toBackend)
		generator.train.misdirect()
		compete(b, all)
		beside(hot, single, "1 service", 1.1)
		beside(spread, single, "1 service", 1.1)
		beside(spread, mapped, mapped.name, 0)
		beside(profile, single, "1 service", 1.1)
		beside(single, rule, rule.name, 1.15)
		beside(passed, plain, plain.name, 0)
		beside(other, forwarded, forwarded.name, 0)
		beside(hundredth, flat, flat.name, 1)
		beside(hundredth, nested, nested.name, 0)
		beside(single, ipvs, ipvs.name, 0)
		beside(single, forwarded, forwarded.name, 0)
		beside(generator, single, "part of all these, as of "+single.name, 0)
	})
	b.Run("live", func(b *testing.B) {
		all = nil
		const packet = "packet of a live connection, "
		services := grouped(many) + " services"
		forwarded := live(forward, "forwarded, no NAT", toBackend)
		passing := live(fleet, packet+"forwarded where nlb has "+services, toBackend)
		balanced := live(fleet, packet+"one of nlb's "+services, toService(many/2))
		rule := live(hand, "the hand-written DNAT rule's", toService(0))
		unused := live(empty, "forwarded where NAT chains without a rule are", toBackend)
		ipvs := live(virtual("300"), "that of IPVS NAT", toService(0))
		twin := live(control, packet+"forwarded by one of two equal machines", toBackend)
		compete(b, all)
		beside(balanced, forwarded, forwarded.name, 1.03)
		beside(balanced, rule, rule.name, 1.03)
		beside(balanced, ipvs, ipvs.name, 0)
		beside(passing, forwarded, "forwarded where there is no NAT", 1.03)
		beside(passing, unused, unused.name, 1.03)
		beside(twin, forwarded, "the other", 0)
	})
}

// toService sends all flows to one service, toServices to n in turn.
func toService(i int) func(int) netip.AddrPort {
	to := netip.AddrPortFrom(after(firstVIP, i), listenPort)
	return func(int) netip.AddrPort { return to }
}

func toServices(n int) func(int) netip.AddrPort {
	return func(i int) netip.AddrPort { return netip.AddrPortFrom(after(firstVIP, i%n), listenPort) }
}

// toBackend passes by all services.
func toBackend(int) netip.AddrPort { return netip.AddrPortFrom(firstBackend, backendPort) }

// handMap is one map of services with a backend each, written by hand.
func handMap(services int) string {
	var s strings.Builder
	s.WriteString("map to {\ntype ipv4_addr . inet_service : ipv4_addr . inet_service\nelements = {\n")
	for i := range services {
		fmt.Fprintf(&s, "%s . %d : %s . %d,\n", after(firstVIP, i), listenPort, after(firstBackend, 3*i), backendPort)
	}
	s.WriteString("}\n}\nchain in { type nat hook prerouting priority dstnat; meta l4proto udp dnat to ip daddr . udp dport map @to;")
	return nat("ip", s.String(), "masquerade;")
}

// cascade is services of three backends each as most people write them with
// iptables: a rule with a throw of dice for each backend, one after the other,
// in one chain or in one for each service.
func cascade(chains bool) string {
	var s, rules strings.Builder
	s.WriteString("*nat\n")
	for i := range iptablesServices {
		match := fmt.Sprintf("-d %s/32 -p udp --dport %d", after(firstVIP, i), listenPort)
		chain := "PREROUTING " + match
		if chains {
			chain = fmt.Sprintf("S%d -p udp", i)
			fmt.Fprintf(&s, ":S%d - [0:0]\n", i)
			fmt.Fprintf(&rules, "-A PREROUTING %s -j S%d\n", match, i)
		}
		// Every third connection, every second of the others, and what is left.
		for j, dice := range []string{" -m statistic --mode nth --every 3 --packet 0", " -m statistic --mode nth --every 2 --packet 0", ""} {
			fmt.Fprintf(&rules, "-A %s%s -j DNAT --to-destination %s:%d\n", chain, dice, after(firstBackend, 3*i+j), backendPort)
		}
	}
	return s.String() + rules.String() + "-A POSTROUTING -j MASQUERADE\nCOMMIT\n"
}

// virtualServer is one service of three backends, for ipvsadm.
var virtualServer = fmt.Sprintf("-A -u %[1]s:%[2]d -s rr\n-a -u %[1]s:%[2]d -r %[3]s:%[6]d -m\n-a -u %[1]s:%[2]d -r %[4]s:%[6]d -m\n-a -u %[1]s:%[2]d -r %[5]s:%[6]d -m\n",
	firstVIP, listenPort, firstBackend, after(firstBackend, 1), after(firstBackend, 2), backendPort)
