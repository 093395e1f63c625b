package nft

// Compile: profiles become a ruleset.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
)

// Compile returns the ruleset of profiles, numbered from nothing: the same
// profiles give the same bytes. It does not check that the profiles are free
// of conflicts; lb.Conflicts does.
func Compile(table string, profiles []*lb.Profile) *Ruleset {
	return compile(table, profiles, nil, newNumbers(), func(string) bool { return false })
}

// compile also regards the profiles of others, which are there already, and
// keeps the objects of the layout that are there, maps for lengths of prefixes
// included.
func compile(table string, profiles, others []*lb.Profile, n *numbers, there func(object string) bool) *Ruleset {
	lengths := sortedLengths(append(lengthsOf(profiles), n.lengths...))
	c := &compiler{
		Ruleset: layout(table, lengths), numbers: n,
		byName: map[string]*mapping{}, pools: map[string]bool{}, needed: map[string]bool{},
	}
	for _, m := range c.maps {
		c.byName[m.name] = m
	}
	backends := 0
	for _, p := range profiles {
		for i := range p.Services {
			backends += len(p.Services[i].Backends)
		}
	}
	n.expect(backends)
	for _, name := range []string{slotsMap, families[0].endpoints} { // where most of them go
		c.byName[name].elements = make([]element, 0, backends)
	}
	for _, p := range profiles {
		for i := range p.Services {
			c.service(p, &p.Services[i])
		}
	}
	for name, elements := range exemptions(slices.Concat(others, profiles)) {
		c.byName[name].elements = elements
	}
	c.trim(func(object string) bool { return c.needed[object] || there(object) })
	return c.Ruleset
}

type compiler struct {
	*Ruleset
	*numbers
	byName map[string]*mapping
	pools  map[string]bool // chains of SNAT addresses that are there
	needed map[string]bool // objects of the layout that rules refer to
}

func (c *compiler) add(name string, e element) {
	m := c.byName[name]
	m.elements = append(m.elements, e)
}

func (c *compiler) service(p *lb.Profile, s *lb.Service) {
	own := &chain{name: chainOf(p.Name, s.Name)}
	c.chains = append(c.chains, own)
	if s.Role == lb.RoleServer {
		own.rules = append(own.rules, rule{statements: []statement{onlyOwn()}, comment: "role server"})
	}
	own.rules = append(own.rules, c.guard(own.name, s)...)
	shared := sharedLog(s)
	if shared != nil {
		own.rules = append(own.rules, logRule(shared))
	}
	for _, f := range s.Families() {
		f := familyOf(f)
		draw := c.pool(own.name, s, f, shared)
		if s.Affinity == nil || draw.refuses {
			own.rules = append(own.rules, draw.alone())
			continue
		}
		own.rules = append(own.rules, c.affinity(own.name, s, f).wrap(draw)...)
	}
	for _, r := range own.rules {
		c.refers(r)
	}
	for name, e := range destinations(own.name, s) {
		c.add(name, e)
	}
}

