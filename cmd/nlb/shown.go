//go:build linux

package main

// What show shows: what is in the kernel, and what the kernel counts of it. The
// keys are those that lb knows, in JSON and in the table.

import (
	"fmt"
	"slices"

	"nlb/lb"
	"nlb/nft"
)

// shown is what show prints as JSON.
type shown struct {
	Table      string         `json:"table"`
	Generation uint32         `json:"generation"`
	Profiles   []shownProfile `json:"profiles"`
}

type shownProfile struct {
	Name     string         `json:"name"`
	Services []shownService `json:"services"`
}

// shownService is a service with what the kernel counts of it.
type shownService struct {
	service  *lb.Service
	Refused  uint64 // by allow, deny, limits and max-connections
	Backends []shownBackend

	profile string
	pace    pace
}

// MarshalJSON has the keys of the service, the figures, and the backends.
func (s shownService) MarshalJSON() ([]byte, error) {
	return append(s.service.Values(),
		lb.Value{Word: "refused", Value: s.Refused}, lb.Value{Word: "backends", Value: s.Backends}).MarshalJSON()
}

// shownBackend is a backend with what the kernel counts of it.
type shownBackend struct {
	*lb.Backend
	values      lb.Values // that are not the service's
	Share       float64   // of the new connections of its family, 0 to 1
	Connections uint64    // new ones since the backend came
	Live        *int      // nil: conntrack could not be read

	pace pace
}

// MarshalJSON has the keys of the backend, its name first, and the figures.
func (b shownBackend) MarshalJSON() ([]byte, error) {
	var out lb.Values
	for _, v := range b.values {
		switch v.Word {
		case "name":
			out = slices.Insert(out, 0, v)
		case "weight":
			out = append(out, v, lb.Value{Word: "share", Value: b.Share})
		default:
			out = append(out, v)
		}
	}
	return append(out, lb.Value{Word: "connections", Value: b.Connections}, lb.Value{Word: "live", Value: b.Live}).MarshalJSON()
}

// view is a state as it is shown. live is nil where it is not known.
func view(state *nft.State, live nft.Usage) *shown {
	v := &shown{Table: state.Table, Generation: state.Generation, Profiles: []shownProfile{}}
	for _, p := range state.Profiles {
		out := shownProfile{p.Name, []shownService{}}
		for i := range p.Services {
			s := &p.Services[i]
			one := shownService{service: s, Refused: state.Refused(p.Name, s.Name), Backends: []shownBackend{}, profile: p.Name}
			for k := range s.Backends {
				b := &s.Backends[k]
				stats := state.Stats(p.Name, s.Name, b.Address, live)
				shown := shownBackend{Backend: b, values: b.Values(s), Share: share(s, b), Connections: stats.Connections}
				if live != nil {
					shown.Live = &stats.Live
				}
				one.Backends = append(one.Backends, shown)
			}
			out.Services = append(out.Services, one)
		}
		v.Profiles = append(v.Profiles, out)
	}
	return v
}

func texts[T fmt.Stringer](values []T) []string {
	out := []string{}
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}

// share is a backend's part of the new connections of its family.
func share(s *lb.Service, b *lb.Backend) float64 {
	sum := 0
	for _, other := range s.Of(lb.FamilyOf(b.Address.Addr)) {
		sum += other.Weight
	}
	if b.Weight == 0 {
		return 0
	}
	return float64(b.Weight) / float64(sum)
}
