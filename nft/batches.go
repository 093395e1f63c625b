package nft

// Batches: a plan becomes batches of a size that the socket can take, and they are
// committed one after the other.

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

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
		if w.watch == nil || errors.Is(err, wire.ErrUnknown) {
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
