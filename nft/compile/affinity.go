package compile

// Affinity: a client, or its network, stays with its backend, by two maps that the
// packets themselves fill. An entry of the first lives until its client has opened no
// connection for the timeout. One of the second counts connections (`ct count`), and the
// kernel takes it away when none of them is open. So packets of open connections need no
// rule. What is counted costs the kernel a look at each, once a second and for each new
// connection of the client. So of a client that opens very many only some are counted.
//
// The kernel finds a map by comparing its name with those of all others, and for each new
// rule that looks into a map it goes through all that do. So services share pairs of maps:
// a hash of the service's name says which pair, its bucket. There a client is found by its
// network and the key of its service.
//
// nft 1.0.6 cannot load an update of a map whose key is an IPv6 address and something
// else, so for IPv6 each service has maps of its own, with the key in their names. Each
// group has maps of its own, too.
//
// A batch changes nothing that packets fill: an update by a packet finds only what is
// there in both generations (nft_rhash_update), and would put a client there a second
// time. Where backends go on under other marks, their service gets another key, and its
// clients are copied.

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// StickySet has the backends that an affinity may lead to: those that take new
// connections.
const StickySet = "sticky"

const resolveChain = "resolve"

// buckets is how many there are at most.
const buckets = 128

// Clients is where the clients of a service and family are remembered.
type Clients struct {
	Set, Open string
	// Key comes behind a client in the keys of these maps; 0: they are the service's own.
	Key uint32
}

// ClientsAt is where clients of a service are remembered by its key; 0: as older layouts
// have it.
func ClientsAt(chain string, f *Family, key uint32) Clients {
	set, open := chain+"/affinity"+f.IP.Digit, chain+"/open"+f.IP.Digit
	switch {
	case key == 0:
		return Clients{Set: set, Open: open}
	case f.Family == lb.IPv6:
		own := fmt.Sprintf("-%08x", key)
		return Clients{Set: set + own, Open: open + own}
	}
	bucket := strconv.Itoa(int(nameHash(chain) % buckets))
	return Clients{sharedClients + bucket, sharedOpen + bucket, key}
}

const sharedClients, sharedOpen = "affinity4-", "open4-"

func nameHash(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

// ClientsMap is the map of clients that services share and that has this name; nil: it
// is none.
func ClientsMap(name string) *ruleset.Map {
	for _, prefix := range []string{sharedClients, sharedOpen} {
		rest, ok := strings.CutPrefix(name, prefix)
		if n, err := strconv.Atoi(rest); ok && err == nil && 0 <= n && n < buckets && strconv.Itoa(n) == rest {
			return clientsMap(name, Families[0], prefix == sharedClients, true)
		}
	}
	return nil
}

func clientsMap(name string, f *Family, expires, shared bool) *ruleset.Map {
	m := &ruleset.Map{Name: name, Key: ruleset.Type{f.IP.Addr}, Data: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: expires, Size: maxClients}
	if shared {
		m.Key = append(m.Key, ruleset.Mark)
	}
	return m
}

// OfClients reports whether a map is one of clients.
func OfClients(m *ruleset.Map) bool { return m.Dynamic && len(m.Data) > 0 }

// clientKeys are the keys of services with affinity, by their chains. A service has its
// key for as long as what is remembered under it holds.
type clientKeys struct {
	held  map[string]uint32
	taken map[uint32]bool
	there func(object string) bool
	salt  uint32
	fresh bool
}

// keyMask leaves away what marks of backends have.
const keyMask = 1<<30 - 1

// HoldClients makes services keep the keys that they have, by their chains. Others get
// new ones, which are those of nobody; salt makes them differ from any that was in a map
// which is there.
func (n *Numbers) HoldClients(held map[string]uint32, salt uint32, there func(object string) bool) {
	k := clientKeys{held: map[string]uint32{}, taken: map[uint32]bool{}, there: there, salt: salt}
	for _, chain := range slices.Sorted(maps.Keys(held)) {
		if key := held[chain]; !k.taken[key] { // or somebody else has written it
			k.held[chain], k.taken[key] = key, true
		}
	}
	n.clients = k
}

// RenewClients gives a service another key, if it needs one.
func (n *Numbers) RenewClients(chain string) { delete(n.clients.held, chain) }

// KeysClients reports whether a service got a key that it did not have. A service that
// the numbers do not know may have the same.
func (n *Numbers) KeysClients() bool { return n.clients.fresh }

// ClientsOf is where the clients of a service with affinity are remembered.
func (n *Numbers) ClientsOf(profile string, s *lb.Service, f *Family) Clients {
	if s.Affinity.Group != "" {
		set, open := groupMaps(profile, s.Affinity.Group, f)
		return Clients{Set: set, Open: open}
	}
	chain := ChainOf(profile, s.Name)
	return ClientsAt(chain, f, n.clients.of(chain))
}

func (k *clientKeys) of(chain string) uint32 {
	if key, ok := k.held[chain]; ok {
		return key
	}
	name := chain
	if c := ClientsAt(chain, Families[0], 1); k.there != nil && (k.there(c.Set) || k.there(c.Open)) {
		name = fmt.Sprintf("%s %d", chain, k.salt)
	}
	key := uint32(nameHash(name)>>32) & keyMask
	for key == 0 || k.taken[key] {
		key = (key + 1) & keyMask
	}
	if k.held == nil {
		k.held, k.taken = map[string]uint32{}, map[uint32]bool{}
	}
	k.held[chain], k.taken[key], k.fresh = key, true, true
	return key
}

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
	if chain, _, ok := ruleset.Suffixed(name, members); ok {
		return &ruleset.Map{Name: name, Kind: ruleset.Members, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Mark}, OfChain: chain}
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
	Clients
	key     uint32 // of the service
	members string // empty: it is in no group
	group   string
	bits    int
	timeout time.Duration
}

