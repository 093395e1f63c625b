package lb

// Conflicts: what two services claim.

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb/internal/dup"
)

// Conflicts reports what two services claim, and profiles of one name. Each
// mistake stands at the later of the two and names the other, which may be in
// the kernel. A listen is said to conflict once, and what it lost it does not
// hold against a third. nil: there are none.
//
// A connection belongs to the listen with the longest prefix, and among those
// to one with an interface; a listen without an address, for this host's own,
// is the least specific. So two listens conflict only where their prefixes are
// equal, protocols and ports overlap, and interfaces may be the same. Services
// with the roles client and server never see the same connection.
func Conflicts(profiles []*Profile) Errors {
	var c conflicts
	dup.Find(profiles, func(p *Profile) string { return p.Name }, func(first, second int) {
		c.errs = append(c.errs, &Error{
			Pos:  profiles[second].Pos,
			Msg:  fmt.Sprintf("profile %s is here twice, first %s", profiles[second].Name, profiles[first].Pos.where()),
			Want: "a name for each profile",
		})
	})
	c.search(profiles)
	for _, f := range c.found {
		c.errs = append(c.errs, c.describe(f))
	}
	for _, p := range profiles {
		c.groups(p)
	}
	return c.errs
}

// groups finds services that share the memory of their affinity, and cannot: clients
// stay with servers, so all have to have the same ones.
func (c *conflicts) groups(p *Profile) {
	first := map[string]*Service{}
	for i := range p.Services {
		s := &p.Services[i]
		if s.Affinity == nil || s.Affinity.Group == "" {
			continue
		}
		a := first[s.Affinity.Group]
		if a == nil {
			first[s.Affinity.Group], a = s, s
		}
		at := s.Affinity.Pos
		if s != a && at == a.Affinity.Pos { // that of defaults
			at = s.Pos
		}
		fail := func(want, format string, args ...any) {
			c.errs = append(c.errs, &Error{Pos: at, Msg: "group " + s.Affinity.Group + ": " + fmt.Sprintf(format, args...), Want: want})
		}
		its := a.Affinity
		of := fmt.Sprintf("service %s %s", a.Name, a.Pos.where())
		if s.Affinity.Timeout != its.Timeout {
			fail("the same timeout", "service %s has timeout %s, and %s has %s", s.Name, s.Affinity.TimeoutText(), of, its.TimeoutText())
		}
		for _, f := range []Family{IPv4, IPv6} {
			mine, theirs := s.servers(f), a.servers(f)
			twice := -1
			dup.Find(mine, func(s string) string { return s }, func(_, second int) { twice = second })
			if twice >= 0 {
				fail("each server once in each service of a group", "service %s has two backends on %s", s.Name, mine[twice])
			}
			if !slices.Contains(s.Families(), f) || !slices.Contains(a.Families(), f) {
				continue
			}
			const same = "the same servers in each service of a group, whatever their ports"
			if lack := lacks(mine, theirs); lack != "" {
				fail(same, "service %s has no backend on %s, and %s has", s.Name, lack, of)
			} else if lack := lacks(theirs, mine); lack != "" {
				fail(same, "service %s has a backend on %s, and %s has not", s.Name, lack, of)
			}
			// The kernel does not know those of a family without backends.
			if one, other := s.Affinity.bits(f), its.bits(f); one != other && one*other > 0 {
				fail("the same prefixes", "service %s has networks of /%d, and %s has /%d", s.Name, one, of, other)
			}
		}
	}
}

// lacks is the first of the sorted all that is not in some; empty: there is none.
func lacks(some, all []string) string {
	i := slices.IndexFunc(all, func(s string) bool { _, found := slices.BinarySearch(some, s); return !found })
	if i < 0 {
		return ""
	}
	return all[i]
}

// bits is the length of the client networks of a family.
func (a *Affinity) bits(f Family) int {
	if f == IPv6 {
		return a.Bits6
	}
	return a.Bits
}

