package lb

// The schedulers: everything in which they differ, but for the statement that
// nftables has for each.

import (
	"fmt"
	"slices"
	"strings"
)

// Scheduler says how a new connection picks its backend.
type Scheduler uint8

// The schedulers.
const (
	RoundRobin Scheduler = iota // in turn
	Random                      // at random
	Hash                        // by a hash of parts of the connection
)

// scheduling is what a scheduler does and promises.
type scheduling struct {
	word string
	// slots is the cycle of slots: element i is the number of the backend that
	// slot i belongs to. It may depend on who the backends are and on the
	// service's hash-seed, and is nil where no backend takes connections.
	slots func(s *Service, backends []Backend) []int
	// exact: a cycle of connections gives every backend its slots. Otherwise
	// the shares hold on average.
	exact bool
	// hashes: the choice is made by hash-by and hash-seed, and connections that
	// are equal in those meet one backend.
	hashes bool
}

var schedulers = [...]scheduling{
	RoundRobin: {word: "round-robin", slots: weightedSlots, exact: true},
	Random:     {word: "random", slots: weightedSlots},
	Hash:       {word: "hash", slots: weightedSlots, hashes: true},
}

// weightedSlots gives every backend slots by its weight.
func weightedSlots(_ *Service, backends []Backend) []int {
	weights := make([]int, len(backends))
	for i := range backends {
		weights[i] = backends[i].Effective()
	}
	return Slots(weights)
}

// of is the description of a scheduler, that of the first where it is none.
func (s Scheduler) of() *scheduling {
	if int(s) >= len(schedulers) {
		s = RoundRobin
	}
	return &schedulers[s]
}

// Exact reports whether a whole cycle of connections gives every backend exactly
// its slots; otherwise its share holds on average.
func (s Scheduler) Exact() bool { return s.of().exact }

// Hashes reports whether hash-by and hash-seed decide. Connections that are
// equal in what hash-by names meet one backend then.
func (s Scheduler) Hashes() bool { return s.of().hashes }

// Words are all words of the type, in the order of its constants.
func (Scheduler) Words() []string {
	out := make([]string, len(schedulers))
	for i := range schedulers {
		out[i] = schedulers[i].word
	}
	return out
}

func (s Scheduler) String() string {
	if int(s) >= len(schedulers) {
		return fmt.Sprint(uint8(s))
	}
	return schedulers[s].word
}

// UnmarshalText reads what String writes, and nothing else.
func (s *Scheduler) UnmarshalText(b []byte) error {
	i := slices.IndexFunc(schedulers[:], func(d scheduling) bool { return d.word == string(b) })
	if i < 0 {
		return fmt.Errorf("unknown %q, want %s", b, strings.Join(s.Words(), ", "))
	}
	*s = Scheduler(i)
	return nil
}

// Slots is a cycle of the service's scheduler over backends of one family:
// element i is the number of the backend that slot i belongs to. It is nil where
// none of them takes connections.
func (s *Service) Slots(backends []Backend) []int { return s.Scheduler.of().slots(s, backends) }

// KeepsClient reports whether the scheduler looks at the client's address, so
// that it takes many clients to reach all backends.
func (s *Service) KeepsClient() bool {
	return s.Scheduler.Hashes() && slices.Contains(s.HashBy, SourceAddress)
}

// SchedulerText is the scheduler with what it hashes by.
func (s *Service) SchedulerText() string {
	if !s.Scheduler.Hashes() {
		return s.Scheduler.String()
	}
	return s.Scheduler.String() + " by " + strings.Join(texts(s.HashBy), ",")
}

// texts are the words of values.
func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}
