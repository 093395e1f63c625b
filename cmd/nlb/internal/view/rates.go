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
	// state is the word for the state that a backend had, where it has another one now.
	state string
	// refused is how many connections were turned away, of a service.
	refused uint64
}

// Since notes in a snapshot what has changed since an older one. What was not
// there then has no rates, nor has what was counted anew in between.
func (v *Snapshot) Since(old *Snapshot, between time.Duration) {
	if between <= 0 {
		return
	}
	before, services := map[lb.BackendID]*ShownBackend{}, map[lb.BackendID]*ShownService{}
	for _, p := range old.Profiles {
		for i := range p.Services {
			s := &p.Services[i]
			services[lb.BackendID{Profile: p.Name, Service: s.Service.Name}] = s
			for k := range s.Backends {
				before[lb.BackendID{Profile: p.Name, Service: s.Service.Name, Address: s.Backends[k].Address}] = &s.Backends[k]
			}
		}
	}
	for _, p := range v.Profiles {
		for i := range p.Services {
			s := &p.Services[i]
			was := services[lb.BackendID{Profile: p.Name, Service: s.Service.Name}]
			if was == nil {
				continue
			}
			s.rates.known = true
			if s.Refused >= was.Refused {
				s.rates.refused = s.Refused - was.Refused
			}
			for k := range s.Backends {
				b := &s.Backends[k]
				b.since(before[lb.BackendID{Profile: p.Name, Service: s.Service.Name, Address: b.Address}], between)
				s.rates.connections += b.rates.connections
				s.rates.perSecond += b.rates.perSecond
				s.rates.live += b.rates.live
			}
			s.shares()
		}
	}
}

// since notes what has changed of a backend.
func (b *ShownBackend) since(was *ShownBackend, between time.Duration) {
	if was != nil && was.stateWord() != b.stateWord() {
		b.rates.state = was.stateWord()
	}
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
func (s *ShownService) shares() {
	sum := map[lb.Family]uint64{}
	for i := range s.Backends {
		b := &s.Backends[i]
		sum[lb.FamilyOf(b.Address.Addr)] += b.rates.connections
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		if all := sum[lb.FamilyOf(b.Address.Addr)]; all > 0 {
			b.rates.share = float64(b.rates.connections) / float64(all)
		}
	}
}
