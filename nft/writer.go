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

	"golang.org/x/sys/unix"

	"nlb/nft/flows"
	"nlb/nft/ruleset"
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
	sweepWait = 250 * time.Millisecond
	// How long another nlb is waited for.
	turnWait = 15 * time.Second
)

// writer is one apply or flush on its way into the kernel.
type writer struct {
	ctx   context.Context
	conn  *wire.Conn
	table string
	dry   bool

	watch      *wire.Watch   // nil until somebody else turns out to be writing
	answerLost error         // the kernel's answer to our latest batch did not come
	readOnly   bool          // read back what came of it, do not try again
	raced      bool          // somebody may have committed behind our latest batch
	done       int           // batches that were committed
	all        int           // those, and what the latest plan takes
	record     *record       // what the plan has left
	quiesced   chan struct{} // closed when the grace is over

	unlock func()
	turn   *flows.Turn // of moving flows
	// forgets: there is no room for the clients that were to be carried over.
	forgets bool
	// borrowed: the watch is somebody else's. pending: so may be flows of backends
	// that are gone.
	borrowed, pending bool
}

func newWriter(ctx context.Context, c *wire.Conn, o Options) (*writer, error) {
	w := &writer{ctx: ctx, conn: c, table: o.Table, dry: o.DryRun, turn: &flows.Turn{Conn: c, Table: o.Table}}
	if o.DryRun {
		return w, nil
	}
	// Without the lock nothing goes wrong, it only takes longer.
	w.unlock, _ = c.Lock(ctx, "nlb/"+o.Table, turnWait)
	return w, ctx.Err()
}

func (w *writer) close() {
	if w.watch != nil && !w.borrowed {
		_ = w.watch.Close()
	}
	w.endTurn()
	w.turn.End()
}

// endTurn lets the next nlb have its turn.
func (w *writer) endTurn() {
	if w.unlock != nil {
		w.unlock()
		w.unlock = nil
	}
}

// retry repeats what failed because the ruleset changed meanwhile, or because only a
// part of the table was read, or because the kernel's answer was lost: then the next
// reading tells what came of it.
func (w *writer) retry(f func() error) error {
	for try, lost, misread := 1, 0, 0; ; try++ {
		err := f()
		var pause time.Duration
		switch {
		case errors.Is(err, wire.ErrUnknown) && !w.dry && !w.readOnly:
			lost++
			w.answerLost, w.readOnly = err, lost > lostTries
			if e := w.conn.Renew(); e != nil {
				return w.partial(unknown(err, e))
			}
		case errors.Is(err, wire.ErrStale), errors.Is(err, wire.ErrInterrupted), errors.Is(err, errNotPartial):
			if try == applyTries {
				return w.partial(err)
			}
			w.listen()
			pause = rand.N(time.Duration(try) * time.Millisecond)
		case isMisread(err) && misread < misreadTries && !w.readOnly:
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

// isMisread reports whether the kernel refused an element that was read otherwise, or
// a device that has gone since.
func isMisread(err error) bool {
	refused, ok := errors.AsType[*wire.Error](err)
	return ok && (strings.HasPrefix(refused.What, "map ") || strings.HasPrefix(refused.What, "flowtable ")) && (refused.Errno == unix.EEXIST || refused.Errno == unix.ENOENT)
}

// partial says of an error that some batches were committed before.
func (w *writer) partial(err error) error {
	if _, ok := errors.AsType[*FlowsError](err); ok || err == nil || w.done == 0 {
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

// listenWith lends a watch to the writer; nil: there is none.
func (w *writer) listenWith(watch *wire.Watch) { w.watch, w.borrowed = watch, watch != nil }

// load reads the table.
func (w *writer) load() (*State, error) {
	s, err := w.read()
	w.raced = false
	if err == nil {
		w.leaveMoving(s)
	}
	if err != nil && w.answerLost != nil && !errors.Is(err, wire.ErrInterrupted) {
		err = unknown(w.answerLost, err)
	}
	return s, err
}

// read reads the table, in a state in which it was at one time.
func (w *writer) read() (*State, error) {
	var o *objects
	before, touched, err := w.now()
	if err == nil {
		w.conn.Watched(w.watch != nil)
		o, err = read(w.conn, w.table)
		w.conn.Watched(false)
	}
	after := before
	if err == nil {
		after, touched, err = w.now()
	}
	switch {
	case w.watch == nil && (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR)):
		return nil, fmt.Errorf("%w: %w", wire.ErrInterrupted, err)
	case err != nil:
		return nil, err
	case touched, w.watch == nil && before != after:
		return nil, wire.ErrInterrupted
	}
	s := newState(w.table, o)
	s.Generation = after
	return s, nil
}

// now is the ruleset's generation, and whether a watch has heard that somebody else changed
// the table since this was asked last.
func (w *writer) now() (generation uint32, touched bool, err error) {
	if w.watch != nil {
		return w.watch.Touched(w.conn)
	}
	if generation, err = w.conn.Generation(); err != nil {
		err = fmt.Errorf("read the generation: %w", err)
	}
	return generation, false, err
}

// unknown says that neither the kernel's answer came nor what it holds could
// be read.
func unknown(lost, err error) error {
	if errors.Is(err, wire.ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w; unknown, read back: %w", lost, err)
}

// mayHaveCommitted reports whether anything may have been committed.
func (w *writer) mayHaveCommitted() bool { return w.done > 0 || w.answerLost != nil }

// combine is the result of an apply that had to plan again. Once something of it was
// committed, what differed before is what it changes.
func (w *writer) combine(before, now *Result) *Result {
	if before != nil && w.mayHaveCommitted() {
		before.compare()
		now.find = nil
		now.Changes, now.More, now.Repaired, now.Ended = before.Changes, before.More, before.Repaired, before.Ended
		now.Messages, now.Batches, now.Split = before.Messages, before.Batches, before.Split
	}
	return now
}

// commit sends a plan, and returns what becomes of the connections of backends
// that it leaves behind; nil: nothing was sent.
func (w *writer) commit(have *State, p *plan, o Options, result *Result) (cleanup *flows.Cleanup, failed error) {
	// What an earlier plan retired comes first: with the sweep it would be
	// forgotten whose flows they are. Another nlb may be at it.
	if retired := have.retiredNumbers(p.owners); len(retired) > 0 && !o.DryRun && !w.pending && !w.turn.Take(w.ctx, 0) {
		if failed = w.endFlows(retired, o, result); failed != nil {
			p.keepRetired()
		}
	}
	if !p.empty() {
		if err := w.send(p, have.Generation, result); err != nil {
			return nil, err
		}
	}
	if o.DryRun {
		return nil, failed
	}
	cleanup = newCleanup(have, p, o)
	cleanup.Conn, cleanup.Generation, cleanup.Turn = w.conn, result.Generation, w.turn
	if cleanup.Moves() {
		w.turn.Take(w.ctx, 0)
	}
	// What follows takes its time, and is nobody else's business.
	w.endTurn()
	return cleanup, failed
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

// grace is closed when no packet is under way any more that is so now. What a reading finds
// retired can be swept when a grace is over that began before it.
func grace() chan struct{} {
	over := make(chan struct{})
	go func() { quiesce(); close(over) }()
	return over
}

// quiesce returns when no packet is under way any more that was so when it was
// called: the kernel lets all readers of the ruleset (RCU) finish once.
// https://man7.org/linux/man-pages/man2/membarrier.2.html
func quiesce() {
	const membarrierGlobal = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		// Not on every kernel. No packet takes so long.
		time.Sleep(20 * time.Millisecond)
	}
}
