// Package compile turns profiles into a ruleset: the layout of a table, destinations,
// guards, draws, and the numbers of backends and slots. It also reads names, elements
// and comments of such a ruleset back. It knows no kernel.
package compile

// Compile: services and their backends become chains, rules and elements.

import (
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/nft/compile/border"
	"nlb/nft/compile/datagrams"
	"nlb/nft/compile/handshake"
	"nlb/nft/compile/synproxy"
	"nlb/nft/fleet"
	"nlb/nft/ruleset"
)

// Profiles returns the ruleset of profiles, numbered from nothing: the same
// profiles give the same bytes. It does not check that the profiles are free
// of conflicts; lb.Conflicts does.
func Profiles(table string, profiles []*lb.Profile) *ruleset.Ruleset {
	n := NewNumbers(0, profiles)
	nothing := func(string) bool { return false }
	r := Beside(table, profiles, nil, n, nothing)
	named(profiles).AddTo(r, profiles, nil, n, nothing)
	return r
}

// Beside returns the ruleset of profiles in a table that also has others. The others
// are not in it, but for the exemptions, which depend on all. n has the numbers of
// both. Of the layout the ruleset has what the profiles need, and the objects that
// are there already. Where ProbesChain is there, it has what checks of servers need.
func Beside(table string, profiles, others []*lb.Profile, n *Numbers, there func(object string) bool) *ruleset.Ruleset {
	x := extent{lengths: sortedLengths(append(lengthsOf(profiles), n.extent.lengths...)), shards: n.extent.shards, kept: n.Owners.Kept, probes: there(ProbesChain)}
	x.picksUp = fleet.PicksUp(profiles) || fleet.PicksUp(others) || there(fleet.PickUpChain)
	c := &compiler{
		Ruleset: layoutTo(table, x), Numbers: n,
		byName: map[string]*ruleset.Map{}, pools: map[string]bool{}, needed: map[string]bool{},
	}
	for _, m := range c.Maps {
		c.byName[m.Name] = m
	}
	backends := countBackends(profiles)
	for _, name := range []string{SlotsMap, Families[0].Endpoints} { // where most of them go
		c.byName[name].Elements = make([]ruleset.Element, 0, backends)
	}
	for p, s := range lb.Services(profiles) {
		c.service(p, s)
	}
	c.insertSlots(c.ownSlots...)
	if n.many {
		c.roomForSlots()
	}
	all := slices.Concat(others, profiles)
	for _, of := range []map[string][]ruleset.Element{exemptions(all), fleet.Elements(all)} {
		for name, elements := range of {
			c.byName[name].Elements = elements
		}
	}
	c.border(all, there)
	c.needed[fleet.PickUpChain] = x.picksUp
	if asked, needed := fleet.NeedsAsked(all); needed {
		c.needed[asked] = true
	}
	c.othersRetry(others)
	c.needed[handshake.Backends] = handshake.Bounds(all)
	if ChangesSources(profiles) || ChangesSources(others) {
		c.needed[PostroutingChain] = true
	}
	trim(c.Ruleset, func(object string) bool { return c.needed[object] || there(object) })
	return c.Ruleset
}

// border writes what becomes of traffic that no service takes, and what datagrams and
// protected SYNs meet ahead of the services.
func (c *compiler) border(all []*lb.Profile, there func(object string) bool) {
	for name, elements := range border.Elements(all) {
		c.byName[name].Elements = elements
		for _, e := range elements {
			c.needed[e.Data], c.needed[refuseChain] = true, true
		}
	}
	for p, s := range lb.Services(all) {
		if s.Balance == lb.Datagrams {
			for f, e := range listens(s, lb.UDP) {
				e.Data = datagrams.Of(ChainOf(p.Name, s.Name), f)
				c.add(datagrams.Destinations(f), e)
			}
		}
		if s.SYNProtection != nil {
			for f, e := range listens(s, lb.TCP) {
				c.add(synproxy.Protected(f), e)
				e.Data = synproxy.Of(ChainOf(p.Name, s.Name), f)
				c.add(synproxy.ChainsBy(f), e)
			}
		}
	}
	for _, m := range c.Maps {
		if m.Kind == ruleset.Addresses { // in one order, whatever that of the profiles
			slices.SortFunc(m.Elements, func(a, b ruleset.Element) int { return strings.Compare(a.Key, b.Key) })
		}
	}
	c.Chains = append(c.Chains, synproxy.ChainsFor(all, there)...)
	c.needed[synproxy.KeptChain] = true // nothing leads there
	if lb.BalancedOnly(all) || there(border.ForwardChain) {
		c.Chains = append(c.Chains, border.Forward())
	}
}

