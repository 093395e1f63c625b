//go:build linux

package lab

// Building: the site becomes hosts, links, addresses, routes and servers.

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

func (l *Lab) build() error {
	var err error
	if l.balancer, err = l.world.Host("balancer"); err != nil {
		return err
	}
	if l.backends, err = l.world.Host("backends"); err != nil {
		return err
	}
	for i, k := range l.site.links {
		name := "clients"
		if len(l.site.links) > 1 {
			name = "clients-" + k.name
		}
		h, err := l.world.Host(name)
		if err != nil {
			return err
		}
		l.clients = append(l.clients, h)
		if err := l.join(k, h); err != nil {
			return err
		}
		if err := l.populate(h, k, i); err != nil {
			return err
		}
	}
	if err := l.join(l.site.servers, l.backends); err != nil {
		return err
	}
	if err := l.own(); err != nil {
		return err
	}
	for i, a := range l.site.direct {
		if err := l.neighbour(i, a); err != nil {
			return err
		}
	}
	return l.serve(func(standin) bool { return true })
}

// uplink is the name of the other hosts' link to the balancer.
const uplink = "uplink"

// join connects a host with the balancer, which is its way to everywhere.
func (l *Lab) join(k link, h *netlab.Host) error {
	near, far := netlab.End{Host: l.balancer, Link: k.name}, netlab.End{Host: h, Link: uplink}
	for _, f := range l.site.families {
		near.Addresses, far.Addresses = append(near.Addresses, k.near[f]), append(far.Addresses, k.far[f])
	}
	return l.world.Join(far, near)
}

// populate gives a host its clients' addresses, and the balancer the way back
// to them. Behind the first host is what has no route elsewhere, as the
// internet is for a real balancer.
func (l *Lab) populate(h *netlab.Host, k link, i int) error {
	if err := h.Own(k.clients...); err != nil || i > 0 {
		return errors.Join(err, l.lead(k, k.clients...))
	}
	for _, f := range l.site.families {
		if err := l.balancer.DefaultVia(k.far[f].Addr()); err != nil {
			return err
		}
	}
	return nil
}

// lead gives the balancer routes to addresses at the other end of a link.
func (l *Lab) lead(k link, to ...netip.Addr) error {
	for _, a := range to {
		if err := l.balancer.AddRoute(netlab.Single(a), k.far[lb.FamilyOf(a)].Addr()); err != nil {
			return err
		}
	}
	return nil
}

// own gives the balancer and the backends their addresses.
func (l *Lab) own() error {
	for _, a := range l.site.idle() {
		if err := l.balancer.AddLinkRoute(netlab.Single(a), l.site.servers.name); err != nil {
			return err
		}
	}
	return errors.Join(l.balancer.Own(l.site.owned...), l.backends.Own(l.site.remote...), l.lead(l.site.servers, l.site.remote...))
}

// idle are the backends of services with mode: dsr that are not rehearsed, and so have no
// host: an apply takes them where they are on a link.
func (s *site) idle() []netip.Addr {
	var out []netip.Addr
	for _, v := range lb.Services(s.profiles) {
		for _, b := range v.Backends {
			if a := b.Address.Addr; v.Mode == lb.DSR && !slices.Contains(slices.Concat(out, s.direct, s.remote), a) && !s.local(a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// neighbour builds the host of a backend with mode: dsr. It is on a link of the balancer,
// has the services' addresses silently, and answers clients past the balancer.
func (l *Lab) neighbour(i int, a netip.Addr) error {
	h, err := l.world.Host("backend-" + strconv.Itoa(i+1))
	if err != nil {
		return err
	}
	l.direct[a] = h
	link := "dsr" + strconv.Itoa(i+1)
	if err := l.world.Link(h, uplink, l.balancer, link); err != nil {
		return err
	}
	if err := errors.Join(h.SetSysctl("net/ipv4/conf/all/arp_ignore", "1"), h.SetSysctl("net/ipv4/conf/all/arp_announce", "2")); err != nil {
		return err
	}
	near := netlab.Single(l.site.servers.near[lb.FamilyOf(a)].Addr()) // of the balancer, for what it translates
	if err := errors.Join(h.AddAddress(uplink, netlab.Single(a)), l.balancer.AddAddress(link, near),
		l.balancer.AddLinkRoute(netlab.Single(a), link), h.AddLinkRoute(near, uplink)); err != nil {
		return err
	}
	if err := l.equip(h, a); err != nil {
		return err
	}
	return l.past(h, link, lb.FamilyOf(a))
}

// equip gives such a host the addresses of its services, and the ends of their tunnels.
func (l *Lab) equip(h *netlab.Host, a netip.Addr) error {
	tunnel := false
	for _, s := range l.site.standins {
		if s.at.Addr != a {
			continue
		}
		tunnel = tunnel || s.tunnel
		if err := h.Own(s.vips...); err != nil {
			return err
		}
	}
	if tunnel {
		return h.TunnelEnd("tunnel", a)
	}
	return nil
}

// past gives such a host its own way to all clients.
func (l *Lab) past(h *netlab.Host, link string, f lb.Family) error {
	for i, c := range l.clients {
		way := "clients" + strconv.Itoa(i+1)
		if err := l.world.Link(h, way, c, link); err != nil {
			return err
		}
		far := l.site.links[i].far[f].Addr()
		if err := errors.Join(c.AddAddress(link, netlab.Single(far)), h.AddLinkRoute(netlab.Single(far), way)); err != nil {
			return err
		}
		for _, a := range l.site.links[i].clients {
			if lb.FamilyOf(a) != f {
				continue
			}
			if err := h.AddRoute(netlab.Single(a), far); err != nil {
				return err
			}
		}
	}
	return nil
}

// hostOf is where a stand-in is.
func (l *Lab) hostOf(s standin) *netlab.Host {
	switch h := l.direct[s.at.Addr]; {
	case s.local:
		return l.balancer
	case h != nil:
		return h
	}
	return l.backends
}

// serve starts the stand-ins that are wanted.
func (l *Lab) serve(wanted func(standin) bool) error {
	for _, s := range l.site.standins {
		if !wanted(s) {
			continue
		}
		if err := l.start(l.hostOf(s), s); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) start(host *netlab.Host, s standin) error {
	ports := s.ports
	for _, p := range s.ports {
		for _, vip := range s.vips {
			ports = append(slices.Clip(ports), traffic.Port{Network: p.Network, At: netip.AddrPortFrom(vip, p.At.Port())})
		}
	}
	server, err := traffic.Serve(host, s.at.String(), ports...)
	if err != nil {
		return err
	}
	for _, p := range s.ports {
		l.servers[p] = server
	}
	return nil
}
