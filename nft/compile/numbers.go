package compile

// Numbers: the identity of backends, and where slots are. And the bits of the connection
// mark that they leave to others.

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// Block is a run of numbers, [Base, Base+Slots+Parked). The first are drawn;
// the parked ones behind them are never drawn and keep the backends of weight
// 0 known as members.
type Block struct {
	Base, Slots, Parked uint32
	// Own says that they are in a map of the service and family alone; Base is 0.
	Own bool
}

// End is the number after the last one.
func (b Block) End() uint32 { return b.Base + b.Slots + b.Parked }

// PoolKey names the backends of one service and family.
type PoolKey struct {
	Chain  string // the service's, see ChainOf
	Family lb.Family
}

// BackendKey names a backend.
type BackendKey struct {
	Chain   string // the service's, see ChainOf
	Address lb.Endpoint
}

// Numbers are those of a table: of its backends and guarded services, which
// follow from the profiles alone, and of slots and SNAT addresses, which stay
// where they are.
type Numbers struct {
	Owners Owners
	// moved are the numbers of backends and guarded services that do not have
	// the number of their name.
	moved         map[BackendKey]uint32
	movedServices map[string]uint32

	slots                map[PoolKey]Block // of those that are there
	sources              map[string]Block  // by the pool's chain
	extent               extent            // that there are maps for
	freeSlot, freeSource space
	freeInline           space   // slots of InlineSlotsMap
	many                 bool    // no other service begins to translate inline
	free                 []Block // slots to be used again
	clients              clientKeys
	past                 func(PoolKey) (slots, before map[string]ruleset.Element, comments []string)

	// Counted are the backends whose connections an agent counts, of those that are
	// Countable; nil: none.
	Counted func(BackendKey) bool
}

// Free are the slots that were free beside those above all others, and are still.
func (n *Numbers) Free() []Block {
	return slices.DeleteFunc(n.free, func(b Block) bool { return b.Slots == 0 })
}

// NewNumbers numbers the backends and guarded services of all profiles of a table.
// Backends' numbers have none of the bits in keep, unless too few bits would be left:
// see Owners.Kept.
func NewNumbers(keep uint32, profiles ...[]*lb.Profile) *Numbers {
	n := &Numbers{slots: map[PoolKey]Block{}, sources: map[string]Block{}}
	backends := countBackends(profiles...)
	n.many = backends > mostForInline
	if backends < 1<<(bits.OnesCount32(NumberMask&^keep)-1) {
		n.Owners.Kept = keep // enough bits are left
	}
	n.assign(profiles...)
	return n
}

// assign numbers the backends and guarded services of all profiles of a table.
// A number is a hash of a name. Where two have the same, the one whose name
// sorts first has it, and the others take the next numbers that nobody's name
// stands for, in the order of their names. So machines with the same profiles
// agree, whatever they had before, and a backend that returns has its number
// again.
func (n *Numbers) assign(profiles ...[]*lb.Profile) {
	backends := make([]BackendKey, 0, countBackends(profiles...))
	var services []string
	for _, list := range profiles {
		for p, s := range lb.Services(list) {
			chain := ChainOf(p.Name, s.Name)
			if guarded(s) {
				services = append(services, chain)
			}
			for i := range s.Backends {
				backends = append(backends, BackendKey{chain, s.Backends[i].Address})
			}
		}
	}
	kept := n.Owners.Kept
	n.Owners, n.moved = settle(backends, BackendKey.FirstNumber, BackendKey.compare, kept)
	_, n.movedServices = settle(services, firstServiceNumber, strings.Compare, 0)
}

func countBackends(profiles ...[]*lb.Profile) int {
	n := 0
	for _, list := range profiles {
		for _, s := range lb.Services(list) {
			n += len(s.Backends)
		}
	}
	return n
}

// Owners are backends by their numbers. The zero value has none.
type Owners = owners[BackendKey]

// owners are keys by their numbers. The zero value has none.
type owners[K comparable] struct {
	keys []K
	at   map[uint32]int32 // number -> place in keys
	Kept uint32           // bits that no number has
}

// None reports whether these are the owners of no table at all.
func (o owners[K]) None() bool { return o.at == nil }

