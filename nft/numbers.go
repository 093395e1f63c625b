package nft

// Numbers: the identity of backends and the blocks of slots. What is in the
// kernel keeps its numbers over every apply, so that its counters, its
// connections and its place in the round stay.

import (
	"net/netip"
	"slices"

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

// numbers hands out what is free. Each backend and each pool asks once.
type numbers struct {
	backends             map[backendKey]uint32 // index, of those that are there
	services             map[string]uint32     // index, by the chain
	taken                map[uint32]bool       // indices; true: by a backend that is wanted
	slots                map[poolKey]block     // of those that are there
	sources              map[string]block      // by the pool's chain
	lengths              []prefixLength        // that there are maps for
	freeSlot, freeSource space
}

func newNumbers() *numbers {
	return &numbers{
		backends: map[backendKey]uint32{}, taken: map[uint32]bool{},
		slots: map[poolKey]block{}, sources: map[string]block{}, services: map[string]uint32{},
	}
}

// backend returns the number of a backend. A new one gets a number by its
// name rather than the next one: a number that comes back soon would inherit
// the live connections of the backend that had it before.
func (n *numbers) backend(chain string, address lb.Endpoint) uint32 {
	key := backendKey{chain, address}
	if i, ok := n.backends[key]; ok {
		n.taken[i] = true
		return i
	}
	return n.free(key.firstNumber(), true)
}

// serviceNumber returns the number of a service that needs one. It is none of
// a backend's.
func (n *numbers) serviceNumber(chain string) uint32 {
	i, ok := n.services[chain]
	if !ok {
		i = n.free(firstNumber([]byte(chain)), false)
		n.services[chain] = i
	}
	return i
}

// free takes the first free number from one on, for a backend or not.
func (n *numbers) free(i uint32, backend bool) uint32 {
	for {
		if _, taken := n.taken[i]; !taken {
			n.taken[i] = backend
			return i
		}
		i = (i + 1) & indexMask
	}
}

// firstNumber is the number that a backend gets where it is free.
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

// alive tells the numbers of the backends that were asked for, those of other
// profiles included.
func (n *numbers) alive(others []*lb.Profile) map[uint32]bool {
	for _, p := range others {
		for i := range p.Services {
			chain := chainOf(p.Name, p.Services[i].Name)
			for _, b := range p.Services[i].Backends {
				n.backend(chain, b.Address)
			}
		}
	}
	return n.taken
}

// expect makes room for so many backends.
func (n *numbers) expect(backends int) {
	if len(n.taken) == 0 {
		n.taken = make(map[uint32]bool, backends)
	}
}

// slot returns the block of a service and family. It moves when its size
// changes: a packet that has drawn from the old block when the ruleset changes
// under it still finds its slot there.
func (n *numbers) slot(key poolKey, slots, parked uint32) block {
	b, ok := n.slots[key]
	if !ok || b.slots != slots || b.slots+b.parked < slots+parked {
		b.base = n.freeSlot.take(slots + parked)
	}
	b.slots, b.parked = slots, parked
	return b
}

// source returns the block of a pool of SNAT addresses.
func (n *numbers) source(chain string, size uint32) block {
	b, ok := n.sources[chain]
	if !ok {
		b = block{base: n.freeSource.take(size), slots: size}
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

func (s *space) take(size uint32) uint32 {
	for len(s.used) > 0 && s.used[0] < s.next+size {
		s.next = max(s.next, s.used[0]+1)
		s.used = s.used[1:]
	}
	base := s.next
	s.next += size
	return base
}
