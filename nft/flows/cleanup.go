// Package flows is what becomes of the connections of backends once a plan is
// committed: which are forgotten, moved, cut or marked anew. It knows marks and
// servers, not tables.
package flows

// Cleanup: connections of TCP and SCTP whose backend is gone or down go on, unless
// they are to be cut; those of UDP move to another backend. What nobody has
// answered yet is forgotten, where its backend takes no new connections any more:
// the client's next packet then draws a backend that does. A connection whose
// backend has another mark now is marked anew.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// Error says that all was committed, but connections of backends could not be
// ended.
type Error struct{ Err error }

func (e *Error) Error() string {
	return fmt.Sprintf("flows of removed backends were not ended: %v", e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Ours selects the connections with a mark of nlb.
var Ours = conntrack.Filter{Mark: compile.OursMark, Mask: compile.OursMask}

// Change is what becomes of a backend, or of its number.
type Change uint8

// The changes. What comes later is worse for its connections.
const (
	Stays   Change = iota
	Drained        // it takes no new connections any more
	Down           // nor do its UDP flows stay
	CutOff         // nor those of TCP and SCTP
	Stale          // its number may be somebody else's now, or nobody's
)

// Cleanup knows whose connections a plan changes. Its fields are set before it is
// given away.
type Cleanup struct {
	// Conn is used by the cleanup alone while it runs; Own: it is closed then.
	Conn *wire.Conn
	Own  bool
	// Table is that of the plan. Where it is Gone, flows cannot be moved.
	Table string
	Gone  bool
	// Cut also ends the live TCP and SCTP connections of backends that are gone.
	Cut bool
	// Settle is how long answers that are under way may take; 0: 250 ms.
	Settle time.Duration
	// Numbers are those of backends for which something changes.
	Numbers map[uint32]Change
	// Owners are the backends that the plan leads to.
	Owners compile.Owners
	// Kept are the bits of marks that were left to others until now.
	Kept uint32
	// Came are services that were not there before.
	Came []*lb.Service
	// Datagrams says that one of the numbers may have flows of UDP.
	Datagrams bool
	// Flowtables are those that flows may be in.
	Flowtables []*ruleset.Flowtable
	// Servers are the backends that the plan leads to, where one of them has
	// connections under a stale number.
	Servers Servers
	// Turn is the turn of ending and moving flows.
	Turn *Turn
	// Generation is the ruleset's, after the plan, and after a run.
	Generation uint32
	// Amend writes what keeps the record of an apply true for a generation; nil:
	// there is none.
	Amend func(m *ruleset.Messages, generation uint32)

	mu       sync.Mutex // of Numbers, while it runs
	ended    int
	done     atomic.Bool
	diverted []*ruleset.Map
}

// Idle reports whether there is nothing to do.
func (c *Cleanup) Idle() bool { return !c.Cut && !c.changes() && len(c.Came) == 0 }

// changes reports whether any number changes.
func (c *Cleanup) changes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.Numbers) > 0
}

// Moves reports whether flows may have to move.
func (c *Cleanup) Moves() bool { return c.Datagrams && c.has(Down, CutOff, Stale) }

// Done reports whether a run has ended. It may be called while it runs.
func (c *Cleanup) Done() bool { return c.done.Load() }

// Spare takes numbers out of a cleanup, also while it runs: a later plan has
// given them new connections.
func (c *Cleanup) Spare(spared func(number uint32, change Change) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, change := range c.Numbers {
		if spared(n, change) {
			delete(c.Numbers, n)
		}
	}
}

// Run carries the cleanup out, once, and counts the connections that it ended.
// It takes about half a second, and up to 15 s more while another nlb moves flows; ctx
// makes it shorter, so that answers may be lost. An error is an *Error.
func (c *Cleanup) Run(ctx context.Context) (ended int, err error) {
	defer c.done.Store(true)
	if c.Own {
		defer c.Conn.Close()
	}
	defer c.Turn.End()
	if len(c.Came) > 0 {
		c.forgetEarlier()
	}
	if c.changes() {
		err = c.settle(ctx)
	}
	if err == nil && c.Cut {
		err = c.cutOrphans()
	}
	if err != nil {
		err = &Error{err}
	}
	return c.ended, err
}