type compiler struct {
	*ruleset.Ruleset
	*Numbers
	byName map[string]*ruleset.Map
	pools  map[string]bool // chains of SNAT addresses that are there
	needed map[string]bool // objects of the layout that rules refer to

	ownSlots []*ruleset.Map // of services that have some
}

func (c *compiler) add(name string, e ruleset.Element) {
	m := c.byName[name]
	m.Elements = append(m.Elements, e)
}

func (c *compiler) service(p *lb.Profile, s *lb.Service) {
	own := &ruleset.Chain{Name: ChainOf(p.Name, s.Name), Rules: make([]ruleset.Rule, 0, 2)}
	c.Chains = append(c.Chains, own)
	if s.Mode.Direct() {
		own.Rules = append(own.Rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Accept()}, Comment: modeComment(s)})
	}
	if s.Role == lb.RoleServer {
		own.Rules = append(own.Rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.IsForeign(), ruleset.Accept()}, Comment: "role server"})
	}
	own.Rules = append(append(own.Rules, border.Notes(s)...), c.guard(own.Name, s)...)
	own.Rules = append(own.Rules, border.Helpers(s)...)
	shared := sharedLog(s)
	if shared != nil {
		own.Rules = append(own.Rules, logRule(shared))
	}
	own.Rules = append(own.Rules, timeoutRules(s.Timeouts)...)
	if s.Limit.HalfOpen > 0 {
		sets, segments := handshake.Service(own.Name, s)
		c.Maps, c.Chains = append(c.Maps, sets...), append(c.Chains, segments)
	}
	if s.Balance == lb.Datagrams {
		own.Rules = append(own.Rules, datagrams.Note())
	}
	for _, f := range s.Families() {
		f := FamilyOf(f)
		if s.Balance == lb.Datagrams {
			c.datagrams(own.Name, s, f)
		}
		c.Chains = append(c.Chains, synproxy.Service(own.Name, s, f.IP)...)
		draw := c.pool(own.Name, s, f, shared)
		if draw.refuses && s.Limit.HalfOpen > 0 {
			own.Rules = append(own.Rules, handshake.Forget(own.Name, s, f.match))
		}
		switch {
		case s.Mode.Direct(): // the rule is there for what its comment says
			own.Rules = append(own.Rules, ruleset.Rule{Statements: []ruleset.Statement{f.match, ruleset.Accept()}, Comment: draw.comment})
		case s.Affinity != nil && !draw.refuses:
			own.Rules = append(own.Rules, c.affinity(p.Name, s, f).wrap(draw)...)
		case draw.repeats:
			own.Rules = append(own.Rules, draw.attempts(f, []ruleset.Rule{draw.alone()}, nil)...)
		case s.Affinity != nil && slices.ContainsFunc(s.Of(f.Family), func(b lb.Backend) bool { return b.Weight > 0 }):
			own.Rules = append(own.Rules, c.newAffinity(p.Name, s, f).noted(), draw.alone())
		default:
			own.Rules = append(append(own.Rules, draw.before...), draw.alone())
			switch {
			case draw.refuses:
			case draw.inline:
				own.Rules = append(own.Rules, draw.translate(s, f)...)
			default:
				own.Rules = append(own.Rules, draw.deliver(f))
			}
		}
	}
	for _, r := range own.Rules {
		c.refers(r)
	}
	for name, e := range Destinations(own.Name, s) {
		c.add(name, e)
	}
}

// datagrams writes what balances the datagrams that come from the network. What this
// host sends goes by the service's own chain.
func (c *compiler) datagrams(chain string, s *lb.Service, f *Family) {
	var guard []ruleset.Statement
	if len(s.Deny) > 0 {
		guard = append(guard, f.IP.SourceIn(c.clientList(f, s.Deny), false))
	}
	if len(s.Allow) > 0 {
		guard = append(guard, f.IP.SourceIn(c.clientList(f, s.Allow), true))
	}
	servers, own := datagrams.Service(chain, s, f.IP, s.Of(f.Family), guard, refuseChain)
	c.Maps, c.Chains = append(c.Maps, servers), append(c.Chains, own)
	for _, r := range own.Rules {
		c.refers(r)
	}
}

