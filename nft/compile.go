package nft

// Compile: profiles become a ruleset.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/nft/ruleset"

	"nlb/lb"
)

// Compile returns the ruleset of profiles, numbered from nothing: the same
// profiles give the same bytes. It does not check that the profiles are free
// of conflicts; lb.Conflicts does.
func Compile(table string, profiles []*lb.Profile) *ruleset.Ruleset {
	n := newNumbers()
	n.assign(profiles)
	return compile(table, profiles, nil, n, func(string) bool { return false })
}

// compile also regards the profiles of others, which are there already, and
// keeps the objects of the layout that are there, maps for lengths of prefixes
// included.
func compile(table string, profiles, others []*lb.Profile, n *numbers, there func(object string) bool) *ruleset.Ruleset {
	x := extent{lengths: sortedLengths(append(lengthsOf(profiles), n.extent.lengths...)), shards: n.extent.shards, kept: n.owners.kept}
	c := &compiler{
		Ruleset: layout(table, x), numbers: n,
		byName: map[string]*ruleset.Map{}, pools: map[string]bool{}, needed: map[string]bool{},
	}
	for _, m := range c.Maps {
		c.byName[m.Name] = m
	}
	backends := countBackends(profiles)
	for _, name := range []string{slotsMap, families[0].endpoints} { // where most of them go
		c.byName[name].Elements = make([]ruleset.Element, 0, backends)
	}
	for _, p := range profiles {
		for i := range p.Services {
			c.service(p, &p.Services[i])
		}
	}
	for name, elements := range exemptions(slices.Concat(others, profiles)) {
		c.byName[name].Elements = elements
	}
	trim(c.Ruleset, func(object string) bool { return c.needed[object] || there(object) })
	return c.Ruleset
}

type compiler struct {
	*ruleset.Ruleset
	*numbers
	byName map[string]*ruleset.Map
	pools  map[string]bool // chains of SNAT addresses that are there
	needed map[string]bool // objects of the layout that rules refer to
}

func (c *compiler) add(name string, e ruleset.Element) {
	m := c.byName[name]
	m.Elements = append(m.Elements, e)
}

func (c *compiler) service(p *lb.Profile, s *lb.Service) {
	own := &ruleset.Chain{Name: chainOf(p.Name, s.Name)}
	c.Chains = append(c.Chains, own)
	if s.Role == lb.RoleServer {
		own.Rules = append(own.Rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.AcceptForeign()}, Comment: "role server"})
	}
	own.Rules = append(own.Rules, c.guard(own.Name, s)...)
	shared := sharedLog(s)
	if shared != nil {
		own.Rules = append(own.Rules, logRule(shared))
	}
	for _, f := range s.Families() {
		f := familyOf(f)
		draw := c.pool(own.Name, s, f, shared)
		switch {
		case s.Affinity != nil && !draw.refuses:
			own.Rules = append(own.Rules, c.affinity(own.Name, s, f).wrap(draw)...)
		case draw.limited:
			own.Rules = append(own.Rules, draw.attempts(f, []ruleset.Rule{draw.alone()}, nil)...)
		default:
			own.Rules = append(own.Rules, draw.alone())
		}
	}
	for _, r := range own.Rules {
		c.refers(r)
	}
	for name, e := range destinations(own.Name, s) {
		c.add(name, e)
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
		if chain == turnAwayChain {
			c.needed[refuseChain] = true
		}
	}
}

// sharedLog is the log of all backends of a service, nil where they differ.
func sharedLog(s *lb.Service) *lb.Log {
	if len(s.Backends) == 0 {
		return s.Log
	}
	first := s.Backends[0].Log
	for _, b := range s.Backends {
		if b.Log.String() != first.String() {
			return nil
		}
	}
	return first
}

// drawRule picks a backend, or refuses where there is none.
type drawRule struct {
	match   []ruleset.Statement
	draw    []ruleset.Statement
	comment string
	refuses bool
	limited bool                  // by max-connections: draw leaves a backend in the mark
	retries [][]ruleset.Statement // what draws again, where a backend is full
	shard   uint32
}

// alone is the rule without an affinity.
func (r drawRule) alone() ruleset.Rule {
	return ruleset.Rule{Statements: append(r.match, r.draw...), Comment: r.comment}
}

// pool writes the backends of a service and family, and returns the rule that
// draws one of them. shared is the log that the service writes for all.
func (c *compiler) pool(chain string, s *lb.Service, f *family, shared *lb.Log) drawRule {
	backends := s.Of(f.Family)
	var parked []int
	for i := range backends {
		if backends[i].Effective() == 0 {
			parked = append(parked, i)
		}
	}
	order := s.Slots(backends)
	block := c.slot(poolKey{chain, f.Family}, uint32(len(order)), uint32(len(parked)))

	marks := make([]uint32, len(backends))
	for i, b := range backends {
		marks[i] = modeMark(b.SNAT.Mode) | c.backend(chain, b.Address)
	}
	c.needShard(block.base)
	slots := slotMapOf(block.base)
	counts := make([]int, len(backends))
	for slot, i := range order {
		c.add(slots, ruleset.Element{Key: ruleset.MarkBytes(block.base + uint32(slot)), Data: ruleset.MarkBytes(marks[i])})
		counts[i]++
	}
	for j, i := range parked {
		c.add(slots, ruleset.Element{Key: ruleset.MarkBytes(block.base + uint32(len(order)+j)), Data: ruleset.MarkBytes(marks[i])})
	}
	for i, b := range backends {
		e := ruleset.Element{Key: ruleset.MarkBytes(marks[i]), Data: ruleset.AddrBytes(b.Address.Addr)}
		if comment := backendComment(b, counts[i]); comment != "" {
			e.Extra = &ruleset.Extra{Comment: comment}
		}
		if b.Address.Port == 0 {
			c.add(f.addresses, e)
		} else {
			e.Data += ruleset.PortBytes(b.Address.Port)
			c.add(f.endpoints, e)
		}
		if b.SNAT.Mode == lb.SNATPool {
			c.add(poolsMap, ruleset.Element{Key: e.Key, Data: c.sourcePool(f, b.SNAT.Of(f.Family))})
		}
		if s.Affinity != nil && b.Effective() > 0 {
			c.add(stickySet, ruleset.Element{Key: e.Key})
		}
		c.backendChain(chain, marks[i], b, shared)
	}
	return c.draw(chain, s, f, block)
}

