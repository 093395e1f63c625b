//go:build linux

package bench

// A path: a bed whose client is a generator of packets, and whose server is a
// sink that counts them.
//
// The sink is the way to all backends. Its neighbour entry has a hardware
// address that is not its own, so that its kernel drops what arrives at once
// and answers nothing; its link counts.

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

var (
	generatorAddr = netip.MustParseAddr("10.1.0.2")
	sinkAddr      = netip.MustParseAddr("10.2.0.11")
	nobody        = net.HardwareAddr{2, 0, 0, 0, 0, 99}
)

type path struct {
	*netlab.Bed
	// in is where the generator's frames go, out where answers go: the
	// hardware addresses of the balancer's links.
	in, out net.HardwareAddr
	socket  int             // the generator's
	links   *netlink.Handle // of the sink
	flows   *netlink.Handle // conntrack of the balancer
}

// newPath makes one whose balancer forwards and has no rules. It ends with the
// benchmark.
func newPath(b *testing.B) *path {
	b.Helper()
	bed, err := netlab.NewBed()
	netlabtest.Must(b, err)
	p := &path{Bed: bed}
	b.Cleanup(func() { bed.World.Close() })
	netlabtest.Must(b,
		p.Balancer.AddRoute(netip.PrefixFrom(firstBackend, 10).Masked(), sinkAddr),
		p.Balancer.Do(p.prepareBalancer),
		p.Server.Do(func() (err error) { p.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); return err }),
		p.Client.Do(func() (err error) { p.socket, err = packetSocket("eth0", 0); return err }))
	b.Cleanup(func() {
		unix.Close(p.socket)
		p.links.Close()
		p.flows.Close()
	})
	return p
}

// prepareBalancer gives all neighbours addresses that nobody has.
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
	}{{"eth0", generatorAddr, &p.in}, {"eth1", sinkAddr, &p.out}, {"eth1", near[0], &p.out}, {"eth1", near[1], &p.out}, {"eth1", near[2], &p.out}} {
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

// arrived counts the packets that have come to the sink so far.
func (p *path) arrived(b *testing.B) int {
	l, err := p.links.LinkByName("eth0")
	netlabtest.Must(b, err)
	return int(l.Attrs().Statistics.RxPackets)
}

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
