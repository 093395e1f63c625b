// Package maglev fills the slots of Maglev hashing (Eisenbud and others, "Maglev: A Fast
// and Reliable Software Network Load Balancer", NSDI 2016, section 3.4). Every backend
// walks over the slots in an order of its own, which follows from its address alone, and
// in turn each takes the next one that is free. So all that have the same backends
// agree, and a backend that comes or goes moves few slots beside its own.
package maglev

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
)

// sizes are the numbers of slots: primes, so that every walk meets all. A size that
// followed the number of backends would move nearly all slots whenever it changed.
var sizes = [...]int{251, 1021, 4093, 16381, 65537}

// slotsEach is how many slots there are for a backend, where the largest size has room:
// with them the shares of equal backends are right within a hundredth.
const slotsEach = 100

// Size is the number of slots of so many backends: 251, 1,021, 4,093, 16,381 or 65,537.
// It is not smaller than the largest of these within held.
func Size(backends, held int) int {
	size := sizes[0]
	for _, next := range sizes[1:] {
		if size < slotsEach*backends || next <= held {
			size = next
		}
	}
	return size
}

// Slots is a cycle of so many slots: element i is the place of the backend that slot i
// belongs to. The backends are in an order that all agree on, and there are no more than
// slots; a port of 0 is a port as any other. The weights are positive. Every backend has a
// slot, and at most one more than its share. Where the size is Size's, it lacks at most one slot
// and a hundredth of its share.
func Slots(size int, backends []netip.AddrPort, weights []int) []int {
	walks := make([]walk, len(backends))
	for i, b := range backends {
		walks[i] = walkOf(b, size)
	}
	return populate(size, walks, weights)
}

// walk is an order of slots: from offset on, every skip-th.
type walk struct{ offset, skip int }

// walkOf is the walk of a backend over so many slots, the same on every machine.
func walkOf(b netip.AddrPort, size int) walk {
	addr := b.Addr().As16()
	h := sha256.Sum256(binary.BigEndian.AppendUint16(addr[:], b.Port()))
	number := func(b []byte, below int) int { return int(binary.BigEndian.Uint64(b) % uint64(below)) }
	return walk{offset: number(h[:], size), skip: 1 + number(h[8:], size-1)}
}

// populate gives each of so many slots, a prime, to one of the walks. Those of the
// largest weight take one in each round, others in some of them, all in the first.
func populate(size int, walks []walk, weights []int) []int {
	out := slices.Repeat([]int{-1}, size)
	top := slices.Max(weights)
	at, turn := make([]int, len(walks)), make([]int, len(walks))
	for i, w := range walks {
		at[i], turn[i] = w.offset, top-weights[i]
	}
	for left := size; ; {
		for i := range walks {
			if turn[i] += weights[i]; turn[i] < top {
				continue
			}
			turn[i] -= top
			for out[at[i]] >= 0 {
				if at[i] += walks[i].skip; at[i] >= size {
					at[i] -= size
				}
			}
			out[at[i]] = i
			if left--; left == 0 {
				return out
			}
		}
	}
}
