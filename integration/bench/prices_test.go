//go:build linux

package bench

// The price list: what a packet costs on each of the ways that it may take over a
// balancer, in the kernels that have them all.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/nft/probe"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// back is the way of the answers: from the sink to the generator, of which the train
// has one for each packet of a train that was answered.
func (p *path) back(b *testing.B, t *train) (*path, *train) {
	b.Helper()
	answers, err := p.answered(t)
	netlabtest.Must(b, err)
	back := &path{Bed: p.Bed, in: p.out, out: p.in, flows: p.flows}
	netlabtest.Must(b,
		p.Client.Do(func() (err error) { back.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); return err }),
		p.Server.Do(func() (err error) { back.socket, err = packetSocket("eth0", 0); return err }))
	b.Cleanup(func() {
		unix.Close(back.socket)
		back.links.Close()
	})
	return back, newTrain(slices.Concat(answers...))
}

// offloaded is a fleet of one service that goes by a flow table.
func offloaded(p *lb.Profile) *lb.Profile {
	for i := range p.Services {
		p.Services[i].Offload = lb.OffloadSoftware
	}
	return p
}

// flowtable is the least that a flow table of translated connections needs, as it is
// written by hand: chains of type nat, and one rule that asks for no more than a mark.
const flowtable = `table inet hand {
	flowtable fast { hook ingress priority filter; devices = { eth0, eth1 }; }
	chain in { type nat hook prerouting priority dstnat; }
	chain out { type nat hook postrouting priority srcnat; }
	chain forward { type filter hook forward priority 300; ct mark 1 flow add @fast; }
}
`

func hasFlowtables() error {
	c, err := wire.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return probe.Flowtable(c, ruleset.Flowtable{})
}

// near are backends on the balancer's link, which get packets as they are; far are
// behind a router, at the ends of tunnels.
var (
	near = [3]netip.Addr{netip.MustParseAddr("10.2.0.21"), netip.MustParseAddr("10.2.0.22"), netip.MustParseAddr("10.2.0.23")}
	far  = [3]netip.Addr{firstBackend, after(firstBackend, 1), after(firstBackend, 2)}
)

// direct is a profile of one service whose answers go past the balancer, with other keys.
func direct(mode string, to [3]netip.Addr, keys string) string {
	return fmt.Sprintf("services: [{name: web, %smode: %s, scheduler: hash, listen: \"%s:%d\", protocol: [tcp, udp], backends: [%s, %s, %s]}]\n", keys, mode, firstVIP, listenPort, to[0], to[1], to[2])
}

// directServer is the same for ipvsadm, by one of its flags for a way.
func directServer(flag string, to [3]netip.Addr) string {
	var s strings.Builder
	for _, protocol := range []string{"-t", "-u"} {
		service := fmt.Sprintf("%s %s:%d", protocol, firstVIP, listenPort)
		fmt.Fprintf(&s, "-A %s -s rr\n", service)
		for _, a := range to {
			fmt.Fprintf(&s, "-a %s -r %s:%d %s\n", service, a, listenPort, flag)
		}
	}
	return s.String()
}

// way is one of those that packets may take over a balancer.
type way struct {
	*path
	name string
	to   func(int) netip.AddrPort
	past bool // answers go past the balancer
	ipvs bool // its flows are those of IPVS

	first, toServer, toClient, segments time.Duration // what a packet costs; 0: it has none
}

