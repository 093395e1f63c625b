package compile

// Slots: the maps from the number that a new connection draws to its backend.
// There is one for each ShardSize numbers, with chains of its own that look into
// it. To read a map back costs the square of its size: for each message of a dump
// the kernel passes over all that it has sent before.
//
//	inline-slots           0 to 255             no chain: Inline, below
//	slots                256 to 65,535          pick4, pick6, resolve
//	slots-1           65,536 to 131,071         pick4-1, pick6-1, resolve-1
//
// A block of slots is in one map. One that is larger than a shard begins with its
// shard, and is in its map alone.
//
// A service whose scheduler says so has a map of its own instead, PROFILE/SERVICE/slots4
// and slots6. Its slots stay where they are and are replaced in place, so it is read
// and written without those of others.

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/nft/compile/datagrams"
	"nlb/nft/compile/handshake"
	"nlb/nft/compile/synproxy"
	"nlb/nft/fleet"
	"nlb/nft/ruleset"
)

// ShardSize is how many numbers a shard has. It is a variable for tests, which make it
// smaller; nothing else changes it.
var ShardSize uint32 = 1 << 16

// mostOwnSlots is more than any map of a service's own slots has.
const mostOwnSlots = 1 << 20

// OwnSlotsOf names the map of slots that a service and family has for itself.
func OwnSlotsOf(chain string, f *Family) string { return chain + ownSlots + f.IP.Digit }

const ownSlots = "/" + SlotsMap

// OwnSlots is the map of a service's own slots, of where these led before, or of servers
// that has this name, empty; nil: it is none.
func OwnSlots(name string) *ruleset.Map {
	if m := datagrams.Servers(name); m != nil {
		return m
	}
	if m := fleet.BeforeMap(name); m != nil {
		return m
	}
	if chain, _, ok := ruleset.Suffixed(name, ownSlots); ok {
		return &ruleset.Map{Name: name, Kind: ruleset.OwnSlots, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Mark}, OfChain: chain}
	}
	return nil
}

// slotsOf writes the slots of the backends of a service and family, which have these
// marks, and returns where they are, and how many each backend has that are drawn.
func (c *compiler) slotsOf(key PoolKey, s *lb.Service, backends []lb.Backend, marks []uint32, inline bool) (Block, []int) {
	order := s.SlotsWith(backends, c.HeldSlots(key))
	counts := make([]int, len(backends))
	for _, i := range order {
		counts[i]++
	}
	// By hash one that falls lends its slots. The block stays where it is, since
	// there everybody is parked, whoever is up.
	var parked []int
	for i := range backends {
		if counts[i] == 0 || s.Scheduler.Hashes() {
			parked = append(parked, i)
		}
	}
	var b Block
	var m *ruleset.Map
	if s.Scheduler.OwnSlots() {
		// They follow from who the backends are, as the others do.
		slices.SortFunc(parked, func(i, j int) int { return backends[i].Address.Compare(backends[j].Address) })
		if len(order) == 0 { // the map keeps its size, and what it leads to
			parked = append(lb.ConsistentSlots(backends, c.HeldSlots(key)), parked...)
		}
		b = Block{Slots: uint32(len(order)), Parked: uint32(len(parked)), Own: true}
		m = OwnSlots(OwnSlotsOf(key.Chain, FamilyOf(key.Family)))
		c.ownSlots = append(c.ownSlots, m)
	} else {
		b = c.slot(key, uint32(len(order)), uint32(len(parked)), inline)
		c.needShard(b.Base)
		m = c.byName[SlotMapOf(b.Base)]
	}
	data := make([]string, len(marks))
	for i, mark := range marks {
		data[i] = ruleset.MarkBytes(mark)
	}
	m.Elements = slices.Grow(m.Elements, len(order)+len(parked))
	slot := b.Base
	for _, owners := range [][]int{order, parked} {
		for _, i := range owners {
			m.Elements = append(m.Elements, ruleset.Element{Key: ruleset.MarkBytes(slot), Data: data[i]})
			slot++
		}
	}
	return b, counts
}

// slot returns the block of a service and family. It moves when its size
// changes: a packet that has drawn from the old block when the ruleset changes
// under it still finds its slot there.
func (n *Numbers) slot(key PoolKey, slots, parked uint32, inline bool) Block {
	b, ok := n.slots[key]
	if !ok || b.Own || b.Slots != slots || b.Slots+b.Parked < slots+parked || b.Inline() && !inline {
		b.Base = n.takeSlots(slots+parked, inline && (b.Inline() || !n.many))
	}
	b.Slots, b.Parked, b.Own = slots, parked, false
	return b
}

