package compile

// Exemptions: destinations that a wide listen would take and must not. A packet
// that this host sends meets them after single addresses, and before prefixes
// and this host's own addresses.

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// The loopback addresses of each family.
var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// exemption is a protocol at some addresses.
type exemption struct {
	prefix netip.Prefix
	proto  lb.Protocol
}

// exemptions are the elements of the exempt maps. What this host sends to a
// backend itself is not balanced again. What it sends to a loopback address
// stays here, unless a listen names that address or a prefix of such.
func exemptions(profiles []*lb.Profile) map[string][]ruleset.Element {
	backends, loopback, named := map[exemption][]lb.PortRange{}, map[exemption][]lb.PortRange{}, map[exemption][]lb.PortRange{}
	for _, s := range lb.Services(profiles) {
		if s.Role == lb.RoleServer || s.Interface != "" {
			continue // takes nothing that this host sends
		}
		for _, proto := range s.Protocols {
			if wide(s) {
				for _, b := range s.Backends {
					if b.Address.OfHost() {
						continue // it is no address
					}
					e := exemption{netip.PrefixFrom(b.Address.Addr, b.Address.Addr.BitLen()), proto}
					backends[e] = append(backends[e], s.PortsOf(b)...)
				}
			}
			for _, l := range s.Listen {
				if inLoopback4(l.Prefix) {
					e := exemption{loopback4, proto}
					named[e] = append(named[e], l.Ports...)
				}
				for _, prefix := range loopbackIn(s, l.Prefix) {
					e := exemption{prefix, proto}
					loopback[e] = append(loopback[e], l.Ports...)
				}
			}
		}
	}
	// Ranges must not overlap in one map.
	for e, ports := range loopback {
		loopback[e] = Without(lb.JoinPorts(ports), named[e]...)
	}
	for e, ports := range backends {
		ports = lb.JoinPorts(ports)
		for _, l := range []netip.Prefix{loopback4, loopback6} {
			if l.Contains(e.prefix.Addr()) {
				ports = Without(ports, loopback[exemption{l, e.proto}]...)
			}
		}
		loopback[e] = append(loopback[e], ports...)
	}
	t := tierKinds[slices.IndexFunc(tierKinds, func(t Tier) bool { return t.Exempt })]
	out := map[string][]ruleset.Element{}
	for _, e := range slices.SortedFunc(maps.Keys(loopback), func(a, b exemption) int {
		return cmp.Or(a.prefix.Compare(b.prefix), cmp.Compare(a.proto, b.proto))
	}) {
		name := t.MapName(FamilyOf(lb.FamilyOf(e.prefix.Addr())))
		for _, r := range lb.JoinPorts(loopback[e]) {
			out[name] = append(out[name], t.destination("", e.prefix, e.proto, r))
		}
	}
	return out
}

// inLoopback4 reports whether a listen is a prefix of loopback addresses. Single
// addresses come before exemptions, so they do not matter.
func inLoopback4(p netip.Prefix) bool {
	return p.IsValid() && !p.IsSingleIP() && p.Bits() >= loopback4.Bits() && loopback4.Contains(p.Addr())
}

// loopbackIn are the loopback addresses that a listen would take: by a prefix
// that is wider, or as this host's own.
func loopbackIn(s *lb.Service, p netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, l := range []netip.Prefix{loopback4, loopback6} {
		own := !p.IsValid() && slices.Contains(s.Families(), lb.FamilyOf(l.Addr()))
		if own || p.IsValid() && p.Bits() < l.Bits() && p.Contains(l.Addr()) {
			out = append(out, l)
		}
	}
	return out
}

// Without takes ports away from disjoint ranges.
func Without(ranges []lb.PortRange, cut ...lb.PortRange) []lb.PortRange {
	for _, c := range cut {
		var rest []lb.PortRange
		for _, r := range ranges {
			if r.First < c.First {
				rest = append(rest, lb.PortRange{First: r.First, Last: min(r.Last, c.First-1)})
			}
			if c.Last < r.Last {
				rest = append(rest, lb.PortRange{First: max(r.First, c.Last+1), Last: r.Last})
			}
		}
		ranges = rest
	}
	return ranges
}

// wide reports whether what this host sends to backends may look like a
// connection to the service.
func wide(s *lb.Service) bool {
	return slices.ContainsFunc(s.Listen, func(l lb.Listen) bool { return l.Prefix.IsValid() && !l.Prefix.IsSingleIP() })
}
