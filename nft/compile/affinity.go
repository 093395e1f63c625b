package compile

// Affinity: a client, or its network, stays with its backend. Each service and
// family has two maps that the packets themselves fill. An entry of the first lives
// until its client has opened no connection for the timeout. One of the second counts
// connections (`ct count`), and the kernel takes it away when none of them is open. So
// packets of open connections need no rule. What is counted costs the kernel a look at
// each, once a second and for each new connection of the client. So of a client that
// opens very many only some are counted. nft 1.0.6 cannot load an
// update of a map whose key is an IPv6 address and something else, so the
// service is in the map's name and not in its key.

import (
	"fmt"
	"net/netip"
	"slices"
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

// openMap is the name of the map of clients with open connections.
func openMap(chain string, f *Family) string { return chain + "/open" + f.IP.Digit }

// groupMaps are the names of the two maps of clients that the services of a group share.
func groupMaps(profile, group string, f *Family) (set, open string) {
	name := ChainOf(profile, group)
	return name + "/group" + f.IP.Digit, name + "/group-open" + f.IP.Digit
}

// GroupMaps are the names of the maps of clients that services, by their chains, share
// with others.
func GroupMaps(services map[string]*lb.Service) map[string]bool {
	out := map[string]bool{}
	for chain, s := range services {
		for _, f := range Families {
			if profile, _, _ := ServiceOf(chain); s.Affinity != nil && s.Affinity.Group != "" {
				set, open := groupMaps(profile, s.Affinity.Group, f)
				out[set], out[open] = true, true
			}
		}
	}
	return out
}

// MembersOf is the name of the map of the backends of a service of a group.
func MembersOf(chain string, f *Family) string { return chain + members + f.IP.Digit }

const members = "/members"

// Members is the map of the backends of a service of a group that has this name,
// empty; nil: it is none.
func Members(name string) *ruleset.Map {
	for _, f := range Families {
		if chain, ok := strings.CutSuffix(name, members+f.IP.Digit); ok {
			return &ruleset.Map{Name: name, Kind: ruleset.Members, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Mark}, OfChain: chain}
		}
	}
	return nil
}

// memberMark begins the mark of a server of a group, which no connection keeps.
const memberMark = 0x49000000

// memberMarks are the marks of the servers of a service in its group. They follow
// from the addresses, which all services of the group have.
func memberMarks(backends []lb.Backend) map[netip.Addr]uint32 {
	var servers []netip.Addr
	for i := range backends {
		servers = append(servers, backends[i].Address.Addr)
	}
	slices.SortFunc(servers, netip.Addr.Compare)
	out, used := map[netip.Addr]uint32{}, map[uint32]bool{}
	for _, a := range servers {
		n := firstNumber(a.AsSlice())
		for used[n] {
			n = (n + 1) & NumberMask
		}
		out[a], used[n] = memberMark|n, true
	}
	return out
}

// countedRate are the connections of a client that are counted: many at first, then one a
// second.
var countedRate = ruleset.Rate{Text: "1/second", Events: 1, Per: time.Second, Burst: 1000}

// affinity is what a service's rules need to know.
type affinity struct {
	*Family
	set     string
	open    string
	members string // empty: it is in no group
	group   string
	bits    int
	timeout time.Duration
}

// info is read back by readAffinity.
func (a affinity) info() string {
	s := fmt.Sprintf("affinity %s timeout %s bits %d", a.Family, a.timeout, a.bits)
	if a.group != "" {
		s += " group " + a.group
	}
	return s
}

// noted is a rule that does nothing, for a service whose backends are all down or
// drained: what is wanted is known from it.
func (a affinity) noted() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{a.match}, Comment: a.info()}
}

// newAffinity is that of a service and family.
func newAffinity(profile string, s *lb.Service, f *Family) affinity {
	chain := ChainOf(profile, s.Name)
	a := affinity{
		Family: f, set: AffinityMap(chain, f), open: openMap(chain, f), group: s.Affinity.Group,
		bits: s.Affinity.Bits, timeout: s.Affinity.Timeout,
	}
	if f.Family == lb.IPv6 {
		a.bits = s.Affinity.Bits6
	}
	if a.group != "" {
		a.set, a.open = groupMaps(profile, a.group, f)
		a.members = MembersOf(chain, f)
	}
	return a
}