// BenchmarkPacketsPrices measures the first packet of a flow, packets of live flows in both
// directions, and the six segments that a client sends in a connection of ten.
func BenchmarkPacketsPrices(b *testing.B) {
	prepare(b)
	if err := newPath(b).Balancer.Do(hasFlowtables); err != nil {
		b.Skipf("this kernel has no flow tables (%v): integration/qemu, Instructions", err)
	}
	script := func(text string, program ...string) *path {
		p := newPath(b)
		if program[0] == "ipvsadm" { // it wants the address to be local
			netlabtest.Must(b, p.Balancer.AddLocal(netip.PrefixFrom(firstVIP, 32)))
		}
		output(b, p.Balancer, text, program...)
		return p
	}
	nft := func(text string) *path { return script(text, "nft", "-f", "-") }
	nlb := func(file string) *path { return script("", *program, "apply", file) }
	past := func(file, profile string) *path { // its packets come in where the route says
		p := newPath(b)
		output(b, p.Balancer, "", "ip", "route", "add", firstVIP.String(), "dev", "eth0")
		output(b, p.Balancer, "", *program, "apply", write(b, file, profile))
		return p
	}
	one := func() *lb.Profile { return fleet("fleet", 0, 1) }
	const in = "chain in { type nat hook prerouting priority dstnat; "
	rule := fmt.Sprintf("%sip daddr %s udp dport %d dnat to %s:%d;", in, firstVIP, listenPort, firstBackend, backendPort)
	masquerade, offload := save(b, "masquerade.yaml", one()), save(b, "offload.yaml", offloaded(one()))
	none, offloadNone := save(b, "none.yaml", unchanged(one())), save(b, "offload-none.yaml", offloaded(unchanged(one())))
	service := toService(0)
	var (
		routed     = &way{path: newPath(b), name: "forwarded without conntrack", to: toBackend}
		tracks     = &way{path: nft(tracked), name: "forwarded with conntrack", to: toBackend}
		hooks      = &way{path: nft(tracked + nat("inet", in, "")), name: "forwarded beside NAT chains without a rule", to: toBackend}
		beside     = &way{path: nlb(masquerade), name: "forwarded beside nlb", to: toBackend}
		besideFlow = &way{path: nft(tracked + flowtable), name: "forwarded beside a flow table, and a rule that asks for one mark", to: toBackend}
		besideFast = &way{path: nlb(offload), name: "forwarded beside nlb with `offload: software`", to: toBackend}
		hand       = &way{path: nft(nat("ip", rule, "")), name: "one hand-written DNAT rule", to: service}
		iptables   = &way{path: script(cascade(false), "iptables-legacy-restore"), name: "iptables, three backends, MASQUERADE", to: service}
		ipvs       = &way{path: script(virtualServer, "ipvsadm", "-R"), name: "IPVS NAT", to: service, ipvs: true}
		plain      = &way{path: nlb(none), name: "nlb, `snat: none`", to: service}
		full       = &way{path: nlb(masquerade), name: "nlb", to: service}
		fastPlain  = &way{path: nlb(offloadNone), name: "nlb with `offload: software`, `snat: none`", to: service}
		fast       = &way{path: nlb(offload), name: "nlb with `offload: software`", to: service}
		dsr        = &way{path: past("dsr.yaml", direct("dsr", near, "")), name: "nlb, `mode: dsr`", to: service, past: true}
		dsrAt      = &way{path: past("dsr-at.yaml", direct("dsr", near, "interface: eth0, ")), name: "nlb, `mode: dsr` with `interface`", to: service, past: true}
		ipvsDR     = &way{path: script(directServer("-g", near), "ipvsadm", "-R"), name: "IPVS DR", to: service, past: true, ipvs: true}
		tunnel     = &way{path: past("tunnel.yaml", direct("tunnel", far, "")), name: "nlb, `mode: tunnel`", to: service, past: true}
		ipvsTUN    = &way{path: script(directServer("-i", far), "ipvsadm", "-R"), name: "IPVS TUN", to: service, past: true, ipvs: true}
		all        = []*way{routed, tracks, hooks, beside, besideFlow, besideFast, hand, iptables, ipvs, plain, full, fastPlain, fast, dsr, dsrAt, ipvsDR, tunnel, ipvsTUN}
		row        = func(figure *way, took time.Duration, yardstick *way, other time.Duration, what string, limit float64) {
			add(b, what+", "+figure.name, short(took), yardstick.name+": "+short(other), float64(took)/float64(other), limit)
		}
		race = func(b *testing.B, ways []*way, to func(*way) *time.Duration, enter func(*way) *contender) {
			b.Helper()
			var in []*contender
			for _, w := range ways {
				in = append(in, enter(w))
			}
			compete(b, in)
			for i, w := range ways {
				*to(w) = median(in[i].took)
			}
		}
	)
	// remember says how long IPVS has its flows.
	remember := func(seconds string) {
		for _, w := range all {
			if w.ipvs {
				output(b, w.Balancer, "", "ipvsadm", "--set", seconds, seconds, seconds)
			}
		}
	}
	b.Run("first", func(b *testing.B) {
		remember("1")
		race(b, all, func(w *way) *time.Duration { return &w.first }, func(w *way) *contender {
			c := &contender{name: "first packet, " + w.name, path: w.path, train: w.train(size(20_000), w.to)}
			if w.ipvs {
				c.rest = 1200 * time.Millisecond
			}
			return c
		})
	})
	remember("300")
	b.Run("to the server", func(b *testing.B) {
		race(b, all, func(w *way) *time.Duration { return &w.toServer }, func(w *way) *contender { return w.live(b, false) })
	})
	answering := slices.DeleteFunc(slices.Clone(all), func(w *way) bool { return w.past })
	b.Run("to the client", func(b *testing.B) {
		race(b, answering, func(w *way) *time.Duration { return &w.toClient }, func(w *way) *contender { return w.live(b, true) })
	})
	b.Run("connection", func(b *testing.B) {
		race(b, []*way{dsr, dsrAt, ipvsDR, tunnel, ipvsTUN}, func(w *way) *time.Duration { return &w.segments }, func(w *way) *contender {
			return &contender{name: "segments of a connection, " + w.name, path: w.path, established: true, live: true, fresh: func(round int) *train { return w.connections(round, service(0)) }}
		})
	})
	row(fast, fast.toServer, routed, routed.toServer, "to the server", 0.96)
	row(fast, fast.toClient, routed, routed.toClient, "to the client", 0.96)
	row(fast, fast.toServer, ipvs, ipvs.toServer, "to the server", 0.8)
	row(fast, fast.toClient, ipvs, ipvs.toClient, "to the client", 0.8)
	row(dsr, dsr.segments, ipvsDR, ipvsDR.segments, "six segments of a connection", 0.97)
	row(dsrAt, dsrAt.segments, ipvsDR, ipvsDR.segments, "six segments of a connection", 0)
	row(tunnel, tunnel.segments, ipvsTUN, ipvsTUN.segments, "six segments of a connection", 0)
	row(plain, plain.first, hand, hand.first, "first packet", 1.08)
	row(besideFast, besideFast.toServer, tracks, tracks.toServer, "to the server", 1.1)
	row(besideFast, besideFast.toClient, tracks, tracks.toClient, "to the client", 1.1)
	row(besideFlow, besideFlow.toServer, tracks, tracks.toServer, "to the server", 0)
	row(besideFlow, besideFlow.toClient, tracks, tracks.toClient, "to the client", 0)
	prices = append(prices, "| a packet of 46 bytes | first of a flow | to the server | to the client | six segments |", "| --- | --- | --- | --- | --- |")
	for _, w := range all {
		prices = append(prices, fmt.Sprintf("| %s | %s | %s | %s | %s |", w.name, price(w.first), price(w.toServer), price(w.toClient), price(6*w.segments)))
	}
	prices = append(prices, "", "| step of a first packet | price |", "| --- | --- |")
	for _, s := range []struct {
		name         string
		with, before *way
	}{
		{"a connection of conntrack", tracks, routed},
		{"hooks of NAT", hooks, tracks},
		{"a rule, and the translation of the destination", hand, hooks},
		{"the service, its counter, one of three backends and its counter, a mark", plain, hand},
		{"the translation of the source", full, plain},
		{"a chain for the flow table", fast, full},
	} {
		prices = append(prices, fmt.Sprintf("| %s | %s |", s.name, price(s.with.first-s.before.first)))
	}
}

