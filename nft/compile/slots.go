package compile

// Slots: the maps from the number that a new connection draws to its backend.
// There is one for each ShardSize numbers, with chains of its own that look into
// it. To read a map back costs the square of its size: for each message of a dump
// the kernel passes over all that it has sent before.
//
//	slots                  0 to 65,535          pick4, pick6, resolve
//	slots-1           65,536 to 131,071         pick4-1, pick6-1, resolve-1
//
// A block of slots is in one map. One that is larger than a shard begins with its
// shard, and is in its map alone.

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	"nlb/nft/ruleset"
)

// ShardSize is how many numbers a shard has. It is a variable for tests, which make it
// smaller; nothing else changes it.
var ShardSize uint32 = 1 << 16

// extent is how much of the layout there is: the lengths of prefixes that have
// maps of destinations, the shards of slots beside the first, the bits of the
// connection mark that are somebody else's, and whether checks of servers are told
// from other traffic.
type extent struct {
	lengths []prefixLength
	shards  []uint32
	kept    uint32
	probes  bool
}

// extentIn is the extent of a table with these maps.
func extentIn(names iter.Seq[string]) extent {
	x := extent{lengths: lengthsIn(names)}
	for name := range names {
		if n, ok := shardNamed(name); ok && n > 0 {
			x.shards = append(x.shards, n)
		}
	}
	slices.Sort(x.shards)
	return x
}

func shardOf(slot uint32) uint32 { return slot / ShardSize }

// ofShard is the name of an object that each shard has.
func ofShard(name string, shard uint32) string {
	if shard == 0 {
		return name
	}
	return name + "-" + strconv.FormatUint(uint64(shard), 10)
}

// SlotMapOf names the map that has a slot, and the block of slots that begins there.
func SlotMapOf(base uint32) string { return ofShard(SlotsMap, shardOf(base)) }

// shardNamed is the shard of the map of slots with this name.
func shardNamed(name string) (shard uint32, ok bool) {
	rest, ok := strings.CutPrefix(name, SlotsMap)
	if !ok || rest == "" {
		return 0, ok
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(rest, "-"), 10, 16)
	return uint32(n), err == nil && ofShard(SlotsMap, uint32(n)) == name
}

// slotMap is the map of a shard.
func slotMap(shard uint32) *ruleset.Map {
	return &ruleset.Map{Name: ofShard(SlotsMap, shard), Kind: ruleset.Slots, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Mark}}
}

// shardChains are the chains that look into the map of a shard.
func shardChains(shard uint32) []*ruleset.Chain {
	var out []*ruleset.Chain
	for _, f := range Families {
		out = append(out, f.pickChain(shard))
	}
	return append(out, resolve(shard))
}

// needShard adds the objects of a block's shard to a ruleset that lacks them.
func (c *compiler) needShard(base uint32) {
	shard := shardOf(base)
	if c.byName[ofShard(SlotsMap, shard)] != nil {
		return
	}
	m := slotMap(shard)
	c.byName[m.Name] = m
	// It comes where a packet meets it: what it leads to is behind it.
	first := slices.IndexFunc(c.Maps, func(m *ruleset.Map) bool { return m.Name == SlotsMap })
	c.Maps = slices.Insert(c.Maps, first+1, m)
	c.Chains = append(c.Chains, shardChains(shard)...)
}

// fits moves to where a run of this size crosses the end of no shard that it
// does not begin.
func (s *space) fits(size uint32) bool {
	within := s.next%ShardSize == 0 || shardOf(s.next) == shardOf(s.next+max(size, 1)-1)
	if !within {
		s.next = (shardOf(s.next) + 1) * ShardSize
	}
	return within
}