func (c *compiler) affinity(profile string, s *lb.Service, f *Family) affinity {
	a, chain := newAffinity(profile, s, f), ChainOf(profile, s.Name)
	c.needed[f.newcomers()] = true
	add := func(m *ruleset.Map) {
		if c.byName[m.Name] == nil {
			c.byName[m.Name] = m
			c.Maps = append(c.Maps, m)
		}
	}
	for _, name := range []string{a.set, a.open} {
		add(&ruleset.Map{
			Name: name, Key: ruleset.Type{f.IP.Addr}, Data: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: name == a.set,
			Size: maxClients, OfChain: chain,
		})
	}
	if a.members == "" {
		return a
	}
	m := Members(a.members)
	marks := memberMarks(s.Of(f.Family))
	for _, b := range s.Of(f.Family) {
		own, ofGroup := ruleset.MarkBytes(c.Mark(chain, &b)), ruleset.MarkBytes(marks[b.Address.Addr])
		m.Elements = append(m.Elements, ruleset.Element{Key: own, Data: ofGroup}, ruleset.Element{Key: ofGroup, Data: own})
	}
	add(m)
	return a
}

// wrap puts the affinity around the statements that draw a slot:
//
//	look the client up, and once more among those with open connections
//	unknown, or its backend takes no new connections: forget it, draw
//	remember, or keep for longer
//	deliver
//
// In a group, the maps have the servers' marks there, and each look is followed by
// one into the map of members, which leads to the service's own; and so back.
func (a affinity) wrap(draw drawRule) []ruleset.Rule {
	unknown := ruleset.MarkIn(StickySet, true)
	flip := func(statements ...ruleset.Statement) ruleset.Rule {
		out := append([]ruleset.Statement{a.match}, statements...)
		if a.members != "" {
			out = append(out, ruleset.SetMarkByMap(a.members))
		}
		return ruleset.Rule{Statements: out}
	}
	fresh := draw.draw
	if !draw.repeats && !draw.own {
		fresh = append(fresh, ruleset.Jump(ofShard(resolveChain, draw.shard)))
	}
	forget := []ruleset.Statement{a.match, unknown, a.IP.DeleteSource(a.set, a.bits), a.IP.DeleteSource(a.open, a.bits)}
	// By itself: an update of a map that is full ends its rule.
	remember := flip()
	remember.Statements = append(remember.Statements, a.IP.UpdateSource(a.set, a.bits, a.timeout),
		a.IP.RateBySource(a.newcomers(), a.bits, countedRate, false, time.Minute), a.IP.UpdateOpenSource(a.open, a.bits))
	remembers := []ruleset.Rule{remember}
	if a.members != "" {
		remembers = append(remembers, flip())
	}
	out := []ruleset.Rule{
		flip(a.IP.SetMarkBySource(a.set, a.bits)),
		flip(unknown, a.IP.SetMarkBySource(a.open, a.bits)),
		{Statements: append(forget, fresh...), Comment: draw.comment},
	}
	out = append(out, remembers...)
	out[3].Comment = a.info()
	if !draw.repeats {
		return append(out, ruleset.Rule{Statements: []ruleset.Statement{a.match, ruleset.Goto(a.Deliver)}})
	}
	draw.match = []ruleset.Statement{a.match}
	return draw.attempts(a.Family, out, remembers)
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
	rest, group, _ := strings.Cut(rest, " group ")
	if n, _ := fmt.Sscanf(rest, "%s timeout %s bits %d", &family, &timeout, &bits); n != 3 {
		return true
	}
	if s.Affinity == nil {
		s.Affinity = &lb.Affinity{}
	}
	s.Affinity.Group = group
	s.Affinity.Timeout, _ = time.ParseDuration(timeout)
	if family == lb.IPv4.String() {
		s.Affinity.Bits = bits
	} else {
		s.Affinity.Bits6 = bits
	}
	return true
}