// info is read back by readAffinity.
func (a affinity) info() string {
	s := fmt.Sprintf("affinity %s timeout %s bits %d", a.Family, a.timeout, a.bits)
	if a.group != "" {
		return s + " group " + a.group
	}
	return s + fmt.Sprintf(" key 0x%08x", a.key)
}

// noted is a rule that does nothing, for a service whose backends are all down or
// drained: what is wanted is known from it.
func (a affinity) noted() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{a.match}, Comment: a.info()}
}

// newAffinity is that of a service and family.
func (n *Numbers) newAffinity(profile string, s *lb.Service, f *Family) affinity {
	a := affinity{
		Family: f, Clients: n.ClientsOf(profile, s, f), group: s.Affinity.Group,
		bits: s.Affinity.Bits, timeout: s.Affinity.Timeout,
	}
	if f.Family == lb.IPv6 {
		a.bits = s.Affinity.Bits6
	}
	if chain := ChainOf(profile, s.Name); a.group != "" {
		a.members = MembersOf(chain, f)
	} else {
		a.key = n.clients.of(chain)
	}
	return a
}

func (c *compiler) affinity(profile string, s *lb.Service, f *Family) affinity {
	a, chain := c.newAffinity(profile, s, f), ChainOf(profile, s.Name)
	c.needed[f.newcomers()] = true
	for _, name := range []string{a.Set, a.Open} {
		c.needed[name] = true
		c.addMap(clientsMap(name, f, name == a.Set, a.Key != 0))
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
	c.addMap(m)
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
	set, open := ruleset.Clients{Map: a.Set, Bits: a.bits, Key: a.Key}, ruleset.Clients{Map: a.Open, Bits: a.bits, Key: a.Key}
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
	forget := []ruleset.Statement{a.match, unknown, a.IP.DeleteSource(set), a.IP.DeleteSource(open)}
	// By itself: an update of a map that is full ends its rule.
	remember := flip()
	remember.Statements = append(remember.Statements, a.IP.UpdateSource(set, a.timeout),
		a.IP.RateBySource(a.newcomers(), a.bits, countedRate, false, time.Minute), a.IP.UpdateOpenSource(open))
	remembers := []ruleset.Rule{remember}
	if a.members != "" {
		remembers = append(remembers, flip())
	}
	out := []ruleset.Rule{
		flip(a.IP.SetMarkBySource(set)),
		flip(unknown, a.IP.SetMarkBySource(open)),
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

// ReadClientsKey reads the key of a service from the comment of one of its rules.
func ReadClientsKey(comment string) (key uint32, ok bool) {
	_, at, ok := strings.Cut(comment, " key 0x")
	if !ok || !strings.HasPrefix(comment, "affinity ") {
		return 0, false
	}
	n, _ := fmt.Sscanf(at, "%x", &key)
	return key, n == 1 && 0 < key && key <= keyMask
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
