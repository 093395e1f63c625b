//go:build linux

package survey

// Links, addresses and routes, from rtnetlink.

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/doctor"
)

func (s *survey) links() error {
	found, err := netlink.LinkList()
	if err != nil {
		return err
	}
	names := map[int]string{}
	for _, l := range found {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range found {
		a := l.Attrs()
		link := doctor.Link{
			Name: a.Name, Index: a.Index, MTU: a.MTU, Bridge: l.Type() == "bridge", Master: names[a.MasterIndex],
			Loopback: a.Flags&net.FlagLoopback != 0,
			// A link that cannot know of a carrier is in an unknown state.
			Up: a.Flags&net.FlagUp != 0 && (a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown),
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			if p, ok := prefix(addr.IPNet); ok {
				link.Addrs = append(link.Addrs, doctor.Addr{
					Prefix:     p,
					Second:     addr.Flags&unix.IFA_F_SECONDARY != 0 && p.Addr().Is4() || addr.Scope != int(netlink.SCOPE_UNIVERSE),
					Advertised: p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() && addr.Flags&unix.IFA_F_PERMANENT == 0,
				})
			}
		}
		s.host.Links = append(s.host.Links, link)
	}
	return nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits), ok
}

// routes answers all questions that the examination has.
func (s *survey) routes() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	names := map[int]string{}
	for _, l := range s.host.Links {
		names[l.Index] = l.Name
	}
	for _, q := range doctor.Questions(s.host.Links, s.ask.Profiles) {
		options := &netlink.RouteGetOptions{Iif: q.In}
		if q.From.IsValid() {
			options.SrcAddr = q.From.AsSlice()
		}
		routes, err := h.RouteGetWithOptions(q.To.AsSlice(), options)
		switch {
		case err != nil:
			s.host.Routes[q] = doctor.Route{Way: refusal(q, err)}
		case len(routes) > 0:
			s.host.Routes[q] = route(routes[0], names)
		}
	}
	return nil
}

// hairpins asks the ports of bridges that backends are behind.
func (s *survey) hairpins() {
	behind := map[string]bool{}
	for _, r := range s.host.Routes {
		behind[r.Link] = true
	}
	for i := range s.host.Links {
		if l := &s.host.Links[i]; l.Master != "" && behind[l.Master] {
			// Where it cannot be asked it is no port of a bridge.
			port, _ := netlink.LinkGetProtinfo(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}})
			l.Hairpin = port.Hairpin
		}
	}
}

// ruleMasks finds the masks of rules for marked packets (ip-rule(8), fwmark).
// A kernel without such rules says that it has none.
func (s *survey) ruleMasks() {
	rules, err := netlink.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return
	}
	for _, r := range rules {
		if r.Mask != nil && r.Mark != 0 && !slices.Contains(s.host.RuleMasks, *r.Mask) {
			s.host.RuleMasks = append(s.host.RuleMasks, *r.Mask)
		}
	}
}

// refusal is what the kernel means by an error (fib_props in
// net/ipv4/fib_semantics.c, ip6_route_info_create in net/ipv6/route.c). Of a
// packet that comes by a link, newer kernels only say that it is not let in.
func refusal(q doctor.Question, err error) doctor.Way {
	switch {
	case q.In != "":
		return doctor.Refused
	case errors.Is(err, unix.EINVAL):
		return doctor.Blackhole
	case errors.Is(err, unix.EHOSTUNREACH):
		return doctor.Unreachable
	case errors.Is(err, unix.EACCES):
		return doctor.Prohibited
	}
	return doctor.Nowhere
}

func route(r netlink.Route, names map[int]string) doctor.Route {
	out := doctor.Route{Way: doctor.Out, Link: names[r.LinkIndex], Advertised: r.Protocol == unix.RTPROT_RA}
	if a, ok := netip.AddrFromSlice(r.Gw); ok {
		out.Gateway = a.Unmap()
	}
	if a, ok := netip.AddrFromSlice(r.Src); ok {
		out.Source = a.Unmap()
	}
	if via, ok := r.Via.(*netlink.Via); ok && via != nil {
		if a, ok := netip.AddrFromSlice(via.Addr); ok {
			out.Gateway = a.Unmap()
		}
	}
	if len(r.MultiPath) > 0 && out.Link == "" {
		out.Link = names[r.MultiPath[0].LinkIndex]
	}
	switch r.Type {
	case unix.RTN_LOCAL:
		out.Way = doctor.Local
	case unix.RTN_BLACKHOLE:
		out.Way = doctor.Blackhole
	case unix.RTN_UNREACHABLE:
		out.Way = doctor.Unreachable
	case unix.RTN_PROHIBIT:
		out.Way = doctor.Prohibited
	}
	return out
}