// servers are the hosts of a service's backends of a family, sorted: addresses, and
// names.
func (s *Service) servers(f Family) []string {
	var out []string
	for i := range s.Backends {
		if b := &s.Backends[i]; b.Named() {
			out = append(out, b.Host.String())
		} else if b.is(f) {
			out = append(out, b.Address.Addr.String())
		}
	}
	slices.Sort(out)
	return out
}

// search finds the conflicts, in the order of the listens that lose.
func (c *conflicts) search(profiles []*Profile) {
	n := 0
	for _, p := range profiles {
		n += len(p.Services)
	}
	c.claims, c.holders, c.lost = make([]claim, 0, n), make([]holder, 0, n), make([]bool, 0, n)
	for p, s := range Services(profiles) {
		c.add(p, s)
	}
	slices.SortFunc(c.claims, claim.compare)
	for rest := c.claims; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].destination == rest[0].destination {
			n++
		}
		if n > 1 {
			c.sweep(rest[:n])
		}
		rest = rest[n:]
	}
	slices.SortFunc(c.found, func(a, b conflict) int { return cmp.Compare(a.later.order, b.later.order) })
}

// conflicts is the search.
type conflicts struct {
	claims  []claim
	holders []holder // by order
	lost    []bool   // by order: a conflict of this listen was found
	found   []conflict
	errs    Errors
}

// holder is a listen with its service.
type holder struct {
	profile *Profile
	service *Service
	listen  *Listen
}

// claim is one range of ports of a listen, for one protocol.
type claim struct {
	destination
	// iface is the name without '*'; any says that names may go on.
	iface string
	any   bool
	ports PortRange
	// client and server say whose traffic: this host's, the network's.
	client, server bool
	order          int32 // of the listen, over all profiles
}

// destination is a prefix and protocol. IPv4 is mapped into IPv6; bits is -1
// for this host's own addresses.
type destination struct {
	high, low uint64
	bits      int16
	protocol  Protocol
}

func (a claim) compare(b claim) int {
	if c := cmp.Or(
		cmp.Compare(a.high, b.high), cmp.Compare(a.low, b.low), cmp.Compare(a.bits, b.bits),
		cmp.Compare(a.protocol, b.protocol), strings.Compare(a.iface, b.iface),
	); c != 0 {
		return c
	}
	switch {
	case a.any && !b.any:
		return 1
	case b.any && !a.any:
		return -1
	}
	return cmp.Or(cmp.Compare(a.ports.First, b.ports.First), cmp.Compare(a.order, b.order))
}

type conflict struct{ earlier, later *claim }

// claimed is what both claim: 203.0.113.10:80 tcp.
func (c *conflicts) claimed(f conflict) string {
	both := Listen{Prefix: c.holders[f.later.order].listen.Prefix, Ports: []PortRange{{
		max(f.earlier.ports.First, f.later.ports.First), min(f.earlier.ports.Last, f.later.ports.Last),
	}}}
	return fmt.Sprintf("%s %s", both, f.later.protocol)
}

// add collects the claims of a service.
func (c *conflicts) add(p *Profile, s *Service) {
	name, any := strings.CutSuffix(s.Interface, "*")
	for i := range s.Listen {
		l := &s.Listen[i]
		one := claim{
			destination: destination{bits: -1}, iface: name, any: any || s.Balance == Datagrams,
			client: s.Role != RoleServer, server: s.Role != RoleClient, order: int32(len(c.holders)),
		}
		if l.Prefix.IsValid() {
			a := l.Prefix.Addr().As16()
			one.high, one.low = binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
			one.bits = int16(l.Prefix.Bits())
		}
		for _, one.protocol = range s.Protocols {
			for _, one.ports = range l.Ports {
				c.claims = append(c.claims, one)
			}
		}
		c.holders = append(c.holders, holder{p, s, l})
		c.lost = append(c.lost, false)
	}
}

// sweep finds the conflicts among the claims to one destination.
func (c *conflicts) sweep(claims []claim) {
	for rest := claims; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].iface == rest[0].iface && rest[n].any == rest[0].any {
			n++
		}
		c.sweepEqual(rest[:n])
		if rest[0].any {
			c.sweepPrefix(rest[:n], claims)
		}
		rest = rest[n:]
	}
}