// refers notes the chains that a rule goes to.
func (c *compiler) refers(r ruleset.Rule) {
	for _, s := range r.Statements {
		word, chain, _ := strings.Cut(s.Text, " ")
		if word != "goto" && word != "jump" {
			continue
		}
		c.needed[chain] = true
		switch chain {
		case waitChain:
			c.needed[waitedSet], c.needed[turnAwayChain], c.needed[refuseChain] = true, true, true
		case turnAwayChain:
			c.needed[refuseChain] = true
		}
	}
}

// drawRule picks a backend, or refuses where there is none.
type drawRule struct {
	match   []ruleset.Statement
	draw    []ruleset.Statement
	comment string
	refuses bool
	repeats bool                  // draw leaves a backend in the mark, which may be passed over
	own     bool                  // draw leaves a backend in the mark, from the service's own slots
	inline  bool                  // draw leaves a backend in the mark, which the service's chain translates to
	limited bool                  // by max-connections
	forget  []ruleset.Statement   // takes what is refused out of what is half-open
	ejects  bool                  // backends that refused
	retries [][]ruleset.Statement // what draws again, where a backend is passed over
	away    string                // the chain for what finds all full
	shard   uint32
	before  []ruleset.Rule // for connections that are picked up
}

// alone is the rule without an affinity.
func (r drawRule) alone() ruleset.Rule {
	return ruleset.Rule{Statements: append(r.match, r.draw...), Comment: r.comment}
}

// deliver is the rule behind it. It is one of its own, since the kernel goes through
// all rules of a table for a new one that goes somewhere, and what draws is new
// whenever a backend falls: with 10,000 services that is more than half of the time
// that it takes.
func (r drawRule) deliver(f *Family) ruleset.Rule {
	next := f.gotoPick(r.shard)
	if r.own {
		next = ruleset.Goto(f.Deliver)
	}
	return ruleset.Rule{Statements: append(slices.Clip(r.match), next)}
}

// pool writes the backends of a service and family, and returns the rule that
// draws one of them. shared is the log that the service writes for all.
func (c *compiler) pool(chain string, s *lb.Service, f *Family, shared *lb.Log) drawRule {
	backends := s.Of(f.Family)
	marks := make([]uint32, len(backends))
	for i := range backends {
		b := &backends[i]
		marks[i] = modeMark(b.SNAT.Mode) | c.Backend(chain, b.Address)
	}
	block, counts := c.slotsOf(PoolKey{chain, f.Family}, s, backends, marks, c.inlines(s, f, shared))
	ejecting := ejects(s, f.Family)
	for i := range backends {
		b := &backends[i]
		server, data := f.server(b, block.Inline())
		e := ruleset.Element{Key: ruleset.MarkBytes(marks[i]), Data: data}
		if comment := backendComment(*b, counts[i], block.Own); comment != "" {
			e.Extra = &ruleset.Extra{Comment: comment}
		}
		c.add(server, e)
		if b.SNAT.Mode == lb.SNATPool {
			c.add(PoolsMap, ruleset.Element{Key: e.Key, Data: c.sourcePool(f, b.SNAT.Of(f.Family), s.RandomPorts)})
		}
		if s.RandomPorts && b.SNAT.Mode != lb.SNATNone {
			c.add(RandomSet, ruleset.Element{Key: e.Key})
		}
		if s.Affinity != nil && counts[i] > 0 {
			c.add(StickySet, ruleset.Element{Key: e.Key})
		}
		if comment := standingComment(b.Standing); comment != "" {
			c.add(VerdictsSet, ruleset.Element{Key: e.Key, Extra: &ruleset.Extra{Comment: comment}})
		}
		if ejecting && counts[i] > 0 {
			c.retries(marks[i])
		}
		if s.Limit.HalfOpen > 0 {
			c.add(handshake.Backends, ruleset.Element{Key: ruleset.MarkBytes(marks[i]), Data: handshake.Of(chain)})
		}
		c.backendChain(chain, marks[i], b, shared)
	}
	draw := c.draw(chain, s, f, block)
	if block.Own && s.PicksUp() && s.Affinity == nil && !draw.repeats {
		draw.before = c.before(PoolKey{chain, f.Family}, s, block, marks)
	}
	return draw
}

