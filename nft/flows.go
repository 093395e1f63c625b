package nft

// Flows: how UDP flows move from a backend that is gone to another one.
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

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

const (
	movingChain  = "moving"
	movingOut    = "moving-out"
	movingZone   = 0x4e4c // a zone of somebody else's does no harm
	rawPriority  = -300   // NF_IP_PRI_RAW, before conntrack
	movingPrefix = "moving"
)

func movingName(f *compile.Family) string { return movingPrefix + f.IP.Digit }

func (w *writer) pause(d time.Duration) {
	select {
	case <-w.ctx.Done(): // what follows is done in any case
	case <-time.After(d):
	}
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

// divert puts what clients send in these flows into the zone.
func (w *writer) divert(flows []conntrack.Flow, result *Result) error {
	var ops []op
	pre := &ruleset.Chain{Name: movingChain, Hook: ruleset.Prerouting(rawPriority, "raw"), Filter: true}
	out := &ruleset.Chain{Name: movingOut, Hook: ruleset.Output(rawPriority, "raw"), Filter: true}
	for _, f := range compile.Families {
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
		r := ruleset.Rule{Statements: []ruleset.Statement{f.IP.ZoneOf(movingName(f), movingZone)}}
		pre.Rules, out.Rules = append(pre.Rules, r), append(out.Rules, r)
	}
	for _, c := range []*ruleset.Chain{pre, out} {
		ops = append(ops, op{verb: add, chain: c})
		for i := range c.Rules {
			ops = append(ops, op{verb: add, chain: c, rule: &c.Rules[i]})
		}
	}
	w.diverted = ops
	return w.commitNow(ops, result)
}

func movingMap(f *compile.Family) *ruleset.Map {
	return &ruleset.Map{Name: movingName(f), Key: ruleset.Type{f.IP.Addr, ruleset.InetService, f.IP.Addr, ruleset.InetService}}
}

// restore undoes divert. Where nobody else has committed meanwhile, the
// record of the apply holds for the generation that this makes, too.
func (w *writer) restore(result *Result) error {
	var ops []op
	for _, o := range removeMoving() {
		if slices.ContainsFunc(w.diverted, func(a op) bool { return a.adds(o) }) {
			ops = append(ops, o)
		}
	}
	if now, err := w.conn.Generation(); w.record != nil && err == nil && now == result.Generation {
		amended := append(slices.Clip(ops), amendRecord(*w.record, result.Generation+1)...)
		if err := w.commitFor(amended, result.Generation, result); err == nil || !errors.Is(err, wire.ErrStale) {
			return err
		}
	}
	return w.commitNow(ops, result)
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
	for _, f := range compile.Families {
		ops = append(ops, op{verb: remove, mapping: movingMap(f)})
	}
	return ops
}

// commitNow commits operations that do not depend on what else the table holds.
func (w *writer) commitNow(ops []op, result *Result) error {
	return w.commitFor(ops, wire.AnyGeneration, result)
}

// commitFor commits operations for a generation of the ruleset.
func (w *writer) commitFor(ops []op, generation uint32, result *Result) error {
	parts, err := w.parts(w.table, ops)
	if err != nil {
		return err
	}
	for _, part := range parts {
		part.SetGeneration(generation)
		before, err := w.conn.Generation()
		if err != nil {
			return err
		}
		if result.Generation, err = w.conn.Commit(part, before); err != nil {
			return err
		}
		if generation != wire.AnyGeneration {
			generation = result.Generation
		}
	}
	return nil
}
