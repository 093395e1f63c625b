package nft

// Numbers: the identity of backends, and where slots are.

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
)

// block is a run of numbers, [base, base+slots+parked). The first are drawn;
// the parked ones behind them are never drawn and keep the backends of weight
// 0 known as members.
type block struct{ base, slots, parked uint32 }

func (b block) end() uint32 { return b.base + b.slots + b.parked }

// poolKey names the backends of one service and family.
type poolKey struct {
	chain  string
	family lb.Family
}

// backendKey names a backend.
type backendKey struct {
	chain   string
	address lb.Endpoint
}

// numbers are those of a table: of its backends and guarded services, which
// follow from the profiles alone, and of slots and SNAT addresses, which stay
// where they are.
type numbers struct {
	owners owners[backendKey]
	// moved are the numbers of backends and guarded services that do not have
	// the number of their name.
	moved         map[backendKey]uint32
	movedServices map[string]uint32

	slots                map[poolKey]block // of those that are there
	sources              map[string]block  // by the pool's chain
	extent               extent            // that there are maps for
	freeSlot, freeSource space
}

func newNumbers() *numbers {
	return &numbers{slots: map[poolKey]block{}, sources: map[string]block{}}
}

// assign numbers the backends and guarded services of all profiles of a table.
// A number is a hash of a name. Where two have the same, the one whose name
// sorts first has it, and the others take the next numbers that nobody's name
// stands for, in the order of their names. So machines with the same profiles
// agree, whatever they had before, and a backend that returns has its number
// again.
func (n *numbers) assign(profiles ...[]*lb.Profile) {
	backends := make([]backendKey, 0, countBackends(profiles...))
	var services []string
	for _, list := range profiles {
		for _, p := range list {
			for i := range p.Services {
				s := &p.Services[i]
				chain := chainOf(p.Name, s.Name)
				if guarded(s) {
					services = append(services, chain)
				}
				for _, b := range s.Backends {
					backends = append(backends, backendKey{chain, b.Address})
				}
			}
		}
	}
	kept := n.owners.kept
	n.owners, n.moved = settle(backends, backendKey.firstNumber, backendKey.compare, kept)
	_, n.movedServices = settle(services, firstServiceNumber, strings.Compare, 0)
}

func countBackends(profiles ...[]*lb.Profile) int {
	n := 0
	for _, list := range profiles {
		for _, p := range list {
			for i := range p.Services {
				n += len(p.Services[i].Backends)
			}
		}
	}
	return n
}

// owners are keys by their numbers. The zero value has none.
type owners[K comparable] struct {
	keys []K
	at   map[uint32]int32 // number -> place in keys
	kept uint32           // bits that no number has
}

// of is who has a number.
func (o owners[K]) of(number uint32) (key K, ok bool) {
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
			n = ((n | kept) + 1) & indexMask &^ kept
		}
		o.at[n] = i
		if moved == nil {
			moved = map[K]uint32{}
		}
		moved[keys[i]] = n
	}
	return o, moved
}

// keep gives the backends and services of a part of a table the numbers that
// they have there. New ones were found to have no rival.
func (n *numbers) keep(s *State) {
	n.moved, n.movedServices = map[backendKey]uint32{}, s.guards
	for key, b := range s.backends {
		n.moved[key] = b.mark & indexMask
	}
	clear(n.owners.at)
	for i, key := range n.owners.keys {
		n.owners.at[n.backend(key.chain, key.address)] = int32(i)
	}
}

// backend returns the number of a backend.
func (n *numbers) backend(chain string, address lb.Endpoint) uint32 {
	key := backendKey{chain, address}
	if i, ok := n.moved[key]; ok {
		return i
	}
	return key.firstNumber() &^ n.owners.kept
}

// serviceNumber returns the number of a guarded service, which has nothing to do
// with those of backends.
func (n *numbers) serviceNumber(chain string) uint32 {
	if i, ok := n.movedServices[chain]; ok {
		return i
	}
	return firstServiceNumber(chain)
}

// guarded reports whether a service has rules that look at clients.
func guarded(s *lb.Service) bool { return len(s.Allow)+len(s.Deny) > 0 || s.Limit != (lb.Limit{}) }

func firstServiceNumber(chain string) uint32 { return firstNumber([]byte(chain)) }

func (k backendKey) compare(o backendKey) int {
	return cmp.Or(strings.Compare(k.chain, o.chain), k.address.Addr.Compare(o.address.Addr), cmp.Compare(k.address.Port, o.address.Port))
}

// firstNumber is the number that a backend has unless another one has it.
func (k backendKey) firstNumber() uint32 {
	name := append(append(make([]byte, 0, 128), k.chain...), ' ')
	if k.address.Port == 0 {
		name = k.address.Addr.AppendTo(name)
	} else {
		name = netip.AddrPortFrom(k.address.Addr, k.address.Port).AppendTo(name)
	}
	return firstNumber(name)
}

// firstNumber hashes a name (FNV-1a).
func firstNumber(name []byte) uint32 {
	h := uint32(2166136261)
	for _, c := range name {
		h = (h ^ uint32(c)) * 16777619
	}
	return (h>>24 ^ h) & indexMask
}

// slot returns the block of a service and family. It moves when its size
// changes: a packet that has drawn from the old block when the ruleset changes
// under it still finds its slot there.
func (n *numbers) slot(key poolKey, slots, parked uint32) block {
	b, ok := n.slots[key]
	if !ok || b.slots != slots || b.slots+b.parked < slots+parked {
		b.base = n.freeSlot.take(slots+parked, true)
	}
	b.slots, b.parked = slots, parked
	return b
}

// source returns the block of a pool of SNAT addresses.
func (n *numbers) source(chain string, size uint32) block {
	b, ok := n.sources[chain]
	if !ok {
		b = block{base: n.freeSource.take(size, false), slots: size}
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
