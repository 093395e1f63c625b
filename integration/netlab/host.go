//go:build linux

package netlab

// A host: one network namespace with its addresses, routes and kernel
// parameters.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/sysctl"
)

// Host is a machine of the world. Its methods may be called from several
// goroutines.
type Host struct {
	name   string
	world  *World
	ns     *os.File
	handle *netlink.Handle
	port   atomic.Uint32 // the last one that NextPort gave
}

// settings are those that a new namespace may inherit from the machine that
// it is on, or that would make the first packets wait. A key that this kernel
// lacks is passed over.
var settings = []struct{ key, value string }{
	{"net.ipv4.ip_forward", "0"},
	{"net.ipv4.conf.all.rp_filter", "0"},
	{"net.ipv4.conf.default.rp_filter", "0"},
	{"net.ipv4.conf.all.accept_local", "0"},
	{"net.ipv4.conf.default.accept_local", "0"},
	{"net.ipv4.conf.all.route_localnet", "0"},
	{"net.ipv4.conf.default.route_localnet", "0"},
	{"net.ipv4.icmp_ratemask", "0"}, // no type is limited: every refused datagram is told so
	{"net.ipv6.icmp.ratemask", "0"}, // only type 0 is, which there is not
	{"net.ipv6.conf.all.disable_ipv6", "0"},
	{"net.ipv6.conf.default.disable_ipv6", "0"},
	{"net.ipv6.conf.default.accept_dad", "0"},
	{"net.ipv6.conf.default.dad_transmits", "0"},
	{"net.ipv6.conf.default.accept_ra", "0"},
	{"net.ipv6.conf.default.router_solicitations", "0"},
}

// Host makes a machine whose only link is the loopback, which is up. It
// neither forwards nor filters.
func (w *World) Host(name string) (*Host, error) {
	h := &Host{name: name, world: w}
	err := onThread(w.origin, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		if h.ns, err = currentNamespace(); err != nil {
			return err
		}
		if h.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("open a netlink socket: %w", err)
		}
		for _, s := range settings {
			if err := sysctl.Local.Set(s.key, s.value); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return h.up("lo")
	})
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.closed {
			w.hosts = append(w.hosts, h)
			return h, nil
		}
		err = errClosed
	}
	if h.handle != nil {
		h.handle.Close()
	}
	if h.ns != nil {
		h.ns.Close()
	}
	return nil, h.wrap(err, "")
}

// Name is the name that the host was made with.
func (h *Host) Name() string { return h.name }

// World is the world that the host is in.
func (h *Host) World() *World { return h.world }

// Path is where other processes find the host's namespace while this one
// lives.
func (h *Host) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.ns.Fd()) }

// Enter is the shell command that opens a shell in the host, for the user who
// runs this process, while it lives.
func (h *Host) Enter() string {
	if isolated.Load() {
		return fmt.Sprintf("nsenter --preserve-credentials --user=/proc/%d/ns/user --net=%s", os.Getpid(), h.Path())
	}
	return "nsenter --net=" + h.Path()
}

// WriteDoors writes how to step into hosts and out of them.
func WriteDoors(w io.Writer, hosts ...*Host) error {
	for _, h := range hosts {
		if _, err := fmt.Fprintf(w, "%-12s %s\n", h.name, h.Enter()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "exit leaves a host; ending this program ends them all")
	return err
}

// Do runs f on a thread that is in the host. Sockets that f opens and
// /proc/sys/net as f sees it are the host's; goroutines that f starts are not
// in the host. What f panics with becomes an error.
func (h *Host) Do(f func() error) error {
	return onThread(h.world.origin, func() error {
		if err := h.world.enter(h.ns); err != nil {
			return h.wrap(err, "")
		}
		return f()
	})
}

// AddAddress gives a link addresses, and the prefixes that are reached over it.
// The addresses can be used at once.
func (h *Host) AddAddress(link string, prefixes ...netip.Prefix) error {
	for _, p := range prefixes {
		err := h.onLink(link, func(l netlink.Link) error {
			a := &netlink.Addr{IPNet: ipNet(p)}
			if p.Addr().Is6() {
				a.Flags = unix.IFA_F_NODAD
			}
			return h.handle.AddrAdd(l, a)
		})
		if err != nil {
			return h.wrap(err, "add address %s to %s: ", p, link)
		}
	}
	return nil
}

// Own gives the loopback addresses, which others need a route to.
func (h *Host) Own(addresses ...netip.Addr) error {
	for _, a := range addresses {
		if err := h.AddAddress("lo", Single(a)); err != nil {
			return err
		}
	}
	return nil
}

// RemoveAddress takes away what AddAddress gave. Sockets that are bound to it stay;
// what comes for it is dropped without a word, as long as the host does not forward.
func (h *Host) RemoveAddress(link string, p netip.Prefix) error {
	err := h.onLink(link, func(l netlink.Link) error { return h.handle.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)}) })
	return h.wrap(err, "remove address %s from %s: ", p, link)
}

