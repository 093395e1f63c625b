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
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/nft/compile"
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

// startGrace begins to wait for the packets that are under way. It is called before
// the reading that a plan is made of: what that finds retired can be swept when
// the grace is over.
func (w *writer) startGrace() {
	over := make(chan struct{})
	w.quiesced = over
	go func() { quiesce(); close(over) }()
}

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

// leaveMoving leaves out of a state what moves flows, while another nlb is at
// it. Otherwise an apply that did not come to its end has left it.
func (w *writer) leaveMoving(s *State) {
	left := slices.ContainsFunc(removeMoving(), s.objects.has)
	if !left || w.dry || !w.turn.Take(w.ctx, 0) {
		return
	}
	maps.DeleteFunc(s.objects.chains, func(name string, _ *haveChain) bool { return flows.IsMoving(name) })
	maps.DeleteFunc(s.objects.maps, func(name string, _ *haveMap) bool { return flows.IsMoving(name) })
}

// removeMoving takes away what moves flows.
func removeMoving() (ops []op) {
	for _, c := range flows.MovingChains() {
		ops = append(ops, op{verb: remove, chain: c})
	}
	for _, m := range flows.MovingMaps() {
		ops = append(ops, op{verb: remove, mapping: m})
	}
	return ops
}

// commit sends a plan, and returns what becomes of the connections of backends
// that it leaves behind; nil: nothing was sent.
func (w *writer) commit(have *State, p *plan, o Options, result *Result) (c *flows.Cleanup, failed error) {
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
	c = newCleanup(have, p, o)
	c.Conn, c.Generation, c.Turn = w.conn, result.Generation, w.turn
	if c.Moves() {
		w.turn.Take(w.ctx, 0)
	}
	// What follows takes its time, and is nobody else's business.
	w.endTurn()
	return c, failed
}

// settle carries a cleanup out; nil: there is none.
func (w *writer) settle(c *flows.Cleanup, result *Result) error {
	if c == nil || c.Idle() {
		return nil
	}
	if w.record != nil {
		c.Amend = func(m *ruleset.Messages, generation uint32) { encodeOps(m, amendRecord(*w.record, generation)) }
	}
	ended, err := c.Run(w.ctx)
	result.Ended += ended
	result.Generation = c.Generation
	return err
}

// endFlows makes conntrack forget the UDP flows of some numbers, and those of
// TCP and SCTP that are not answered, or all of them where they are to be cut.
func (w *writer) endFlows(gone map[uint32]flows.Change, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	c := &flows.Cleanup{Conn: w.conn, Numbers: gone, Kept: o.Keep, Cut: o.Cut, Datagrams: true}
	err := c.Forget()
	result.Ended += c.Ended()
	if err != nil {
		return &FlowsError{Err: err}
	}
	return nil
}

// retiredNumbers are those of backends that an earlier plan has retired and
// that nobody has now.
func (s *State) retiredNumbers(owners compile.Owners) map[uint32]flows.Change {
	out := map[uint32]flows.Change{}
	for n := range s.marked() {
		if _, owned := owners.Of(n); !owned {
			out[n] = flows.Stale
		}
	}
	for _, b := range s.backends {
		delete(out, b.mark&compile.NumberMask)
	}
	return out
}

// marked are the numbers of the backends that the kernel has elements for,
// those included that an earlier plan retired.
func (s *State) marked() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if s.last != nil {
			for _, r := range s.last.retired {
				for i := range r.count {
					if r.gone && !yield((r.first+i)&compile.NumberMask) {
						return
					}
				}
			}
			return
		}
		for _, f := range compile.Families {
			for _, name := range f.Servers() {
				for key := range s.elements(name) {
					if !yield(ruleset.MarkOf(key) & compile.NumberMask) {
						return
					}
				}
			}
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

// mayHaveCommitted reports whether anything may have been committed.
func (w *writer) mayHaveCommitted() bool { return w.done > 0 || w.answerLost != nil }

// combine is the result of an apply that had to plan again. Once something of it was
// committed, what differed before is what it changes.
func (w *writer) combine(before, now *Result) *Result {
	if before != nil && w.mayHaveCommitted() {
		now.Changes, now.More, now.Repaired, now.Ended = before.Changes, before.More, before.Repaired, before.Ended
		now.Messages, now.Batches, now.Split = before.Messages, before.Batches, before.Split
	}
	return now
}
