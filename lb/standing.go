package lb

// Standing: what is known of a backend beside what its profile says. Checks give
// verdicts, admins give orders; Place makes states of them, which say what of the
// wanted is effective, and which slots are lent.

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nlb/lb/internal/safe"
)

// Verdict is what checks have found of a server.
type Verdict uint8

// The verdicts.
const (
	VerdictNew  Verdict = iota // it was not checked yet, or nobody checks it
	VerdictUp                  // it works
	VerdictDown                // it does not
)

func (v Verdict) String() string { return inWords(v) }
func (Verdict) words() []string  { return verdictWords }

var verdictWords = []string{"new", "up", "down"}

// Order is what an admin wants of a backend, whatever its checks say.
type Order uint8

// The orders.
const (
	NoOrder      Order = iota
	OrderDrain         // no new connections
	OrderDisable       // as if it were down
)

// Standing is what is known of a backend. The zero Standing is of one that nobody
// has heard of.
type Standing struct {
	Verdict Verdict
	// Since is when the verdict came, in whole seconds, and Reason why: "tcp:
	// refused", printable ASCII, at most MaxReason bytes.
	Since  time.Time
	Reason string
	// Order stands until Until; the zero Until is until it is taken back. By is
	// who gave it, at most MaxBy letters, digits, '-', '_' and '.'.
	Order Order
	By    string
	Until time.Time
}

// WithoutVerdict is the standing with its order alone.
func (s Standing) WithoutVerdict() Standing {
	return Standing{Order: s.Order, By: s.By, Until: s.Until}
}

// Lengths of what a standing says, in bytes: all of it fits a comment of nft.
const (
	MaxReason = 40
	MaxBy     = 16
)

// Shares is what a whole weight is divided into, so that a backend can have a part
// of its weight.
const Shares = 16

// checkStanding is what is wrong with what is known of a backend.
func (b *Backend) checkStanding() *Problem {
	is := b.Standing
	switch {
	case is.Verdict > VerdictDown:
		return checkEnum("verdict", is.Verdict)
	case is.Order > OrderDisable:
		return &Problem{Msg: fmt.Sprintf("unknown order %d", is.Order)}
	case len(is.Reason) > MaxReason || !safe.Printable(is.Reason):
		return &Problem{Msg: "reason " + safe.Show(is.Reason) + " is too long, or cannot be seen"}
	case len(is.By) > MaxBy || strings.ContainsFunc(is.By, func(r rune) bool { return !safe.NameRune(r) }):
		return &Problem{Msg: "by " + safe.Show(is.By) + " is too long, or no name"}
	case b.Share > 2*Shares:
		return &Problem{Msg: fmt.Sprintf("share %d is out of range", b.Share)}
	}
	return checkEnum("state", b.State)
}

// BackendState says whether a backend may have connections. It is not a key of a
// profile: Place sets it.
type BackendState uint8

// The states.
const (
	Up       BackendState = iota // as its weight says
	Draining                     // no new connections; those that it has stay
	Down                         // no connections
	Standby                      // no new connections: its priority is not in use
)

var stateWords = []string{"up", "draining", "down", "standby"}

func (s BackendState) String() string { return inWords(s) }
func (BackendState) words() []string  { return stateWords }

// Effective is the weight that new connections meet: the wanted one, or the share
// of it, rounded but at least 1, where the backend is up, else 0. Weights has shares
// exactly, where there is room.
func (b *Backend) Effective() int {
	switch {
	case b.State != Up || b.Weight == 0:
		return 0
	case b.Share == 0:
		return b.Weight
	}
	return max(1, (b.Weight*int(b.Share)+Shares/2)/Shares)
}

// Weights are the effective weights of the backends of one family, as a cycle has
// them: multiplied by Shares where a backend has a share. Where that would make
// more than MaxSlots slots, shares are ignored.
func Weights(backends []Backend) []int {
	whole, shared := make([]int, len(backends)), make([]int, len(backends))
	any := false
	sum, divisor := 0, 0
	for i := range backends {
		b := &backends[i]
		if b.State != Up {
			continue
		}
		whole[i], shared[i] = b.Weight, b.Weight*Shares
		if b.Share != 0 {
			any, shared[i] = true, b.Weight*int(b.Share)
		}
		sum, divisor = sum+shared[i], gcd(divisor, shared[i])
	}
	if !any || sum/max(divisor, 1) > MaxSlots {
		return whole
	}
	return shared
}

// lent is a cycle in which a backend that is not up, or has only a share, lends the
// slots that it does not use to the others. So a fall moves the clients of the fallen
// one alone, and they come back to it. Where anything is lent, each slot becomes so
// many parts. It is nil where nobody serves.
func lent(cycle []int, backends []Backend, parts int) []int {
	share := make([]int, len(backends)) // that a backend keeps
	serves, lends := false, false
	for i := range backends {
		b := &backends[i]
		if b.State == Up {
			share[i] = Shares
			if b.Share != 0 {
				share[i] = min(Shares, int(b.Share))
			}
		}
		serves = serves || b.Effective() > 0
		lends = lends || b.Weight > 0 && share[i] < Shares
	}
	if !serves {
		return nil
	}
	if !lends {
		return cycle
	}
	out := make([]int, len(cycle)*parts)
	kept := make([]bool, len(out))
	met := make([]int, len(backends)) // the parts of each so far
	for i := range out {
		owner := cycle[i/parts]
		out[i], kept[i] = owner, met[owner]%Shares < share[owner]
		met[owner]++
	}
	lend(out, kept)
	return out
}

