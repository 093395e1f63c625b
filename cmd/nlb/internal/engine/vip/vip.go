//go:build linux

// Package vip gives this host addresses to announce, and takes them away again. It
// touches no address of anybody else.
package vip

// Which addresses the host has, and which it is to have.

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Protocol is that of the addresses that nlb has made (IFA_PROTO, Linux 5.18): who made
// them. The kernel uses 1 to 3.
const Protocol = 78

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// Address is one of this host.
type Address struct {
	Addr   netip.Addr
	Device string // for those that are whole, /32 and /128; others have none here
	// Ours says that nlb has made it.
	Ours  bool
	index int
}

// String is the address and its device.
func (a Address) String() string { return a.Addr.String() + " on " + a.Device }

// List are the addresses of the calling thread's network namespace, sorted.
func List() ([]Address, error) {
	var messages [][]byte
	var err error
	for range 5 { // one that meets a change may lack something
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		if messages, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the addresses: %w", err)
	}
	devices := map[int]netlink.Link{}
	var out []Address
	for _, m := range messages {
		a, err := decode(m, devices)
		if err != nil {
			return nil, err
		}
		if a.Addr.IsValid() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Address) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.index, b.index)) })
	return out, nil
}

// decode reads struct ifaddrmsg with its attributes.
func decode(m []byte, devices map[int]netlink.Link) (Address, error) {
	if len(m) < unix.SizeofIfAddrmsg {
		return Address{}, errors.New("read the addresses: a message is too short")
	}
	head := nl.DeserializeIfAddrmsg(m)
	attributes, err := nl.ParseRouteAttr(m[head.Len():])
	if err != nil {
		return Address{}, fmt.Errorf("read the addresses: %w", err)
	}
	out := Address{index: int(head.Index)}
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.IFA_LOCAL:
			out.Addr, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_ADDRESS: // that of the peer, where there is a local one
			if !out.Addr.IsValid() {
				out.Addr, _ = netip.AddrFromSlice(a.Value)
			}
		case ifaProto:
			out.Ours = len(a.Value) == 1 && a.Value[0] == Protocol
		}
	}
	if int(head.Prefixlen) != out.Addr.BitLen() {
		out.Ours = false
		return out, nil
	}
	link := devices[out.index]
	if link == nil {
		if link, err = netlink.LinkByIndex(out.index); err != nil {
			return Address{}, nil // it is gone, with its addresses
		}
		devices[out.index] = link
	}
	out.Device, out.Ours = link.Attrs().Name, out.Ours || made(link)
	return out, nil
}

// VIP is an address that the host is to have, on a device.
type VIP struct {
	Addr   netip.Addr
	Device string
}

// Result says what Set did.
type Result struct {
	Added, Removed []Address
	// Others are wanted, and there already by somebody else: they stay whatever
	// happens.
	Others []netip.Addr
	// Instead says that lo has the addresses, since the kernel has no dummy devices.
	Instead bool
}

// Set gives the host these addresses, and takes away those of nlb that are not among
// them, first of all. There is a result beside an error, too.
func Set(want []VIP) (Result, error) {
	var out Result
	have, err := List()
	if err != nil {
		return out, err
	}
	var errs []error
	drop := func(unwanted func(Address) bool) {
		have = slices.DeleteFunc(have, func(a Address) bool {
			gone := a.Ours && unwanted(a)
			if gone {
				errs = append(errs, out.remove(a))
			}
			return gone
		})
	}
	drop(func(a Address) bool { return !slices.ContainsFunc(want, func(v VIP) bool { return v.Addr == a.Addr }) })
	devices := map[string]netlink.Link{}
	for _, v := range want {
		link, known := devices[v.Device]
		if !known {
			var instead bool
			if link, instead, err = device(v.Device); err != nil {
				errs = append(errs, err)
			}
			devices[v.Device], out.Instead = link, out.Instead || instead
		}
		if link == nil {
			continue
		}
		drop(func(a Address) bool { return a.Addr == v.Addr && a.index != link.Attrs().Index })
		at := slices.IndexFunc(have, func(a Address) bool { return a.Addr == v.Addr })
		switch {
		case at >= 0 && !have[at].Ours:
			out.Others = append(out.Others, v.Addr)
		case at < 0:
			errs = append(errs, out.add(v.Addr, link))
		}
	}
	return out, errors.Join(append(errs, out.unmarked())...)
}

func (r *Result) remove(a Address) error {
	err := netlink.AddrDel(nil, &netlink.Addr{IPNet: whole(a.Addr), LinkIndex: a.index})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove address %s: %w", a, err)
	}
	r.Removed = append(r.Removed, a)
	return nil
}

func (r *Result) add(addr netip.Addr, link netlink.Link) error {
	a := Address{Addr: addr, Device: link.Attrs().Name, Ours: true, index: link.Attrs().Index}
	family, flags := unix.AF_INET, 0
	if addr.Is6() {
		family, flags = unix.AF_INET6, unix.IFA_F_NODAD // other hosts have it, too
	}
	head := nl.NewIfAddrmsg(family)
	head.Index, head.Prefixlen, head.Flags = uint32(a.index), uint8(addr.BitLen()), uint8(flags)
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(head)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, addr.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()))
	req.AddData(nl.NewRtAttr(ifaProto, []byte{Protocol}))
	switch _, err := req.Execute(unix.NETLINK_ROUTE, 0); {
	case errors.Is(err, unix.EEXIST): // somebody else was faster
		r.Others = append(r.Others, addr)
	case err != nil:
		return fmt.Errorf("add address %s: %w", a, err)
	default:
		r.Added = append(r.Added, a)
	}
	return nil
}

// unmarked takes back what was added where the kernel does not say whose it is: nobody
// would know what a killed agent has left.
func (r *Result) unmarked() error {
	if len(r.Added) == 0 {
		return nil
	}
	have, err := List()
	if err != nil {
		return err
	}
	for _, a := range r.Added {
		if slices.ContainsFunc(have, func(h Address) bool { return h.Addr == a.Addr && h.index == a.index && !h.Ours }) {
			added := r.Added
			r.Added = nil
			for _, a := range added {
				err = errors.Join(err, r.remove(a))
			}
			return errors.Join(fmt.Errorf("address %s: this kernel does not say who made it (needs Linux >= 5.18, or a dummy device that nlb makes)", a), err)
		}
	}
	return nil
}

// Clear takes away all addresses of nlb, and the devices that it has made.
func Clear() (Result, error) {
	out, err := Set(nil)
	return out, errors.Join(err, unmake())
}

func whole(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
