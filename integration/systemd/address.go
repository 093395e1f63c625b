//go:build linux

package main

// The address of the service, as one of this machine's: the phase of announce.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"nlb/integration/demand"
)

// announces: with the unit's rights the agent makes a device for the address of its
// service, has the address on lo where that is wanted, and takes it away when it is told
// to end.
func announces(s *stage) string {
	on := func(device string) {
		s.write("announce: {interface: " + device + ", delay: 1s, drain: 2s}\n" + shop(1))
	}
	n := s.during(func() {
		for _, device := range []string{"nlb0", "lo"} {
			on(device)
			settled(announced)
			soon(func() { held(device) })
		}
		on("nlb0")
		soon(func() { held("nlb0") })
		command("systemctl", "stop", unit)
		held("")
		s.write(shop(1))
		command("systemctl", "start", unit)
	})
	confined(settled(well))
	held("")
	return fmt.Sprintf("the address was on a device of its own and on lo, and gone with the agent; %d connections meanwhile, none lost", n)
}

// held demands that this device alone has the address of the service; empty: none has it.
func held(device string) {
	var on []string
	for _, l := range demand.Of(netlink.LinkList()) {
		addresses := demand.Of(netlink.AddrList(l, netlink.FAMILY_V4))
		has := slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.String() == service.Addr().String() })
		if has {
			on = append(on, l.Attrs().Name)
		}
		if has && device == "nlb0" && l.Type() != "dummy" {
			demand.Fail("%s is of type %s", l.Attrs().Name, l.Type())
		}
	}
	if got := strings.Join(on, " "); got != device {
		demand.Fail("the address is on %q, want %q", got, device)
	}
}