// backendChain writes the statements that a backend has of its own.
func (c *compiler) backendChain(service string, mark uint32, b lb.Backend, shared *lb.Log) {
	own := &ruleset.Chain{}
	if b.MaxConnections > 0 {
		own.Rules = append(own.Rules, connectionLimit(mark, b.MaxConnections)...)
		c.add(refusedSet, ruleset.Element{Key: ruleset.MarkBytes(whenFull(mark))})
	}
	if b.Log != nil && shared == nil {
		own.Rules = append(own.Rules, logRule(b.Log))
	}
	if len(own.Rules) == 0 {
		return
	}
	own.Name = backendChainOf(service, mark)
	for _, r := range own.Rules {
		c.refers(r)
	}
	c.Chains = append(c.Chains, own)
	c.add(backendsMap, ruleset.Element{Key: ruleset.MarkBytes(mark), Data: own.Name})
}

// draw is what picks a slot, and without affinity and limits delivers.
func (c *compiler) draw(chain string, s *lb.Service, f *family, b block) drawRule {
	r := drawRule{comment: poolInfo{family: f.Family, service: s, block: b}.String(), refuses: b.slots == 0, shard: shardOf(b.base)}
	if s.Scheduler.Hashes() && !r.refuses || !onlyFamily(s) {
		r.match = []ruleset.Statement{f.match}
	}
	if !r.refuses && slices.ContainsFunc(s.Of(f.Family), limits) {
		c.limitedDraw(&r, chain, s, f, b)
		return r
	}
	switch {
	case r.refuses && s.OnEmpty == lb.Drop:
		r.draw = []ruleset.Statement{ruleset.Drop()}
	case r.refuses:
		r.draw = []ruleset.Statement{ruleset.Goto(refuseChain)}
	default:
		r.draw = []ruleset.Statement{f.drawSlot(s, b, 0)}
	}
	if s.Affinity == nil && !r.refuses {
		r.draw = append(r.draw, ruleset.Goto(ofShard(f.pick, shardOf(b.base))))
	}
	return r
}

// drawSlot puts a slot into the mark. A retry by hash has a seed of its own, the
// same on every machine.
func (f *family) drawSlot(s *lb.Service, b block, retry uint32) ruleset.Statement {
	if s.Scheduler == lb.Hash {
		return ruleset.SetMarkHash(f.hashFields(s.HashBy), s.HashSeed+retry*retrySeed, b.slots, b.base)
	}
	return ruleset.SetMarkNumgen(s.Scheduler == lb.Random, b.slots, b.base)
}

// hashFields are the parts of a packet that the scheduler hash looks at.
func (f *family) hashFields(by []lb.HashField) []ruleset.Field {
	out := make([]ruleset.Field, len(by))
	for i, b := range by {
		switch b {
		case lb.SourceAddress:
			out[i] = f.ip.Source()
		case lb.SourcePort:
			out[i] = ruleset.SourcePort
		case lb.DestinationAddress:
			out[i] = f.ip.Destination()
		case lb.DestinationPort:
			out[i] = ruleset.DestinationPort
		case lb.ByProtocol:
			out[i] = ruleset.L4Protocol
		}
	}
	return out
}

// onlyFamily reports whether what is sent to a service is of one family, whatever
// it is.
func onlyFamily(s *lb.Service) bool {
	own := func(l lb.Listen) bool { return !l.Prefix.IsValid() }
	return len(s.Families()) == 1 && !slices.ContainsFunc(s.Listen, own)
}

// sourcePool returns the chain that translates sources to these addresses.
func (c *compiler) sourcePool(f *family, addrs []netip.Addr) string {
	name := poolOf(addrs)
	if c.pools[name] {
		return name
	}
	c.pools[name] = true
	b := c.source(name, uint32(len(addrs)))
	for i, a := range addrs {
		c.add(f.sources, ruleset.Element{Key: ruleset.MarkBytes(b.base + uint32(i)), Data: ruleset.AddrBytes(a)})
	}
	c.Chains = append(c.Chains, &ruleset.Chain{Name: name, Rules: []ruleset.Rule{{
		Statements: []ruleset.Statement{f.ip.SNATRandom(b.slots, b.base, f.sources)},
		Comment:    fmt.Sprintf("%s sources %d+%d", f.Family, b.base, b.slots),
	}}})
	return name
}

// backendComment holds what the other elements do not say: a name that is not
// the address, a weight that is not the number of slots, a state that is not up:
// "name b1 weight 5 down".
func backendComment(b lb.Backend, slots int) string {
	var parts []string
	if b.Name != b.Address.String() {
		parts = append(parts, "name "+b.Name)
	}
	if b.Weight != slots && b.Weight != 0 {
		parts = append(parts, fmt.Sprintf("weight %d", b.Weight))
	}
	if b.State != lb.Up {
		parts = append(parts, b.State.String())
	}
	return strings.Join(parts, " ")
}
