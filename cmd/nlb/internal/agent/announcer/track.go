//go:build linux

package announcer

// Track: interfaces that have to be up for addresses to be announced. A balancer whose
// clients cannot reach it is none, however well its servers are.

import (
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/lb"
)

// Follow has Links tell of changes until done is closed. What it misses is found by the
// next update.
func (r *Announcer) Follow(done <-chan struct{}) {
	updates := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		r.log.Warn("the kernel does not tell of interfaces", "error", err)
		return
	}
	go func() {
		for range updates {
			select {
			case r.Links <- struct{}{}:
			default: // it has a value
			}
		}
	}()
}

// Linked reports whether all interfaces that a profile tracks were up at the last update.
func (r *Announcer) Linked(p *lb.Profile) bool {
	return p.Announce == nil || !slices.ContainsFunc(p.Announce.Track, func(name string) bool { return r.down[name] })
}

// track looks at the interfaces that profiles track.
func (r *Announcer) track(profiles []*lb.Profile) {
	down := map[string]bool{}
	for _, p := range profiles {
		if p.Announce == nil {
			continue
		}
		for _, name := range p.Announce.Track {
			if _, known := down[name]; known {
				continue
			}
			down[name] = !isUp(name)
			switch was := r.down[name]; {
			case down[name] && !was:
				r.log.Warn("an interface that is tracked is down", "interface", name)
			case was && !down[name]:
				r.log.Info("an interface that is tracked is up again", "interface", name)
			}
		}
	}
	r.down = down
}

// isUp reports whether an interface is on, and has a carrier where it can know
// (netdevice(7), IFF_RUNNING).
func isUp(name string) bool {
	link, err := netlink.LinkByName(name)
	const flags = unix.IFF_UP | unix.IFF_RUNNING
	return err == nil && link.Attrs().RawFlags&flags == flags
}
