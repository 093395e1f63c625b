package lb

// The schedulers: everything in which they differ, but for the statement that
// nftables has for each.

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
)

// Scheduler says how a new connection picks its backend.
type Scheduler uint8

// The schedulers.
const (
	RoundRobin       Scheduler = iota // in turn
	Random                            // at random
	Hash                              // by a hash of parts of the connection
	LeastConnections                  // in turn, by shares that follow the live connections
)

// scheduling is what a scheduler does and promises.
type scheduling struct {
	word string
	// slots is the cycle of slots: element i is the number of the backend that
	// slot i belongs to. It may depend on who the backends are and on the
	// service's hash-seed, and is nil where no backend takes connections.
	slots func(s *Service, backends []Backend) []int
	// exact: slots are drawn in turn, so that a cycle of connections gives every
	// backend its slots. Otherwise the shares hold on average.
	exact bool
	// hashes: the choice is made by hash-by and hash-seed, and connections that
	// are equal in those meet one backend.
	hashes bool
	// follows: the shares of its backends follow their live connections.
	follows bool
}

var schedulers = [...]scheduling{
	RoundRobin:       {word: "round-robin", slots: weightedSlots, exact: true},
	Random:           {word: "random", slots: weightedSlots},
	Hash:             {word: "hash", slots: lentSlots, hashes: true},
	LeastConnections: {word: "least-connections", slots: weightedSlots, exact: true, follows: true},
}

// weightedSlots gives every backend slots by its effective weight.
func weightedSlots(_ *Service, backends []Backend) []int { return Slots(Weights(backends)) }

