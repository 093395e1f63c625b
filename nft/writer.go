package nft

// Writer: how a plan gets into the kernel while others write too, and how it
// is found out what came of it where the kernel's answer is lost.
//
// A batch is made for a generation of the whole ruleset, so that a commit of
// anybody in between makes it stale. Where that happens, the writer watches
// what the others change: as long as it is not our table, what was read and
// planned stays right, and only the number is old. Against a program that
// commits all the time even that is too slow; then the batch goes without a
// number, and the watch tells afterwards whether somebody came in between. If
// so all begins again, which mends it.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"nlb/nft/ruleset"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

const (
	// A writer that changes our table between our reading and our writing makes
	// us begin again, this often.
	applyTries = 60
	// A dump may lack elements, while the kernel enlarges the map: then they are
	// there already. It is read again, this often, after a pause.
	misreadTries = 3
	misreadPause = 200 * time.Millisecond
	// A socket that loses the kernel's answer is replaced, this often.
	lostTries = 3
	// Batches that are stale, although nobody has touched our table, before
	// one goes without a generation.
	staleTries = 8
	// How long packets that are under way are waited for, for the sake of
	// sweeping.
	sweepWait = 50 * time.Millisecond
	// How long another nlb is waited for.
	turnWait = 15 * time.Second
)

type writer struct {
	ctx   context.Context
	conn  *wire.Conn
	table string
	dry   bool

	watch  *wire.Watch // nil until somebody else turns out to be writing
	lost   error       // the kernel's answer did not come
	final  bool        // only read back, do not try again
	torn   bool        // somebody may have committed behind our latest batch
	done   int         // batches that were committed
	all    int         // those, and what the latest plan takes
	record *record     // that the plan has left
	aside  []op        // what puts moving flows aside
	quiet  chan struct{}
	unlock func()
	// unlockFlows ends the turn of moving flows.
	unlockFlows func()
}

func newWriter(ctx context.Context, c *wire.Conn, o Options) (*writer, error) {
	w := &writer{ctx: ctx, conn: c, table: o.Table, dry: o.DryRun}
	if o.DryRun {
		return w, nil
	}
	// Without the lock nothing goes wrong, it only takes longer.
	w.unlock, _ = c.Lock(ctx, "nlb/"+o.Table, turnWait)
	return w, ctx.Err()
}

func (w *writer) close() {
	if w.watch != nil {
		_ = w.watch.Close()
	}
	w.endTurn()
	if w.unlockFlows != nil {
		w.unlockFlows()
	}
}

// endTurn lets the next nlb have its turn.
func (w *writer) endTurn() {
	if w.unlock != nil {
		w.unlock()
		w.unlock = nil
	}
}

// again repeats what failed because the ruleset changed meanwhile, or because
// the kernel's answer was lost: then the next reading tells what came of it.
func (w *writer) again(f func() error) error {
	for try, lost, misread := 1, 0, 0; ; try++ {
		err := f()
		var pause time.Duration
		switch {
		case errors.Is(err, wire.ErrUnknown) && !w.dry && !w.final:
			lost++
			w.lost, w.final = err, lost > lostTries
			if e := w.conn.Renew(); e != nil {
				return w.partial(unknown(err, e))
			}
		case errors.Is(err, wire.ErrStale), errors.Is(err, wire.ErrInterrupted):
			if try == applyTries {
				return w.partial(err)
			}
			w.listen()
			pause = rand.N(time.Duration(try) * time.Millisecond)
		case isMisread(err) && misread < misreadTries && !w.final:
			misread++
			pause = misreadPause
		default:
			return w.partial(err)
		}
		select {
		case <-w.ctx.Done():
			return w.partial(w.ctx.Err())
		case <-time.After(pause):
		}
	}
}

// isMisread reports whether the kernel refused an element that was read otherwise.
func isMisread(err error) bool {
	refused, ok := errors.AsType[*wire.Error](err)
	return ok && strings.HasPrefix(refused.What, "map ") && (refused.Errno == unix.EEXIST || refused.Errno == unix.ENOENT)
}

// partial says of an error that some batches were committed before.
func (w *writer) partial(err error) error {
	var flows *FlowsError
	if err == nil || w.done == 0 || errors.As(err, &flows) {
		return err
	}
	return &PartialError{Done: w.done, All: max(w.all, w.done+1), Err: err}
}

