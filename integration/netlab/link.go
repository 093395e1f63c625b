//go:build linux

package netlab

// What joins hosts: cables between two of them.

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/sysctl"
)

// upLimit is how long a new link may take until it carries packets. It is well
// below a millisecond, unless the kernel's worker for it is held up.
const upLimit = 5 * time.Second

// neighbours are the settings of neighbour discovery (ARP, ND) on a link: a
// question that is lost, as one is that comes before the kernel's worker has
// joined an IPv6 address's multicast group, is soon asked again; it is given up
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
				if err := sysctl.Local.Set(key, s.value); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
		}
		return nil
	})
}

// Unlink removes a link, and with it its other end.
func (h *Host) Unlink(link string) error {
	return h.wrap(h.onLink(link, h.handle.LinkDel), "remove %s: ", link)
}

// TunnelEnd makes the end of a tunnel, IP in IP, at an address of the host, whoever it
// comes from. Packets for clients need not go back by it.
func (h *Host) TunnelEnd(link string, local netip.Addr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	var l netlink.Link = &netlink.Iptun{LinkAttrs: attrs, Local: local.AsSlice(), PMtuDisc: 1}
	if local.Is6() {
		l = &netlink.Ip6tnl{LinkAttrs: attrs, Local: local.AsSlice(), Proto: unix.IPPROTO_IPV6}
	}
	if err := h.handle.LinkAdd(l); err != nil {
		return h.wrap(err, "make a link of type %s: ", l.Type())
	}
	if err := h.SetSysctl("net/ipv4/conf/"+link+"/rp_filter", "0"); err != nil {
		return err
	}
	return h.up(link)
}

func (h *Host) up(link string) error {
	if err := h.onLink(link, h.handle.LinkSetUp); err != nil {
		return fmt.Errorf("turn on %s: %w", link, err)
	}
	return nil
}

// Cut turns a link off, and its other end has no carrier any more. Routes over it are
// gone for good; its IPv6 addresses, too, unless net.ipv6.conf.all.keep_addr_on_down is 1.
func (h *Host) Cut(link string) error {
	return h.wrap(h.onLink(link, h.handle.LinkSetDown), "cut %s: ", link)
}

// Mend turns a link on that was cut. It carries packets when Mend returns.
func (h *Host) Mend(link string) error {
	err := h.up(link)
	if err == nil {
		err = h.awaitCarrier(link)
	}
	return h.wrap(err, "")
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