// prices are lines of the price list.
var prices []string

func price(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return grouped(int(d.Nanoseconds()))
}

// live is a train of live flows, to the server or from it.
func (w *way) live(b *testing.B, answers bool) *contender {
	b.Helper()
	c := &contender{name: "packet of a live flow, " + w.name, path: w.path, train: w.train(liveFlows, w.to), live: true, established: true}
	if !w.past {
		// A round of many ways takes longer than the kernel keeps a silent flow in a flow table.
		netlabtest.Must(b, w.Balancer.SetSysctl("net.netfilter.nf_flowtable_udp_timeout", "300"))
		p, back := w.back(b, c.train)
		netlabtest.Must(b, c.train.send(w.socket)) // now they can be offloaded
		if answers {
			c.path, c.train = p, back
		}
	}
	c.train.headers = slices.Repeat(c.train.headers, again)
	return c
}

// connections are the segments that clients send in connections of ten: SYN, ACK, a
// question, ACK of the answer, FIN, ACK. Those of no two rounds have the same source.
func (w *way) connections(round int, to netip.AddrPort) *train {
	const flows = 300
	frames := make([]byte, 6*flows*frameSize)
	for i := range flows {
		source := netip.AddrPortFrom(after(generatorAddr, round), uint16(1024+i))
		for k, flags := range []byte{tcpSYN, tcpACK, tcpACK | tcpPSH, tcpACK, tcpACK | tcpFIN, tcpACK} {
			at := (6*i + k) * frameSize
			writeSegment(frames[at:at+frameSize], w.in, source, to, flags)
		}
	}
	return newTrain(frames)
}
