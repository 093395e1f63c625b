//go:build linux

package engine

// Devices: by which links the packets of services come and go.

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/links"
)

// devices are the links of the host, as far as packets are forwarded by them.
type devices struct {
	indexes map[string]int // by their names
	names   map[int]string
	// networks are those of their addresses.
	networks []network
	routes   *netlink.Handle
	known    map[netip.Addr]string // answers about routes; empty: there is none
}

type network struct {
	netip.Prefix
	device string
}

func lookAtDevices() (*devices, error) {
	d := &devices{indexes: map[string]int{}, names: map[int]string{}, known: map[netip.Addr]string{}}
	all, err := links.Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("the links cannot be read: %w", err)
	}
	for _, l := range all {
		if a := l.Attrs(); a.Flags&net.FlagLoopback == 0 {
			d.indexes[a.Name], d.names[a.Index] = a.Index, a.Name
		}
	}
	addrs, err := links.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("the addresses cannot be read: %w", err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		name := d.names[a.LinkIndex]
		if bits, _ := a.Mask.Size(); ok && name != "" && !ip.Unmap().IsLinkLocalUnicast() {
			d.networks = append(d.networks, network{netip.PrefixFrom(ip.Unmap(), bits), name})
		}
	}
	d.routes, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	return d, err
}

// distant are addresses that nothing but a default route leads to: of networks that
// nobody has (RFC 7526, RFC 6666).
var distant = map[lb.Family]netip.Addr{
	lb.IPv4: netip.MustParseAddr("192.88.99.1"),
	lb.IPv6: netip.MustParseAddr("100::1"),
}

// wanted are the devices that services want to be offloaded on, by the ways that they
// want it in.
func (d *devices) wanted(profiles []*lb.Profile) map[lb.Offload]map[string]bool {
	defer d.routes.Close()
	out := map[lb.Offload]map[string]bool{lb.OffloadAuto: {}, lb.OffloadSoftware: {}, lb.OffloadHardware: {}}
	for _, s := range lb.Services(profiles) {
		if s.Offload == lb.OffloadNone || len(s.Backends) == 0 || !s.Offloadable() {
			continue
		}
		for _, name := range d.of(s) {
			if name != "" {
				out[s.Offload][name] = true
			}
		}
	}
	return out
}

// of are the devices of a service: those that it names, or those of the routes to its
// backends and clients.
func (d *devices) of(s *lb.Service) (names []string) {
	if len(s.Devices) > 0 {
		return s.Devices
	}
	for i := range s.Backends {
		if at := s.Backends[i].Address; !at.OfHost() {
			names = append(names, d.way(at.Addr))
		}
	}
	for _, f := range s.Families() {
		names = append(names, d.clients(s, f)...)
	}
	return names
}

// clients are the devices that clients of a family may come by.
func (d *devices) clients(s *lb.Service, f lb.Family) (names []string) {
	if s.Interface != "" {
		begin, some := strings.CutSuffix(s.Interface, "*")
		for name := range d.indexes {
			if name == begin || some && strings.HasPrefix(name, begin) {
				names = append(names, name)
			}
		}
		return names
	}
	for _, p := range s.Allow {
		if lb.FamilyOf(p.Addr()) == f {
			names = append(names, d.way(p.Addr()))
		}
	}
	if len(s.Allow) > 0 {
		return names
	}
	uplink := d.way(distant[f])
	for _, n := range d.networks {
		near := uplink == "" && lb.FamilyOf(n.Addr()) == f // without a default route, they are in these
		for _, l := range s.Listen {
			near = near || l.Prefix.IsValid() && n.Contains(l.Prefix.Addr())
		}
		if near {
			names = append(names, n.device)
		}
	}
	return append(names, uplink)
}

// way is the device by which the route to an address leaves; empty: there is none, or
// it is this host's own.
func (d *devices) way(to netip.Addr) string {
	name, known := d.known[to]
	if !known {
		if routes, err := d.routes.RouteGet(to.AsSlice()); err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_UNICAST {
			name = d.names[routes[0].LinkIndex]
		}
		d.known[to] = name
	}
	return name
}
