package nft

// Plan: operations on the objects of a table, in the order in which the kernel can
// take them, and how they become messages.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/nft/ruleset"
	"nlb/nft/wire"

	"golang.org/x/sys/unix"
)

// verb is what an operation does with its object.
type verb string

const (
	add     verb = "add"
	remove  verb = "delete"
	replace verb = "replace" // rules only
)

// op is one operation on one object: a table, a map, elements, a chain or a
// rule.
type op struct {
	verb     verb
	table    bool
	mapping  *ruleset.Map // with elements: these; without: the map itself
	elements []ruleset.Element
	chain    *ruleset.Chain // with rule or handle: that rule; without: the chain itself
	rule     *ruleset.Rule
	handle   uint64
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
	// owners are the backends that it leads to by their numbers, and profiles
	// all that they are of; none where the table goes.
	owners   owners[backendKey]
	profiles []*lb.Profile
	servers  func() servers // of the profiles
	// successors and affinities are what carryAffinity needs: new marks of
	// backends, and the maps of clients that are wanted.
	successors map[uint32]successor
	affinities []*ruleset.Map
	// carries says that it changes what packets fill.
	carries bool
}

func (p *plan) add(o op) { p.main = append(p.main, o) }

// empty reports whether there is nothing to send.
func (p *plan) empty() bool { return len(p.before)+len(p.main) == 0 }

// ops are the operations up to the grace.
func (p *plan) ops() []op { return slices.Concat(p.before, p.main) }

// phases are the operations that need batches of their own, in order.
func (p *plan) phases() [][]op {
	if p.chainsFirst {
		return [][]op{p.before, p.main, p.afterGrace}
	}
	return [][]op{p.ops(), p.afterGrace}
}

// String is one line for each operation, for tests and for people.
func (p *plan) String() string {
	var b strings.Builder
	for _, o := range p.ops() {
		switch {
		case o.table:
			fmt.Fprintf(&b, "%s table %s\n", o.verb, p.table)
		case o.mapping != nil && o.elements == nil:
			fmt.Fprintf(&b, "%s map %s\n", o.verb, o.mapping.Name)
		case o.mapping != nil:
			for _, e := range o.elements {
				fmt.Fprintf(&b, "%s element %s %s\n", o.verb, o.mapping.Name, o.mapping.ElementText(e))
			}
		case o.rule != nil:
			fmt.Fprintf(&b, "%s rule %s %s\n", o.verb, o.chain.Name, o.rule)
		case o.handle != 0:
			fmt.Fprintf(&b, "%s rule %s handle %d\n", o.verb, o.chain.Name, o.handle)
		default:
			fmt.Fprintf(&b, "%s chain %s\n", o.verb, o.chain.Name)
		}
	}
	return b.String()
}

// encode writes the plan as messages.
func (p *plan) encode(b *wire.Batch, list int) { encode(b, p.table, p.ops(), list) }

// encode writes operations as messages. list bounds a list of elements, in
// bytes. The batch can be cut wherever nothing is joined.
func encode(b *wire.Batch, table string, ops []op, list int) {
	m := &ruleset.Messages{Batch: b, Table: table, List: list}
	for i := 0; i < len(ops); i++ {
		o := &ops[i]
		if !o.joined {
			b.Cut()
		}
		m.Together = o.joined
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
			m.NewTable(tableComment)
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
