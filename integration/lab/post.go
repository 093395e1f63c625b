//go:build linux

package lab

// Posts: the stand-ins of services that are checked, and how they fail.

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"nlb/integration/lab/plan"
	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// post is a stand-in that answers checks.
type post struct {
	host    *netlab.Host
	id      string
	answers *traffic.Answers
	ports   []traffic.Port
	addrs   []netip.Addr
	server  *traffic.Server
	gone    []netip.Addr // of addrs, while it is silent
}

// addresses are those of the servers of a backend: its own, and where it is checked.
func addresses(v *lb.Service, b *lb.Backend) []netip.Addr {
	out := []netip.Addr{b.Address.Addr}
	for i := range v.Health {
		if a := v.CheckTarget(&v.Health[i], b).Addr(); v.Checked(b) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// shared are two drills that have a server in common; nil: there are none.
func shared(all []*drill) (*drill, *drill) {
	owner := map[netip.Addr]*drill{}
	for _, d := range all {
		for i := range d.service.Backends {
			for _, a := range addresses(d.service, &d.service.Backends[i]) {
				if o := owner[a]; o != nil && o != d {
					return o, d
				}
				owner[a] = d
			}
		}
	}
	return nil, nil
}

// answersOf are those that pass the checks of a service.
func answersOf(v *lb.Service) *traffic.Answers {
	a := &traffic.Answers{Pages: map[string]traffic.Page{}, Talk: map[string]string{}, Speaks: map[uint16]string{}}
	for i := range v.Health {
		c := &v.Health[i]
		switch {
		case c.Kind == lb.CheckHTTP || c.Kind == lb.CheckHTTPS:
			page := a.Pages[c.Path]
			if !slices.ContainsFunc(c.Status, func(r lb.StatusRange) bool { return int(r.First) <= page.Status && page.Status <= int(r.Last) }) {
				page.Status = plan.Status(c)
			}
			page.Body += c.Body
			a.Pages[c.Path] = page
		case c.Kind == lb.CheckAgent:
			a.Speaks[c.Port] = "up\n"
		case c.Send != "":
			a.Talk[c.Send] = c.Expect
		case c.Expect != "":
			for k := range v.Backends {
				a.Speaks[v.CheckTarget(c, &v.Backends[k]).Port()] = c.Expect
			}
		}
	}
	return a
}

// post has stand-ins that answer checks take over from those of a service.
func (l *Lab) post(d *drill) error {
	v := d.service
	if slices.ContainsFunc(v.Health, func(c lb.Check) bool { return c.Kind == lb.CheckICMP }) {
		// A new host lets nobody ping. Where this cannot be changed, the agent says so.
		_ = l.balancer.SetSysctl("net.ipv4.ping_group_range", fmt.Sprintf("%d %d", os.Getegid(), os.Getegid()))
	}
	a := answersOf(v)
	for i := range v.Backends {
		b := &v.Backends[i]
		p := &post{host: l.backends, id: b.Address.String(), answers: a, addrs: addresses(v, b)}
		if l.site.local(b.Address.Addr) {
			p.host = l.balancer
		}
		for _, s := range l.site.standins {
			if s.at == b.Address {
				p.ports = slices.Clone(s.ports)
			}
		}
		for i := range v.Health {
			if q, ok := checkPort(v, &v.Health[i], b); ok && !slices.Contains(p.ports, q) {
				p.ports = append(p.ports, q)
			}
		}
		d.posts[b.Name] = p
		if err := l.occupy(p); err != nil {
			return err
		}
	}
	return nil
}

// checkPort is where a check asks; false: nowhere, or the kernel.
func checkPort(v *lb.Service, c *lb.Check, b *lb.Backend) (traffic.Port, bool) {
	network := "tcp"
	if c.Kind == lb.CheckUDP || c.Kind == lb.CheckDNS && !slices.Contains(v.Protocols, lb.TCP) && !slices.Contains(v.Protocols, lb.SCTP) {
		network = "udp"
	}
	return traffic.Port{Network: network, At: v.CheckTarget(c, b)}, v.Checked(b) && c.Kind != lb.CheckICMP
}

// occupy ends what is at the ports of a post, and starts its server there.
func (l *Lab) occupy(p *post) error {
	for i := 0; i < len(p.ports); i++ {
		other := l.servers[p.ports[i]]
		if other == nil {
			continue
		}
		for q, s := range l.servers {
			if s == other && !slices.Contains(p.ports, q) {
				p.ports = append(p.ports, q)
			}
		}
		if err := other.Close(); err != nil {
			return err
		}
	}
	for _, a := range p.addrs {
		if l.site.local(a) || slices.Contains(l.site.remote, a) {
			continue
		}
		l.site.remote = append(l.site.remote, a)
		if err := errors.Join(l.backends.Own(a), l.lead(l.site.servers, a)); err != nil {
			return err
		}
	}
	err := p.serve()
	for _, q := range p.ports {
		l.servers[q] = p.server
	}
	return err
}

func (p *post) serve() (err error) {
	p.server, err = traffic.ServeChecks(p.host, p.id, p.answers, p.ports...)
	return err
}

// dismiss ends the stand-ins of drills, and starts those again that were there
// before.
func (l *Lab) dismiss(all []*drill) error {
	free := map[traffic.Port]bool{}
	for _, d := range all {
		for _, p := range d.posts {
			if len(p.gone) > 0 {
				if err := p.mend(plan.Silent); err != nil {
					return err
				}
			}
			for _, q := range p.ports {
				free[q] = true
				delete(l.servers, q)
			}
			if p.server != nil {
				_ = p.server.Close()
			}
		}
	}
	return l.serve(func(s standin) bool { return len(s.ports) > 0 && free[s.ports[0]] })
}

// fail has the server fail in a way; slow says how late it answers.
func (p *post) fail(way string, slow time.Duration) error {
	switch way {
	case plan.Silent:
		for _, a := range p.addrs {
			if err := p.host.RemoveAddress("lo", netlab.Single(a)); err != nil {
				return err
			}
			p.gone = append(p.gone, a)
		}
	case plan.Slow:
		p.server.Slow(slow)
	default:
		p.server.Stop()
		p.server.Abort()
	}
	return nil
}

// mend ends that.
func (p *post) mend(way string) error {
	switch way {
	case plan.Silent:
		for ; len(p.gone) > 0; p.gone = p.gone[1:] {
			if err := p.host.Own(p.gone[0]); err != nil {
				return err
			}
		}
		return nil
	case plan.Slow:
		p.server.Slow(0)
		return nil
	}
	_ = p.server.Close()
	return p.serve()
}
