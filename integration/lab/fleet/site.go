//go:build linux

package fleet

// The site: which hosts there are, with which addresses and routes.
//
//	clients --- front === balancers === back --- servers
//
// The routers in front and at the back spread connections by the client's address and
// port alone, with one seed, so that answers meet the balancer that the questions meet
// (net.ipv4.fib_multipath_hash_policy, Documentation/networking/ip-sysctl.rst).

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"nlb/integration/lab"
	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// Numbers of the networks between hosts.
const (
	clientsNet = iota
	serversNet
	frontNets // of the first balancer; the others follow
	backNets  = frontNets + MaxBalancers
)

// mostClients is how many source addresses there are for a family of a service.
const mostClients = 100

// The fields that routers hash (ip-sysctl.rst, fib_multipath_hash_fields), and a seed.
const (
	sourceFields      = "0x11" // source address, source port
	destinationFields = "0x22"
	seed              = "7113"
)

// target is a family of a service, which connections are opened to.
type target struct {
	service *lb.Service
	to      netip.AddrPort
	clients []netip.Addr
}

// site is what stands.
type site struct {
	world                         *netlab.World
	ground                        *lab.Ground
	families                      []lb.Family
	vips, backends                []netip.Addr
	clients, front, back, servers *netlab.Host
	link                          string // of the balancers to the router in front
	targets                       []target
	standins                      []*traffic.Server
	notes                         []string
}

// draft plans a site for profiles: what of them can be rehearsed.
func draft(profiles []*lb.Profile) *site {
	s := &site{ground: lab.Survey(profiles)}
	for p, v := range lb.Services(profiles) {
		why := ""
		switch link := strings.ReplaceAll(v.Interface, "*", "0"); {
		case !slices.Contains(v.Protocols, lb.TCP):
			why = "it has no TCP"
		case v.Role != lb.RoleProxy:
			why = "role: " + v.Role.String() + " is about one host"
		case v.Mode.Direct():
			why = "with mode: " + v.Mode.String() + " answers go past the balancers"
		case link != "" && s.link != "" && link != s.link:
			why = "it has another interface than the first service"
		default:
			if link != "" {
				s.link = link
			}
			why = s.enroll(v)
		}
		if why != "" {
			s.notes = append(s.notes, fmt.Sprintf("%s/%s: it is not rehearsed: %s", p.Name, v.Name, why))
		}
	}
	if s.link == "" {
		s.link = "eth0"
	}
	slices.Sort(s.families)
	s.families = slices.Compact(s.families)
	return s
}

// enroll makes targets of a service, or says why there are none.
func (s *site) enroll(v *lb.Service) (why string) {
	n := len(s.targets)
	for _, f := range v.Families() {
		if !slices.ContainsFunc(v.Of(f), func(b lb.Backend) bool { return b.Effective() > 0 }) {
			continue
		}
		at := slices.IndexFunc(v.Listen, func(l lb.Listen) bool { return l.Prefix.IsValid() && lb.FamilyOf(l.Prefix.Addr()) == f })
		if at < 0 {
			continue
		}
		l := v.Listen[at]
		t := target{service: v, to: netip.AddrPortFrom(l.Prefix.Addr(), max(l.Ports[0].First, 1)), clients: s.ground.Clients(f, mostClients, v.Allow, v.Deny)}
		if len(t.clients) == 0 {
			continue
		}
		s.targets, s.families = append(s.targets, t), append(s.families, f)
		for _, l := range v.Listen {
			if l.Prefix.IsValid() && !slices.Contains(s.vips, l.Prefix.Addr()) {
				s.vips = append(s.vips, l.Prefix.Addr())
			}
		}
		for _, b := range v.Of(f) {
			if !slices.Contains(s.backends, b.Address.Addr) {
				s.backends = append(s.backends, b.Address.Addr)
			}
		}
	}
	if len(s.targets) == n {
		return "no address was found that clients could connect to, or connect from"
	}
	return ""
}

// build makes all hosts but the balancers.
func (s *site) build() error {
	for _, h := range []struct {
		at   **netlab.Host
		name string
	}{{&s.clients, "clients"}, {&s.front, "front"}, {&s.back, "back"}, {&s.servers, "servers"}} {
		var err error
		if *h.at, err = s.world.Host(h.name); err != nil {
			return err
		}
	}
	if err := errors.Join(s.router(s.front, sourceFields), s.router(s.back, destinationFields)); err != nil {
		return err
	}
	if err := errors.Join(s.edge(s.clients, s.front, clientsNet), s.edge(s.servers, s.back, serversNet)); err != nil {
		return err
	}
	there := map[netip.Addr]bool{}
	for _, t := range s.targets {
		for _, a := range t.clients {
			if there[a] {
				continue
			}
			there[a] = true
			if err := errors.Join(s.clients.Own(a), s.reach(s.front, a, clientsNet)); err != nil {
				return err
			}
		}
	}
	for _, a := range s.backends {
		if err := errors.Join(s.servers.Own(a), s.reach(s.back, a, serversNet)); err != nil {
			return err
		}
	}
	return s.serve()
}

// router makes a host one that spreads connections by some fields of their packets.
func (s *site) router(h *netlab.Host, fields string) error {
	if err := h.Forward(); err != nil {
		return err
	}
	for _, p := range []struct{ name, value string }{
		{"net.ipv4.fib_multipath_hash_policy", "3"},
		{"net.ipv4.fib_multipath_hash_fields", fields},
		{"net.ipv4.fib_multipath_hash_seed", seed},
		{"net.ipv6.fib_multipath_hash_policy", "3"},
		{"net.ipv6.fib_multipath_hash_fields", fields},
	} {
		err := h.SetSysctl(p.name, p.value)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is not there: two routers that spread connections alike need Linux 6.11", p.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// edge joins a host with its router.
func (s *site) edge(h, router *netlab.Host, network int) error {
	near, far := netlab.End{Host: router, Link: h.Name()}, netlab.End{Host: h, Link: "eth0"}
	for _, f := range s.families {
		a, b := s.ground.Transit(f, network)
		near.Addresses, far.Addresses = append(near.Addresses, a), append(far.Addresses, b)
	}
	return s.world.Join(far, near)
}

// reach is a router's route to an address on the loopback of the host at its edge.
func (s *site) reach(router *netlab.Host, a netip.Addr, network int) error {
	_, far := s.ground.Transit(lb.FamilyOf(a), network)
	return router.AddRoute(netlab.Single(a), far.Addr())
}

// serve starts a server for each endpoint that connections go to.
func (s *site) serve() error {
	seen := map[netip.AddrPort]bool{}
	for _, t := range s.targets {
		for _, b := range t.service.Of(lb.FamilyOf(t.to.Addr())) {
			at := netip.AddrPortFrom(b.Address.Addr, b.Address.Port)
			if at.Port() == 0 {
				at = netip.AddrPortFrom(at.Addr(), t.to.Port())
			}
			if seen[at] {
				continue
			}
			seen[at] = true
			server, err := traffic.Serve(s.servers, b.Address.Addr.String(), traffic.Port{Network: "tcp", At: at})
			if err != nil {
				return err
			}
			s.standins = append(s.standins, server)
		}
	}
	return nil
}
