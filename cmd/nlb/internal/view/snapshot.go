//go:build linux

package view

// A snapshot: what is in the kernel at a time, as show prints it. The keys of
// its JSON are those of a profile.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/nft"
)

// Snapshot is what is in the kernel.
type Snapshot struct {
	Table      string            `json:"table"`
	Generation uint32            `json:"generation"`
	Profiles   []snapshotProfile `json:"profiles"`

	exists bool // there is a table
}

type snapshotProfile struct {
	Name     string            `json:"name"`
	Services []snapshotService `json:"services"`
}

// snapshotService is a service with what the kernel counts of it.
type snapshotService struct {
	service  *lb.Service
	Refused  uint64 // by allow, deny, limits and max-connections
	Backends snapshotBackends

	profile string
	rates   rates
}

// MarshalJSON has the keys of the service, the figures, and the backends.
func (s snapshotService) MarshalJSON() ([]byte, error) {
	return append(s.service.Values(),
		lb.Value{Word: "refused", Value: s.Refused}, lb.Value{Word: "backends", Value: s.Backends}).MarshalJSON()
}

type snapshotBackends []snapshotBackend

// AppendJSON appends the list of the backends.
func (l snapshotBackends) AppendJSON(b []byte) (_ []byte, err error) {
	b = append(b, '[')
	for i := range l {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = l[i].appendJSON(b); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// snapshotBackend is a backend with what the kernel counts of it.
type snapshotBackend struct {
	*lb.Backend
	values      lb.Values // that are not the service's
	Share       float64   // of the new connections of its family, 0 to 1
	Connections uint64    // new ones since the backend came
	Live        *int      // nil: conntrack could not be read

	rates rates
}

// appendJSON appends the keys of the backend, its name first, and the figures.
func (b *snapshotBackend) appendJSON(to []byte) ([]byte, error) {
	out := make(lb.Values, 0, len(b.values)+3)
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
	live := lb.Value{Word: "live", Value: b.Live}
	if b.Live != nil {
		live.Value = *b.Live
	}
	return append(out, lb.Value{Word: "connections", Value: b.Connections}, live).AppendJSON(to)
}

// NewSnapshot makes a snapshot of the state of the table. usage is nil where it
// is not known.
func NewSnapshot(state *nft.State, usage nft.Usage) *Snapshot {
	out := &Snapshot{Table: state.Table, Generation: state.Generation, Profiles: []snapshotProfile{}, exists: state.Exists()}
	for _, p := range state.Profiles {
		profile := snapshotProfile{p.Name, []snapshotService{}}
		for i := range p.Services {
			s := &p.Services[i]
			service := snapshotService{service: s, Refused: state.Refused(p.Name, s.Name), Backends: snapshotBackends{}, profile: p.Name}
			for k := range s.Backends {
				b := &s.Backends[k]
				stats := state.Stats(p.Name, s.Name, b.Address, usage)
				backend := snapshotBackend{Backend: b, values: b.Values(s), Share: share(s, b), Connections: stats.Connections}
				if usage != nil {
					backend.Live = &stats.Live
				}
				service.Backends = append(service.Backends, backend)
			}
			profile.Services = append(profile.Services, service)
		}
		out.Profiles = append(out.Profiles, profile)
	}
	return out
}

// Select leaves one profile of the snapshot, or one service of it: shop,
// shop/web. A *MissingError says that there is no such one.
func (v *Snapshot) Select(name string) error {
	profile, service, _ := strings.Cut(name, "/")
	i := slices.IndexFunc(v.Profiles, func(p snapshotProfile) bool { return p.Name == profile })
	if i < 0 {
		missing := &MissingError{What: "profile", Name: profile}
		for _, p := range v.Profiles {
			missing.There = append(missing.There, p.Name)
		}
		v.Profiles = v.Profiles[:0]
		return missing
	}
	v.Profiles = v.Profiles[i : i+1]
	if service == "" {
		return nil
	}
	services := v.Profiles[0].Services
	k := slices.IndexFunc(services, func(s snapshotService) bool { return s.service.Name == service })
	if k < 0 {
		missing := &MissingError{What: "service", Name: profile + "/" + service}
		for _, s := range services {
			missing.There = append(missing.There, profile+"/"+s.service.Name)
		}
		v.Profiles = v.Profiles[:0]
		return missing
	}
	v.Profiles[0].Services = services[k : k+1]
	return nil
}

// MissingError says that a profile or service is not in the kernel, and which
// ones are.
type MissingError struct {
	What, Name string
	There      []string
}

func (e *MissingError) Error() string { return e.What + " " + e.Name + " is not in the kernel" }

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
