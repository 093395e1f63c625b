//go:build linux

package view

// A snapshot: what is in the kernel at a time, as show prints it. The keys of
// its JSON are those of a profile.

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft"
)

// Snapshot is what is in the kernel.
type Snapshot struct {
	Table      string
	Generation uint32
	// Announced are the addresses that this host announces, on their devices.
	Announced []string
	// Trouble is how nlb run is, in sentences, where something does not work.
	Trouble  string
	Profiles []ShownProfile

	exists bool // there is a table
	single bool // it has one backend alone
}

// ShownProfile is a profile of a snapshot.
type ShownProfile struct {
	Name     string
	Services []ShownService
}

// ShownService is a service with what the kernel counts of it.
type ShownService struct {
	Profile  string // its name
	Service  *lb.Service
	Refused  uint64 // by allow, deny, limits and max-connections
	Open     string // that health is ignored, in words; empty: it is not
	Backends []ShownBackend

	Offloaded Offloaded
	rates     rates
}

// Offloaded says what became of the wish of a service to be offloaded.
type Offloaded struct {
	By   string // software, hardware; empty: it is not
	Note string // on which devices, or why not
}

// MarshalJSON is what AppendJSON appends.
func (v *Snapshot) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil) }

// AppendJSON appends the snapshot as an object.
func (v *Snapshot) AppendJSON(b []byte) ([]byte, error) {
	out := lb.Values{{Word: "table", Value: v.Table}, {Word: "generation", Value: uint64(v.Generation)}}
	if len(v.Announced) > 0 {
		out = append(out, lb.Value{Word: "announced", Value: v.Announced})
	}
	if v.Trouble != "" {
		out = append(out, lb.Value{Word: "trouble", Value: v.Trouble})
	}
	return append(out, lb.Value{Word: "profiles", Value: jsonList[ShownProfile, *ShownProfile](v.Profiles)}).AppendJSON(b)
}

// AppendJSON appends the name and the services.
func (p *ShownProfile) AppendJSON(b []byte) ([]byte, error) {
	return lb.Values{{Word: "name", Value: p.Name}, {Word: "services", Value: jsonList[ShownService, *ShownService](p.Services)}}.AppendJSON(b)
}

// AppendJSON appends the keys of the service, the figures, and the backends.
func (s *ShownService) AppendJSON(b []byte) ([]byte, error) {
	return append(s.Service.Values(),
		lb.Value{Word: "refused", Value: s.Refused}, lb.Value{Word: "open", Value: s.Open != ""},
		lb.Value{Word: "offloaded", Value: s.Offloaded.By}, lb.Value{Word: "offload-note", Value: s.Offloaded.Note},
		lb.Value{Word: "backends", Value: jsonList[ShownBackend, *ShownBackend](s.Backends)}).AppendJSON(b)
}

// jsonList is a list of what appends itself.
type jsonList[T any, P interface {
	*T
	lb.JSONAppender
}] []T

