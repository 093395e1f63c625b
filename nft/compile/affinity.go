package compile

// Affinity: a client, or its network, stays with its backend. Each service and
// family has a map that the packets themselves fill; an entry lives until its
// client has opened no connection for the timeout. nft 1.0.6 cannot load an
// update of a map whose key is an IPv6 address and something else, so the
// service is in the map's name and not in its key.

import (
	"fmt"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// StickySet has the backends that an affinity may lead to: those that take new
// connections.
const StickySet = "sticky"

const resolveChain = "resolve"

// AffinityMap is the name of the map of a service's clients.
func AffinityMap(chain string, f *Family) string { return chain + "/affinity" + f.IP.Digit }

// affinity is what a service's rules need to know.
type affinity struct {
	*Family
	set     string
	bits    int
	timeout time.Duration
}

// info is read back by readAffinity.
func (a affinity) info() string {
	return fmt.Sprintf("affinity %s timeout %s bits %d", a.Family, a.timeout, a.bits)
}

// noted is a rule that does nothing, for a service whose backends are all down or
// drained: what is wanted is known from it.
func (a affinity) noted() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{a.match}, Comment: a.info()}
}

// newAffinity is that of a service and family.
func newAffinity(chain string, s *lb.Service, f *Family) affinity {
	a := affinity{Family: f, set: AffinityMap(chain, f), bits: s.Affinity.Bits, timeout: s.Affinity.Timeout}
	if f.Family == lb.IPv6 {
		a.bits = s.Affinity.Bits6
	}
	return a
}

func (c *compiler) affinity(chain string, s *lb.Service, f *Family) affinity {
	a := newAffinity(chain, s, f)
	m := &ruleset.Map{Name: a.set, Key: ruleset.Type{f.IP.Addr}, Data: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: true, Size: maxClients, OfChain: chain}
	c.byName[m.Name] = m
	c.Maps = append(c.Maps, m)
	return a
}

// wrap puts the affinity around the statements that draw a slot:
//
//	look the client up
//	unknown, or its backend takes no new connections: forget it, draw
//	remember, or keep for longer
//	deliver
func (a affinity) wrap(draw drawRule) []ruleset.Rule {
	update := a.IP.UpdateSource(a.set, a.bits, a.timeout)
	fresh := draw.draw
	if !draw.repeats && !draw.own {
		fresh = append(fresh, ruleset.Jump(ofShard(resolveChain, draw.shard)))
	}
	out := []ruleset.Rule{
		{Statements: []ruleset.Statement{a.match, a.IP.SetMarkBySource(a.set, a.bits)}},
		{
			Statements: append([]ruleset.Statement{a.match, ruleset.MarkIn(StickySet, true), a.IP.DeleteSource(a.set, a.bits)}, fresh...),
			Comment:    draw.comment,
		},
		{Statements: []ruleset.Statement{a.match, update}, Comment: a.info()},
	}
	// By itself: an update of a map that is full ends its rule.
	if !draw.repeats {
		return append(out, ruleset.Rule{Statements: []ruleset.Statement{a.match, ruleset.Goto(a.Deliver)}})
	}
	draw.match = []ruleset.Statement{a.match}
	return draw.attempts(a.Family, out, []ruleset.Statement{update})
}

// resolve turns a slot of a shard in the mark into the backend's mark, for all
// services with affinity: for each element that the kernel adds to a map it goes through
// all rules that look into it.
func resolve(shard uint32) *ruleset.Chain {
	return &ruleset.Chain{Name: ofShard(resolveChain, shard), Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.SetMarkByMap(ofShard(SlotsMap, shard))}},
	}}
}

// readAffinity reads the comment that wrap writes.
func readAffinity(comment string, s *lb.Service) bool {
	rest, ok := strings.CutPrefix(comment, "affinity ")
	if !ok {
		return false
	}
	var family, timeout string
	var bits int
	if n, _ := fmt.Sscanf(rest, "%s timeout %s bits %d", &family, &timeout, &bits); n != 3 {
		return true
	}
	if s.Affinity == nil {
		s.Affinity = &lb.Affinity{}
	}
	s.Affinity.Timeout, _ = time.ParseDuration(timeout)
	if family == lb.IPv4.String() {
		s.Affinity.Bits = bits
	} else {
		s.Affinity.Bits6 = bits
	}
	return true
}
