//go:build linux

package bench

// The packet's way through a flow table, in both directions, beside the ways without.

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

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

func hasFlowtables() error {
	c, err := wire.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return probe.Flowtable(c, ruleset.Flowtable{})
}

// BenchmarkPacketsOffloaded measures packets of live flows in both directions, and the
// first one of a flow.
func BenchmarkPacketsOffloaded(b *testing.B) {
	prepare(b)
	if err := newPath(b).Balancer.Do(hasFlowtables); err != nil {
		b.Skipf("this kernel has no flow tables (%v): integration/qemu, Instructions", err)
	}
	apply := func(name string, profile *lb.Profile) *path {
		p := newPath(b)
		output(b, p.Balancer, "", *program, "apply", save(b, name+".yaml", profile))
		return p
	}
	one := func() *lb.Profile { return fleet("fleet", 0, 1) }
	routed, tracks := newPath(b), newPath(b)
	output(b, tracks.Balancer, tracked, "nft", "-f", "-")
	masquerade, none := apply("masquerade", one()), apply("none", unchanged(one()))
	fast, fastNone := apply("fast", offloaded(one())), apply("fast-none", offloaded(unchanged(one())))
	beside, besideFast := apply("beside", one()), apply("beside-fast", offloaded(one()))
	ipvs := newPath(b)
	output(b, ipvs.Balancer, virtualServer, "ipvsadm", "-R")
	netlabtest.Must(b, ipvs.Balancer.AddLocal(netip.PrefixFrom(firstVIP, 32)))
	ways := []struct {
		*path
		name string
		to   func(int) netip.AddrPort
	}{
		{routed, "forwarded without conntrack", toBackend},
		{tracks, "forwarded with conntrack", toBackend},
		{masquerade, "nlb", toService(0)},
		{none, "nlb, snat none", toService(0)},
		{fast, "nlb with offload", toService(0)},
		{fastNone, "nlb with offload, snat none", toService(0)},
		{besideFast, "forwarded beside nlb with offload", toBackend},
		{beside, "forwarded beside nlb", toBackend},
		{ipvs, "IPVS NAT", toService(0)},
	}
	for _, direction := range []string{"of a client", "of a server"} {
		b.Run("live "+direction, func(b *testing.B) {
			var all []*contender
			for _, w := range ways {
				c := &contender{name: "packet " + direction + ", " + w.name, path: w.path, train: w.train(liveFlows, w.to), live: true, established: true}
				p, answers := w.back(b, c.train)
				netlabtest.Must(b, c.train.send(w.socket)) // now they can be offloaded
				if direction == "of a server" {
					c.path, c.train = p, answers
				}
				c.train.headers = slices.Repeat(c.train.headers, again)
				all = append(all, c)
			}
			compete(b, all)
			row := func(figure, yardstick int, limit float64) {
				compare(b, all[figure].name, all[figure].took, ways[yardstick].name, all[yardstick].took, limit)
			}
			row(4, 0, 0.96)
			row(5, 0, 0.96)
			row(4, 2, 0)
			row(5, 3, 0)
			row(4, 8, 0.8)
			row(2, 0, 0)
			row(1, 0, 0)
			row(7, 1, 0)
			row(6, 1, 1.1)
		})
	}
	b.Run("new", func(b *testing.B) {
		var all []*contender
		for _, w := range ways[:len(ways)-1] {
			all = append(all, &contender{name: "first packet, " + w.name, path: w.path, train: w.train(size(20_000), w.to)})
		}
		compete(b, all)
		for _, pair := range [][2]int{{4, 2}, {5, 3}, {7, 1}, {6, 1}} {
			compare(b, all[pair[0]].name, all[pair[0]].took, ways[pair[1]].name, all[pair[1]].took, 0)
		}
	})
	for _, w := range []*path{fast, fastNone} {
		if out := output(b, w.Balancer, "", *program, "show"); testing.Verbose() {
			b.Log(fmt.Sprint(string(out)))
		}
	}
	runtime.KeepAlive(ways)
}