// Of is who has a number.
func (o owners[K]) Of(number uint32) (key K, ok bool) {
	i, ok := o.at[number]
	if ok {
		key = o.keys[i]
	}
	return key, ok
}

// settle gives each key the number of its name, or another one where somebody
// else has that.
func settle[K comparable](keys []K, first func(K) uint32, compare func(a, b K) int, kept uint32) (o owners[K], moved map[K]uint32) {
	o = owners[K]{keys, make(map[uint32]int32, len(keys)), kept}
	var late []int32
	for i, k := range keys {
		n, i := first(k)&^kept, int32(i)
		if other, taken := o.at[n]; taken {
			if compare(keys[other], k) <= 0 {
				late = append(late, i)
				continue
			}
			late = append(late, other)
		}
		o.at[n] = i
	}
	slices.SortFunc(late, func(a, b int32) int { return compare(keys[a], keys[b]) })
	for _, i := range late {
		n := first(keys[i]) &^ kept
		for _, taken := o.at[n]; taken; _, taken = o.at[n] {
			n = ((n | kept) + 1) & NumberMask &^ kept
		}
		o.at[n] = i
		if moved == nil {
			moved = map[K]uint32{}
		}
		moved[keys[i]] = n
	}
	return o, moved
}

// Keep gives the backends and guarded services of a part of a table the numbers
// that they have there; those of services may be marks. The caller has found that new
// backends have no rival.
func (n *Numbers) Keep(backends map[BackendKey]uint32, services map[string]uint32) {
	n.moved, n.movedServices, n.many = backends, services, true // a part does not say how many backends there are
	clear(n.Owners.at)
	for i, key := range n.Owners.keys {
		n.Owners.at[n.Backend(key.Chain, key.Address)] = int32(i)
	}
}

// Held is what a table has already. Profiles that come to it leave that where it is.
type Held struct {
	Maps      iter.Seq[string]  // their names
	Blocks    map[PoolKey]Block // of slots, of the services that are there
	Sources   map[string]Block  // of SNAT addresses, by the pool's chain
	Slots     []uint32          // all that are taken, in any order
	FirstSlot uint32            // none below is given away,
	Free      []Block           // but for these
	Addresses []uint32          // numbers of SNAT addresses that are taken, in any order
	// Past is what a service and family with slots of its own has in fleet.Past, and the
	// comments of its rules.
	Past func(PoolKey) (slots, before map[string]ruleset.Element, comments []string)
}

// Hold makes new slots and SNAT addresses find their place beside what a table has. It
// sorts the slices of h.
func (n *Numbers) Hold(h Held) {
	n.extent = extentIn(h.Maps)
	n.slots, n.past = h.Blocks, h.Past
	maps.Copy(n.sources, h.Sources)
	n.freeSlot, n.freeSource = newSpace(h.Slots), newSpace(h.Addresses)
	n.freeInline.used = n.freeSlot.used
	n.freeSlot.next, n.free = h.FirstSlot, h.Free
}

// Backend returns the number of a backend.
func (n *Numbers) Backend(chain string, address lb.Endpoint) uint32 {
	key := BackendKey{chain, address}
	if i, ok := n.moved[key]; ok {
		return i
	}
	return key.FirstNumber() &^ n.Owners.Kept
}

// Mark is the mark of a backend: its mode of SNAT and its number.
func (n *Numbers) Mark(chain string, b *lb.Backend) uint32 {
	return modeMark(b.SNAT.Mode) | n.Backend(chain, b.Address)
}

// serviceNumber returns the number of a guarded service, which has nothing to do
// with those of backends.
func (n *Numbers) serviceNumber(chain string) uint32 {
	if i, ok := n.movedServices[chain]; ok {
		return i
	}
	return firstServiceNumber(chain)
}

// Guard is the mark by which a service that is guarded counts what it turns away; 0: it
// is not guarded.
func (n *Numbers) Guard(profile string, s *lb.Service) uint32 {
	if !guarded(s) {
		return 0
	}
	return serviceMark | n.serviceNumber(ChainOf(profile, s.Name))
}

// guarded reports whether a service has rules that look at clients.
func guarded(s *lb.Service) bool { return len(s.Allow)+len(s.Deny) > 0 || s.Limit != (lb.Limit{}) }

