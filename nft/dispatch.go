package nft

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
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/lb"
)

// tier is one map of destinations for each family; with own, one for both.
type tier struct {
	name         string
	iface        bool // the interface is part of the key
	own          bool // for this host's own addresses: the key has none
	exact        bool // single keys, in a hash table
	exempt       bool // not to be balanced, see exemptions
	in, out      bool // in prerouting, in output
	role         lb.Role
	prefixes     bool
	prefixLength // of prefixes, once expanded
}

// prefixLength is a length of prefixes that services listen on.
type prefixLength struct {
	family lb.Family
	bits   int
}

// tierKinds are in the order in which a packet meets them.
var tierKinds = []tier{
	{name: "entering", iface: true, in: true},
	{name: "services", exact: true, in: true, out: true},
	{name: "ranges", in: true, out: true},
	{name: "arriving", in: true, role: lb.RoleServer},
	{name: "sent", out: true, role: lb.RoleClient},
	{name: "exempt", exempt: true, out: true},
	{name: "entering-prefixes", iface: true, prefixes: true, in: true},
	{name: "prefixes", prefixes: true, in: true, out: true},
	{name: "arriving-prefixes", prefixes: true, in: true, role: lb.RoleServer},
	{name: "sent-prefixes", prefixes: true, out: true, role: lb.RoleClient},
	{name: "entering-own", iface: true, own: true, in: true},
	{name: "own", own: true, in: true, out: true},
	{name: "arriving-own", own: true, in: true, role: lb.RoleServer},
	{name: "sent-own", own: true, out: true, role: lb.RoleClient},
}

// tiers are the kinds with a tier for each length of prefixes.
func tiers(lengths []prefixLength) []tier {
	var out []tier
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
	for _, p := range profiles {
		for i := range p.Services {
			for _, l := range p.Services[i].Listen {
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
			for _, f := range families {
				bits, ok := strings.CutPrefix(rest, f.digit+"-")
				if n, err := strconv.Atoi(bits); ok && err == nil && 0 <= n && n <= f.addr.size*8 {
					out = append(out, prefixLength{f.Family, n})
				}
			}
		}
	}
	return sortedLengths(out)
}

// tierOf finds the tier of a destination.
func tierOf(s *lb.Service, p netip.Prefix, r lb.PortRange) tier {
	exact := p.IsSingleIP() && r.First == r.Last && s.Role == lb.RoleProxy && s.Interface == ""
	for _, t := range tierKinds {
		if t.iface != (s.Interface != "") || t.own != !p.IsValid() || t.exact != exact || t.exempt {
			continue
		}
		if !t.own && t.prefixes == p.IsSingleIP() {
			continue
		}
		// At an interface nothing but the network's traffic enters.
		if t.iface || t.role == s.Role {
			if t.prefixes {
				t.prefixLength = prefixLength{lb.FamilyOf(p.Addr()), p.Bits()}
			}
			return t
		}
	}
	panic(fmt.Sprintf("nft: no tier for %v %v", p, r))
}

// mapName is the name of a tier's map.
func (t tier) mapName(f *family) string {
	switch {
	case t.own:
		return t.name
	case t.prefixes:
		return fmt.Sprintf("%s%s-%d", t.name, f.digit, t.bits)
	}
	return t.name + f.digit
}

// families are those that a tier has maps for; one where the map is for both.
func (t tier) families() []*family {
	switch {
	case t.own:
		return families[:1]
	case t.prefixes:
		return []*family{familyOf(t.family)}
	}
	return families
}

// key is the type of a tier's keys.
func (t tier) key(f *family) typ {
	var k typ
	if t.iface {
		k = append(k, ifname)
	}
	if !t.own {
		k = append(k, f.addr)
	}
	return append(k, inetProto, inetService)
}

// maps are a tier's maps, empty.
func (t tier) maps() []*mapping {
	var out []*mapping
	for _, f := range t.families() {
		out = append(out, &mapping{name: t.mapName(f), key: t.key(f), data: typ{verdict}, interval: !t.exact, tier: true})
	}
	return out
}

// lookups are the rules that ask a tier, with the maps that they need.
func (t tier) lookups() []rule {
	var out []rule
	for _, f := range t.families() {
		var exprs []expr.Any
		var texts []string
		before := ""
		if t.own {
			exprs = append(exprs, fibLocal(expr.CmpOpEq)...)
			before = "fib daddr type local "
		} else {
			exprs = append(exprs, f.isFamily()...)
		}
		at := uint32(reg32)
		if t.iface {
			exprs = append(exprs, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: at})
			texts = append(texts, "iifname")
			at += uint32(ifname.padded() / 4)
		}
		if !t.own {
			exprs = append(exprs, &expr.Payload{DestRegister: at, Base: expr.PayloadBaseNetworkHeader, Offset: f.daddr, Len: uint32(f.addr.size)})
			texts = append(texts, f.word+" daddr")
			at += uint32(f.addr.padded() / 4)
		}
		exprs = append(exprs,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: at},
			&expr.Payload{DestRegister: at + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: reg32, SetName: t.mapName(f), DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true})
		texts = append(texts, "meta l4proto", "th dport")
		out = append(out, rule{
			statements: []statement{newStatement(fmt.Sprintf("%s%s vmap @%s", before, strings.Join(texts, " . "), t.mapName(f)), exprs...)},
			needs:      t.mapName(f),
		})
	}
	return out
}

