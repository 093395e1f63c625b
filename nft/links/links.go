// Package links reads the interfaces and routes of this host that services with mode:
// dsr or tunnel need, and makes the tunnels.
package links

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/direct"
)

// Reader reads them in one network namespace. It is not safe for concurrent use.
type Reader struct {
	handle *netlink.Handle
	told   int // a socket, see Changed; -1: there is none
}

// Open opens a reader in the calling thread's network namespace.
func Open() (*Reader, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("ask for interfaces and routes: %w", err)
	}
	return &Reader{h, -1}, nil
}

// Close ends the conversation with the kernel.
func (r *Reader) Close() {
	r.handle.Close()
	if r.told >= 0 {
		_ = unix.Close(r.told)
	}
}

// Read reads the links of profiles; nil: no service needs them.
func (r *Reader) Read(profiles []*lb.Profile) (*direct.Links, error) {
	if !direct.Has(profiles) {
		return nil, nil
	}
	h := r.handle
	l := &direct.Links{In: map[netip.Addr][]string{}, Out: map[netip.Addr]uint32{}, Behind: map[netip.Addr]netip.Addr{}}
	names, err := interfaces(h)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		l.Names = append(l.Names, name)
	}
	for _, s := range lb.Services(profiles) {
		if s.Mode == lb.Tunnel && l.Through == nil {
			if l.Through, err = r.tunnels(); err != nil {
				return nil, err
			}
		}
		if !s.Mode.Direct() {
			continue
		}
		if err := readService(h, l, names, s); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Whole reads, and does so again, up to five times, where something has changed
// meanwhile: then the kernel may have left something out.
func Whole[T any](read func() ([]T, error)) (all []T, err error) {
	for range 5 {
		if all, err = read(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// addresses are those of this host.
func addresses(h *netlink.Handle) ([]netlink.Addr, error) {
	all, err := Whole(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		err = fmt.Errorf("read the addresses: %w", err)
	}
	return all, err
}

// interfaces are the names of all but the loopback interfaces, by their numbers.
func interfaces(h *netlink.Handle) (map[int]string, error) {
	all, err := Whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("read the interfaces: %w", err)
	}
	out := map[int]string{}
	for _, one := range all {
		if a := one.Attrs(); a.Flags&net.FlagLoopback == 0 {
			out[a.Index] = a.Name
		}
	}
	return out, nil
}

func readService(h *netlink.Handle, l *direct.Links, names map[int]string, s *lb.Service) error {
	for _, listen := range s.Listen {
		a := listen.Prefix.Addr()
		if _, known := l.In[a]; known || s.Interface != "" {
			continue
		}
		l.In[a] = nil
		index, err := comesBy(h, a)
		if err != nil {
			return err
		}
		if name, ok := names[index]; ok {
			l.In[a] = []string{name}
		}
	}
	for i := range s.Backends {
		a := s.Backends[i].Address.Addr
		if !a.IsValid() {
			continue
		}
		r, err := route(h, a)
		switch {
		case err != nil:
			return err
		case r == nil || names[r.LinkIndex] == "":
		case r.Gw != nil:
			l.Behind[a], _ = netip.AddrFromSlice(r.Gw)
			l.Behind[a] = l.Behind[a].Unmap()
		default:
			l.Out[a] = uint32(r.LinkIndex)
		}
	}
	return nil
}

// comesBy is the interface that has a listen address, or that the route to it takes; 0:
// there is none.
func comesBy(h *netlink.Handle, a netip.Addr) (int, error) {
	r, err := route(h, a)
	if r == nil || err != nil || r.Type != unix.RTN_LOCAL {
		if r == nil {
			return 0, err
		}
		return r.LinkIndex, nil
	}
	own, err := addresses(h)
	if err != nil {
		return 0, err
	}
	for _, one := range own {
		if ip, ok := netip.AddrFromSlice(one.IP); ok && ip.Unmap() == a {
			return one.LinkIndex, nil
		}
	}
	return 0, nil
}

// route is the route to an address; nil: there is none.
func route(h *netlink.Handle, a netip.Addr) (*netlink.Route, error) {
	routes, err := h.RouteGet(a.AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
		return nil, nil // an unreachable, prohibited or blackholed one is none
	case err != nil:
		return nil, fmt.Errorf("read the route to %s: %w", a, err)
	case len(routes) == 0:
		return nil, nil
	}
	return &routes[0], nil
}

// Sources are the addresses that this host sends to others from, as the routes say. One
// is missing where there is no way. It is not valid where the other one is this host
// itself, where there are several ways, or where the address may go: one that a lease or
// a router advertisement gave.
func (r *Reader) Sources(to []netip.Addr) (map[netip.Addr]netip.Addr, error) {
	own, err := addresses(r.handle)
	if err != nil {
		return nil, err
	}
	fixed := map[netip.Addr]bool{}
	for _, one := range own {
		if a, ok := netip.AddrFromSlice(one.IP); ok && one.Flags&unix.IFA_F_PERMANENT != 0 && one.Flags&unix.IFA_F_DEPRECATED == 0 {
			fixed[a.Unmap()] = true
		}
	}
	out := map[netip.Addr]netip.Addr{}
	for _, a := range to {
		if _, known := out[a]; known {
			continue
		}
		way, err := route(r.handle, a)
		if err != nil {
			return nil, err
		}
		if way == nil {
			continue
		}
		out[a] = netip.Addr{}
		source, ok := netip.AddrFromSlice(way.Src)
		if source = source.Unmap(); !ok || !fixed[source] || way.Type != unix.RTN_UNICAST {
			continue
		}
		all, err := r.handle.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
		if several := err == nil && len(all) == 1 && len(all[0].MultiPath) > 1; !several {
			out[a] = source
		}
	}
	return out, nil
}
