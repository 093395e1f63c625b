//go:build linux

package fleet

// The balancers, and what befalls them.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"nlb/integration/netlab"
	"nlb/lb"
)

// node is a balancer.
type node struct {
	number  int
	host    *netlab.Host
	serving bool // the routers send it connections
}

const backLink = "back"

// join makes a new host of a node, between the routers, with the profiles applied. The
// routers send it nothing yet.
func (l *Lab) join(ctx context.Context, n *node) error {
	s := l.site
	h, err := s.world.Host(n.name())
	if err != nil {
		return err
	}
	n.host = h
	if err := h.SetSysctl("net.ipv6.conf.all.keep_addr_on_down", "1"); err != nil {
		return err
	}
	for _, side := range []struct {
		router *netlab.Host
		link   string
		nets   int
	}{{s.front, s.link, frontNets}, {s.back, backLink, backNets}} {
		if err := s.world.Link(h, side.link, side.router, n.name()); err != nil {
			return err
		}
		for _, f := range s.families {
			near, far := s.ground.Transit(f, side.nets+n.number)
			if err := errors.Join(side.router.AddAddress(n.name(), near), h.AddAddress(side.link, far)); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(h.Own(s.vips...), l.route(n)); err != nil {
		return err
	}
	return l.apply(ctx, n)
}

func (n *node) name() string { return fmt.Sprintf("balancer-%d", n.number+1) }

// route gives a node its routes: to the servers at the back, else to the front.
func (l *Lab) route(n *node) error {
	s := l.site
	for _, f := range s.families {
		front, _ := s.ground.Transit(f, frontNets+n.number)
		if err := n.host.DefaultVia(front.Addr()); err != nil {
			return err
		}
	}
	for _, a := range s.backends {
		back, _ := s.ground.Transit(lb.FamilyOf(a), backNets+n.number)
		if err := n.host.AddRoute(netlab.Single(a), back.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// apply is nlb apply on a node.
func (l *Lab) apply(ctx context.Context, n *node) error {
	if err := n.host.Do(func() error { return l.balancer.Apply(ctx, l.profiles) }); err != nil {
		return fmt.Errorf("%s: apply: %w", n.name(), err)
	}
	return nil
}

// applyAll applies the profiles on all nodes that serve.
func (l *Lab) applyAll(ctx context.Context) error {
	for _, n := range l.nodes {
		if n.serving {
			if err := l.apply(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// spread has the routers send connections to the nodes that serve.
func (l *Lab) spread() error {
	s := l.site
	for _, f := range s.families {
		var front, back []netip.Addr
		for _, n := range l.nodes {
			if n.serving {
				_, a := s.ground.Transit(f, frontNets+n.number)
				_, b := s.ground.Transit(f, backNets+n.number)
				front, back = append(front, a.Addr()), append(back, b.Addr())
			}
		}
		anywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if f == lb.IPv6 {
			anywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		for _, vip := range s.vips {
			if lb.FamilyOf(vip) == f {
				if err := s.front.Spread(netlab.Single(vip), front...); err != nil {
					return err
				}
			}
		}
		if err := s.back.Spread(anywhere, back...); err != nil {
			return err
		}
	}
	return nil
}

// leave has the routers send a node nothing any more; it goes on forwarding.
func (l *Lab) leave(n *node) error {
	n.serving = false
	return l.spread()
}

// enter has the routers send a node connections again.
func (l *Lab) enter(n *node) error {
	n.serving = true
	return l.spread()
}

// detection is how long the routers take to notice that a node is gone: BFD with 50 ms
// times 3.
const detection = 150 * time.Millisecond

// cut is the power of a node that fails, or its cables. What follows happens at the same
// moment.
func (l *Lab) cut(n *node, meanwhile ...func() error) error {
	errs := []error{n.host.Cut(l.site.link), n.host.Cut(backLink)}
	n.serving = false
	began := time.Now()
	for _, f := range meanwhile {
		errs = append(errs, f())
	}
	time.Sleep(time.Until(began.Add(detection)))
	return errors.Join(append(errs, l.spread())...)
}

// mend ends that. The node has what it had, and what the profiles say by now.
func (l *Lab) mend(ctx context.Context, n *node) error {
	if err := errors.Join(n.host.Mend(l.site.link), n.host.Mend(backLink)); err != nil {
		return err
	}
	if err := errors.Join(l.route(n), l.apply(ctx, n)); err != nil {
		return err
	}
	return l.enter(n)
}

// replace is an upgrade with a new kernel: the node leaves, and a new one, which knows
// nothing, comes in its place.
func (l *Lab) replace(ctx context.Context, n *node) error {
	if err := l.leave(n); err != nil {
		return err
	}
	if err := errors.Join(n.host.Unlink(l.site.link), n.host.Unlink(backLink)); err != nil {
		return err
	}
	if err := l.join(ctx, n); err != nil {
		return err
	}
	return l.enter(n)
}
