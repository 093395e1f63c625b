//go:build linux

package main

// Pace: what has changed from one look at the kernel to the next.

import (
	"time"

	"nlb/lb"
)

// pace is the change of a backend, or of a service as a whole, since the last
// look. The zero pace has no last look.
type pace struct {
	known bool
	// connections are new ones; perSecond is how many a second.
	connections uint64
	perSecond   float64
	// share is the part of the new connections of the family, 0 to 1; 0 where
	// there are none.
	share float64
	// live is the change of the live connections.
	live int
	// refused is how many connections were turned away, of a service.
	refused uint64
}

// paced notes in v what has changed since old, in the time between the two.
// What was not there then has no pace, nor has what was counted anew since.
func paced(v, old *shown, between time.Duration) {
	if between <= 0 {
		return
	}
	before, services := map[lb.BackendID]*shownBackend{}, map[lb.BackendID]*shownService{}
	for _, p := range old.Profiles {
		for i := range p.Services {
			s := &p.Services[i]
			services[lb.BackendID{Profile: p.Name, Service: s.service.Name}] = s
			for k := range s.Backends {
				before[lb.BackendID{Profile: p.Name, Service: s.service.Name, Address: s.Backends[k].Address}] = &s.Backends[k]
			}
		}
	}
	for _, p := range v.Profiles {
		for i := range p.Services {
			s := &p.Services[i]
			was := services[lb.BackendID{Profile: p.Name, Service: s.service.Name}]
			if was == nil {
				continue
			}
			s.pace.known = true
			if s.Refused >= was.Refused {
				s.pace.refused = s.Refused - was.Refused
			}
			for k := range s.Backends {
				b := &s.Backends[k]
				b.since(before[lb.BackendID{Profile: p.Name, Service: s.service.Name, Address: b.Address}], between)
				s.pace.connections += b.pace.connections
				s.pace.perSecond += b.pace.perSecond
				s.pace.live += b.pace.live
			}
			s.shares()
		}
	}
}

// since notes what has changed since an earlier look at the backend.
func (b *shownBackend) since(was *shownBackend, between time.Duration) {
	if was == nil || b.Connections < was.Connections {
		return
	}
	b.pace.known = true
	b.pace.connections = b.Connections - was.Connections
	b.pace.perSecond = float64(b.pace.connections) / between.Seconds()
	if b.Live != nil && was.Live != nil {
		b.pace.live = *b.Live - *was.Live
	}
}

// shares works out who got which part of the new connections.
func (s *shownService) shares() {
	sum := map[lb.Family]uint64{}
	for i := range s.Backends {
		b := &s.Backends[i]
		sum[lb.FamilyOf(b.Address.Addr)] += b.pace.connections
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		if all := sum[lb.FamilyOf(b.Address.Addr)]; all > 0 {
			b.pace.share = float64(b.pace.connections) / float64(all)
		}
	}
}
