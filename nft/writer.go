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
	diverted   []op          // what puts moving flows aside
	quiesced   chan struct{} // closed when the grace is over

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

// retry repeats what failed because the ruleset changed meanwhile, or because
// the kernel's answer was lost: then the next reading tells what came of it.
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
		case errors.Is(err, wire.ErrStale), errors.Is(err, wire.ErrInterrupted):
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

// mayHaveCommitted reports whether anything may have been committed.
func (w *writer) mayHaveCommitted() bool { return w.done > 0 || w.answerLost != nil }

// combine is the result of an apply that had to plan again. Once something of it was
// committed, what differed before is what it changes.
func (w *writer) combine(before, now *Result) *Result {
	if before != nil && w.mayHaveCommitted() {
		now.Changes, now.Repaired, now.Ended = before.Changes, before.Repaired, before.Ended
		now.Messages, now.Batches, now.Split = before.Messages, before.Batches, before.Split
	}
	return now
}
