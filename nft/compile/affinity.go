package compile

// Affinity: a client, or its network, stays with its backend. Packets themselves
// fill maps of clients; an entry lives until its client has opened no connection for
// the timeout.
//
// Services with one destination of IPv4, and the same timeout and prefix, share a map,
// whose keys have that destination. Each other service and family has a map of its own,
// without a destination in its keys, since a client has one backend at all of them. For
// each set that comes, and for each rule that names one, the kernel goes through the
// names of all, and for a rule that looks into a map through all rules that do. So only
// the chains recall and remember look into a map that is shared. Where a key has more
// than 16 bytes, nft 1.0.6 crashes as it loads an update, or puts the data into the
// key; so IPv6 has no such map.
//
// A destination may pass from one service to another, and clients are not forgotten
// then. So of a map that is shared a client's backend counts only where it is one of
// that destination.

import (
	"fmt"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft/ruleset"
)

const (
	// StickySet has the backends that an affinity may lead to: those that take new
	// connections. StickyAtSet has them with their destination, where the map of
	// clients is shared.
	StickySet   = "sticky"
	StickyAtSet = "sticky4"

	sharedClients, recallChain, rememberChain = "affinity4", "recall4", "remember4"
	// mostShared bounds what the kernel remembers of clients there.
	mostShared = 1 << 22
)

const resolveChain = "resolve"

// sharing is what services have in common that share a map of clients.
type sharing struct {
	bits    int
	timeout time.Duration
}

// name is that of an object of theirs.
func (x sharing) name(of string) string {
	return fmt.Sprintf("%s-%d-%d", of, x.bits, x.timeout/time.Second)
}

// sharingNamed is what an object with this name is for.
func sharingNamed(name string) (x sharing, ok bool) {
	of, _, _ := strings.Cut(name, "-")
	if of != sharedClients && of != recallChain && of != rememberChain {
		return x, false
	}
	_, err := fmt.Sscanf(name[len(of):], "-%d-%d", &x.bits, &x.timeout)
	x.timeout *= time.Second
	return x, err == nil && 0 < x.bits && x.bits <= 32 && 0 < x.timeout && x.timeout <= lb.MaxTimeout && x.name(of) == name
}

// SharedKey is the key of a map of clients that services share.
var SharedKey = ruleset.Type{ruleset.IPv4Addr, ruleset.IPv4Addr, ruleset.InetProto, ruleset.InetService}

// clients is their map.
func (x sharing) clients() *ruleset.Map {
	return &ruleset.Map{Name: x.name(sharedClients), Key: SharedKey, Data: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: true, Size: mostShared}
}

// chains are those that look into it: a client whose backend takes no new connections
// any more is forgotten.
func (x sharing) chains() []*ruleset.Chain {
	f := Families[0]
	c := ruleset.Clients{Name: x.name(sharedClients), Bits: x.bits, At: true}
	return []*ruleset.Chain{
		{Name: x.name(recallChain), Rules: []ruleset.Rule{
			{Statements: []ruleset.Statement{f.match, f.IP.SetMarkBySource(c)}},
			{Statements: []ruleset.Statement{f.match, f.IP.MarkAtIn(StickyAtSet, true), f.IP.DeleteSource(c)}},
		}},
		{Name: x.name(rememberChain), Rules: []ruleset.Rule{
			{Statements: []ruleset.Statement{f.match, f.IP.UpdateSource(c, x.timeout)}},
		}},
	}
}

// needSharing keeps what affinities share, and adds it to a ruleset that lacks it.
func (c *compiler) needSharing(x sharing) {
	m := x.clients()
	if c.byName[m.Name] == nil {
		c.byName[m.Name] = m
		c.Maps = append(c.Maps, m)
		c.Chains = append(c.Chains, x.chains()...)
	}
	for _, name := range []string{StickyAtSet, m.Name, x.name(recallChain), x.name(rememberChain)} {
		c.needed[name] = true
	}
}

// othersAffinity keeps what other profiles share.
func (c *compiler) othersAffinity(others []*lb.Profile) {
	for _, s := range lb.Services(others) {
		if s.Affinity != nil && StickyAt(s, Families[0]) != "" {
			c.needSharing(sharing{s.Affinity.Bits, s.Affinity.Timeout})
		}
	}
}

// affinityMaps are the sets of the layout that affinity needs.
func affinityMaps() []*ruleset.Map {
	return []*ruleset.Map{
		{Name: StickySet, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}},
		{Name: StickyAtSet, Kind: ruleset.Backends, Key: append(ruleset.Type{ruleset.Mark}, SharedKey[1:]...)},
	}
}

