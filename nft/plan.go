package nft

// Plan: operations on the objects of a table, in the order in which the kernel can
// take them; how they become messages, in batches of a size that the socket can take;
// and how these are committed one after the other.

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
		case o.flowtable != nil:
			fmt.Fprintf(&b, "%s flowtable %s %v\n", o.verb, o.flowtable.Name, o.flowtable.Devices)
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
	encodeOps(&ruleset.Messages{Batch: b, Family: ruleset.Inet, Table: table, List: list}, ops)
}

func encodeOps(m *ruleset.Messages, ops []op) {
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

// send commits a plan. Whether the socket can take all of it is known before
// the first batch goes out.
func (w *writer) send(p *plan, generation uint32, result *Result) error {
	switch {
	case w.dry:
		return w.check(p, generation, result)
	case w.readOnly:
		return fmt.Errorf("%v; read back: not applied", w.answerLost)
	}
	if slices.ContainsFunc(p.main, func(o op) bool { return o.sweeps }) {
		select {
		case <-w.quiesced:
		case <-time.After(sweepWait):
			// On a machine that is very busy with packets. The next apply sweeps.
			p.keepRetired()
		}
	}
	phases := p.phases()
	parts := make([][]*wire.Batch, len(phases))
	w.all = w.done
	for i, ops := range phases {
		var err error
		if parts[i], err = w.parts(p.table, ops); err != nil {
			return err
		}
		w.all += len(parts[i])
	}
	if end := generation + uint32(w.all-w.done); p.recordAt(end) {
		last := len(phases) - 1
		for len(parts[last]) == 0 {
			last--
		}
		var err error
		if parts[last], err = w.parts(p.table, phases[last]); err != nil {
			return err
		}
	}
	for i := range phases {
		if i == len(phases)-1 && len(parts[i]) > 0 {
			quiesce()
		}
		result.Split = result.Split || len(parts[i]) > 1
		var err error
		if generation, err = w.batches(parts[i], generation, result); err != nil {
			return err
		}
	}
	result.Generation = generation
	w.record = p.record
	return nil
}

// check lets the kernel check a plan: all of it, since a part needs what comes
// before. Where the socket cannot take all of it, the kernel checks the part
// that would go first.
func (w *writer) check(p *plan, generation uint32, result *Result) error {
	parts, err := w.parts(p.table, slices.Concat(p.before, p.main, p.afterGrace))
	if err != nil {
		return err
	}
	for _, part := range parts {
		result.Messages += part.Messages()
	}
	result.Batches, result.Split = len(parts), len(parts) > 1
	parts[0].SetGeneration(generation)
	err = w.conn.Check(parts[0])
	if errors.Is(err, wire.ErrUnknown) {
		err = errors.New(err.Error()) // nothing was changed, that is known
	}
	return err
}

// parts writes operations as one batch, or as several where the socket cannot
// take it whole.
func (w *writer) parts(table string, ops []op) ([]*wire.Batch, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	// Ask for what the batch will need at most, before it is written: what the
	// socket can take decides how large its messages may be.
	limit, err := w.conn.Limit(estimate(ops))
	if err != nil {
		return nil, err
	}
	b := wire.NewBatch(wire.AnyGeneration)
	b.Grow(estimate(ops))
	encode(b, table, ops, min(ruleset.MaxList, limit/4))
	if limit, err = w.conn.Limit(b.Size()); err != nil {
		return nil, err
	}
	return b.Split(limit)
}

// batches commits batches, one after the other.
func (w *writer) batches(parts []*wire.Batch, generation uint32, result *Result) (next uint32, err error) {
	for _, part := range parts {
		if next, err = w.commitBatch(part, generation); err != nil {
			return 0, err
		}
		w.done++
		result.Batches++
		result.Messages += part.Messages()
		w.raced = w.raced || next != generation+1
		generation = next
	}
	return generation, nil
}

// commitBatch commits a batch that was made for a state of our table.
func (w *writer) commitBatch(b *wire.Batch, generation uint32) (uint32, error) {
	if w.raced && w.watch == nil {
		return 0, wire.ErrStale
	}
	for try := 1; ; try++ {
		number := generation
		if try > staleTries && w.unlock != nil {
			number = wire.AnyGeneration
		}
		b.SetGeneration(number)
		next, err := w.conn.Commit(b, generation)
		alone := err == nil && number == generation && next == generation+1
		if w.watch == nil || alone || errors.Is(err, wire.ErrUnknown) {
			return next, err
		}
		now, touched, e := w.watch.Touched(w.conn)
		switch {
		case e != nil || touched:
			if err == nil {
				w.done++ // on top of what somebody else did
			}
			return 0, wire.ErrStale
		case !errors.Is(err, wire.ErrStale):
			return now, err
		case try == applyTries:
			return 0, err
		}
		generation = now
	}
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
