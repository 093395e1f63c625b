//go:build linux

package main

// A path: a generator, the machine in the middle, and a sink that counts.
//
//	generator 10.1.0.2 --- 10.1.0.1 balancer 10.2.0.1 --- 10.2.0.2 sink
//
// The sink is the way to all backends. Its neighbour entry has a hardware
// address that is not its own, so that its kernel drops what arrives at once
// and answers nothing; its link counts.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

var (
	generatorAddr = netip.MustParseAddr("10.1.0.2")
	sinkAddr      = netip.MustParseAddr("10.2.0.2")
	nobody        = net.HardwareAddr{2, 0, 0, 0, 0, 99}
)

type path struct {
	world                     *netlab.World
	generator, balancer, sink *netlab.Host
	// in is where the generator's frames go, out where answers go: the
	// hardware addresses of the balancer's links.
	in, out net.HardwareAddr
	socket  int             // the generator's
	links   *netlink.Handle // of the sink
	flows   *netlink.Handle // conntrack of the balancer
}

// newPath makes one whose balancer forwards and has no rules.
func newPath() (*path, error) {
	w, err := netlab.New()
	if err != nil {
		return nil, err
	}
	p := &path{world: w, socket: -1}
	if err := p.build(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *path) build() error {
	for _, h := range []struct {
		host **netlab.Host
		name string
	}{{&p.generator, "generator"}, {&p.balancer, "balancer"}, {&p.sink, "sink"}} {
		var err error
		if *h.host, err = p.world.Host(h.name); err != nil {
			return err
		}
	}
	backends := netip.PrefixFrom(firstBackend, 10).Masked()
	err := errors.Join(
		p.world.Link(p.generator, "eth0", p.balancer, "eth0"),
		p.world.Link(p.balancer, "eth1", p.sink, "eth0"),
		p.balancer.AddAddress("eth0", netip.MustParsePrefix("10.1.0.1/24")),
		p.balancer.AddAddress("eth1", netip.MustParsePrefix("10.2.0.1/24")),
		p.balancer.AddRoute(backends, sinkAddr),
		p.balancer.Forward())
	if err != nil {
		return err
	}
	if err := p.balancer.Do(p.prepareBalancer); err != nil {
		return err
	}
	if err := p.sink.Do(func() (err error) {
		p.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}); err != nil {
		return err
	}
	return p.generator.Do(func() (err error) {
		p.socket, err = packetSocket("eth0", 0)
		return err
	})
}

// prepareBalancer gives both neighbours addresses that nobody has.
func (p *path) prepareBalancer() error {
	route, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer route.Close()
	for _, n := range []struct {
		link string
		addr netip.Addr
		hw   *net.HardwareAddr
	}{{"eth0", generatorAddr, &p.in}, {"eth1", sinkAddr, &p.out}} {
		l, err := route.LinkByName(n.link)
		if err != nil {
			return err
		}
		*n.hw = l.Attrs().HardwareAddr
		err = route.NeighSet(&netlink.Neigh{
			LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: n.addr.AsSlice(), HardwareAddr: nobody,
		})
		if err != nil {
			return fmt.Errorf("neighbour %s: %w", n.addr, err)
		}
	}
	p.flows, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
	return err
}

func (p *path) close() {
	if p.socket >= 0 {
		unix.Close(p.socket)
	}
	for _, h := range []*netlink.Handle{p.links, p.flows} {
		if h != nil {
			h.Close()
		}
	}
	_ = p.world.Close()
}

// arrived counts the packets that have come to the sink so far.
func (p *path) arrived() (int, error) {
	l, err := p.links.LinkByName("eth0")
	if err != nil {
		return 0, err
	}
	return int(l.Attrs().Statistics.RxPackets), nil
}

// tracked counts the connections that conntrack holds.
func (p *path) tracked() (n int, err error) {
	err = p.balancer.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	return n, err
}

// forget empties conntrack.
func (p *path) forget() error { return p.flows.ConntrackTableFlush(netlink.ConntrackTable) }

// packetSocket opens a raw socket on a link of the calling thread's namespace;
// it receives frames of a protocol, or none with 0.
func packetSocket(link string, protocol uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	l, err := net.InterfaceByName(link)
	if err == nil {
		network := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: l.Index})
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	}
	if err == nil {
		// Nobody waits longer for a packet that is lost.
		patience := unix.NsecToTimeval(int64(lostAfter))
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
