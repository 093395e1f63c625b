package links

// Tunnels: links of this host that packets for services with mode: tunnel go by, IP in
// IP (RFC 2003, RFC 2473), one for each server. They are nlb's where they have the name
// that nlb gives them. Others that lead to the same server are used as they are.

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/lb"
)

// NameOf is the name that a tunnel of a table to a server gets.
func NameOf(table string, server netip.Addr) string {
	h := sha256.Sum256([]byte(table + " " + server.String()))
	return fmt.Sprintf("nlb-%x", h[:5])
}

// Raise makes the tunnels that services of profiles lack, each only if begin returns nil.
// Errors say which could not be made; those that were made before stay until Lower.
func (r *Reader) Raise(table string, profiles []*lb.Profile, begin func() error) error {
	var have map[netip.Addr]uint32
	for _, s := range lb.Services(profiles) {
		if s.Mode != lb.Tunnel {
			continue
		}
		if have == nil {
			var err error
			if have, err = r.tunnels(); err != nil {
				return err
			}
		}
		for i := range s.Backends {
			a := s.Backends[i].Address.Addr
			if !a.IsValid() || have[a] != 0 {
				continue
			}
			if err := begin(); err != nil {
				return err
			}
			index, err := r.raise(table, a)
			if err != nil {
				return fmt.Errorf("make the tunnel %s to %s: %w", NameOf(table, a), a, err)
			}
			have[a] = index
		}
	}
	return nil
}

func (r *Reader) raise(table string, server netip.Addr) (uint32, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = NameOf(table, server)
	var link netlink.Link = &netlink.Iptun{LinkAttrs: attrs, Remote: server.AsSlice(), PMtuDisc: 1}
	if server.Is6() { // the kernel wants to know its own address
		way, err := route(r.handle, server)
		if err != nil {
			return 0, err
		}
		if way == nil {
			return 0, errors.New("there is no route to it")
		}
		link = &netlink.Ip6tnl{LinkAttrs: attrs, Local: way.Src, Remote: server.AsSlice(), Proto: unix.IPPROTO_IPV6, Flags: ignoreEncapLimit}
	}
	added := r.handle.LinkAdd(link)
	switch {
	case errors.Is(added, unix.EOPNOTSUPP):
		return 0, fmt.Errorf("this kernel has no links of type %s", link.Type())
	case added != nil && !errors.Is(added, unix.EEXIST):
		return 0, added
	}
	made, err := r.handle.LinkByName(attrs.Name)
	switch {
	case err != nil && added != nil: // the kernel has one for each pair of addresses
		return 0, errors.New("a tunnel of another name leads there, and is down")
	case err != nil:
		return 0, err
	}
	// For people: ip link show.
	if err := r.handle.LinkSetAlias(made, fmt.Sprintf("nlb, table %s: tunnel to %s", table, server)); err != nil {
		return 0, err
	}
	return uint32(made.Attrs().Index), r.handle.LinkSetUp(made)
}

// ignoreEncapLimit is IP6_TNL_F_IGN_ENCAP_LIMIT (linux/ip6_tunnel.h): packets carry no
// option that bounds how deep they may be packed.
const ignoreEncapLimit = 1

// Lower removes the tunnels of a table that are not in use, and of which nlb says by
// their names that it made them. used has the numbers of links.
func (r *Reader) Lower(table string, used func() (map[uint32]bool, error)) error {
	all, err := Whole(r.handle.LinkList)
	if err != nil {
		return fmt.Errorf("read the interfaces: %w", err)
	}
	var inUse map[uint32]bool
	for _, one := range all {
		server := serverOf(one)
		if !server.IsValid() || one.Attrs().Name != NameOf(table, server) {
			continue
		}
		if inUse == nil {
			if inUse, err = used(); err != nil {
				return err
			}
		}
		if inUse[uint32(one.Attrs().Index)] {
			continue
		}
		if err := r.handle.LinkDel(one); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove the tunnel %s: %w", one.Attrs().Name, err)
		}
	}
	return nil
}

// tunnels are the numbers of those that are up, by the servers that they lead to.
func (r *Reader) tunnels() (map[netip.Addr]uint32, error) {
	all, err := Whole(r.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("read the interfaces: %w", err)
	}
	out := map[netip.Addr]uint32{}
	for _, one := range all {
		if server := serverOf(one); server.IsValid() && one.Attrs().RawFlags&unix.IFF_UP != 0 {
			out[server] = uint32(one.Attrs().Index)
		}
	}
	return out, nil
}

// serverOf is the server that a link leads to by IP in IP of one family; the zero
// address: it is no such link.
func serverOf(link netlink.Link) netip.Addr {
	var remote []byte
	switch l := link.(type) {
	case *netlink.Iptun:
		remote = l.Remote.To4()
	case *netlink.Ip6tnl:
		if l.Proto == unix.IPPROTO_IPV6 || l.Proto == 0 {
			remote = l.Remote
		}
	}
	a, ok := netip.AddrFromSlice(remote)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
