package nft

// Cleanup: what becomes of connections once a plan is committed. Those of TCP
// and SCTP whose backend is gone go on, unless they are to be cut; those of UDP
// move to another backend. What nobody has answered yet is forgotten, where its
// backend takes no new connections any more: the client's next packet then
// draws a backend that does. A connection whose backend has another mark now is
// marked anew.

import (
	"cmp"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/wire"
)

// ours selects the connections with a mark of ours.
var ours = conntrack.Filter{Mark: compile.OursMark, Mask: compile.OursMask}

// cleanup knows whose connections a plan changes.
type cleanup struct {
	// stale are the numbers whose connections may be somebody else's now, or
	// nobody's.
	stale map[uint32]bool
	// drained are the numbers that take no new connections any more, and down those
	// of servers that are down from now on: their UDP flows move, too.
	drained, down map[uint32]bool
	owners        compile.Owners
	// kept are the bits of marks that were left to others until now.
	kept uint32
	// servers are the backends that the plan leads to, where one of them has
	// connections under a stale number.
	servers servers
}

// newCleanup compares what is there with what a plan leads to.
func newCleanup(have *State, p *plan) *cleanup {
	c := &cleanup{stale: map[uint32]bool{}, drained: map[uint32]bool{}, down: map[uint32]bool{}, owners: p.owners, kept: have.kept}
	idle := map[compile.BackendKey]lb.BackendState{} // those that get no new connections
	for profile, s := range lb.Services(p.profiles) {
		for i := range s.Backends {
			if b := &s.Backends[i]; b.Effective() == 0 {
				idle[compile.BackendKey{Chain: compile.ChainOf(profile.Name, s.Name), Address: b.Address}] = b.State
			}
		}
	}
	var addresses []netip.Addr
	for key, b := range have.backends {
		n := b.mark & compile.NumberMask
		state, isIdle := idle[key]
		owner, owned := p.owners.Of(n)
		switch {
		case !owned || owner != key:
			c.stale[n] = true
			addresses = append(addresses, key.Address.Addr)
		case isIdle && state == lb.Down && b.state != lb.Down:
			c.down[n], c.drained[n] = true, true
		case isIdle && b.drawn:
			c.drained[n] = true
		}
	}
	for _, a := range addresses {
		for at := range p.servers() {
			if at.Addr() == a {
				c.servers = p.servers()
			}
		}
	}
	return c
}

// fate is what becomes of a connection.
type fate uint8

const (
	stays  fate = iota
	remark      // it is a backend's that has another mark now
	leaves      // its backend takes no new connections any more
	orphan      // its backend is gone
)

// of is the fate of a connection, and the mark that it is to have.
func (c *cleanup) of(f *conntrack.Flow) (fate, uint32) {
	n := f.Mark & compile.NumberMask &^ c.kept
	if !c.stale[n] {
		switch {
		case c.down[n] && lb.Protocol(f.Protocol) == lb.UDP:
			return orphan, 0
		case c.drained[n]:
			return leaves, 0
		}
		return stays, 0
	}
	if key, ok := c.owners.Of(n); ok && answers(key, f) {
		return stays, 0
	}
	if mark, ok := c.servers.of(f); ok {
		return remark, mark | f.Mark&c.kept&c.owners.Kept
	}
	return orphan, 0
}

// concerns reports whether something is to be done about a connection.
func (c *cleanup) concerns(f *conntrack.Flow) bool {
	fate, _ := c.of(f)
	return fate != stays
}

// answers reports whether a backend is who answers in a connection.
func answers(k compile.BackendKey, f *conntrack.Flow) bool {
	from, _ := f.Reply()
	return from.Addr() == k.Address.Addr && (k.Address.Port == 0 || from.Port() == k.Address.Port)
}

// filters select what a cleanup has to see: all connections where some are to
// be marked anew or cut, else those of UDP, and those that are not answered.
func (c *cleanup) filters(cut bool) []conntrack.Filter {
	if cut || c.servers != nil {
		return []conntrack.Filter{ours}
	}
	udp, unanswered := ours, ours
	udp.Protocol, unanswered.Unanswered = uint8(lb.UDP), true
	if len(c.stale)+len(c.down) == 0 {
		return []conntrack.Filter{unanswered}
	}
	return []conntrack.Filter{udp, unanswered}
}

