//go:build linux

package view

// Rates: what has changed from one snapshot to the next.

import (
	"time"

	"nlb/lb"
)

// rates are the changes of a backend, or of a service as a whole, since the last
// snapshot. The zero rates have none before.
type rates struct {
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

// Since notes in a snapshot what has changed since an older one. What was not
// there then has no rates, nor has what was counted anew in between.
func (v *Snapshot) Since(old *Snapshot, between time.Duration) {
	if between <= 0 {
		return
	}
	type key struct {
		profile, service string
		backend          lb.Endpoint
	}
	before, services := map[key]*snapshotBackend{}, map[key]*snapshotService{}
	for _, p := range old.Profiles {
		for i := range p.Services {
			s := &p.Services[i]
			services[key{p.Name, s.Name, lb.Endpoint{}}] = s
			for k := range s.Backends {
				before[key{p.Name, s.Name, s.Backends[k].endpoint}] = &s.Backends[k]
			}
		}
	}
	for _, p := range v.Profiles {
		for i := range p.Services {
			s := &p.Services[i]
			was := services[key{p.Name, s.Name, lb.Endpoint{}}]
			if was == nil {
				continue
			}
			s.rates.known = true
			if s.Refused >= was.Refused {
				s.rates.refused = s.Refused - was.Refused
			}
			for k := range s.Backends {
				b := &s.Backends[k]
				b.since(before[key{p.Name, s.Name, b.endpoint}], between)
				s.rates.connections += b.rates.connections
				s.rates.perSecond += b.rates.perSecond
				s.rates.live += b.rates.live
			}
			s.shares()
		}
	}
}

// since notes what has changed of a backend.
func (b *snapshotBackend) since(was *snapshotBackend, between time.Duration) {
	if was == nil || b.Connections < was.Connections {
		return
	}
	b.rates.known = true
	b.rates.connections = b.Connections - was.Connections
	b.rates.perSecond = float64(b.rates.connections) / between.Seconds()
	if b.Live != nil && was.Live != nil {
		b.rates.live = *b.Live - *was.Live
	}
}

// shares works out who got which part of the new connections.
func (s *snapshotService) shares() {
	sum := map[lb.Family]uint64{}
	for i := range s.Backends {
		b := &s.Backends[i]
		sum[lb.FamilyOf(b.endpoint.Addr)] += b.rates.connections
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		if all := sum[lb.FamilyOf(b.endpoint.Addr)]; all > 0 {
			b.rates.share = float64(b.rates.connections) / float64(all)
		}
	}
}
