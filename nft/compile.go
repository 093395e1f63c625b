package nft

// Compile: profiles become a ruleset.

import (
	"fmt"
	"net/netip"
	"strings"

	"nlb/lb"
)

// Compile returns the ruleset of profiles, numbered from nothing: the same
// profiles give the same bytes. It does not check that the profiles are free
// of conflicts; lb.Conflicts does.
func Compile(table string, profiles []*lb.Profile) *Ruleset {
	return compile(table, profiles, newNumbers())
}

func compile(table string, profiles []*lb.Profile, n *numbers) *Ruleset {
	c := &compiler{Ruleset: layout(table), numbers: n, byName: map[string]*mapping{}, pools: map[string]bool{}}
	for _, m := range c.maps {
		c.byName[m.name] = m
	}
	for _, p := range profiles {
		for i := range p.Services {
			c.service(p, &p.Services[i])
		}
	}
	return c.Ruleset
}

type compiler struct {
	*Ruleset
	*numbers
	byName map[string]*mapping
	pools  map[string]bool // chains of SNAT addresses that are there
}

func (c *compiler) add(name string, e element) {
	m := c.byName[name]
	m.elements = append(m.elements, e)
}

func (c *compiler) service(p *lb.Profile, s *lb.Service) {
	own := &chain{name: chainOf(p.Name, s.Name)}
	for _, f := range s.Families() {
		own.rules = append(own.rules, c.pool(own.name, s, familyOf(f)))
	}
	c.chains = append(c.chains, own)
	for _, l := range s.Listen {
		f := familyOf(lb.FamilyOf(l.Prefix.Addr()))
		for _, proto := range s.Protocols {
			for _, r := range l.Ports {
				c.listen(own.name, f, l.Prefix, proto, r)
			}
		}
	}
}

func (c *compiler) listen(chain string, f *family, p netip.Prefix, proto lb.Protocol, r lb.PortRange) {
	e := element{key: addrBytes(p.Addr()) + protoBytes(proto) + portBytes(r.First), data: chain}
	if p.IsSingleIP() && r.First == r.Last {
		c.add(f.services, e)
		return
	}
	e.end = lastOf(p) + protoBytes(proto) + portBytes(r.Last)
	c.add(f.ranges, e)
}

// pool writes the backends of a service and family, and returns the rule that
// draws one of them.
func (c *compiler) pool(chain string, s *lb.Service, f *family) rule {
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
	for slot, i := range append(order, parked...) {
		c.add(slotsMap, element{key: markBytes(block.base + uint32(slot)), data: markBytes(marks[i])})
		counts[i]++
	}
	for i, b := range backends {
		e := element{key: markBytes(marks[i]), data: addrBytes(b.Address.Addr), comment: backendComment(b, counts[i])}
		if b.Address.Port == 0 {
			c.add(f.addresses, e)
		} else {
			e.data += portBytes(b.Address.Port)
			c.add(f.endpoints, e)
		}
		if b.SNAT.Mode == lb.SNATPool {
			c.add(poolsMap, element{key: markBytes(marks[i]), data: c.sourcePool(f, b.SNAT.Of(f.Family))})
		}
	}
	return c.draw(s, f, block)
}

// draw is the rule that picks a slot.
func (c *compiler) draw(s *lb.Service, f *family, b block) rule {
	r := rule{statements: []statement{f.match()}, comment: poolInfo{family: f.Family, service: s, block: b}.String()}
	switch {
	case b.slots == 0 && s.OnEmpty == lb.Drop:
		r.statements = append(r.statements, dropIt())
		return r
	case b.slots == 0:
		r.statements = append(r.statements, goTo(refuseChain))
		return r
	case s.Scheduler == lb.Hash:
		r.statements = append(r.statements, f.drawHash(s.HashBy, s.HashSeed, b.slots, b.base))
	default:
		r.statements = append(r.statements, drawNumgen(s.Scheduler == lb.Random, b.slots, b.base))
	}
	r.statements = append(r.statements, f.gotoPick)
	return r
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
		statements: []statement{f.snatInTurn(b)},
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
