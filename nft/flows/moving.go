package flows

// Moving: how UDP flows move from a backend that is gone to another one.
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
//
// Of packets in a flow table no chain sees anything, so meanwhile it has no devices.

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

const (
	moving      = "moving"
	movingOut   = "moving-out"
	movingZone  = compile.MovingZone
	rawPriority = -300 // NF_IP_PRI_RAW, before conntrack
)

// IsMoving reports whether a chain or map is one of those that move flows.
// Those of a service have a '/', and its profile may be called so.
func IsMoving(name string) bool {
	return strings.HasPrefix(name, moving) && !strings.Contains(name, "/")
}

// MovingChains and MovingMaps are what moves flows, in the order in which it goes.
func MovingChains() []*ruleset.Chain { return []*ruleset.Chain{{Name: moving}, {Name: movingOut}} }

// MovingMaps are the maps of flows on their way.
func MovingMaps() []*ruleset.Map {
	return []*ruleset.Map{movingMap(compile.Families[0]), movingMap(compile.Families[1])}
}

func movingMap(f *compile.Family) *ruleset.Map {
	return &ruleset.Map{Name: moving + f.IP.Digit, Key: ruleset.Type{f.IP.Addr, ruleset.InetService, f.IP.Addr, ruleset.InetService}}
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
func (c *Cleanup) divert(flows []conntrack.Flow) error {
	pre := &ruleset.Chain{Name: moving, Hook: ruleset.Prerouting(rawPriority, "raw"), Filter: true}
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
		c.diverted = append(c.diverted, m)
		r := ruleset.Rule{Statements: []ruleset.Statement{f.IP.ZoneOf(m.Name, movingZone)}}
		pre.Rules, out.Rules = append(pre.Rules, r), append(out.Rules, r)
	}
	return c.commit(wire.AnyGeneration, func(m *ruleset.Messages) {
		for _, f := range c.Flowtables {
			m.Cut()
			m.DeleteFlowtable(f)
		}
		for _, of := range c.diverted {
			m.Cut()
			m.NewMap(of)
			m.Cut()
			m.Elements(unix.NFT_MSG_NEWSETELEM, of, of.Elements)
		}
		for _, chain := range []*ruleset.Chain{pre, out} {
			m.Cut()
			m.NewChain(chain)
			for _, r := range chain.Rules {
				m.Cut()
				m.Rule(chain.Name, r, 0)
			}
		}
	})
}

// restore undoes divert. A device that has gone meanwhile must not keep the rest from
// it: then the next apply puts the others back.
func (c *Cleanup) restore() error {
	err := c.restoreWith(c.Flowtables)
	if _, refused := errors.AsType[*wire.Error](err); refused && len(c.Flowtables) > 0 {
		err = c.restoreWith(nil)
	}
	return err
}

// restoreWith is restore with these flow tables. Where nobody else has committed
// meanwhile, the record of the apply holds for the generation that this makes, too.
func (c *Cleanup) restoreWith(flowtables []*ruleset.Flowtable) error {
	remove := func(m *ruleset.Messages) {
		for _, f := range flowtables {
			m.Cut()
			m.NewFlowtable(f)
		}
		for _, chain := range MovingChains() {
			m.Cut()
			m.DeleteChain(chain.Name)
		}
		for _, of := range c.diverted {
			m.Cut()
			m.DeleteMap(of.Name)
		}
	}
	if now, err := c.Conn.Generation(); c.Amend != nil && err == nil && now == c.Generation {
		next := c.Generation + 1
		err := c.commit(c.Generation, func(m *ruleset.Messages) {
			remove(m)
			m.Cut()
			c.Amend(m, next)
		})
		if err == nil || !errors.Is(err, wire.ErrStale) {
			return err
		}
	}
	return c.commit(wire.AnyGeneration, remove)
}

// commit commits messages for a generation of the ruleset.
func (c *Cleanup) commit(generation uint32, write func(m *ruleset.Messages)) error {
	limit, err := c.Conn.Limit(4 * ruleset.MaxList)
	if err != nil {
		return err
	}
	b := wire.NewBatch(wire.AnyGeneration)
	write(&ruleset.Messages{Batch: b, Family: ruleset.Inet, Table: c.Table, List: min(ruleset.MaxList, limit/4)})
	if limit, err = c.Conn.Limit(b.Size()); err != nil {
		return err
	}
	parts, err := b.Split(limit)
	if err != nil {
		return err
	}
	for _, part := range parts {
		part.SetGeneration(generation)
		before, err := c.Conn.Generation()
		if err != nil {
			return err
		}
		alone := before == c.Generation
		if c.Generation, err = c.Conn.Commit(part, before); err != nil {
			return err
		}
		if !alone || c.Generation != before+1 {
			c.Amend = nil // somebody else has committed, which the record must not hide
		}
		if generation != wire.AnyGeneration {
			generation = c.Generation
		}
	}
	return nil
}