// has reports whether a number changes in one of these ways.
func (c *Cleanup) has(changes ...Change) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range c.Numbers {
		if slices.Contains(changes, change) {
			return true
		}
	}
	return false
}

func (c *Cleanup) change(n uint32) Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Numbers[n]
}

// fate is what becomes of a connection.
type fate uint8

const (
	stays  fate = iota
	remark      // it is a backend's that has another mark now
	leaves      // it ends unless it is answered
	moves       // it is a flow of UDP that moves
	ends
)

// of is the fate of a connection, and the mark that it is to have.
func (c *Cleanup) of(f *conntrack.Flow) (fate, uint32) {
	n := f.Mark & compile.NumberMask &^ c.Kept
	change := c.change(n)
	cut := change == CutOff
	switch change {
	case Stays:
		return stays, 0
	case Drained:
		return leaves, 0
	case Stale:
		if key, ok := c.Owners.Of(n); ok && answers(key, f) {
			return stays, 0
		}
		if mark, ok := c.Servers.Of(f); ok {
			return remark, mark | f.Mark&c.Kept&c.Owners.Kept
		}
		cut = c.Cut
	}
	switch {
	case lb.Protocol(f.Protocol) == lb.UDP:
		return moves, 0
	case cut:
		return ends, 0
	}
	return leaves, 0
}

// concerns reports whether something is to be done about a connection.
func (c *Cleanup) concerns(f *conntrack.Flow) bool {
	fate, _ := c.of(f)
	return fate != stays
}

// due reports whether a connection is to be forgotten.
func (c *Cleanup) due(f *conntrack.Flow) bool {
	fate, _ := c.of(f)
	return fate >= moves || fate == leaves && !f.Answered
}

// atOnce reports whether a connection that is due is forgotten without waiting
// for an answer: its server is down.
func (c *Cleanup) atOnce(f *conntrack.Flow) bool {
	change := c.change(f.Mark & compile.NumberMask &^ c.Kept)
	return (change == Down || change == CutOff) && lb.Protocol(f.Protocol) != lb.UDP
}

// answers reports whether a backend is who answers in a connection.
func answers(k compile.BackendKey, f *conntrack.Flow) bool {
	from, _ := f.Reply()
	return (from.Addr() == k.Address.Addr || k.Address.OfHost()) && (k.Address.Port == 0 || from.Port() == k.Address.Port)
}

// few is how many connections are read as fast as the kernel visits its table once
// more.
const few = 5000

