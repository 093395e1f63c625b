//go:build linux

package lab

// Building: the site becomes hosts, links, addresses, routes and servers.

import (
	"net/netip"

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
	for _, f := range l.site.families {
		if i == 0 {
			if err := l.balancer.DefaultVia(k.far[f].Addr()); err != nil {
				return err
			}
		}
	}
	for _, a := range k.clients {
		if err := h.AddAddress("lo", single(a)); err != nil {
			return err
		}
		if i > 0 {
			if err := l.balancer.AddRoute(single(a), k.far[lb.FamilyOf(a)].Addr()); err != nil {
				return err
			}
		}
	}
	return nil
}

// own gives the balancer and the backends their addresses.
func (l *Lab) own() error {
	for _, a := range l.site.owned {
		if err := l.balancer.AddAddress("lo", single(a)); err != nil {
			return err
		}
	}
	for _, a := range l.site.remote {
		if err := l.backends.AddAddress("lo", single(a)); err != nil {
			return err
		}
		if err := l.balancer.AddRoute(single(a), l.site.servers.far[lb.FamilyOf(a)].Addr()); err != nil {
			return err
		}
	}
	return nil
}

// serve starts the stand-ins that are wanted.
func (l *Lab) serve(wanted func(standin) bool) error {
	for _, s := range l.site.standins {
		if !wanted(s) {
			continue
		}
		host := l.backends
		if s.local {
			host = l.balancer
		}
		if err := l.start(host, s); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) start(host *netlab.Host, s standin) error {
	server, err := traffic.Serve(host, s.at.String(), s.ports...)
	if err != nil {
		return err
	}
	for _, p := range s.ports {
		l.servers[p] = server
	}
	return nil
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
