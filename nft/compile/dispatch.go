package compile

// Dispatch: which service a new connection is for. A tier is a kind of
// destination; its map leads to the chains of services. Tiers are asked from
// the most specific on, and only those that are used are there:
//
//	entering   traffic that enters at an interface     (services with an interface)
//	services   one address and port, from anywhere     (role proxy)
//	ranges     one address, ranges of ports
//	arriving   what comes from the network             (role server)
//	sent       what this host sends itself             (role client)
//
// then the same for prefixes of addresses, the longest first, then for this
// host's own addresses. Each length of a prefix has a map of its own, since the
// kernel refuses ranges that overlap in one map.

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// Tier is one map of destinations for each family; with own, one for both.
type Tier struct {
	Role   lb.Role // of the services whose destinations it has
	Exempt bool    // it has what is not to be balanced, see exemptions

	name         string
	iface        bool // the interface is part of the key
	own          bool // for this host's own addresses: the key has none
	exact        bool // single keys, in a hash table
	in, out      bool // in prerouting, in output
	prefixes     bool
	prefixLength // of prefixes, once expanded
}

// prefixLength is a length of prefixes that services listen on.
type prefixLength struct {
	family lb.Family
	bits   int
}

// tierKinds are in the order in which a packet meets them.
var tierKinds = []Tier{
	{name: "entering", iface: true, in: true},
	{name: "services", exact: true, in: true, out: true},
	{name: "ranges", in: true, out: true},
	{name: "arriving", in: true, Role: lb.RoleServer},
	{name: "sent", out: true, Role: lb.RoleClient},
	{name: "exempt", Exempt: true, out: true},
	{name: "entering-prefixes", iface: true, prefixes: true, in: true},
	{name: "prefixes", prefixes: true, in: true, out: true},
	{name: "arriving-prefixes", prefixes: true, in: true, Role: lb.RoleServer},
	{name: "sent-prefixes", prefixes: true, out: true, Role: lb.RoleClient},
	{name: "entering-own", iface: true, own: true, in: true},
	{name: "own", own: true, in: true, out: true},
	{name: "arriving-own", own: true, in: true, Role: lb.RoleServer},
	{name: "sent-own", own: true, out: true, Role: lb.RoleClient},
}

// Tiers are those of a table that has these maps, in the order in which a packet
// meets them.
func Tiers(maps iter.Seq[string]) []Tier { return tiersOf(lengthsIn(maps)) }

// tiersOf are the kinds with a tier for each length of prefixes.
func tiersOf(lengths []prefixLength) []Tier {
	var out []Tier
	for _, t := range tierKinds {
		if !t.prefixes {
			out = append(out, t)
			continue
		}
		for _, t.prefixLength = range lengths {
			out = append(out, t)
		}
	}
	return out
}

// sortedLengths are distinct, the longest first.
func sortedLengths(lengths []prefixLength) []prefixLength {
	slices.SortFunc(lengths, func(a, b prefixLength) int {
		return cmp.Or(cmp.Compare(b.bits, a.bits), cmp.Compare(a.family, b.family))
	})
	return slices.Compact(lengths)
}

// lengthsOf are the lengths of the prefixes that profiles listen on.
func lengthsOf(profiles []*lb.Profile) []prefixLength {
	var out []prefixLength
	seen := map[prefixLength]bool{}
	for _, s := range lb.Services(profiles) {
		for _, l := range s.Listen {
			if !l.Prefix.IsValid() || l.Prefix.IsSingleIP() {
				continue
			}
			n := prefixLength{lb.FamilyOf(l.Prefix.Addr()), l.Prefix.Bits()}
			if !seen[n] {
				seen[n] = true
				out = append(out, n)
			}
		}
	}
	return out
}

// lengthsIn are the lengths that maps with these names are for.
func lengthsIn(names iter.Seq[string]) []prefixLength {
	var out []prefixLength
	for name := range names {
		for _, t := range tierKinds {
			rest, ok := strings.CutPrefix(name, t.name)
			if !ok || !t.prefixes {
				continue
			}
			for _, f := range Families {
				bits, ok := strings.CutPrefix(rest, f.IP.Digit+"-")
				if n, err := strconv.Atoi(bits); ok && err == nil && 0 <= n && n <= f.IP.Addr.Size*8 {
					out = append(out, prefixLength{f.Family, n})
				}
			}
		}
	}
	return sortedLengths(out)
}

// tierOf finds the tier of a destination.
func tierOf(s *lb.Service, p netip.Prefix, r lb.PortRange) Tier {
	exact := p.IsSingleIP() && r.First == r.Last && s.Role == lb.RoleProxy && s.Interface == ""
	for _, t := range tierKinds {
		if t.iface != (s.Interface != "") || t.own != !p.IsValid() || t.exact != exact || t.Exempt {
			continue
		}
		if !t.own && t.prefixes == p.IsSingleIP() {
			continue
		}
		// At an interface nothing but the network's traffic enters.
		if t.iface || t.Role == s.Role {
			if t.prefixes {
				t.prefixLength = prefixLength{lb.FamilyOf(p.Addr()), p.Bits()}
			}
			return t
		}
	}
	panic(fmt.Sprintf("compile: no tier for %v %v", p, r))
}

