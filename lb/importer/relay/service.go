package relay

// Services: what a program that relays becomes in a profile.

import (
	"fmt"
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/lb/importer"
)

// Bind is where a program listens.
type Bind struct {
	Endpoint
	// V4 and V6 are the families that it takes, for all addresses.
	V4, V6 bool
	Place  importer.Place
}

// Server is a backend with its place. Its weight is that of the program, in relation to
// those of the others.
type Server struct {
	lb.Backend
	Place importer.Place
}

// Add adds the services that binds and servers become. A program that relays makes
// connections of its own, so clients and servers may be of different families and
// on any address; what a translation of addresses cannot do is said. s has the
// rest of the service.
func Add(d *importer.Draft, s lb.Service, binds []Bind, servers []Server, at importer.Place, notes ...string) {
	binds = reachable(d, binds)
	var wide, single []lb.Listen
	families, has := map[lb.Family]bool{}, map[lb.Family]bool{} // of clients, and of backends
	local := len(binds) > 0
	for _, b := range binds {
		ports := []lb.PortRange{b.Ports}
		switch {
		case b.Any:
			families[lb.IPv4], families[lb.IPv6] = families[lb.IPv4] || b.V4, families[lb.IPv6] || b.V6
			wide = append(wide, lb.Listen{Ports: ports})
			local = false
		default:
			families[lb.FamilyOf(b.Addr)] = true
			single = append(single, lb.Listen{Prefix: netip.PrefixFrom(b.Addr, b.Addr.BitLen()), Ports: ports})
			local = local && b.Addr.IsLoopback()
		}
	}
	s.Backends = backends(d, servers, families, local, at)
	if len(s.Backends) == 0 {
		d.Lost(fmt.Sprintf("service %s has no server that a profile can have, so it is left out", s.Name), "", at)
		return
	}
	for _, b := range s.Backends {
		has[lb.IPv4], has[lb.IPv6] = has[lb.IPv4] || b.Named() || b.Address.Addr.Is4(), has[lb.IPv6] || b.Named() || b.Address.Addr.Is6()
	}
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		if families[f] && !has[f] {
			d.Lost(fmt.Sprintf("clients by %s reached servers of the other family, which a translation of addresses cannot do; they are not in the profile", f),
				"backends of both families serve both", at)
		}
	}
	both := families[lb.IPv4] && families[lb.IPv6] && has[lb.IPv4] && has[lb.IPv6]
	if both && !slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.Named() }) {
		d.Lost("clients reached servers of both families; in the profile those by IPv4 get the servers by IPv4, and those by IPv6 the others", "", at)
	}
	single = slices.DeleteFunc(single, func(l lb.Listen) bool { return !has[lb.FamilyOf(l.Prefix.Addr())] })
	own := map[lb.Family]bool{} // of single
	for _, l := range single {
		own[lb.FamilyOf(l.Prefix.Addr())] = true
	}
	if local { // nobody else reaches the loopback address
		s.Role, s.SNAT = lb.RoleClient, lb.SNAT{Mode: lb.SNATNone}
		for i := range s.Backends {
			s.Backends[i].SNAT = s.SNAT
		}
	}
	for _, listen := range [][]lb.Listen{join(wide), join(single)} {
		if len(listen) == 0 {
			continue
		}
		one := s
		one.Listen, one.Backends = listen, slices.Clone(s.Backends)
		if listen[0].Prefix.IsValid() {
			one.Backends = slices.DeleteFunc(one.Backends, func(b lb.Backend) bool { return !b.Named() && !own[lb.FamilyOf(b.Address.Addr)] })
		}
		d.Add(one, at, notes...)
	}
	if len(wide) > 0 {
		d.Note("this listens on all addresses of this host, the loopback ones included; the profile leaves what this host sends to those alone", "", at)
	}
}

// reachable are binds without those of loopback addresses, where there are others.
func reachable(d *importer.Draft, binds []Bind) []Bind {
	elsewhere := func(b Bind) bool { return b.Any || !b.Addr.IsLoopback() }
	if !slices.ContainsFunc(binds, elsewhere) {
		return binds
	}
	return slices.DeleteFunc(slices.Clone(binds), func(b Bind) bool {
		if !elsewhere(b) {
			d.Lost("what listens on the loopback address is not in the profile: the kernel drops answers that come for that from elsewhere",
				"programs of this host can connect to another of its addresses", b.Place)
		}
		return !elsewhere(b)
	})
}

// backends are the servers that clients of these families can reach by translation.
func backends(d *importer.Draft, servers []Server, families map[lb.Family]bool, local bool, at importer.Place) []lb.Backend {
	var out []lb.Backend
	var weights []int64
	there := map[lb.Endpoint]bool{}
	names := map[string]bool{}
	for _, b := range servers {
		switch {
		case !b.Named() && b.Address.Addr.IsLoopback() && !local:
			d.Lost("a server on the loopback address is left out: the kernel drops packets of the network that are sent there",
				fmt.Sprintf("where it listens on all addresses of this host, the backend %q reaches it", fmt.Sprintf(":%d", b.Address.Port)), b.Place)
		case local && (b.Named() || !b.Address.Addr.IsLoopback()):
			d.Lost("this listens on the loopback address, and the kernel drops answers that come for that from elsewhere, so this server is left out",
				"a service can listen on another address of this host, and programs connect to that", b.Place)
		case !b.Named() && !families[lb.FamilyOf(b.Address.Addr)]:
			d.Lost("this server is of another family than the clients, so it is left out", "", b.Place)
		case !b.Named() && there[b.Address]:
			d.Lost("this server is here twice, and is left out the second time", "its weight can be that of both", b.Place)
		default:
			there[b.Address] = true
			if b.Name == "" || names[b.Name] {
				b.Name = b.Where()
			}
			names[b.Name] = true
			out = append(out, b.Backend)
			weights = append(weights, int64(b.Weight))
		}
	}
	for i, w := range d.Weights(weights, at) {
		out[i].Weight = w
	}
	return out
}

// join makes one listen of those of an address.
func join(listens []lb.Listen) []lb.Listen {
	var out []lb.Listen
	at := map[netip.Prefix]int{}
	for _, l := range listens {
		i, ok := at[l.Prefix]
		if !ok {
			at[l.Prefix] = len(out)
			out = append(out, l)
			continue
		}
		out[i].Ports = append(out[i].Ports, l.Ports...)
	}
	for i := range out {
		out[i].Ports = lb.JoinPorts(out[i].Ports)
	}
	return out
}
