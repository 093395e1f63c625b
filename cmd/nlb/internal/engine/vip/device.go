//go:build linux

package vip

// The device that has the addresses: a dummy device, which nlb makes where there is
// none, or lo.

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// alias is that of a device that nlb has made.
const alias = "made by nlb"

const (
	dummy    = "dummy"
	loopback = "lo"
)

func made(l netlink.Link) bool { return l.Type() == dummy && l.Attrs().Alias == alias }

// device finds a device for addresses, or makes it. Where the kernel has no dummy
// devices it is lo instead.
func device(name string) (link netlink.Link, instead bool, err error) {
	link, err = netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		link, err = newDummy(name)
		if errors.Is(err, unix.EOPNOTSUPP) {
			instead = true
			link, err = netlink.LinkByName(loopback)
		}
	}
	if err != nil {
		return nil, instead, fmt.Errorf("device %s: %w", name, err)
	}
	up := link.Attrs().Flags&net.FlagUp != 0
	switch {
	case link.Type() != dummy && link.Attrs().Flags&net.FlagLoopback == 0:
		return nil, false, fmt.Errorf("device %s is of kind %s: others on its network would ask it for the addresses; take a dummy device, or lo", name, link.Type())
	case !up:
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, false, fmt.Errorf("device %s: set it up: %w", link.Attrs().Name, err)
		}
	}
	return link, instead, nil
}

func newDummy(name string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	l := &netlink.Dummy{LinkAttrs: attrs}
	if err := netlink.LinkAdd(l); err != nil {
		return nil, fmt.Errorf("make it: %w", err)
	}
	if err := netlink.LinkSetAlias(l, alias); err != nil {
		return nil, errors.Join(fmt.Errorf("name its maker: %w", err), netlink.LinkDel(l))
	}
	return netlink.LinkByName(name)
}

// unmake removes the devices that nlb has made.
func unmake() error {
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("read the devices: %w", err)
	}
	for _, l := range all {
		if made(l) {
			if err := netlink.LinkDel(l); err != nil {
				return fmt.Errorf("remove device %s: %w", l.Attrs().Name, err)
			}
		}
	}
	return nil
}
