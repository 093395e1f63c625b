//go:build linux

package engine

// Sources: what snat: auto is on this host. Masquerading forgets connections when the
// link goes down or its address goes for a moment; translating to the same address by
// name does not. So where the way to a backend has one fixed address, that is named.

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"nlb/lb"
)

// choose fills in the sources of backends with snat: auto. A way that is not there at the
// moment has the source that was found before. Where there is no such backend, the
// profiles are returned as they are.
func (e *Engine) choose(profiles []*lb.Profile) ([]*lb.Profile, error) {
	var to []netip.Addr
	for _, s := range lb.Services(profiles) {
		for i := range s.Backends {
			if b := &s.Backends[i]; isAuto(b) {
				to = append(to, b.Address.Addr)
			}
		}
	}
	if len(to) == 0 {
		return profiles, nil
	}
	found, err := e.links.Sources(to)
	if err != nil {
		return nil, err
	}
	if e.sources == nil {
		e.sources = found
	}
	maps.Copy(e.sources, found)
	out := make([]*lb.Profile, len(profiles))
	for i, p := range profiles {
		chosen := *p
		chosen.Services = slices.Clone(p.Services)
		for j := range chosen.Services {
			s := &chosen.Services[j]
			s.Backends = slices.Clone(s.Backends)
			for k := range s.Backends {
				b := &s.Backends[k]
				if !isAuto(b) {
					continue
				}
				b.SNAT = lb.SNAT{Auto: true}
				if source := e.sources[b.Address.Addr]; source.IsValid() {
					b.SNAT.Mode, b.SNAT.Pool = lb.SNATPool, []netip.Addr{source}
				}
			}
		}
		out[i] = &chosen
	}
	return out, nil
}

// sourcedEvery is how often Sourced looks, at most.
const sourcedEvery = time.Second

// Sourced reports whether backends with snat: auto have the sources that the routes say
// now. An Apply brings it about. It looks only where addresses, routes or rules have
// changed.
func (e *Engine) Sourced() bool {
	began := time.Now()
	if len(e.sources) == 0 || began.Before(e.sourced) || !e.links.Changed() && !e.missed {
		return true
	}
	now, err := e.links.Sources(slices.Collect(maps.Keys(e.sources)))
	e.missed = err != nil
	// At most a twentieth of a processor, on a host with many backends.
	e.sourced = began.Add(max(sourcedEvery, 20*time.Since(began)))
	same := true
	for to, source := range now { // there is none where there is no way at the moment
		same = same && e.sources[to] == source
		e.sources[to] = source
	}
	return same || err != nil
}

func isAuto(b *lb.Backend) bool { return b.SNAT.Auto && !b.Named() }