func firstServiceNumber(chain string) uint32 { return firstNumber([]byte(chain)) }

func (k BackendKey) compare(o BackendKey) int {
	return cmp.Or(strings.Compare(k.Chain, o.Chain), k.Address.Compare(o.Address))
}

// FirstNumber is the number that a backend has unless another one has it.
func (k BackendKey) FirstNumber() uint32 {
	name := append(append(make([]byte, 0, 128), k.Chain...), ' ')
	if k.Address.Port == 0 {
		name = k.Address.Addr.AppendTo(name)
	} else {
		name = netip.AddrPortFrom(k.Address.Addr, k.Address.Port).AppendTo(name)
	}
	return firstNumber(name)
}

// firstNumber hashes a name (FNV-1a).
func firstNumber(name []byte) uint32 {
	h := uint32(2166136261)
	for _, c := range name {
		h = (h ^ uint32(c)) * 16777619
	}
	return (h>>24 ^ h) & NumberMask
}

// HeldSlots is how many numbers the map of slots has that a service and family has for
// itself; 0: there is none.
func (n *Numbers) HeldSlots(key PoolKey) int {
	b := n.slots[key]
	if !b.Own {
		return 0
	}
	return int(min(b.End(), mostOwnSlots))
}

// source returns the block of a pool of SNAT addresses.
func (n *Numbers) source(chain string, size uint32) Block {
	b, ok := n.sources[chain]
	if !ok {
		b = Block{Base: n.freeSource.take(size, false), Slots: size}
		n.sources[chain] = b
	}
	return b
}

// space finds free runs between numbers that are used, lowest first.
type space struct {
	used []uint32 // sorted, distinct
	next uint32   // everything below is used or was given away
}

func newSpace(used []uint32) space {
	slices.Sort(used)
	return space{used: slices.Compact(used)}
}

// take gives a run away. sharded: it crosses the end of no shard that it does not
// begin.
func (s *space) take(size uint32, sharded bool) uint32 {
	for {
		if sharded && !s.fits(size) {
			continue
		}
		if len(s.used) == 0 || s.used[0] >= s.next+size {
			break
		}
		s.next = max(s.next, s.used[0]+1)
		s.used = s.used[1:]
	}
	base := s.next
	s.next += size
	return base
}

// Kept bits: those of the connection mark that others route by. A host with
// several uplinks marks a connection by the link it came in on, and an `ip rule`
// sends the answers out there. nlb gives its backends numbers without these
// bits, and once it has chosen one puts the bits back, from the packet's mark.

// leastNumberBits are what the numbers of backends need of a mark.
const leastNumberBits = 16

// KeepableBits are the bits of these masks of policy routing rules, where nlb can
// keep them all; else none, and why.
func KeepableBits(masks ...uint32) (kept uint32, err error) {
	for _, m := range masks {
		kept |= m
	}
	switch {
	case kept&^NumberMask != 0:
		return 0, errors.New("nlb itself needs the highest 8 bits of the connection mark")
	case bits.OnesCount32(NumberMask&^kept) < leastNumberBits:
		return 0, fmt.Errorf("nlb itself needs %d of the lower 24 bits of the connection mark", leastNumberBits)
	}
	return kept, nil
}

// RulesVersion is the version of the rules of a layout, which leave these bits to
// others. An apply over rules of another version reads and compares all of them.
func RulesVersion(kept uint32) string {
	if kept == 0 {
		return rulesNumber
	}
	return fmt.Sprintf("%s %x", rulesNumber, kept)
}

// keepBits are the rules that put bits back.
func keepBits(kept uint32) []ruleset.Rule {
	var out []ruleset.Rule
	for bit := uint32(1); bit&NumberMask != 0; bit <<= 1 {
		if kept&bit != 0 {
			out = append(out, ruleset.Rule{Statements: []ruleset.Statement{ruleset.KeepBit(bit)}, Comment: fmt.Sprintf("keeps 0x%08x", kept)})
		}
	}
	return out
}

// ReadKept reads the comment of a rule that puts bits back: all that are kept.
func ReadKept(comment string) (kept uint32, ok bool) {
	n, _ := fmt.Sscanf(comment, "keeps 0x%x", &kept)
	return kept, n == 1
}
