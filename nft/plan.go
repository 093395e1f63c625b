package nft

// Plan: operations on the objects of a table, in the order in which the kernel can
// take them, and how they become messages, in batches of a size that the socket can take.

import (
	"cmp"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// verb is what an operation does with its object.
type verb string

const (
	add     verb = "add"
	remove  verb = "delete"
	replace verb = "replace" // rules only
)

// op is one operation on one object: a table, a map, elements, a flow table, a chain
// or a rule.
type op struct {
	verb     verb
	family   uint8 // of the table; 0: ruleset.Inet
	table    bool
	mapping  *ruleset.Map // with elements: these; without: the map itself
	elements []ruleset.Element
	// flowtable: to add it, or these devices to it; or to delete it, or with devices
	// only these of it.
	flowtable *ruleset.Flowtable
	chain     *ruleset.Chain // with rule or handle: that rule; without: the chain itself
	rule      *ruleset.Rule
	handle    uint64
	// joined: never in a later batch than the operation before, since between
	// the two a packet would find neither the old nor the new.
	joined bool
	// pairs: each element takes the place of the one that the operation before
	// removes, and only these two are joined.
	pairs bool
	// sweeps: it takes away what an earlier plan retired.
	sweeps bool
}

// plan is operations in the order in which the kernel can take them, in phases.
type plan struct {
	table string
	// family is that of the operations to be added; 0: ruleset.Inet.
	family uint8
	// before is what nothing leads to yet: maps, and new chains with their rules.
	// chainsFirst says that it needs a batch of its own; see handover.
	before      []op
	chainsFirst bool
	main        []op
	// afterGrace is what goes when no packet is under way any more.
	afterGrace []op

	sweep  []op    // what earlier plans retired
	retire []leave // what this one retires
	record *record // that it leaves; nil: none
	// left is what is known of the table afterwards, recorded the elements of the
	// record, and free the slots that were used and are not any more.
	left     *record
	recorded map[string]ruleset.Element
	free     []compile.Block
	fixed    *fixed
	// owners are the backends that it leads to by their numbers, and profiles
	// all that they are of; none where the table goes.
	owners   compile.Owners
	profiles []*lb.Profile
	servers  func() flows.Servers // of the profiles
	// successors, affinities and numbers are what carryAffinity needs: new marks of
	// backends, the maps of clients that are wanted, and the keys in them.
	successors map[uint32]successor
	affinities map[string]*ruleset.Map
	numbers    *compile.Numbers
	// flowtables are those that it leaves.
	flowtables []*ruleset.Flowtable
	// carries says that it adds clients to what packets fill.
	carries bool
}

func (p *plan) add(o op) {
	o.family = p.family
	p.main = append(p.main, o)
}

// empty reports whether there is nothing to send.
func (p *plan) empty() bool { return len(p.before)+len(p.main) == 0 }

// objects is how many objects it is about.
func (p *plan) objects() (n int) {
	for _, ops := range p.phases() {
		for _, o := range ops {
			n += max(1, len(o.elements))
		}
	}
	return n
}

// ops are the operations up to the grace. In memory main begins where before ends, unless
// it has outgrown the room there.
func (p *plan) ops() []op { return append(p.before, p.main...) }

// phases are the operations that need batches of their own, in order.
func (p *plan) phases() [][]op {
	if p.chainsFirst {
		return [][]op{p.before, p.main, p.afterGrace}
	}
	return [][]op{p.ops(), p.afterGrace}
}

// encode writes operations as messages. The batch can be cut wherever nothing is joined.
func encode(m *ruleset.Messages, ops []op) {
	for i := 0; i < len(ops); i++ {
		o := &ops[i]
		if !o.joined {
			m.Cut()
		}
		m.Together = o.joined
		m.Family = cmp.Or(o.family, ruleset.Inet)
		if i+1 < len(ops) && ops[i+1].joined {
			if ops[i+1].pairs {
				encodeReplaced(m, o.mapping, o.elements, ops[i+1].elements)
				i++
				continue
			}
			m.Together = true
		}
		switch {
		case o.table && o.verb == remove:
			m.DeleteTable()
		case o.table:
			m.NewTable(compile.TableComment)
		case o.flowtable != nil && o.verb == remove:
			m.DeleteFlowtable(o.flowtable)
		case o.flowtable != nil:
			m.NewFlowtable(o.flowtable)
		case o.mapping != nil && o.elements == nil && o.verb == remove:
			m.DeleteMap(o.mapping.Name)
		case o.mapping != nil && o.elements == nil:
			m.NewMap(o.mapping)
		case o.mapping != nil && o.verb == remove:
			m.Elements(unix.NFT_MSG_DELSETELEM, o.mapping, o.elements)
		case o.mapping != nil:
			m.Elements(unix.NFT_MSG_NEWSETELEM, o.mapping, o.elements)
		case o.rule != nil:
			m.Rule(o.chain.Name, *o.rule, o.handle)
		case o.handle != 0:
			m.DeleteRule(o.chain.Name, o.handle)
		case o.verb == remove:
			m.DeleteChain(o.chain.Name)
		default:
			m.NewChain(o.chain)
		}
	}
}

// leaves is what is fixed of the table, where the plan leaves it so.
func (p *plan) leaves(have *State) *fixed {
	for _, ops := range p.phases() {
		for _, o := range ops {
			ofService := false
			if o.chain != nil {
				_, _, ofService = compile.OwnerOf(o.chain.Name)
			}
			if o.elements == nil && !ofService {
				return nil
			}
		}
	}
	return have.last.fixed
}

// encodeReplaced replaces elements, one message of each kind at a time: only an
// element and the one in its place need the same batch.
func encodeReplaced(m *ruleset.Messages, of *ruleset.Map, old, new []ruleset.Element) {
	m.Together = true
	for len(old) > 0 {
		n, size := 0, 0
		for n < len(new) && size < m.List {
			size += elementSize(&new[n])
			n++
		}
		m.Elements(unix.NFT_MSG_DELSETELEM, of, old[:n])
		m.Elements(unix.NFT_MSG_NEWSETELEM, of, new[:n])
		if old, new = old[n:], new[n:]; len(old) > 0 {
			m.Cut()
		}
	}
}

// parts writes operations as one batch, or as several where the socket cannot
// take it whole.
func (w *writer) parts(table string, ops []op) ([]*wire.Batch, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	// Ask for what the batch will need at most, before it is written: what the
	// socket can take decides how large its messages may be.
	room := estimate(ops)
	limit, err := w.conn.Limit(room)
	if err != nil {
		return nil, err
	}
	b := wire.NewBatch(wire.AnyGeneration)
	b.Grow(room, len(ops))
	encode(&ruleset.Messages{Batch: b, Family: ruleset.Inet, Table: table, List: min(ruleset.MaxList, limit/4)}, ops)
	if limit, err = w.conn.Limit(b.Size()); err != nil {
		return nil, err
	}
	return b.Split(limit)
}

// estimate is about the number of bytes of operations as messages, rather more.
func estimate(ops []op) int {
	const message = 96 // headers, the names of the table and the object
	n := 0
	for _, o := range ops {
		n += message
		switch {
		case o.rule != nil:
			n += len(o.chain.Name) + len(o.rule.Comment)
			for _, s := range o.rule.Statements {
				n += len(s.Exprs)
			}
		case o.mapping != nil && o.elements == nil:
			n += 256
		case o.flowtable != nil:
			n += 64 + (unix.IFNAMSIZ+8)*len(o.flowtable.Devices)
		}
		for i := range o.elements {
			n += elementSize(&o.elements[i])
		}
	}
	return n
}

// elementSize is about the number of bytes of an element, rather more.
func elementSize(e *ruleset.Element) int {
	const nested = 44
	n := nested + len(e.Key) + len(e.End) + len(e.Data)
	if e.Extra != nil {
		n += 64 + len(e.Comment) + len(e.Udata)
	}
	return n
}
