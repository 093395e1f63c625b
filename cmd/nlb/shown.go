//go:build linux

package main

// What show shows: the values that it prints as JSON and as a table, made of
// what is in the kernel. Keys are those of a profile.

import (
	"fmt"

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

type shownService struct {
	Name      string         `json:"name"`
	Listen    []string       `json:"listen"`
	Protocol  []string       `json:"protocol"`
	Interface string         `json:"interface,omitempty"`
	Role      string         `json:"role"`
	Scheduler string         `json:"scheduler"`
	HashBy    []string       `json:"hash-by,omitempty"`
	HashSeed  *uint32        `json:"hash-seed,omitempty"`
	Affinity  *shownAffinity `json:"affinity,omitempty"`
	SNAT      string         `json:"snat"` // a list is separated by commas
	Allow     []string       `json:"allow,omitempty"`
	Deny      []string       `json:"deny,omitempty"`
	Limit     *shownLimit    `json:"limit,omitempty"`
	Log       *shownLog      `json:"log,omitempty"`
	Refused   uint64         `json:"refused"` // by allow, deny, limits and max-connections
	Backends  []shownBackend `json:"backends"`

	profile string
	service *lb.Service
	pace    pace
}

type shownAffinity struct {
	Timeout string `json:"timeout"`
	Prefix  int    `json:"prefix,omitempty"`
	Prefix6 int    `json:"prefix6,omitempty"`
}

type shownLimit struct {
	ConnectionsPerSource uint32 `json:"connections-per-source,omitempty"`
	NewPerSource         string `json:"new-per-source,omitempty"`
	Burst                uint32 `json:"burst,omitempty"`
	New                  string `json:"new,omitempty"`
}

type shownLog struct {
	Prefix string `json:"prefix"`
	Level  string `json:"level"`
	Rate   string `json:"rate,omitempty"`
}

type shownBackend struct {
	Name           string    `json:"name"`
	Address        string    `json:"address"`
	Weight         int       `json:"weight"`
	Share          float64   `json:"share"` // of the new connections of its family, 0 to 1
	MaxConnections uint32    `json:"max-connections,omitempty"`
	SNAT           string    `json:"snat,omitempty"` // where it is not the service's
	Log            *shownLog `json:"log,omitempty"`  // where it is not the service's
	Connections    uint64    `json:"connections"`    // new ones since the backend came
	Live           *int      `json:"live"`           // null: conntrack could not be read

	endpoint lb.Endpoint
	pace     pace
}

// view is a state as it is shown. live is nil where it is not known.
func view(state *nft.State, live nft.Usage) *shown {
	v := &shown{Table: state.Table, Generation: state.Generation, Profiles: []shownProfile{}}
	for _, p := range state.Profiles {
		out := shownProfile{p.Name, []shownService{}}
		for i := range p.Services {
			s := &p.Services[i]
			one := viewService(p.Name, s)
			one.Refused = state.Refused(p.Name, s.Name)
			for _, b := range s.Backends {
				stats := state.Stats(p.Name, s.Name, b.Address, live)
				shown := viewBackend(s, b)
				shown.Connections = stats.Connections
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

// viewService is a service without its backends.
func viewService(profile string, s *lb.Service) shownService {
	out := shownService{
		Name: s.Name, Listen: texts(s.Listen), Protocol: texts(s.Protocols), Interface: s.Interface, Role: s.Role.String(),
		Scheduler: s.Scheduler.String(), SNAT: s.SNAT.String(), Allow: texts(s.Allow), Deny: texts(s.Deny), Log: viewLog(s.Log),
		Backends: []shownBackend{}, profile: profile, service: s,
	}
	if s.Scheduler == lb.Hash {
		out.HashBy, out.HashSeed = texts(s.HashBy), &s.HashSeed
	}
	if a := s.Affinity; a != nil {
		out.Affinity = &shownAffinity{a.TimeoutText(), a.Bits, a.Bits6}
	}
	if l := s.Limit; l != (lb.Limit{}) {
		out.Limit = &shownLimit{l.ConnectionsPerSource, l.NewPerSource.String(), l.Burst, l.New.String()}
	}
	return out
}

// viewBackend is a backend without its figures.
func viewBackend(s *lb.Service, b lb.Backend) shownBackend {
	out := shownBackend{
		Name: b.Name, Address: b.Address.String(), Weight: b.Weight, Share: share(s, b),
		MaxConnections: b.MaxConnections, endpoint: b.Address,
	}
	if !b.SNAT.Equal(s.SNAT) {
		out.SNAT = b.SNAT.String()
	}
	if b.Log.String() != s.Log.String() {
		out.Log = viewLog(b.Log)
	}
	return out
}

func viewLog(l *lb.Log) *shownLog {
	if l == nil {
		return nil
	}
	return &shownLog{l.Prefix, l.Level.String(), l.Rate.String()}
}

func texts[T fmt.Stringer](values []T) []string {
	out := []string{}
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}

// share is a backend's part of the new connections of its family.
func share(s *lb.Service, b lb.Backend) float64 {
	sum := 0
	for _, other := range s.Of(lb.FamilyOf(b.Address.Addr)) {
		sum += other.Weight
	}
	if b.Weight == 0 {
		return 0
	}
	return float64(b.Weight) / float64(sum)
}