// AddRoute sends what goes to dst by way of a neighbour.
func (h *Host) AddRoute(dst netip.Prefix, via netip.Addr) error {
	err := h.handle.RouteAdd(&netlink.Route{Dst: ipNet(dst), Gw: via.AsSlice()})
	return h.wrap(err, "add route to %s via %s: ", dst, via)
}

// Spread sends what goes to dst by way of several neighbours, by a hash of each packet
// (fib_multipath_hash_policy), in place of where it went before; without neighbours,
// nowhere.
func (h *Host) Spread(dst netip.Prefix, vias ...netip.Addr) error {
	r := &netlink.Route{Dst: ipNet(dst)}
	for _, via := range vias {
		r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{Gw: via.AsSlice()})
	}
	change := h.handle.RouteReplace
	if len(vias) == 0 {
		change = h.handle.RouteDel
	}
	err := change(r)
	if len(vias) == 0 && errors.Is(err, unix.ESRCH) {
		return nil
	}
	return h.wrap(err, "route to %s via %v: ", dst, vias)
}

// AddLinkRoute sends what goes to dst out of a link, to neighbours there.
func (h *Host) AddLinkRoute(dst netip.Prefix, link string) error {
	err := h.onLink(link, func(l netlink.Link) error {
		return h.handle.RouteAdd(&netlink.Route{Dst: ipNet(dst), LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK})
	})
	return h.wrap(err, "add route to %s over %s: ", dst, link)
}

// AddLocal makes every address in dst the host's own, without a neighbour on
// a link being told: others need a route to it.
func (h *Host) AddLocal(dst netip.Prefix) error {
	err := h.onLink("lo", func(l netlink.Link) error {
		return h.handle.RouteAdd(&netlink.Route{
			Dst: ipNet(dst), LinkIndex: l.Attrs().Index, Type: unix.RTN_LOCAL,
			Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
		})
	})
	return h.wrap(err, "make %s local: ", dst)
}

// DefaultVia sends what has no other route by way of a neighbour.
func (h *Host) DefaultVia(via netip.Addr) error {
	return h.AddRoute(netip.PrefixFrom(via, 0).Masked(), via)
}

// Single is the prefix that has one address alone.
func Single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Forward lets the host route packets between its links.
func (h *Host) Forward() error {
	return errors.Join(h.SetSysctl("net.ipv4.ip_forward", "1"), h.SetSysctl("net.ipv6.conf.all.forwarding", "1"))
}

// SetSysctl writes a kernel parameter of the host; see sysctl.Setting for its
// name.
func (h *Host) SetSysctl(name, value string) error {
	return h.Do(func() error { return h.wrap(sysctl.Local.Set(name, value), "") })
}

// Sysctl reads a kernel parameter of the host.
func (h *Host) Sysctl(name string) (value string, err error) {
	err = h.Do(func() error {
		value, err = sysctl.Local.Get(name)
		return h.wrap(err, "")
	})
	return value, err
}

// NextPort gives ports 10000 to 59999 in turn, so that a port, and with it a
// connection's entry in conntrack, comes again only after 50,000 others.
func (h *Host) NextPort() uint16 { return uint16(10000 + (h.port.Add(1)-1)%50000) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// onLink does something with a link.
func (h *Host) onLink(name string, do func(netlink.Link) error) error {
	l, err := h.handle.LinkByName(name)
	if err != nil {
		return err
	}
	return do(l)
}

// wrap says of an error which host it is of, and what was done there; nil stays nil.
func (h *Host) wrap(err error, doing string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("host %s: %s%w", h.name, fmt.Sprintf(doing, args...), err)
}
