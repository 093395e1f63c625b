//go:build linux

package engine

// Sources: what snat: auto is on this host. Masquerading forgets connections when the
// link goes down or its address goes for a moment; translating to the same address by
// name does not. So where the way to a backend has one fixed address, that is named.

import (
	"net/netip"
	"slices"

	"nlb/lb"
)

// choose fills in the sources of backends with snat: auto. A way that is not there at the
// moment has the source that was found before. Profiles without such backends are
// returned as they are.
func (e *Engine) choose(profiles []*lb.Profile) ([]*lb.Profile, error) {
	auto := func(b lb.Backend) bool { return b.SNAT.Auto && !b.Named() }
	out := slices.Clone(profiles)
	for i, p := range profiles {
		if !slices.ContainsFunc(p.Services, func(s lb.Service) bool { return slices.ContainsFunc(s.Backends, auto) }) {
			continue
		}
		chosen := *p
		chosen.Services = slices.Clone(p.Services)
		for j := range chosen.Services {
			s := &chosen.Services[j]
			s.Backends = slices.Clone(s.Backends)
			for k := range s.Backends {
				b := &s.Backends[k]
				if !auto(*b) {
					continue
				}
				source, err := e.source(b.Address.Addr)
				if err != nil {
					return nil, err
				}
				b.SNAT = lb.SNAT{Auto: true}
				if source.IsValid() {
					b.SNAT.Mode, b.SNAT.Pool = lb.SNATPool, []netip.Addr{source}
				}
			}
		}
		out[i] = &chosen
	}
	return out, nil
}

// source is the fixed address that this host sends to a backend from; not valid: there
// is none.
func (e *Engine) source(to netip.Addr) (netip.Addr, error) {
	source, there, err := e.links.Source(to)
	if err != nil || !there {
		return e.sources[to], err
	}
	if e.sources == nil {
		e.sources = map[netip.Addr]netip.Addr{}
	}
	e.sources[to] = source
	return source, nil
}
