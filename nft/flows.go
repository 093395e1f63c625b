package nft

// Flows: what becomes of the connections of backends that are gone. Those of
// TCP and SCTP go on, unless they are to be cut. A UDP flow has to move: its
// next datagram is to go to a backend that is there.
//
// Conntrack sends the datagrams of a flow where the first one went, so it has to
// forget the flow. But an answer that is under way at that moment would be lost.
// So the flow moves first, and is forgotten later:
//
//  1. A chain ahead of conntrack puts what clients send in these flows into a
//     zone of their own, in the original direction only. There the datagram is
//     the first of a new connection, and draws a backend. An answer of the old
//     backend still finds the old connection.
//  2. After a while the old connections are deleted, and the chain.
//  3. The next datagram is the first of a connection again, without a zone. An
//     answer to the last one finds the connection in the zone. After a while
//     these are deleted, too.

import (
	"errors"
	"slices"
	"time"

	"nlb/nft/conntrack"
	"nlb/nft/ruleset"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

const (
	movingChain  = "moving"
	movingOut    = "moving-out"
	movingZone   = 0x4e4c // nobody else's, it is to be hoped; no harm if it is
	settleTime   = 250 * time.Millisecond
	rawPriority  = -300 // NF_IP_PRI_RAW, before conntrack
	movingPrefix = "moving"
)

func (f *family) moving() string { return movingPrefix + f.ip.Digit }

// endFlows makes conntrack forget the flows of backends that are gone.
func (w *writer) endFlows(gone map[uint32]bool, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	flows, err := flowsOf(w.conn, gone, o.Cut)
	if err == nil {
		err = w.forget(flows, result)
	}
	if err != nil {
		return &FlowsError{err}
	}
	return nil
}

// cut ends all connections of backends that are gone, however long ago.
func (w *writer) cut(alive map[uint32]bool, o Options, result *Result) error {
	if o.DryRun {
		return nil
	}
	flows, err := listFlows(w.conn, ours, func(f *conntrack.Flow) bool { return !alive[f.Mark&indexMask] })
	if err == nil {
		err = w.forget(flows, result)
	}
	if err != nil {
		return &FlowsError{err}
	}
	return nil
}

// moveFlows is endFlows for backends that may be answering still.
func (w *writer) moveFlows(gone map[uint32]bool, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	flows, err := flowsOf(w.conn, gone, o.Cut)
	if err != nil {
		return &FlowsError{err}
	}
	move := slices.DeleteFunc(slices.Clone(flows), func(f conntrack.Flow) bool {
		return lb.Protocol(f.Protocol) != lb.UDP || f.Zoned || movingKey(&f) == ""
	})
	if len(move) == 0 || w.setAside(move, result) != nil {
		// A kernel without zones loses the answers that are under way.
		return w.endFlows(gone, o, result)
	}
	settle := o.Settle
	if settle == 0 {
		settle = settleTime
	}
	w.pause(settle)
	// Those that came at the very end are among them now.
	err = w.endFlows(gone, o, result)
	if e := w.comeBack(result); e != nil && err == nil {
		err = &FlowsError{e}
	}
	w.pause(settle)
	if flows, e := zonedFlows(w.conn); e == nil {
		_ = w.forget(flows, &Result{}) // they would end by themselves
	}
	return err
}

func (w *writer) pause(d time.Duration) {
	select {
	case <-w.ctx.Done(): // what follows is done in any case
	case <-time.After(d):
	}
}

// ours selects the connections with a mark of ours.
var ours = conntrack.Filter{Mark: oursMark, Mask: oursMask}

// oursUDP is ours for UDP alone: there may be a million others.
var oursUDP = conntrack.Filter{Mark: oursMark, Mask: oursMask, Protocol: uint8(lb.UDP)}

// flowsOf are the flows of backends that have to end.
func flowsOf(c *wire.Conn, gone map[uint32]bool, cut bool) ([]conntrack.Flow, error) {
	filter := oursUDP
	if cut {
		filter = ours
	}
	return listFlows(c, filter, func(f *conntrack.Flow) bool { return gone[f.Mark&indexMask] })
}

// zonedFlows are those in the zone of flows that moved.
func zonedFlows(c *wire.Conn) ([]conntrack.Flow, error) {
	return listFlows(c, oursUDP, func(f *conntrack.Flow) bool { return f.Zone == movingZone })
}

func listFlows(c *wire.Conn, filter conntrack.Filter, wanted func(*conntrack.Flow) bool) ([]conntrack.Flow, error) {
	var out []conntrack.Flow
	err := conntrack.List(c, filter, func(f *conntrack.Flow) {
		if wanted(f) {
			out = append(out, f.Clone())
		}
	})
	return out, err
}

func (w *writer) forget(flows []conntrack.Flow, result *Result) error {
	for i := range flows {
		switch err := conntrack.Delete(w.conn, &flows[i]); {
		case err == nil:
			result.Ended++
		case !errors.Is(err, unix.ENOENT): // else it ended by itself
			return err
		}
	}
	return nil
}

// movingKey is the flow as the maps of moving flows have it: source, port,
// destination, port.
func movingKey(f *conntrack.Flow) string {
	source, destination := f.Original()
	if !source.IsValid() || !destination.IsValid() {
		return ""
	}
	return ruleset.AddrBytes(source.Addr()) + ruleset.PortBytes(source.Port()) +
		ruleset.AddrBytes(destination.Addr()) + ruleset.PortBytes(destination.Port())
}

// setAside puts what clients send in these flows into the zone.
func (w *writer) setAside(flows []conntrack.Flow, result *Result) error {
	var ops []op
	pre := &ruleset.Chain{Name: movingChain, Hook: ruleset.Prerouting(rawPriority, "raw"), Filter: true}
	out := &ruleset.Chain{Name: movingOut, Hook: ruleset.Output(rawPriority, "raw"), Filter: true}
	for _, f := range families {
		m := movingMap(f)
		seen := map[string]bool{}
		for i := range flows {
			key := movingKey(&flows[i])
			if flows[i].IPv4() == (f.Family == lb.IPv4) && !seen[key] {
				seen[key] = true
				m.Elements = append(m.Elements, ruleset.Element{Key: key})
			}
		}
		if len(m.Elements) == 0 {
			continue
		}
		ops = append(ops, op{verb: add, mapping: m}, op{verb: add, mapping: m, elements: m.Elements})
		r := ruleset.Rule{Statements: []ruleset.Statement{f.ip.ZoneOf(f.moving(), movingZone)}}
		pre.Rules, out.Rules = append(pre.Rules, r), append(out.Rules, r)
	}
	for _, c := range []*ruleset.Chain{pre, out} {
		ops = append(ops, op{verb: add, chain: c})
		for i := range c.Rules {
			ops = append(ops, op{verb: add, chain: c, rule: &c.Rules[i]})
		}
	}
	w.aside = ops
	return w.now(ops, result)
}

func movingMap(f *family) *ruleset.Map {
	return &ruleset.Map{Name: f.moving(), Key: ruleset.Type{f.ip.Addr, ruleset.InetService, f.ip.Addr, ruleset.InetService}}
}

// comeBack undoes setAside.
func (w *writer) comeBack(result *Result) error {
	var ops []op
	for _, o := range removeMoving() {
		if slices.ContainsFunc(w.aside, func(a op) bool { return a.adds(o) }) {
			ops = append(ops, o)
		}
	}
	if w.record != nil {
		ops = append(ops, amendRecord(*w.record, result.Generation+1)...)
	}
	return w.now(ops, result)
}

// adds reports whether an operation makes the object that another one removes.
func (o op) adds(r op) bool {
	if o.mapping != nil && r.mapping != nil {
		return o.mapping.Name == r.mapping.Name
	}
	return o.chain != nil && r.chain != nil && o.chain.Name == r.chain.Name
}

func removeMoving() []op {
	ops := []op{{verb: remove, chain: &ruleset.Chain{Name: movingChain}}, {verb: remove, chain: &ruleset.Chain{Name: movingOut}}}
	for _, f := range families {
		ops = append(ops, op{verb: remove, mapping: movingMap(f)})
	}
	return ops
}

// now commits operations that do not depend on what else the table holds.
func (w *writer) now(ops []op, result *Result) error {
	b, limit, err := w.batch(w.table, ops, wire.AnyGeneration)
	if err != nil {
		return err
	}
	if b.Size() > limit {
		return &wire.TooBigError{Size: b.Size(), Limit: limit}
	}
	generation, err := w.conn.Generation()
	if err != nil {
		return err
	}
	if generation, err = w.conn.Commit(b, generation); err != nil {
		return err
	}
	result.Generation = generation
	return nil
}