// MapName is the name of a tier's map.
func (t Tier) MapName(f *Family) string {
	switch {
	case t.own:
		return t.name
	case t.prefixes:
		return fmt.Sprintf("%s%s-%d", t.name, f.IP.Digit, t.bits)
	}
	return t.name + f.IP.Digit
}

// Families are those that a tier has maps for; one where the map is for both.
func (t Tier) Families() []*Family {
	switch {
	case t.own:
		return Families[:1]
	case t.prefixes:
		return []*Family{FamilyOf(t.family)}
	}
	return Families
}

// key is the type of a tier's keys.
func (t Tier) key(f *Family) ruleset.Type {
	var k ruleset.Type
	if t.iface {
		k = append(k, ruleset.Ifname)
	}
	if !t.own {
		k = append(k, f.IP.Addr)
	}
	return append(k, ruleset.InetProto, ruleset.InetService)
}

// maps are a tier's maps, empty.
func (t Tier) maps() []*ruleset.Map {
	var out []*ruleset.Map
	kind := ruleset.Destinations
	if t.Exempt {
		kind = ruleset.Exemptions
	}
	for _, f := range t.Families() {
		out = append(out, &ruleset.Map{Name: t.MapName(f), Kind: kind, Key: t.key(f), Data: ruleset.Type{ruleset.Verdict}, Interval: !t.exact})
	}
	return out
}

// lookups are the rules that ask a tier, with the maps that they need.
func (t Tier) lookups() []ruleset.Rule {
	var out []ruleset.Rule
	for _, f := range t.Families() {
		var fields []ruleset.Field
		if t.iface {
			fields = append(fields, ruleset.InputInterface)
		}
		if !t.own {
			fields = append(fields, f.IP.Destination())
		}
		fields = append(fields, ruleset.L4Protocol, ruleset.DestinationPort)
		name, ask := t.MapName(f), f.IP.Vmap
		if t.own {
			ask = ruleset.OwnVmap
		}
		out = append(out, ruleset.Rule{Statements: []ruleset.Statement{ask(name, fields...)}, Needs: name})
	}
	return out
}

// destination is an element of a tier.
func (t Tier) destination(iface string, p netip.Prefix, proto lb.Protocol, r lb.PortRange) ruleset.Element {
	var first, last string
	if t.iface {
		low, high := ruleset.IfnameBytes(iface)
		first, last = low, high
	}
	if !t.own {
		first, last = first+ruleset.AddrBytes(p.Addr()), last+ruleset.LastOf(p)
	}
	first += ruleset.ProtoBytes(byte(proto)) + ruleset.PortBytes(r.First)
	if t.exact {
		return ruleset.Element{Key: first}
	}
	return ruleset.Element{Key: first, End: last + ruleset.ProtoBytes(byte(proto)) + ruleset.PortBytes(r.Last)}
}

// Destinations are the elements that lead to the chain of a service, with the
// names of their maps.
func Destinations(chain string, s *lb.Service) iter.Seq2[string, ruleset.Element] {
	return func(yield func(string, ruleset.Element) bool) {
		for _, l := range s.Listen {
			f := Families[0] // the maps of own addresses are for both
			if l.Prefix.IsValid() {
				f = FamilyOf(lb.FamilyOf(l.Prefix.Addr()))
			}
			for _, r := range l.Ports {
				t := tierOf(s, l.Prefix, r)
				for _, proto := range s.Protocols {
					e := t.destination(s.Interface, l.Prefix, proto, r)
					e.Data = chain
					if !yield(t.MapName(f), e) {
						return
					}
				}
			}
		}
	}
}

// listens are what a service listens on with a protocol, as ranges of ports of single
// addresses.
func listens(s *lb.Service, proto lb.Protocol) iter.Seq2[*ruleset.Family, ruleset.Element] {
	return func(yield func(*ruleset.Family, ruleset.Element) bool) {
		for _, l := range s.Listen {
			at := ruleset.AddrBytes(l.Prefix.Addr()) + ruleset.ProtoBytes(byte(proto))
			for _, r := range l.Ports {
				e := ruleset.Element{Key: at + ruleset.PortBytes(r.First), End: at + ruleset.PortBytes(r.Last)}
				if !yield(ruleset.FamilyOf(l.Prefix.Addr()), e) {
					return
				}
			}
		}
	}
}

// Parse reads an element of a tier. The prefix is not valid where the tier is for
// this host's own addresses.
func (t Tier) Parse(f *Family, e ruleset.Element) (iface string, p netip.Prefix, proto lb.Protocol, r lb.PortRange) {
	first, last := e.Key, e.End
	if last == "" {
		last = first
	}
	cut := func(n int) (a, b string) {
		a, b, first, last = first[:n], last[:n], first[n:], last[n:]
		return a, b
	}
	if t.iface {
		iface = ruleset.IfnameOf(cut(ruleset.Ifname.Padded()))
	}
	if !t.own {
		p, _ = ruleset.PrefixOf(cut(f.IP.Addr.Padded()))
	}
	a, _ := cut(ruleset.InetProto.Padded())
	low, high := cut(ruleset.InetService.Padded())
	return iface, p, lb.Protocol(a[0]), lb.PortRange{First: ruleset.PortOf(low), Last: ruleset.PortOf(high)}
}
