//go:build linux

package main

// The address of the service, as one of this machine's: the phase of announce.

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// announces: with the unit's rights the agent makes a device for the address of its
// service, has the address on lo where that is wanted, and takes it away when it is told
// to end.
func announces(ctx context.Context, s *stage) (string, error) {
	on := func(device string) error {
		return s.write("announce: {interface: " + device + ", delay: 1s, drain: 2s}\n" + shop(1))
	}
	n, err := s.during(ctx, func() error {
		for _, device := range []string{"nlb0", "lo"} {
			if err := on(device); err != nil {
				return err
			}
			if _, err := settled(ctx, announced); err != nil {
				return err
			}
			if err := soon(ctx, func() error { return held(device) }); err != nil {
				return err
			}
		}
		if err := on("nlb0"); err != nil {
			return err
		}
		if err := soon(ctx, func() error { return held("nlb0") }); err != nil {
			return err
		}
		if _, err := command(ctx, "systemctl", "stop", unit); err != nil {
			return err
		}
		if err := held(""); err != nil {
			return err
		}
		if err := s.write(shop(1)); err != nil {
			return err
		}
		_, err := command(ctx, "systemctl", "start", unit)
		return err
	})
	if err != nil {
		return "", err
	}
	if now, err := settled(ctx, well); err != nil {
		return "", err
	} else if err := confined(now); err != nil {
		return "", err
	}
	return fmt.Sprintf("the address was on a device of its own and on lo, and gone with the agent; %d connections meanwhile, none lost", n), held("")
}

// held demands that this device alone has the address of the service; empty: none has it.
func held(device string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	var on []string
	for _, l := range links {
		addresses, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		has := slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.String() == service.Addr().String() })
		if has {
			on = append(on, l.Attrs().Name)
		}
		if has && device == "nlb0" && l.Type() != "dummy" {
			return fmt.Errorf("%s is of type %s", l.Attrs().Name, l.Type())
		}
	}
	if got := strings.Join(on, " "); got != device {
		return fmt.Errorf("the address is on %q, want %q", got, device)
	}
	return nil
}
