package lb

// The schedulers: everything in which they differ, but for the statement that
// nftables has for each.

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb/internal/maglev"
)

// Scheduler says how a new connection picks its backend.
type Scheduler uint8

// The schedulers.
const (
	RoundRobin       Scheduler = iota // in turn
	Random                            // at random
	Hash                              // by a hash of parts of the connection
	LeastConnections                  // in turn, by shares that follow the live connections
	Consistent                        // by such a hash that few clients move when backends come or go
)

// scheduling is what a scheduler does and promises.
type scheduling struct {
	// slots is the cycle of slots: element i is the number of the backend that
	// slot i belongs to. It may depend on who the backends are, and on how many
	// numbers the service's own table has already; it is nil where no backend takes
	// connections.
	slots func(backends []Backend, held int) []int
	// exact: slots are drawn in turn, so that a cycle of connections gives every
	// backend its slots. Otherwise the shares hold on average.
	exact bool
	// hashes: the choice is made by hash-by and hash-seed, and connections that
	// are equal in those meet one backend.
	hashes bool
	// follows: the shares of its backends follow their live connections.
	follows bool
	// own: the service has a table of slots of its own, whose size hardly changes.
	own bool
}

var schedulerWords = []string{"round-robin", "random", "hash", "least-connections", "consistent"}

var schedulers = [...]scheduling{
	RoundRobin:       {slots: weightedSlots, exact: true},
	Random:           {slots: weightedSlots},
	Hash:             {slots: hashedSlots, hashes: true},
	LeastConnections: {slots: weightedSlots, exact: true, follows: true},
	Consistent:       {slots: consistentSlots, hashes: true, own: true},
}

// weightedSlots gives every backend slots by its effective weight.
func weightedSlots(backends []Backend, _ int) []int { return Slots(Weights(backends)) }

// hashedSlots gives every backend slots by its wanted weight, and lends them.
//
// To lend in small parts, each slot becomes Shares slots side by side, or as many
// as there is room for. The kernel scales a hash to the number of slots (nft_hash.c:
// reciprocal_scale), so that clients meet the parts of the slot that they had.
func hashedSlots(backends []Backend, _ int) []int {
	weights := make([]int, len(backends))
	for i := range backends {
		weights[i] = backends[i].Weight
	}
	cycle := Slots(weights)
	return lent(cycle, backends, max(1, min(Shares, MaxSlots/max(1, len(cycle)))))
}

// consistentSlots lends those of ConsistentSlots. There are enough to lend whole ones.
func consistentSlots(backends []Backend, held int) []int {
	return lent(ConsistentSlots(backends, held), backends, 1)
}

// ConsistentSlots is the cycle of slots that the scheduler Consistent has over the wanted
// weights of backends of one family, whatever their states; nil: there are none. Where no
// weight is positive they are equal. It has 251, 1,021, 4,093, 16,381 or 65,537 slots: at
// least 100 for each backend, up to the largest of these, and no fewer than a table of held
// numbers.
func ConsistentSlots(backends []Backend, held int) []int {
	equal := !slices.ContainsFunc(backends, func(b Backend) bool { return b.Weight > 0 })
	var order []int
	for i := range backends {
		if equal || backends[i].Weight > 0 {
			order = append(order, i)
		}
	}
	if order == nil {
		return nil
	}
	// Whatever the order of the profile is.
	slices.SortFunc(order, func(i, j int) int {
		a, b := &backends[i], &backends[j]
		return cmp.Or(b.Weight-a.Weight, a.Address.Compare(b.Address))
	})
	at, weights := make([]netip.AddrPort, len(order)), make([]int, len(order))
	for i, b := range order {
		at[i], weights[i] = netip.AddrPortFrom(backends[b].Address.Addr, backends[b].Address.Port), max(1, backends[b].Weight)
	}
	out := maglev.Slots(maglev.Size(len(backends), held), at, weights)
	for slot, i := range out {
		out[slot] = order[i]
	}
	return out
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

// OwnSlots reports whether a service and family has a table of slots of its own, which
// keeps its size; see Service.SlotsWith.
func (s Scheduler) OwnSlots() bool { return s.of().own }

func (s Scheduler) String() string { return inWords(s) }
func (Scheduler) words() []string  { return schedulerWords }

// Slots is a cycle of the service's scheduler over backends of one family:
// element i is the number of the backend that slot i belongs to. It is nil where
// none of them takes connections.
func (s *Service) Slots(backends []Backend) []int { return s.SlotsWith(backends, 0) }

// SlotsWith is Slots where the service's own table has so many numbers already; 0: it
// has none.
func (s *Service) SlotsWith(backends []Backend, held int) []int {
	return s.Scheduler.of().slots(backends, held)
}

// CycleLength is how many slots the wanted weights of backends of one family need: at
// most MaxSlots can be had.
func (s *Service) CycleLength(backends []Backend) int {
	sum, divisor := 0, 0
	for i := range backends {
		weight := backends[i].Weight
		if s.Scheduler.OwnSlots() {
			weight = min(weight, 1) // one slot at least, whatever the weights are
		}
		sum, divisor = sum+weight, gcd(divisor, weight)
	}
	return sum / max(divisor, 1)
}

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