// settle carries a cleanup out.
func (w *writer) settle(c *cleanup, o Options, result *Result) error {
	if o.DryRun || len(c.stale)+len(c.drained) == 0 && !o.Cut {
		return nil
	}
	err := w.cleanUp(c, o, result)
	if err == nil && o.Cut {
		err = w.cut(c.owners, result)
	}
	if err != nil {
		return &FlowsError{err}
	}
	return nil
}

func (w *writer) cleanUp(c *cleanup, o Options, result *Result) error {
	var move []conntrack.Flow
	late := false // some may be answered in a moment
	for _, filter := range c.filters(o.Cut) {
		err := w.each(filter, c.concerns, func(f *conntrack.Flow) error {
			switch fate, mark := c.of(f); {
			case fate == remark:
				return conntrack.SetMark(w.conn, f, mark)
			case fate == orphan && lb.Protocol(f.Protocol) == lb.UDP:
				late = true
				if !f.Zoned && movingKey(f) != "" {
					move = append(move, *f)
				}
			case fate == orphan && o.Cut, fate >= leaves && !f.Answered:
				late = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !late {
		return nil
	}
	// The table of a flush is not there any more: then nothing can move.
	moved := !c.owners.None() && len(move) > 0 && !w.flowsTurn(turnWait) && w.divert(move, result) == nil
	if !c.owners.None() {
		w.pause(cmp.Or(o.Settle, settleTime))
	}
	err := w.forgetLeft(c, o, result)
	if moved {
		err = cmp.Or(w.restore(result), err)
		w.pause(cmp.Or(o.Settle, settleTime))
		// They would end by themselves.
		zoned := func(f *conntrack.Flow) bool { return f.Zone == movingZone }
		_ = w.each(ours, zoned, func(f *conntrack.Flow) error { return conntrack.Delete(w.conn, f) })
	}
	return err
}

// flowsTurn takes the turn of ending and moving flows, and reports whether
// another nlb has it for that long. Anybody may have the lock's port, so only
// one that is known to be busy counts.
func (w *writer) flowsTurn(wait time.Duration) (busy bool) {
	if w.unlockFlows != nil {
		return false
	}
	unlock, err := w.conn.Lock(w.ctx, w.flowsLock(), wait)
	w.unlockFlows = unlock
	return errors.Is(err, wire.ErrBusy)
}

// flowsLock is the name of the turn of moving flows.
func (w *writer) flowsLock() string { return "nlb/" + w.table + "/flows" }

// forgetLeft makes conntrack forget what is to end, when answers had the time
// to arrive.
func (w *writer) forgetLeft(c *cleanup, o Options, result *Result) error {
	ends := func(f *conntrack.Flow) bool {
		fate, _ := c.of(f)
		return fate == orphan && (o.Cut || lb.Protocol(f.Protocol) == lb.UDP) || fate >= leaves && !f.Answered
	}
	for _, filter := range c.filters(o.Cut) {
		if err := w.each(filter, ends, func(f *conntrack.Flow) error { return w.forget(f, result) }); err != nil {
			return err
		}
	}
	return nil
}

// cut ends the connections of backends that are gone, however long ago.
func (w *writer) cut(owners compile.Owners, result *Result) error {
	orphan := func(f *conntrack.Flow) bool {
		_, owned := owners.Of(f.Mark & compile.NumberMask &^ owners.Kept)
		return !owned
	}
	return w.each(ours, orphan, func(f *conntrack.Flow) error { return w.forget(f, result) })
}

// endFlows makes conntrack forget the UDP flows of some numbers, and those of
// TCP and SCTP that are not answered, or all of them where they are to be cut.
func (w *writer) endFlows(gone map[uint32]bool, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	c := &cleanup{stale: gone, kept: o.Keep}
	if err := w.forgetLeft(c, o, result); err != nil {
		return &FlowsError{err}
	}
	return nil
}

// each does something with each connection of a filter that is wanted, once all
// are listed. One that ended by itself meanwhile is no failure.
func (w *writer) each(filter conntrack.Filter, wanted func(*conntrack.Flow) bool, do func(*conntrack.Flow) error) error {
	var flows []conntrack.Flow
	err := conntrack.List(w.conn, filter, func(f *conntrack.Flow) {
		if wanted(f) {
			flows = append(flows, f.Clone())
		}
	})
	if err != nil {
		return err
	}
	for i := range flows {
		if err := do(&flows[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func (w *writer) forget(f *conntrack.Flow, result *Result) error {
	err := conntrack.Delete(w.conn, f)
	if err == nil {
		result.Ended++
	}
	return err
}

// settleTime is how long answers that are under way may take.
const settleTime = 250 * time.Millisecond