// filters select what a cleanup has to see: all connections where some are to
// be marked anew or cut, or where there are few, else those of UDP, and those that
// are not answered.
func (c *Cleanup) filters() []conntrack.Filter {
	if n, err := conntrack.Count(c.Conn); err == nil && n <= few {
		return []conntrack.Filter{Ours}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	udp, unanswered := Ours, Ours
	udp.Protocol, unanswered.Unanswered = uint8(lb.UDP), true
	out := []conntrack.Filter{unanswered}
	for _, change := range c.Numbers {
		switch {
		case c.Cut, change == CutOff, change == Stale && c.Servers != nil:
			return []conntrack.Filter{Ours}
		case change >= Down && c.Datagrams:
			out = []conntrack.Filter{udp, unanswered}
		}
	}
	return out
}

// settle marks anew, moves and ends the connections of Numbers.
func (c *Cleanup) settle(ctx context.Context) error {
	move, late, err := c.first()
	if err != nil || !late {
		return err
	}
	// The table of a flush is not there any more: then nothing can move.
	moved := !c.Gone && len(move) > 0 && !c.Turn.Take(ctx, turnWait) && c.divert(move) == nil
	if !c.Gone {
		c.pause(ctx)
	}
	err = c.Forget()
	if moved {
		err = cmp.Or(c.restore(), err)
		c.pause(ctx)
		// They would end by themselves.
		zoned := func(f *conntrack.Flow) bool { return f.Zone == movingZone }
		_ = c.each(Ours, zoned, func(f *conntrack.Flow) error { return conntrack.Delete(c.Conn, f) })
	}
	return err
}

// first does what can be done at once, and finds the flows that move. late: some
// have to be forgotten later, since they may be answered in a moment.
func (c *Cleanup) first() (move []conntrack.Flow, late bool, err error) {
	late = c.has(Down, CutOff)
	for _, filter := range c.filters() {
		err = c.each(filter, c.concerns, func(f *conntrack.Flow) error {
			switch fate, mark := c.of(f); {
			case fate == remark:
				return conntrack.SetMark(c.Conn, f, mark)
			case fate == moves:
				late = true
				if !f.Zoned && movingKey(f) != "" {
					move = append(move, *f)
				}
			case c.due(f) && c.atOnce(f):
				return c.forget(f)
			case c.due(f):
				late = true
			}
			return nil
		})
		if err != nil {
			return nil, false, err
		}
	}
	return move, late, nil
}

// Forget makes conntrack forget what is to end.
func (c *Cleanup) Forget() error {
	for _, filter := range c.filters() {
		if err := c.each(filter, c.due, c.forget); err != nil {
			return err
		}
	}
	return nil
}

// Ended counts the connections that were ended so far.
func (c *Cleanup) Ended() int { return c.ended }

// cutOrphans ends the connections of backends that are gone, however long ago.
func (c *Cleanup) cutOrphans() error {
	orphan := func(f *conntrack.Flow) bool {
		_, owned := c.Owners.Of(f.Mark & compile.NumberMask &^ c.Owners.Kept)
		return !owned
	}
	return c.each(Ours, orphan, c.forget)
}

// each does something with each connection of a filter that is wanted, once all
// are listed. One that ended by itself meanwhile is no failure.
func (c *Cleanup) each(filter conntrack.Filter, wanted func(*conntrack.Flow) bool, do func(*conntrack.Flow) error) error {
	var found []conntrack.Flow
	err := conntrack.List(c.Conn, filter, func(f *conntrack.Flow) {
		if wanted(f) {
			found = append(found, f.Clone())
		}
	})
	if err != nil {
		return err
	}
	for i := range found {
		if err := do(&found[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func (c *Cleanup) forget(f *conntrack.Flow) error {
	err := conntrack.Delete(c.Conn, f)
	if err == nil {
		c.ended++
	}
	return err
}

func (c *Cleanup) pause(ctx context.Context) {
	select {
	case <-ctx.Done(): // what follows is done in any case
	case <-time.After(cmp.Or(c.Settle, settleTime)):
	}
}

const (
	// settleTime is how long answers that are under way may take.
	settleTime = 250 * time.Millisecond
	// turnWait is how long another nlb is waited for.
	turnWait = 15 * time.Second
)

// Turn is the turn of ending and moving the flows of a table. Anybody may have
// the lock's port, so only one that is known to be busy counts.
type Turn struct {
	Conn   *wire.Conn
	Table  string
	unlock func()
}

// Take takes the turn, and reports whether another nlb has it for that long.
func (t *Turn) Take(ctx context.Context, wait time.Duration) (busy bool) {
	if t.unlock != nil {
		return false
	}
	unlock, err := t.Conn.Lock(ctx, "nlb/"+t.Table+"/flows", wait)
	t.unlock = unlock
	return errors.Is(err, wire.ErrBusy)
}

// End ends the turn, if it was taken.
func (t *Turn) End() {
	if t != nil && t.unlock != nil {
		t.unlock()
		t.unlock = nil
	}
}