// sweepEqual finds conflicts among claims with one interface, which are sorted
// by their first port. Claims that are open at a port all conflict with each
// other, and all but the earliest have lost, so it is enough to know that one:
// one for this host's traffic, and one for the network's.
func (c *conflicts) sweepEqual(claims []claim) {
	var client, server *claim
	meet := func(open **claim, now *claim) {
		if h := *open; h != nil && now.ports.First <= h.ports.Last && c.conflict(h, now) == h {
			return
		}
		*open = now
	}
	for i := range claims {
		now := &claims[i]
		if now.client {
			meet(&client, now)
		}
		if now.server {
			meet(&server, now)
		}
	}
}

// sweepPrefix finds conflicts between claims with a prefix of interface names
// and claims with other interfaces that it fits, all sorted by interface.
func (c *conflicts) sweepPrefix(hosts, all []claim) {
	prefix := hosts[0].iface
	from, _ := slices.BinarySearchFunc(all, prefix, func(a claim, s string) int { return strings.Compare(a.iface, s) })
	type side struct {
		*claim
		host bool
	}
	var both []side
	for i := from; i < len(all) && strings.HasPrefix(all[i].iface, prefix); i++ {
		both = append(both, side{&all[i], all[i].any && all[i].iface == prefix})
	}
	slices.SortStableFunc(both, func(a, b side) int { return cmp.Compare(a.ports.First, b.ports.First) })
	// The claim that goes furthest, of either side, for either traffic.
	var furthest [2][2]*claim
	index := map[bool]int{true: 1}
	for _, now := range both {
		for traffic, has := range [2]bool{now.client, now.server} {
			if !has {
				continue
			}
			if h := furthest[index[!now.host]][traffic]; h != nil && now.ports.First <= h.ports.Last {
				c.conflict(h, now.claim)
			}
			mine := &furthest[index[now.host]][traffic]
			if *mine == nil || (*mine).ports.Last < now.ports.Last {
				*mine = now.claim
			}
		}
	}
}

// conflict notes that two claims conflict, and returns the one that keeps.
func (c *conflicts) conflict(a, b *claim) (keeps *claim) {
	if b.order < a.order {
		a, b = b, a
	}
	if !c.lost[b.order] {
		c.lost[b.order] = true
		c.found = append(c.found, conflict{a, b})
	}
	return a
}

func (c *conflicts) describe(f conflict) *Error {
	a, b := c.holders[f.earlier.order], c.holders[f.later.order]
	what := c.claimed(f)
	e := &Error{Pos: b.listen.Pos, Want: "each address, port and protocol once"}
	first, second := a.service.Name, b.service.Name
	if a.profile != b.profile {
		first, second = a.profile.Name+"/"+first, b.profile.Name+"/"+second
	}
	e.Msg = fmt.Sprintf("service %s claims %s, which service %s claims %s", second, what, first, a.listen.Pos.where())
	if a.service == b.service {
		e.Msg = fmt.Sprintf("%s is here twice, first %s", what, a.listen.Pos.where())
	}
	if a.listen.Pos == (Pos{}) && a.profile != b.profile {
		e.Hint = "nlb flush " + a.profile.Name + " removes that profile; nlb apply --prune, all that it is not given"
	}
	if (a.service.Balance == Datagrams || b.service.Balance == Datagrams) && a.service.Interface != b.service.Interface {
		e.Hint = "balance: datagrams takes what comes by any interface"
	}
	return e
}

// where is a place in a message.
func (p Pos) where() string {
	if p == (Pos{}) {
		return "in the kernel"
	}
	return "at " + p.String()
}

// Outer returns the prefixes that do not lie in another one of them, sorted.
func Outer(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare)
	var out []netip.Prefix
	for _, p := range sorted {
		// A prefix sorts right behind those that hold it.
		if n := len(out); n == 0 || !out[n-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
