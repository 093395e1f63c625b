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

type snapshotService struct {
	Name      string            `json:"name"`
	Listen    []string          `json:"listen"`
	Protocol  []string          `json:"protocol"`
	Interface string            `json:"interface,omitempty"`
	Role      string            `json:"role"`
	Scheduler string            `json:"scheduler"`
	HashBy    []string          `json:"hash-by,omitempty"`
	HashSeed  *uint32           `json:"hash-seed,omitempty"`
	Affinity  *snapshotAffinity `json:"affinity,omitempty"`
	SNAT      string            `json:"snat"` // a list is separated by commas
	Allow     []string          `json:"allow,omitempty"`
	Deny      []string          `json:"deny,omitempty"`
	Limit     *snapshotLimit    `json:"limit,omitempty"`
	Log       *snapshotLog      `json:"log,omitempty"`
	Refused   uint64            `json:"refused"` // by allow, deny, limits and max-connections
	Backends  []snapshotBackend `json:"backends"`

	profile string
	service *lb.Service
	rates   rates
}

type snapshotAffinity struct {
	Timeout string `json:"timeout"`
	Prefix  int    `json:"prefix,omitempty"`
	Prefix6 int    `json:"prefix6,omitempty"`
}

type snapshotLimit struct {
	ConnectionsPerSource uint32 `json:"connections-per-source,omitempty"`
	NewPerSource         string `json:"new-per-source,omitempty"`
	Burst                uint32 `json:"burst,omitempty"`
	New                  string `json:"new,omitempty"`
}

type snapshotLog struct {
	Prefix string `json:"prefix"`
	Level  string `json:"level"`
	Rate   string `json:"rate,omitempty"`
}

type snapshotBackend struct {
	Name           string       `json:"name"`
	Address        string       `json:"address"`
	Weight         int          `json:"weight"`
	Share          float64      `json:"share"` // of the new connections of its family, 0 to 1
	MaxConnections uint32       `json:"max-connections,omitempty"`
	SNAT           string       `json:"snat,omitempty"` // where it is not the service's
	Log            *snapshotLog `json:"log,omitempty"`  // where it is not the service's
	Connections    uint64       `json:"connections"`    // new ones since the backend came
	Live           *int         `json:"live"`           // null: conntrack could not be read

	endpoint lb.Endpoint
	rates    rates
}

// NewSnapshot makes a snapshot of the state of the table. usage is nil where it
// is not known.
func NewSnapshot(state *nft.State, usage nft.Usage) *Snapshot {
	out := &Snapshot{Table: state.Table, Generation: state.Generation, Profiles: []snapshotProfile{}, exists: state.Exists()}
	for _, p := range state.Profiles {
		profile := snapshotProfile{p.Name, []snapshotService{}}
		for i := range p.Services {
			s := &p.Services[i]
			service := serviceOf(p.Name, s)
			service.Refused = state.Refused(p.Name, s.Name)
			for _, b := range s.Backends {
				stats := state.Stats(p.Name, s.Name, b.Address, usage)
				backend := backendOf(s, b)
				backend.Connections = stats.Connections
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
	k := slices.IndexFunc(services, func(s snapshotService) bool { return s.Name == service })
	if k < 0 {
		missing := &MissingError{What: "service", Name: profile + "/" + service}
		for _, s := range services {
			missing.There = append(missing.There, profile+"/"+s.Name)
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

// serviceOf is a service without its backends.
func serviceOf(profile string, s *lb.Service) snapshotService {
	out := snapshotService{
		Name: s.Name, Listen: texts(s.Listen), Protocol: texts(s.Protocols), Interface: s.Interface, Role: s.Role.String(),
		Scheduler: s.Scheduler.String(), SNAT: s.SNAT.String(), Allow: texts(s.Allow), Deny: texts(s.Deny), Log: logOf(s.Log),
		Backends: []snapshotBackend{}, profile: profile, service: s,
	}
	if s.Scheduler == lb.Hash {
		out.HashBy, out.HashSeed = texts(s.HashBy), &s.HashSeed
	}
	if a := s.Affinity; a != nil {
		out.Affinity = &snapshotAffinity{a.TimeoutText(), a.Bits, a.Bits6}
	}
	if l := s.Limit; l != (lb.Limit{}) {
		out.Limit = &snapshotLimit{l.ConnectionsPerSource, l.NewPerSource.String(), l.Burst, l.New.String()}
	}
	return out
}

// backendOf is a backend without its figures.
func backendOf(s *lb.Service, b lb.Backend) snapshotBackend {
	out := snapshotBackend{
		Name: b.Name, Address: b.Address.String(), Weight: b.Weight, Share: share(s, b),
		MaxConnections: b.MaxConnections, endpoint: b.Address,
	}
	if !b.SNAT.Equal(s.SNAT) {
		out.SNAT = b.SNAT.String()
	}
	if b.Log.String() != s.Log.String() {
		out.Log = logOf(b.Log)
	}
	return out
}

func logOf(l *lb.Log) *snapshotLog {
	if l == nil {
		return nil
	}
	return &snapshotLog{l.Prefix, l.Level.String(), l.Rate.String()}
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