// refers notes the chains that a rule goes to.
func (c *compiler) refers(r rule) {
	for _, s := range r.statements {
		switch s.text {
		case "goto " + refuseChain:
			c.needed[refuseChain] = true
		case "jump " + resolveChain:
			c.needed[resolveChain] = true
		case "goto " + turnAwayChain:
			c.needed[refuseChain], c.needed[turnAwayChain] = true, true
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
	match   []statement
	draw    []statement
	comment string
	refuses bool
}

// alone is the rule without an affinity.
func (r drawRule) alone() rule {
	return rule{statements: append(r.match, r.draw...), comment: r.comment}
}

// pool writes the backends of a service and family, and returns the rule that
// draws one of them. shared is the log that the service writes for all.
func (c *compiler) pool(chain string, s *lb.Service, f *family, shared *lb.Log) drawRule {
	backends := s.Of(f.Family)
	weights := make([]int, len(backends))
	var parked []int
	for i, b := range backends {
		weights[i] = b.Weight
		if b.Weight == 0 {
			parked = append(parked, i)
		}
	}
	order := lb.Slots(weights)
	block := c.slot(poolKey{chain, f.Family}, uint32(len(order)), uint32(len(parked)))

	marks := make([]uint32, len(backends))
	for i, b := range backends {
		marks[i] = modeMark(b.SNAT.Mode) | c.backend(chain, b.Address)
	}
	counts := make([]int, len(backends))
	for slot, i := range order {
		c.add(slotsMap, element{key: markBytes(block.base + uint32(slot)), data: markBytes(marks[i])})
		counts[i]++
	}
	for j, i := range parked {
		c.add(slotsMap, element{key: markBytes(block.base + uint32(len(order)+j)), data: markBytes(marks[i])})
	}
	for i, b := range backends {
		e := element{key: markBytes(marks[i]), data: addrBytes(b.Address.Addr)}
		if comment := backendComment(b, counts[i]); comment != "" {
			e.extra = &extra{comment: comment}
		}
		if b.Address.Port == 0 {
			c.add(f.addresses, e)
		} else {
			e.data += portBytes(b.Address.Port)
			c.add(f.endpoints, e)
		}
		if b.SNAT.Mode == lb.SNATPool {
			c.add(poolsMap, element{key: e.key, data: c.sourcePool(f, b.SNAT.Of(f.Family))})
		}
		if s.Affinity != nil && b.Weight > 0 {
			c.add(stickySet, element{key: e.key})
		}
		c.backendChain(chain, marks[i], b, shared)
	}
	return c.draw(s, f, block)
}

// backendChain writes the statements that a backend has of its own.
func (c *compiler) backendChain(service string, mark uint32, b lb.Backend, shared *lb.Log) {
	own := &chain{}
	if b.MaxConnections > 0 {
		own.rules = append(own.rules, connectionLimit(b.MaxConnections))
		c.add(refusedSet, element{key: markBytes(mark)})
	}
	if b.Log != nil && shared == nil {
		own.rules = append(own.rules, logRule(b.Log))
	}
	if len(own.rules) == 0 {
		return
	}
	own.name = backendChainOf(service, mark)
	for _, r := range own.rules {
		c.refers(r)
	}
	c.chains = append(c.chains, own)
	c.add(backendsMap, element{key: markBytes(mark), data: own.name})
}

// draw is what picks a slot, and without affinity delivers.
func (c *compiler) draw(s *lb.Service, f *family, b block) drawRule {
	r := drawRule{comment: poolInfo{family: f.Family, service: s, block: b}.String(), refuses: b.slots == 0}
	if s.Scheduler == lb.Hash && !r.refuses || !onlyFamily(s) {
		r.match = []statement{f.match}
	}
	switch {
	case r.refuses && s.OnEmpty == lb.Drop:
		r.draw = []statement{dropIt()}
	case r.refuses:
		r.draw = []statement{goTo(refuseChain)}
	case s.Scheduler == lb.Hash:
		r.draw = []statement{f.drawHash(s.HashBy, s.HashSeed, b.slots, b.base)}
	default:
		r.draw = []statement{drawNumgen(s.Scheduler == lb.Random, b.slots, b.base)}
	}
	if s.Affinity == nil && !r.refuses {
		r.draw = append(r.draw, f.gotoPick)
	}
	return r
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
		c.add(f.sources, element{key: markBytes(b.base + uint32(i)), data: addrBytes(a)})
	}
	c.chains = append(c.chains, &chain{name: name, rules: []rule{{
		statements: []statement{f.snatToAny(b)},
		comment:    fmt.Sprintf("%s sources %d+%d", f.Family, b.base, b.slots),
	}}})
	return name
}

// backendComment holds what the other elements do not say: a name that is not
// the address, a weight that is not the number of slots.
func backendComment(b lb.Backend, slots int) string {
	var parts []string
	if b.Name != b.Address.String() {
		parts = append(parts, "name "+b.Name)
	}
	if b.Weight != slots && b.Weight != 0 {
		parts = append(parts, fmt.Sprintf("weight %d", b.Weight))
	}
	return strings.Join(parts, " ")
}