// OfClients reports whether a map is one of clients.
func OfClients(m *ruleset.Map) bool { return m.Dynamic && len(m.Data) > 0 }

// OwnClients names the map of clients that a service and family has for itself.
func OwnClients(chain string, f *Family) string { return chain + "/affinity" + f.IP.Digit }

// ClientsOf names the map of clients of a service with affinity, of a family. At is the destination
// in its keys, behind the client; empty: the map is the service's own.
func ClientsOf(chain string, s *lb.Service, f *Family) (name, at string) {
	if at := StickyAt(s, f); at != "" {
		return sharing{s.Affinity.Bits, s.Affinity.Timeout}.name(sharedClients), at
	}
	return OwnClients(chain, f), ""
}

// StickyAt is the destination of a service which has one alone of IPv4, and which
// nobody else can have; otherwise it is empty.
func StickyAt(s *lb.Service, f *Family) string {
	if f.Family != lb.IPv4 || len(s.Protocols) != 1 {
		return ""
	}
	at := ""
	for _, l := range s.Listen {
		if l.Prefix.IsValid() && lb.FamilyOf(l.Prefix.Addr()) != f.Family {
			continue
		}
		if at != "" || len(l.Ports) != 1 || !tierOf(s, l.Prefix, l.Ports[0]).exact {
			return ""
		}
		at = ruleset.AddrBytes(l.Prefix.Addr()) + ruleset.ProtoBytes(byte(s.Protocols[0])) + ruleset.PortBytes(l.Ports[0].First)
	}
	return at
}

// affinity is what a service's rules need to know.
type affinity struct {
	*Family
	clients ruleset.Clients
	timeout time.Duration
}

// info is read back by readAffinity.
func (a affinity) info() string {
	return fmt.Sprintf("affinity %s timeout %s bits %d", a.Family, a.timeout, a.clients.Bits)
}

// noted is a rule that does nothing, for a service whose backends are all down or
// drained: what is wanted is known from it.
func (a affinity) noted() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{a.match}, Comment: a.info()}
}

// newAffinity is that of a service and family.
func newAffinity(chain string, s *lb.Service, f *Family) affinity {
	name, at := ClientsOf(chain, s, f)
	a := affinity{f, ruleset.Clients{Name: name, Bits: s.Affinity.Bits, At: at != ""}, s.Affinity.Timeout}
	if f.Family == lb.IPv6 {
		a.clients.Bits = s.Affinity.Bits6
	}
	return a
}

func (c *compiler) affinity(chain string, s *lb.Service, f *Family) affinity {
	a := newAffinity(chain, s, f)
	if a.clients.At {
		c.needSharing(sharing{a.clients.Bits, a.timeout})
		return a
	}
	m := &ruleset.Map{Name: a.clients.Name, Key: ruleset.Type{f.IP.Addr}, Data: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: true, Size: maxClients, OfChain: chain}
	c.byName[m.Name] = m
	c.Maps = append(c.Maps, m)
	return a
}

// sticks lets the affinity of a service lead to a backend.
func (c *compiler) sticks(s *lb.Service, f *Family, mark uint32) {
	set := StickySet
	at := StickyAt(s, f)
	if at != "" {
		set = StickyAtSet
	}
	c.add(set, ruleset.Element{Key: ruleset.MarkBytes(mark) + at})
}

// wrap puts the affinity around the statements that draw a slot:
//
//	look the client up
//	unknown, or its backend takes no new connections: forget it, draw
//	remember, or keep for longer
//	deliver
func (a affinity) wrap(draw drawRule) []ruleset.Rule {
	recall, update := a.IP.SetMarkBySource(a.clients), a.IP.UpdateSource(a.clients, a.timeout)
	forget := []ruleset.Statement{a.match, ruleset.MarkIn(StickySet, true), a.IP.DeleteSource(a.clients)}
	if a.clients.At {
		x := sharing{a.clients.Bits, a.timeout}
		recall, update = ruleset.Jump(x.name(recallChain)), ruleset.Jump(x.name(rememberChain))
		forget = []ruleset.Statement{a.match, a.IP.MarkAtIn(StickyAtSet, true)}
	}
	fresh := draw.draw
	if !draw.repeats && !draw.own {
		fresh = append(fresh, ruleset.Jump(ofShard(resolveChain, draw.shard)))
	}
	out := []ruleset.Rule{
		{Statements: []ruleset.Statement{a.match, recall}},
		{
			Statements: append(forget, fresh...),
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