// fibLocal compares the type of the destination address with local.
func fibLocal(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: op, Register: reg, Data: []byte(markBytes(unix.RTN_LOCAL))},
	}
}

// onlyOwn lets go of what is not for this host itself: role server.
func onlyOwn() statement {
	return newStatement("fib daddr type != local accept", append(fibLocal(expr.CmpOpNeq), &expr.Verdict{Kind: expr.VerdictAccept})...)
}

// destination is an element of a tier.
func (t tier) destination(iface string, p netip.Prefix, proto lb.Protocol, r lb.PortRange) element {
	var first, last string
	if t.iface {
		low, high := ifnameBytes(iface)
		first, last = low, high
	}
	if !t.own {
		first, last = first+addrBytes(p.Addr()), last+lastOf(p)
	}
	first += protoBytes(proto) + portBytes(r.First)
	if t.exact {
		return element{key: first}
	}
	return element{key: first, end: last + protoBytes(proto) + portBytes(r.Last)}
}

// destinations are the elements that lead to the chain of a service, with the
// names of their maps.
func destinations(chain string, s *lb.Service) iter.Seq2[string, element] {
	return func(yield func(string, element) bool) {
		for _, l := range s.Listen {
			f := families[0] // the maps of own addresses are for both
			if l.Prefix.IsValid() {
				f = familyOf(lb.FamilyOf(l.Prefix.Addr()))
			}
			for _, r := range l.Ports {
				t := tierOf(s, l.Prefix, r)
				for _, proto := range s.Protocols {
					e := t.destination(s.Interface, l.Prefix, proto, r)
					e.data = chain
					if !yield(t.mapName(f), e) {
						return
					}
				}
			}
		}
	}
}

// parse reads what destination writes.
func (t tier) parse(f *family, e element) (iface string, p netip.Prefix, proto lb.Protocol, r lb.PortRange) {
	first, last := e.key, e.end
	if last == "" {
		last = first
	}
	cut := func(n int) (a, b string) {
		a, b, first, last = first[:n], last[:n], first[n:], last[n:]
		return a, b
	}
	if t.iface {
		iface = ifnameOf(cut(ifname.padded()))
	}
	if !t.own {
		p, _ = prefixOf(cut(f.addr.padded()))
	}
	a, _ := cut(inetProto.padded())
	low, high := cut(inetService.padded())
	return iface, p, lb.Protocol(a[0]), lb.PortRange{First: portOf(low), Last: portOf(high)}
}

// exemptions are the backends that a listen on a prefix might contain: what
// this host sends to a backend itself is not balanced again.
func exemptions(profiles []*lb.Profile) map[string][]element {
	type destination struct {
		addr  netip.Addr
		proto lb.Protocol
	}
	ports := map[destination][]lb.PortRange{}
	for _, p := range profiles {
		for i := range p.Services {
			s := &p.Services[i]
			if !wide(s) {
				continue
			}
			for _, b := range s.Backends {
				for _, proto := range s.Protocols {
					d := destination{b.Address.Addr, proto}
					ports[d] = append(ports[d], targets(s, b)...)
				}
			}
		}
	}
	t := exemptTier()
	out := map[string][]element{}
	for _, d := range slices.SortedFunc(maps.Keys(ports), func(a, b destination) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.proto, b.proto))
	}) {
		name := t.mapName(familyOf(lb.FamilyOf(d.addr)))
		for _, r := range union(ports[d]) {
			out[name] = append(out[name], t.destination("", netip.PrefixFrom(d.addr, d.addr.BitLen()), d.proto, r))
		}
	}
	return out
}

// targets are the ports of a backend that a service sends to.
func targets(s *lb.Service, b lb.Backend) []lb.PortRange {
	if b.Address.Port != 0 {
		return []lb.PortRange{{First: b.Address.Port, Last: b.Address.Port}}
	}
	var out []lb.PortRange
	for _, l := range s.Listen {
		out = append(out, l.Ports...)
	}
	return out
}

// union makes ranges disjoint and sorts them.
func union(ranges []lb.PortRange) []lb.PortRange {
	slices.SortFunc(ranges, func(a, b lb.PortRange) int { return cmp.Compare(a.First, b.First) })
	var out []lb.PortRange
	for _, r := range ranges {
		if n := len(out); n > 0 && r.First <= out[n-1].Last {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// wide reports whether what this host sends to backends may look like a
// connection to the service.
func wide(s *lb.Service) bool {
	return s.Role != lb.RoleServer && s.Interface == "" &&
		slices.ContainsFunc(s.Listen, func(l lb.Listen) bool { return l.Prefix.IsValid() && !l.Prefix.IsSingleIP() })
}

func exemptTier() tier {
	for _, t := range tierKinds {
		if t.exempt {
			return t
		}
	}
	panic("nft: no tier for exemptions")
}
