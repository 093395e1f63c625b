//go:build linux

package netlab

// The bed: three machines in a row, on which most tests and benchmarks lie.

import (
	"errors"
	"fmt"
	"net/netip"
)

// Bed is a world of a client, a balancer and a server machine. The client and
// the server are each on a network of their own with the balancer, which is
// their default route. The balancer forwards.
//
//	client 10.1.0.2 --- 10.1.0.1 balancer 10.2.0.1 --- 10.2.0.11.. server
//	client fd01::2  --- fd01::1  balancer fd02::1  --- fd02::11..  server
//
// The client's and the server's link is eth0; the balancer's are eth0, to the
// client, and eth1. The server has five addresses of each family.
type Bed struct {
	World                    *World
	Client, Balancer, Server *Host
}

// NewBed makes a bed in a world of its own, which the caller closes.
func NewBed() (*Bed, error) {
	w, err := New()
	if err != nil {
		return nil, err
	}
	b := &Bed{World: w}
	if err := b.build(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return b, nil
}

func (b *Bed) build() error {
	for _, h := range []struct {
		at   **Host
		name string
	}{{&b.Client, "client"}, {&b.Balancer, "balancer"}, {&b.Server, "server"}} {
		var err error
		if *h.at, err = b.World.Host(h.name); err != nil {
			return err
		}
	}
	var servers []string
	for i := range 5 {
		servers = append(servers, fmt.Sprintf("10.2.0.%d/24", 11+i), fmt.Sprintf("fd02::%d/64", 11+i))
	}
	return errors.Join(
		b.World.Join(NewEnd(b.Client, "eth0", "10.1.0.2/24", "fd01::2/64"), NewEnd(b.Balancer, "eth0", "10.1.0.1/24", "fd01::1/64")),
		b.World.Join(NewEnd(b.Server, "eth0", servers...), NewEnd(b.Balancer, "eth1", "10.2.0.1/24", "fd02::1/64")),
		b.Balancer.Forward())
}

// End is one end of a cable: a host, the name of its link, and the link's
// addresses.
type End struct {
	Host      *Host
	Link      string
	Addresses []netip.Prefix
}

// NewEnd makes one with addresses that are valid by construction.
func NewEnd(h *Host, link string, addresses ...string) End {
	e := End{Host: h, Link: link}
	for _, a := range addresses {
		e.Addresses = append(e.Addresses, netip.MustParsePrefix(a))
	}
	return e
}

// Join links a host with its router. Each of the router's addresses becomes
// the host's default route for its family.
func (w *World) Join(host, router End) error {
	if err := w.Link(host.Host, host.Link, router.Host, router.Link); err != nil {
		return err
	}
	for _, e := range []End{router, host} {
		if err := e.Host.AddAddress(e.Link, e.Addresses...); err != nil {
			return err
		}
	}
	for _, p := range router.Addresses {
		if err := host.Host.DefaultVia(p.Addr()); err != nil {
			return err
		}
	}
	return nil
}