// lentSlots gives every backend slots by its wanted weight. What one does not use,
// since it is not up or has a share only, is lent to the others: so a fall moves
// the clients of the fallen one alone, and they come back to it.
//
// To lend in small parts, each slot becomes Shares slots side by side, or as many
// as there is room for. The kernel scales a hash to the number of slots (nft_hash.c:
// reciprocal_scale), so that clients meet the parts of the slot that they had.
func lentSlots(_ *Service, backends []Backend) []int {
	weights := make([]int, len(backends))
	serves, lends := false, false
	for i := range backends {
		b := &backends[i]
		weights[i] = b.Weight
		serves = serves || b.Effective() > 0
		lends = lends || b.Weight > 0 && (b.State != Up || b.Share != 0 && b.Share < Shares)
	}
	cycle := Slots(weights)
	if !serves {
		return nil
	}
	if !lends {
		return cycle
	}
	parts := max(1, min(Shares, MaxSlots/len(cycle)))
	out := make([]int, len(cycle)*parts)
	kept := make([]bool, len(out))
	for slot, owner := range cycle {
		share := 0
		if b := &backends[owner]; b.State == Up {
			share = parts
			if b.Share != 0 && b.Share < Shares {
				share = max(1, parts*int(b.Share)/Shares)
			}
		}
		for part := range parts {
			out[slot*parts+part], kept[slot*parts+part] = owner, part < share
		}
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

// of is the description of a scheduler, that of the first where it is none.
func (s Scheduler) of() *scheduling {
	if int(s) >= len(schedulers) {
		s = RoundRobin
	}
	return &schedulers[s]
}

// Exact reports whether slots are drawn in turn, so that a whole cycle of
// connections gives every backend exactly its slots; otherwise its share holds on
// average. What it has of LeastConnections follows from its Share.
func (s Scheduler) Exact() bool { return s.of().exact }

// Hashes reports whether hash-by and hash-seed decide. Connections that are
// equal in what hash-by names meet one backend then.
func (s Scheduler) Hashes() bool { return s.of().hashes }

// Follows reports whether the shares of backends follow their live connections,
// where an agent counts these.
func (s Scheduler) Follows() bool { return s.of().follows }

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

// DefaultSeed is the hash-seed of a service that gives none: the same on every
// machine, another for every name.
func DefaultSeed(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

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

// The order in which the slots of a cycle go to the backends.

// Slots returns one cycle of a weighted round robin: element i is the index of
// the backend that slot i belongs to. The weights, 0 to MaxWeight, are divided
// by their greatest common divisor; a weight of 0 gets no slot. The result is
// the same for the same weights, and nil where no weight is positive.
//
// The cycle repeats without a visible seam. The backend with the largest share
// gets no more slots in a row than arithmetic demands: 5:1:1 gives 0 0 1 0 0 2 0,
// and never four in a row. A stretch of L slots, over the seam or not, gives
// every backend its share of L within less than 3 slots (a proof is with
// spread and rest below; random tests stay below 2.5).
func Slots(weights []int) []int {
	divisor, active, top := 0, 0, 0
	for _, w := range weights {
		if w > 0 {
			divisor = gcd(divisor, w)
			active++
			top = max(top, w)
		}
	}
	if active == 0 {
		return nil
	}
	if top == divisor { // all are equal
		out := make([]int, 0, active)
		for i, w := range weights {
			if w > 0 {
				out = append(out, i)
			}
		}
		return out
	}
	var heavy, light []int
	total := 0
	for i, w := range weights {
		switch {
		case w == top:
			heavy = append(heavy, i)
		case w > 0:
			light = append(light, i)
		}
		total += max(w, 0) / divisor
	}
	return spread(heavy, top/divisor, rest(weights, light, divisor, total-len(heavy)*top/divisor), total)
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// spread gives the heaviest backends their slots, in turn, and puts the others
// between them as evenly as a line of pixels is drawn (Bresenham): any stretch
// holds its share of either within less than one slot, which makes the runs of
// a single heaviest backend as short as they can be.
func spread(heavy []int, weight int, others []int, total int) []int {
	out := make([]int, 0, total)
	phase := len(heavy) * weight / 2 // the heaviest goes first, half a run before the first other
	h, o := 0, 0
	for range total {
		if phase += len(others); phase >= total {
			phase -= total
			out = append(out, others[o])
			o++
		} else {
			out = append(out, heavy[h%len(heavy)])
			h++
		}
	}
	return out
}

// rest is the order of all but the heaviest backends among themselves. It
// solves the chairman assignment problem (Tijdeman, Discrete Mathematics 32,
// 1980): with n backends, give each its k-th slot no earlier than
// (k-1+d)*total/weight and no later than (k-d)*total/weight, where
// d = 1/(2n-2), always serving the nearest deadline. Then every beginning of
// the cycle holds the share of each backend within less than one slot, and
// every stretch, being the difference of two beginnings, within less than two.
// Putting the slots of the heaviest between them adds less than one.
func rest(weights, backends []int, divisor, total int) []int {
	out := make([]int, 0, total)
	// In 64 bits, also where an int has 32: these products reach 2^43.
	unit, all := int64(max(2*len(backends)-2, 1)), int64(total)
	var due deadlines
	// Each backend waits for one slot at a time: in a list of the slot from
	// which it may have it, then among those that are due.
	const none = -1
	first := slices.Repeat([]int32{none}, total+1)
	next := make([]int32, len(backends))
	served := make([]int64, len(backends))
	wait := func(b, now int) {
		w := int64(weights[backends[b]] / divisor)
		if served[b] == w {
			return
		}
		slot := ((served[b]*unit+1)*all + unit*w - 1) / (unit * w)
		slot = min(max(slot, int64(now)), all)
		next[b], first[slot] = first[slot], int32(b)
	}
	for b := range backends {
		wait(b, 1)
	}
	for slot := 1; slot <= total; slot++ {
		for b := first[slot]; b != none; b = next[b] {
			w := int64(weights[backends[b]] / divisor)
			due.push(deadline{((served[b]+1)*unit - 1) * all / (unit * w), int(b)})
		}
		b := due.pop().backend
		out = append(out, backends[b])
		served[b]++
		wait(b, slot+1)
	}
	return out
}

// deadline is the last slot that a backend may wait for.
type deadline struct {
	slot    int64
	backend int
}

func (a deadline) before(b deadline) bool {
	return a.slot < b.slot || a.slot == b.slot && a.backend < b.backend
}

// deadlines is a heap, the nearest first. container/heap would allocate for
// each slot.
type deadlines []deadline

func (h *deadlines) push(d deadline) {
	s := append(*h, d)
	i := len(s) - 1
	for i > 0 && d.before(s[(i-1)/2]) {
		s[i] = s[(i-1)/2]
		i = (i - 1) / 2
	}
	s[i] = d
	*h = s
}

func (h *deadlines) pop() deadline {
	s := *h
	top, d := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	i := 0
	for c := 1; c < len(s); c = 2*i + 1 {
		if c+1 < len(s) && s[c+1].before(s[c]) {
			c++
		}
		if d.before(s[c]) {
			break
		}
		s[i] = s[c]
		i = c
	}
	if len(s) > 0 {
		s[i] = d
	}
	*h = s
	return top
}