// backendChain writes the statements that a backend has of its own.
func (c *compiler) backendChain(service string, mark uint32, b *lb.Backend, shared *lb.Log) {
	var rules []ruleset.Rule
	if b.MaxConnections > 0 {
		rules = c.connectionLimit(service, mark, *b)
		c.add(RefusedSet, ruleset.Element{Key: ruleset.MarkBytes(FullMark(mark))})
	}
	if b.Log != nil && shared == nil {
		rules = append(rules, logRule(b.Log))
	}
	if len(rules) == 0 {
		return
	}
	own := &ruleset.Chain{Name: backendChainOf(service, mark), Rules: rules}
	for _, r := range rules {
		c.refers(r)
	}
	c.Chains = append(c.Chains, own)
	c.add(BackendsMap, ruleset.Element{Key: ruleset.MarkBytes(mark), Data: own.Name})
}

// draw is what picks a slot.
func (c *compiler) draw(chain string, s *lb.Service, f *Family, b Block) drawRule {
	r := drawRule{comment: poolInfo{family: f.Family, service: s, block: b}.String(), refuses: b.Slots == 0, own: b.Own, away: whenFull(s), shard: shardOf(b.Base)}
	if s.Scheduler.Hashes() && !r.refuses || !onlyFamily(s) {
		r.match = []ruleset.Statement{f.match}
	}
	if s.Limit.HalfOpen > 0 {
		r.forget = handshake.Forget(chain, s).Statements
	}
	r.limited, r.ejects = !r.refuses && slices.ContainsFunc(s.Of(f.Family), limits), ejects(s, f.Family)
	if r.limited || r.ejects {
		c.repeatedDraw(&r, chain, s, f, b)
		return r
	}
	switch {
	case r.refuses && s.OnEmpty == lb.Drop:
		r.draw = []ruleset.Statement{ruleset.Drop()}
	case r.refuses:
		r.draw = []ruleset.Statement{ruleset.Goto(refuseChain)}
	default:
		r.draw = []ruleset.Statement{f.drawSlot(s, b, 0)}
		if r.inline = b.Inline(); r.inline {
			r.draw[0] = ruleset.Through(r.draw[0], InlineSlotsMap)
		}
		if r.own {
			r.draw = append(r.draw, ruleset.SetMarkByMap(OwnSlotsOf(chain, f)))
		}
	}
	return r
}

// drawSlot puts a slot into the mark. A retry by hash has a seed of its own, the
// same on every machine.
func (f *Family) drawSlot(s *lb.Service, b Block, retry uint32) ruleset.Statement {
	if s.Scheduler.Hashes() {
		return ruleset.SetMarkHash(f.HashFields(s.HashBy), s.HashSeed+retry*retrySeed, b.Slots, b.Base)
	}
	return ruleset.SetMarkNumgen(s.Scheduler == lb.Random, b.Slots, b.Base)
}

// onlyFamily reports whether what is sent to a service is of one family, whatever
// it is.
func onlyFamily(s *lb.Service) bool {
	own := func(l lb.Listen) bool { return !l.Prefix.IsValid() }
	return len(s.Families()) == 1 && !slices.ContainsFunc(s.Listen, own)
}

// ChangesSources reports whether a backend of these profiles sees another source than
// the client.
func ChangesSources(profiles []*lb.Profile) bool {
	changes := func(b lb.Backend) bool { return b.SNAT.Mode != lb.SNATNone }
	return lb.AnyService(profiles, func(s *lb.Service) bool { return slices.ContainsFunc(s.Backends, changes) })
}

// sourcePool returns the chain that translates sources to these addresses.
func (c *compiler) sourcePool(f *Family, addrs []netip.Addr, random bool) string {
	name := poolOf(addrs, random)
	if c.pools[name] {
		return name
	}
	c.pools[name] = true
	b := c.source(name, uint32(len(addrs)))
	for i, a := range addrs {
		c.add(f.Sources, ruleset.Element{Key: ruleset.MarkBytes(b.Base + uint32(i)), Data: ruleset.AddrBytes(a)})
	}
	c.Chains = append(c.Chains, &ruleset.Chain{Name: name, Rules: []ruleset.Rule{{
		Statements: []ruleset.Statement{f.IP.SNATRandom(b.Slots, b.Base, f.Sources, random)},
		Comment:    sourcesComment(f.Family, b),
	}}})
	return name
}
