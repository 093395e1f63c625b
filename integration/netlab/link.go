//go:build linux

package netlab

// What joins hosts: cables between two of them, and switches.

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
)

// upLimit is how long a new link may take until it carries packets. It is well
// below a millisecond, unless the kernel's worker for it is held up.
const upLimit = 5 * time.Second

// neighbours are the settings of neighbour discovery (ARP, ND) on a link: a
// question that is lost, as one is that comes before the kernel's worker has
// joined an IPv6 address's multicast group, is soon asked again; given up is it
// after a second, as usual.
var neighbours = []struct{ key, value string }{
	{"retrans_time_ms", "25"},
	{"mcast_solicit", "40"},
}

// Link joins two hosts with a cable: a pair of virtual Ethernet links with
// these names, which carry packets when Link returns. Both may be of one host.
func (w *World) Link(a *Host, aName string, b *Host, bName string) error {
	err := w.cable(a, aName, b, bName)
	if err == nil {
		err = errors.Join(a.tune(aName), b.tune(bName))
	}
	if err != nil {
		return fmt.Errorf("link %s of %s with %s of %s: %w", aName, a.name, bName, b.name, err)
	}
	return nil
}

func (w *World) cable(a *Host, aName string, b *Host, bName string) error {
	err := a.handle.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aName},
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(b.ns.Fd()),
	})
	if err == nil {
		err = errors.Join(a.up(aName), b.up(bName))
	}
	if err == nil {
		err = errors.Join(a.awaitCarrier(aName), b.awaitCarrier(bName))
	}
	return err
}

func (h *Host) tune(link string) error {
	return h.Do(func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			for _, s := range neighbours {
				key := "net/" + family + "/neigh/" + link + "/" + s.key
				if err := writeSysctl(key, s.value); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
		}
		return nil
	})
}

// SetUp turns a link on; it carries packets when SetUp returns, if its other
// end is on.
func (h *Host) SetUp(link string) error {
	if err := h.up(link); err != nil {
		return h.errorf("%w", err)
	}
	return nil
}

// SetDown turns a link off. Its addresses stay, except IPv6 ones; its routes go.
func (h *Host) SetDown(link string) error {
	l, err := h.handle.LinkByName(link)
	if err == nil {
		err = h.handle.LinkSetDown(l)
	}
	if err != nil {
		return h.errorf("turn off %s: %w", link, err)
	}
	return nil
}

// Unlink removes a link, and with it its other end.
func (h *Host) Unlink(link string) error {
	l, err := h.handle.LinkByName(link)
	if err == nil {
		err = h.handle.LinkDel(l)
	}
	if err != nil {
		return h.errorf("remove %s: %w", link, err)
	}
	return nil
}

func (h *Host) up(link string) error {
	l, err := h.handle.LinkByName(link)
	if err == nil {
		err = h.handle.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("turn on %s: %w", link, err)
	}
	return nil
}

// awaitCarrier returns when a link carries packets. The kernel notices the
// carrier in a worker of its own; until then it drops what is sent.
func (h *Host) awaitCarrier(link string) error {
	for wait, begin := 50*time.Microsecond, time.Now(); ; wait *= 2 {
		l, err := h.handle.LinkByName(link)
		switch {
		case err != nil:
			return err
		case l.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Since(begin) > upLimit:
			return fmt.Errorf("%s has no carrier after %s", link, upLimit)
		}
		time.Sleep(wait)
	}
}

// Switch joins any number of hosts into one network segment.
type Switch struct {
	host  *Host // a bridge in a namespace of its own, so that no host's ruleset sees the frames
	ports int
}

// Switch makes one with no host on it.
func (w *World) Switch(name string) (*Switch, error) {
	h, err := w.Host(name)
	if err != nil {
		return nil, err
	}
	// A frame must go to the ports, and neither to a ruleset nor through
	// multicast snooping, which would hold back IPv6 neighbour discovery.
	for _, key := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
		if err := h.SetSysctl(key, "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	snooping := false
	err = h.handle.LinkAdd(&netlink.Bridge{
		LinkAttrs:         netlink.LinkAttrs{Name: "bridge"},
		MulticastSnooping: &snooping,
	})
	if err != nil {
		return nil, h.errorf("add a bridge: %w", err)
	}
	return &Switch{host: h}, h.SetUp("bridge")
}

// Attach gives a host a link with this name that ends in the switch.
func (s *Switch) Attach(h *Host, link string) error {
	s.ports++
	port := fmt.Sprintf("port%d", s.ports)
	err := h.world.cable(h, link, s.host, port)
	if err == nil {
		err = h.tune(link)
	}
	if err == nil {
		var bridge, l netlink.Link
		if bridge, err = s.host.handle.LinkByName("bridge"); err == nil {
			if l, err = s.host.handle.LinkByName(port); err == nil {
				err = s.host.handle.LinkSetMaster(l, bridge)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("attach %s to switch %s: %w", h.name, s.host.name, err)
	}
	return nil
}
