package lb

// What is wanted and what is effective: the states of backends, which join what
// a profile says and what is known of the servers.

import "iter"

// BackendState says whether a backend may have connections. It is not a key of a
// profile: whoever checks the servers sets it.
type BackendState uint8

// The states.
const (
	Up       BackendState = iota // as its weight says
	Draining                     // no new connections; those that it has stay
	Down                         // no connections
)

var stateWords = []string{"up", "draining", "down"}

func (s BackendState) String() string { return inWords(s, stateWords) }

// UnmarshalText reads what String writes, and nothing else.
func (s *BackendState) UnmarshalText(b []byte) error { return word(s, stateWords, b) }

// Words are all words of the type, in the order of its constants.
func (BackendState) Words() []string { return append([]string(nil), stateWords...) }

// Effective is the weight that new connections meet: the wanted one where the
// backend is up, else 0.
func (b *Backend) Effective() int {
	if b.State != Up {
		return 0
	}
	return b.Weight
}

// BackendID names a backend of all profiles.
type BackendID struct {
	Profile, Service string
	Address          Endpoint
}

// String is profile/service address.
func (id BackendID) String() string {
	return id.Profile + "/" + id.Service + " " + id.Address.String()
}

// Services are the services of profiles with their profiles, in order.
func Services(profiles []*Profile) iter.Seq2[*Profile, *Service] {
	return func(yield func(*Profile, *Service) bool) {
		for _, p := range profiles {
			for i := range p.Services {
				if !yield(p, &p.Services[i]) {
					return
				}
			}
		}
	}
}

// Overlay is the profiles with the states that backends have; a backend that
// states do not name is up. What the profiles want, their weights above all, is
// not changed, and neither are the profiles themselves: what is equal in both is
// shared.
func Overlay(profiles []*Profile, states map[BackendID]BackendState) []*Profile {
	out := make([]*Profile, len(profiles))
	for i, p := range profiles {
		copied := *p
		copied.Services = append([]Service(nil), p.Services...)
		for j := range copied.Services {
			s := &copied.Services[j]
			s.Backends = append([]Backend(nil), s.Backends...)
			for k := range s.Backends {
				b := &s.Backends[k]
				b.State = states[BackendID{p.Name, s.Name, b.Address}]
			}
		}
		out[i] = &copied
	}
	return out
}
