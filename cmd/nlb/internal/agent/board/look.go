//go:build linux

package board

// Looks: snapshots with figures of the kernel, which are read when somebody asks.

import (
	"errors"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

const (
	// lookEvery is how old a snapshot may be. To read the figures takes no more than a
	// twentieth of the time: where it takes longer than 50 ms, they are older.
	lookEvery = time.Second
	lookPart  = 20
)

// look is the last snapshot.
type look struct {
	counter  *engine.Counter
	snapshot *view.Snapshot // nil: none yet
	made     time.Time
	changes  uint64 // that it has

	figures *engine.Figures
	read    time.Time
	took    time.Duration
}

// ErrEmpty says that nothing was applied yet.
var ErrEmpty = errors.New("nothing was applied yet")

// Snapshot is what the agent keeps, with the states of now and figures that are about
// a second old at most. Nobody may change it. Errors: ErrEmpty, and those of the kernel.
func (b *Board) Snapshot() (*view.Snapshot, error) { return b.lookAgain(false) }

// Fresh is Snapshot with figures that are read now.
func (b *Board) Fresh() (*view.Snapshot, error) { return b.lookAgain(true) }

func (b *Board) lookAgain(fresh bool) (*view.Snapshot, error) {
	b.looking.Lock()
	defer b.looking.Unlock()
	e, l := b.shown.Load(), &b.look
	if e == nil {
		return nil, ErrEmpty
	}
	now := time.Now()
	if fresh || l.figures == nil || now.Sub(l.read) > max(lookEvery, lookPart*l.took) {
		f, err := l.counter.Figures(e.numbers)
		if err != nil {
			return nil, err
		}
		l.figures, l.read, l.took, l.snapshot = f, time.Now(), time.Since(now), nil
	}
	changes := b.changes.Load()
	if l.snapshot == nil || l.changes != changes || now.Sub(l.made) > lookEvery {
		l.snapshot = e.snapshot(b.table, l.figures, b.offload.Load())
		l.snapshot.Trouble = b.Trouble()
		l.made, l.changes = time.Now(), changes
	}
	return l.snapshot, nil
}

func (e *edition) snapshot(table string, f *engine.Figures, o *engine.Offloading) *view.Snapshot {
	s := view.SnapshotOf(table, f.Generation, e.services(), view.Figures{
		Of: f.Of, Live: true,
		Refused: f.Refused,
		Offloaded: func(s *lb.Service) view.Offloaded {
			by, note := o.Of(s, o.Holds())
			return view.Offloaded{By: by, Note: note}
		},
	})
	s.Announced = engine.Announced(table)
	return s
}