// listen watches what others change, from now on.
func (w *writer) listen() {
	if w.watch == nil && !w.dry {
		w.watch, _ = w.conn.Watch(ruleset.Inet, w.table) // without it, it goes as before
	}
}

// begin is called before what a plan is made of is read. What waits to be swept
// then can be when quiet is closed.
func (w *writer) begin() {
	quiet := make(chan struct{})
	w.quiet = quiet
	go func() { quiesce(); close(quiet) }()
}

// load reads the table.
func (w *writer) load() (*State, error) {
	s, err := w.read()
	w.torn = false
	if err == nil {
		w.leaveMoving(s)
	}
	if err != nil && w.lost != nil && !errors.Is(err, wire.ErrInterrupted) {
		err = unknown(w.lost, err)
	}
	return s, err
}

// leaveMoving leaves out of a state what moves flows, while another nlb is at
// it. Otherwise an apply that did not come to its end has left it.
func (w *writer) leaveMoving(s *State) {
	left := slices.ContainsFunc(removeMoving(), s.objects.has)
	if !left || w.dry || !w.flowsTurn(0) {
		return
	}
	for _, o := range removeMoving() {
		if o.chain != nil {
			delete(s.objects.chains, o.chain.Name)
		} else {
			delete(s.objects.maps, o.mapping.Name)
		}
	}
}

// unknown says that neither the kernel's answer came nor what it holds could
// be read.
func unknown(lost, err error) error {
	if errors.Is(err, wire.ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w; unknown, read back: %w", lost, err)
}

func (w *writer) read() (*State, error) {
	if w.watch == nil {
		s, err := load(w.conn, w.table)
		if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR) {
			err = fmt.Errorf("%w: %w", wire.ErrInterrupted, err)
		}
		return s, err
	}
	if _, _, err := w.watch.Touched(w.conn); err != nil {
		return nil, err
	}
	w.conn.Watched(true)
	o, err := read(w.conn, w.table)
	w.conn.Watched(false)
	if err != nil {
		return nil, err
	}
	generation, touched, err := w.watch.Touched(w.conn)
	switch {
	case err != nil:
		return nil, err
	case touched:
		return nil, wire.ErrInterrupted
	}
	s := newState(w.table, o)
	s.Generation = generation
	return s, nil
}

// send commits a plan. Whether the socket can take all of it is known before
// the first batch goes out.
func (w *writer) send(p *plan, generation uint32, result *Result) error {
	switch {
	case w.dry:
		return w.check(p, generation, result)
	case w.final:
		return fmt.Errorf("%v; read back: not applied", w.lost)
	}
	if slices.ContainsFunc(p.ops, func(o op) bool { return o.sweep }) {
		select {
		case <-w.quiet:
		case <-time.After(sweepWait):
			// On a machine that is very busy with packets. The next apply sweeps.
			p.keepRetired()
		}
	}
	ops, ahead := p.ops, []op(nil)
	if p.early {
		ops, ahead = ops[p.ahead:], ops[:p.ahead]
	}
	phases := [][]op{ahead, ops, p.after}
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
	parts, err := w.parts(p.table, slices.Concat(p.ops, p.after))
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
		if next, err = w.put(part, generation); err != nil {
			return 0, err
		}
		w.done++
		result.Batches++
		result.Messages += part.Messages()
		w.torn = w.torn || next != generation+1
		generation = next
	}
	return generation, nil
}

// put commits a batch that was made for a state of our table.
func (w *writer) put(b *wire.Batch, generation uint32) (uint32, error) {
	if w.torn && w.watch == nil {
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

// sent reports whether anything may have been committed.
func (w *writer) sent() bool { return w.done > 0 || w.lost != nil }

// amend returns what an apply says of itself that had to plan again: after
// something of it was committed, what differed at first is what it changes.
func (w *writer) amend(before, now *Result) *Result {
	if before != nil && w.sent() {
		now.Changes, now.Repaired, now.Ended = before.Changes, before.Repaired, before.Ended
		now.Messages, now.Batches, now.Split = before.Messages, before.Batches, before.Split
	}
	return now
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