func (l jsonList[T, P]) AppendJSON(b []byte) (_ []byte, err error) {
	b = append(b, '[')
	for i := range l {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = P(&l[i]).AppendJSON(b); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// ShownBackend is a backend with what the kernel counts of it.
type ShownBackend struct {
	*lb.Backend
	Share       float64 // of the new connections of its family, 0 to 1
	Connections uint64  // new ones since the backend came
	Live        *int    // nil: conntrack could not be read
	Packets     *uint64 // in place of these two, where no connections are tracked

	Wanted  float64 // the share that its weight alone would give it
	of      *lb.Service
	values  lb.Values // that are not the service's; nil: not made yet
	at      time.Time
	known   *Known // nil: no agent was asked, or unknown is why it does not say
	unknown string
	rates   rates
}

// AppendJSON appends the keys of the backend, its name first, and the figures.
func (b *ShownBackend) AppendJSON(to []byte) ([]byte, error) {
	values := b.Backend.Values(b.of)
	out := make(lb.Values, 0, len(values)+4)
	for _, v := range values {
		switch v.Word {
		case "name":
			out = slices.Insert(out, 0, v)
		case "weight":
			out = append(append(out, v, lb.Value{Word: "share", Value: b.Share}), b.standingValues()...)
		default:
			out = append(out, v)
		}
	}
	live := lb.Value{Word: "live", Value: b.Live}
	if b.Live != nil {
		live.Value = *b.Live
	}
	if b.Packets != nil {
		out = append(out, lb.Value{Word: "packets", Value: *b.Packets})
	} else {
		out = append(out, lb.Value{Word: "connections", Value: b.Connections}, live)
	}
	if b.known != nil {
		out = append(out, lb.Value{Word: "checks", Value: append([]Check{}, b.known.Checks...)})
	}
	return out.AppendJSON(to)
}

// Figures are what the kernel counts.
type Figures struct {
	// Of are those of a backend. Live says that the live connections are known.
	Of   func(profile string, s *lb.Service, b *lb.Backend) nft.Stats
	Live bool
	// Refused counts what a service has turned away.
	Refused func(profile string, s *lb.Service) uint64
	// Offloaded is asked of services that want to be offloaded.
	Offloaded func(s *lb.Service) Offloaded
}

// NewSnapshot makes a snapshot of the state of the table. usage is nil where it
// is not known. offloaded is asked of services that want to be offloaded.
func NewSnapshot(state *nft.State, usage nft.Usage, offloaded func(*lb.Service) Offloaded) *Snapshot {
	out := &Snapshot{Table: state.Table, Generation: state.Generation, exists: state.Exists()}
	profiles := make([]Services, len(state.Profiles))
	for i, p := range state.Profiles {
		profiles[i] = Services{Profile: p.Name, Services: make([]*lb.Service, len(p.Services))}
		for k := range p.Services {
			profiles[i].Services[k] = &p.Services[k]
		}
	}
	return out.fill(profiles, Figures{
		Of: func(profile string, s *lb.Service, b *lb.Backend) nft.Stats {
			return state.Stats(profile, s.Name, b.Address, usage)
		},
		Live:      usage != nil,
		Refused:   func(profile string, s *lb.Service) uint64 { return state.Refused(profile, s.Name) },
		Offloaded: offloaded,
	})
}

// Services are those of a profile.
type Services struct {
	Profile  string // its name
	Services []*lb.Service
}

// SnapshotOf makes a snapshot of services with the states of their backends. It keeps
// them. All are to be in the order of State.Profiles.
func SnapshotOf(table string, generation uint32, profiles []Services, f Figures) *Snapshot {
	out := &Snapshot{Table: table, Generation: generation, exists: true}
	return out.fill(profiles, f)
}

// fill adds services and figures to a snapshot.
func (v *Snapshot) fill(profiles []Services, f Figures) *Snapshot {
	v.Profiles = make([]ShownProfile, len(profiles))
	now := time.Now()
	for i, p := range profiles {
		v.Profiles[i] = ShownProfile{p.Profile, make([]ShownService, len(p.Services))}
		for j, s := range p.Services {
			service := serviceOf(p.Profile, s, now)
			service.Refused = f.Refused(p.Profile, s)
			if s.Offload != lb.OffloadNone {
				service.Offloaded = f.Offloaded(s)
			}
			for k := range service.Backends {
				b := &service.Backends[k]
				stats := f.Of(p.Profile, s, b.Backend)
				b.Connections = stats.Connections
				if !s.Tracked() {
					b.Packets = &stats.Packets
				} else if f.Live {
					b.Live = &stats.Live
				}
			}
			v.Profiles[i].Services[j] = service
		}
	}
	return v
}

// serviceOf is a service without figures.
func serviceOf(profile string, s *lb.Service, now time.Time) ShownService {
	out := ShownService{Profile: profile, Service: s, Backends: make([]ShownBackend, len(s.Backends))}
	effective, wanted := shares(s)
	for i := range s.Backends {
		b := &s.Backends[i]
		out.Backends[i] = ShownBackend{Backend: b, Share: effective[i], of: s, at: now, Wanted: wanted[i]}
	}
	out.Open = out.openness()
	return out
}

// Select leaves one profile of the snapshot, one service of it, or one backend of
// that: shop, shop/web, shop/web/b1. Copies of the snapshot stay as they are. A
// *MissingError says that there is no such one.
func (v *Snapshot) Select(name string) (err error) {
	profile, service, _ := strings.Cut(name, "/")
	service, backend, _ := strings.Cut(service, "/")
	all := v.Profiles
	defer func() {
		if err != nil {
			v.Profiles = all[:0]
		}
	}()
	if v.Profiles, err = pick("profile", "", profile, all, func(p ShownProfile) string { return p.Name }); err != nil || service == "" {
		return err
	}
	p := &v.Profiles[0]
	p.Services, err = pick("service", profile+"/", service, p.Services, func(s ShownService) string { return s.Service.Name })
	if err != nil || backend == "" {
		return err
	}
	s := &p.Services[0]
	s.Backends, err = pick("backend", profile+"/"+service+"/", backend, s.Backends, func(b ShownBackend) string { return b.Name })
	v.single = err == nil
	return err
}

// pick is a new list of the one that has a name; of stands before the names.
func pick[L ~[]T, T any](what, of, name string, list L, nameOf func(T) string) (L, error) {
	if i := slices.IndexFunc(list, func(one T) bool { return nameOf(one) == name }); i >= 0 {
		return slices.Clone(list[i : i+1]), nil
	}
	missing := &MissingError{What: what, Name: of + name}
	for _, one := range list {
		missing.There = append(missing.There, of+nameOf(one))
	}
	return nil, missing
}

// MissingError says that a profile, service or backend is not in the kernel, and which
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

// shares are the parts of the new connections of their family that backends get,
// with their states, and that their weights alone would give them.
func shares(s *lb.Service) (effective, wanted []float64) {
	effective, wanted = make([]float64, len(s.Backends)), make([]float64, len(s.Backends))
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		backends := s.Of(f)
		weights := lb.Weights(backends)
		sum, all := 0, 0
		for i := range backends {
			sum, all = sum+weights[i], all+backends[i].Weight
		}
		next := 0
		for i := range s.Backends {
			if b := &s.Backends[i]; lb.FamilyOf(b.Address.Addr) == f {
				effective[i], wanted[i] = part(weights[next], sum), part(b.Weight, all)
				next++
			}
		}
	}
	return effective, wanted
}

func part(n, of int) float64 {
	if n == 0 {
		return 0
	}
	return float64(n) / float64(of)
}