// takeSlots gives a run of slots away: inline where there is room, or one that was used
// before, or the next.
func (n *Numbers) takeSlots(size uint32, inline bool) uint32 {
	if inline && 0 < size && size <= InlineSlots {
		after := n.freeInline
		if base := after.take(size, false); base+size <= InlineSlots {
			n.freeInline = after
			return base
		}
	}
	for i := range n.free {
		f := &n.free[i]
		if size > 0 && f.Slots >= size && shardOf(f.Base) == shardOf(f.Base+size-1) {
			base := f.Base
			f.Base, f.Slots = f.Base+size, f.Slots-size
			return base
		}
	}
	n.freeSlot.next = max(n.freeSlot.next, InlineSlots)
	return n.freeSlot.take(size, true)
}

// extent is how much of the layout there is: the lengths of prefixes that have
// maps of destinations, the shards of slots beside the first, the bits of the
// connection mark that are somebody else's, and whether checks of servers are told
// from other traffic.
type extent struct {
	lengths []prefixLength
	shards  []uint32
	kept    uint32
	probes  bool
	picksUp bool // connections in their middle, see package fleet
}

func (x extent) equal(y extent) bool {
	return slices.Equal(x.lengths, y.lengths) && slices.Equal(x.shards, y.shards) && x.kept == y.kept && x.probes == y.probes && x.picksUp == y.picksUp
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

// All are the slots of a block.
func (b Block) All() iter.Seq[uint32] {
	return func(yield func(slot uint32) bool) {
		for i := b.Base; i < b.End() && yield(i); i++ {
		}
	}
}

// SlotMapOf names the map that has a slot, and the block of slots that begins there.
func SlotMapOf(base uint32) string {
	if base < InlineSlots {
		return InlineSlotsMap
	}
	return ofShard(SlotsMap, shardOf(base))
}

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

// roomForSlots gives the maps of shards a size, so that the kernel makes their room at once
// (1 MiB). A map without a size grows while it is filled, which takes longer. A block that is
// larger than its shard has the map for itself.
func (c *compiler) roomForSlots() {
	for _, m := range c.Maps {
		if _, shard := shardNamed(m.Name); shard {
			m.Size = max(ShardSize, uint32(len(m.Elements)))
		}
	}
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
	if c.byName[SlotMapOf(base)] != nil {
		return
	}
	m := slotMap(shard)
	c.byName[m.Name] = m
	c.insertSlots(m)
	c.Chains = append(c.Chains, shardChains(shard)...)
}

// BeforeOf names the map of where a service's own slots led before they changed.
func BeforeOf(chain string, f *Family) string { return fleet.BeforeOf(chain, f.IP) }

// before writes that map of a service whose own slots were written last, and returns the rule
// that asks it for connections that are picked up; see package fleet.
func (c *compiler) before(key PoolKey, s *lb.Service, b Block, marks []uint32) []ruleset.Rule {
	f, own := FamilyOf(key.Family), c.ownSlots[len(c.ownSlots)-1]
	backends := fleet.Asleep{}
	for i, backend := range s.Of(key.Family) {
		backends[ruleset.MarkBytes(marks[i])] = backend.State == lb.Down
	}
	m := fleet.BeforeMap(BeforeOf(key.Chain, f))
	elements, asks := c.pastOf(key).Note(poolInfo{key.Family, s, b}.draw(), own.Elements[:b.Slots], backends)
	m.Elements = elements
	c.ownSlots = append(c.ownSlots, m)
	ask, _ := parsePoolInfo(asks)
	if ask.block.Slots == 0 {
		return nil
	}
	return []ruleset.Rule{{
		Statements: slices.Concat([]ruleset.Statement{f.match}, fleet.AskedBefore(),
			[]ruleset.Statement{f.drawSlot(ask.service, ask.block, 0), ruleset.SetMarkByMap(m.Name), ruleset.Goto(f.Deliver)}),
		Comment: beforeWord + asks,
	}}
}

// pastOf is what a table has of the slots of a service and family.
func (n *Numbers) pastOf(key PoolKey) (p fleet.Past) {
	if n.past == nil {
		return p
	}
	var comments []string
	p.Slots, p.Before, comments = n.past(key)
	for _, comment := range comments {
		text, asks := strings.CutPrefix(comment, beforeWord)
		switch info, ok := parsePoolInfo(text); {
		case !ok || info.family != key.Family || !info.block.Own:
		case asks:
			p.Asks = info.draw()
		default:
			p.Draw, p.Drawn = info.draw(), info.block.Slots
		}
	}
	return p
}

// ServersOf names the map of a service's servers by datagram, and the chain that looks
// into it.
func ServersOf(chain string, f *Family) string { return datagrams.Of(chain, f.IP) }

// SYNProxyOf names the chain that takes what clients of a protected service send.
func SYNProxyOf(chain string, f *Family) string { return synproxy.Of(chain, f.IP) }

// HalfOpenOf names the chain that sees the segments of a service with a limit of half-open
// connections, and HalfOpenMap is the map that leads there.
func HalfOpenOf(chain string) string { return handshake.Of(chain) }

const HalfOpenMap = handshake.Backends

// insertSlots puts maps of slots where a packet meets them: what they lead to is behind
// them.
func (c *compiler) insertSlots(maps ...*ruleset.Map) {
	first := slices.IndexFunc(c.Maps, func(m *ruleset.Map) bool { return m.Name == SlotsMap })
	c.Maps = slices.Insert(c.Maps, first+1, maps...)
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

// Inline: the service's own chain draws a slot, finds the backend of the slot, and
// translates to it, without the chains and maps that all others share. That is the
// shortest way of a first packet. The maps have a size, so that the kernel takes its
// fastest kind of them.
//
// Only a few services can have it. For each rule that looks into a map, the kernel goes
// through all elements of the map and all other rules that look into it: with thousands
// of services this would grow with the square of their number. So there are InlineSlots
// slots for it, which services take as they come. What draws more than once, or needs one
// of the other rules of the chain `deliver`, cannot have it.

// InlineSlotsMap has the slots of services that translate inline.
const InlineSlotsMap = "inline-slots"

// InlineSlots is how many there are. It is a variable for tests, like ShardSize.
var InlineSlots uint32 = 256

// mostForInline is how many backends a table may have in all for a service to begin to
// translate inline. For each new rule that looks into a map, the kernel goes through all
// rules that can be reached: with 10,000 services a server that falls would take 8 ms more.
const mostForInline = 3000

// mostInline is the size of the maps of backends. Each backend has a slot, so in use are
// InlineSlots at most; there is room for those that are retired.
const mostInline = 4096

// Inline reports whether the service of a block translates inline.
func (b Block) Inline() bool { return !b.Own && b.Base < InlineSlots && b.Slots+b.Parked > 0 }

// NewInlineSlots is the map of slots, empty.
func NewInlineSlots() *ruleset.Map {
	return &ruleset.Map{
		Name: InlineSlotsMap, Kind: ruleset.Slots, Key: ruleset.Type{ruleset.Integer}, Data: ruleset.Type{ruleset.Mark}, Size: InlineSlots,
		TypeOf: "numgen inc mod 2 : meta mark", Udata: ruleset.FlowUdata(),
	}
}

// inlineServers are the maps of the backends of a family.
func (f *Family) inlineServers() []*ruleset.Map {
	return []*ruleset.Map{
		{Name: f.InlineEndpoints, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{f.IP.Addr, ruleset.InetService}, Counter: true, Size: mostInline},
		{Name: f.InlineAddresses, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{f.IP.Addr}, Counter: true, Size: mostInline},
	}
}

// inlines reports whether a service may translate inline to its backends of a family.
// shared is the log that the service writes for all of them.
func (c *compiler) inlines(s *lb.Service, f *Family, shared *lb.Log) bool {
	if c.Owners.Kept != 0 || s.Mode.Direct() || s.Affinity != nil || s.Scheduler.OwnSlots() || ejects(s, f.Family) {
		return false
	}
	return !slices.ContainsFunc(s.Of(f.Family), func(b lb.Backend) bool {
		return b.Address.OfHost() || b.MaxConnections > 0 || b.Log != nil && shared == nil
	})
}

// translate is the rules behind the draw of a service that translates inline.
func (r drawRule) translate(s *lb.Service, f *Family) []ruleset.Rule {
	var out []ruleset.Rule
	add := func(st ruleset.Statement) {
		out = append(out, ruleset.Rule{Statements: append(slices.Clip(r.match), st)})
	}
	says := func(port bool) bool {
		return slices.ContainsFunc(s.Of(f.Family), func(b lb.Backend) bool { return (b.Address.Port != 0) == port })
	}
	if says(true) {
		for _, p := range s.Protocols {
			add(f.IP.DNAT(byte(p), f.InlineEndpoints, 1<<32-1))
		}
	}
	if says(false) {
		add(f.IP.DNATAddress(f.InlineAddresses, 1<<32-1))
	}
	add(ruleset.Drop())
	return out
}