// lend gives the slots that their owners do not keep to those that keep one,
// about by how many these keep. A slot looks for one at places of its own, in an
// order that depends on nothing else: who has it changes only when that one stops
// or an earlier one begins to keep its slots.
func lend(owners []int, kept []bool) {
	const tries = 128 // then the nearest that is kept, since nearly none is
	n := len(owners)
	next := make([]int, n) // the first place that is kept, from here on
	for i, near := 2*n-1, 0; i >= 0; i-- {
		if kept[i%n] {
			near = i % n
		}
		next[i%n] = near
	}
	for i := range owners {
		if kept[i] {
			continue
		}
		at := 0
		for try := range tries {
			if at = int(scatter(uint64(i*tries+try)) % uint64(n)); kept[at] {
				break
			}
		}
		owners[i] = owners[next[at]]
	}
}

// scatter is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): neighbours get numbers
// that have nothing to do with each other.
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
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

// Overlay is the profiles with what is known of their backends, and the states
// that follow. A backend that known does not name has the zero Standing; one that is
// not checked has no verdict. share gives the shares (see Backend.Share); nil: everybody
// has all of its weight. What the profiles want, their weights above all, is not changed,
// and neither are the profiles themselves: what is equal in both is shared.
func Overlay(profiles []*Profile, known map[BackendID]Standing, share func(BackendID) uint8) []*Profile {
	return OverlayOf(profiles, func(id BackendID) (Standing, uint8) {
		if share == nil {
			return known[id], 0
		}
		return known[id], share(id)
	})
}

// OverlayOf is Overlay with one question for each backend, which gives its standing and
// its share.
func OverlayOf(profiles []*Profile, of func(BackendID) (Standing, uint8)) []*Profile {
	out := make([]*Profile, len(profiles))
	for i, p := range profiles {
		copied := *p
		copied.Services = slices.Clone(p.Services)
		for j := range copied.Services {
			s := &copied.Services[j]
			s.Backends = slices.Clone(s.Backends)
			for k := range s.Backends {
				b := &s.Backends[k]
				b.Standing, b.Share = of(BackendID{p.Name, s.Name, b.Address})
				if !s.Checked(b) {
					b.Standing = b.Standing.WithoutVerdict()
				}
			}
			s.Place()
		}
		out[i] = &copied
	}
	return out
}

// Place gives each backend the state that follows from its standing and priority,
// and from the service's health, fail-open and min-up. Each family is on its own.
func (s *Service) Place() {
	var families [2][]*Backend
	for i := range s.Backends {
		b := &s.Backends[i]
		f := &families[index(FamilyOf(b.Address.Addr))]
		if *f == nil {
			*f = make([]*Backend, 0, len(s.Backends))
		}
		*f = append(*f, b)
	}
	for _, backends := range families {
		proven := slices.ContainsFunc(backends, func(b *Backend) bool {
			return s.Checked(b) && b.Standing.Verdict == VerdictUp && b.Standing.Order == NoOrder && b.Weight > 0
		})
		for _, b := range backends {
			b.State = s.stateOf(b, proven)
		}
		s.MinUp.standby(backends)
		if s.FailOpen.opens(backends) {
			for _, b := range backends {
				if b.Standing.Order == NoOrder {
					b.State = Up
				}
			}
		}
	}
}

// Checked reports whether checks say if a backend of the service is up.
func (s *Service) Checked(b *Backend) bool { return len(s.Health) > 0 && !b.CheckAt.None }

// stateOf is the state of a backend, whatever the priorities. proven: one that
// could have connections is known to work, so that a newcomer need not be tried
// on clients.
func (s *Service) stateOf(b *Backend, proven bool) BackendState {
	checked, verdict := s.Checked(b), b.Standing.Verdict
	switch {
	case b.Standing.Order == OrderDisable, checked && verdict == VerdictDown:
		return Down
	case b.Standing.Order == OrderDrain:
		return Draining
	case checked && verdict == VerdictNew && proven:
		return Down
	}
	return Up
}

// IsOpen reports whether health is ignored, as fail-open says: a backend whose
// checks fail has connections all the same.
func (s *Service) IsOpen() bool {
	return slices.ContainsFunc(s.Backends, func(b Backend) bool {
		return b.State == Up && b.Standing.Verdict == VerdictDown && s.Checked(&b)
	})
}

// priority is the backend's, 1 where it has none.
func (b *Backend) priority() int { return max(b.Priority, 1) }

// standby lets priorities join, 1 first, until enough backends are up; those of
// the others stand by. Backends of weight 0 do not count, as they serve nobody.
func (m MinUp) standby(backends []*Backend) {
	first := 0
	for _, b := range backends {
		if b.priority() == 1 && b.Weight > 0 {
			first++
		}
	}
	need, up, level, enough := m.of(first), 0, 0, false
	for _, b := range slices.SortedStableFunc(slices.Values(backends), func(a, b *Backend) int { return a.priority() - b.priority() }) {
		if b.priority() > level {
			level, enough = b.priority(), up >= need
		}
		switch {
		case b.State != Up:
		case enough:
			b.State = Standby
		case b.Weight > 0:
			up++
		}
	}
}

// of is how many backends must be up where n are of priority 1; at least 1.
func (m MinUp) of(n int) int {
	if m.Percent > 0 {
		return max(1, (n*m.Percent+99)/100)
	}
	return max(1, m.Count)
}

// opens reports whether health is to be ignored: of the weight of those without
// an order, too little is up. Those that stand by are up, too.
func (f FailOpen) opens(backends []*Backend) bool {
	all, up := int64(0), int64(0) // a percentage of them needs more than 32 bits
	for _, b := range backends {
		if b.Standing.Order != NoOrder {
			continue
		}
		all += int64(b.Weight)
		if b.State == Up || b.State == Standby {
			up += int64(b.Weight)
		}
	}
	return f != NeverOpen && all > 0 && (up == 0 || up*100 < all*int64(f))
}
