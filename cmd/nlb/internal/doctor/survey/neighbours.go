//go:build linux

package survey

// Neighbours: who answers for an address on a link, by ARP or neighbour discovery. The
// kernel asks, if it is told that somebody wants to use the address.

import (
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/doctor"
)

const (
	// An answer takes a millisecond; the kernel asks three times, in as many seconds.
	neighbourWait = 1200 * time.Millisecond
	neighbourPoll = 20 * time.Millisecond
)

// neighbours asks for all that the examination wants to know of. What the kernel did
// not know before it forgets again.
func (s *survey) neighbours() {
	wanted := doctor.Neighbours(s.host, s.ask.Profiles)
	if len(wanted) == 0 {
		return
	}
	s.host.MACs = map[doctor.Neighbour]string{}
	index := map[string]int{}
	for _, l := range s.host.Links {
		index[l.Name] = l.Index
	}
	for _, n := range wanted {
		entry := &netlink.Neigh{LinkIndex: index[n.Link], State: netlink.NUD_NONE, Flags: netlink.NTF_USE, IP: n.Addr.AsSlice()}
		switch err := netlink.NeighAdd(entry); {
		case err == nil:
			defer func() { _ = netlink.NeighDel(&netlink.Neigh{LinkIndex: entry.LinkIndex, IP: entry.IP}) }()
		case !errors.Is(err, unix.EEXIST):
			s.unseen("neighbours", err, "direct")
			return
		}
	}
	for began := time.Now(); len(s.host.MACs) < len(wanted) && time.Since(began) < neighbourWait; time.Sleep(neighbourPoll) {
		for _, n := range wanted {
			if mac := hardware(index[n.Link], n.Addr); mac != "" {
				s.host.MACs[n] = mac
			}
		}
	}
}

// hardware is the MAC address that the kernel has for a neighbour; empty: none.
func hardware(link int, a netip.Addr) string {
	family := netlink.FAMILY_V6
	if a.Is4() {
		family = netlink.FAMILY_V4
	}
	all, err := netlink.NeighList(link, family)
	if err != nil {
		return ""
	}
	for _, n := range all {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a && n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) == 0 {
			return n.HardwareAddr.String()
		}
	}
	return ""
}
