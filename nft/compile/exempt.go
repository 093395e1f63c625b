package compile

// Exemptions: destinations that a wide listen would take and must not. A packet
// that this host sends meets them after single addresses, and before prefixes
// and this host's own addresses. And checks and timeouts, below.

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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
	for _, p := range profiles {
		for i := range p.Services {
			s := &p.Services[i]
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
	}
	// Ranges must not overlap in one map.
	for e, ports := range loopback {
		loopback[e] = without(lb.JoinPorts(ports), named[e])
	}
	for e, ports := range backends {
		ports = lb.JoinPorts(ports)
		for _, l := range []netip.Prefix{loopback4, loopback6} {
			if l.Contains(e.prefix.Addr()) {
				ports = without(ports, loopback[exemption{l, e.proto}])
			}
		}
		loopback[e] = append(loopback[e], ports...)
	}
	t := exemptTier()
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

// without takes ports away from disjoint ranges.
func without(ranges, cut []lb.PortRange) []lb.PortRange {
	for _, c := range cut {
		var rest []lb.PortRange
		for _, r := range ranges {
			if c.Last < r.First || r.Last < c.First {
				rest = append(rest, r)
				continue
			}
			if r.First < c.First {
				rest = append(rest, lb.PortRange{First: r.First, Last: c.First - 1})
			}
			if c.Last < r.Last {
				rest = append(rest, lb.PortRange{First: c.Last + 1, Last: r.Last})
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

func exemptTier() Tier {
	for _, t := range tierKinds {
		if t.Exempt {
			return t
		}
	}
	panic("compile: no tier for exemptions")
}

// Probes: the checks of servers that this host makes itself. Their sockets have a
// priority of their own. They are not balanced, so that a check of an address that
// is also a service reaches the server that has it. And conntrack forgets them as
// soon as they have ended: else thousands of checks a second would fill it.

const (
	// ProbesChain sees what this host sends. It is there from the first time on that
	// somebody asks for it.
	ProbesChain = "probes"

	// ProbePriority is the SO_PRIORITY of the sockets of checks ("nlb").
	ProbePriority = 0x6e6c62
)

// A connection that is open lives as long as the longest check may take: an answer
// to one that is forgotten would be refused by firewalls that ask conntrack. So
// does a datagram's, as far as such checks are likely.
var (
	probesTCP = &ruleset.Timeouts{Name: "probes-tcp", Protocol: unix.IPPROTO_TCP, Seconds: []uint32{1, 1, 3600, 1, 1, 1, 1, 1}}
	probesUDP = &ruleset.Timeouts{Name: "probes-udp", Protocol: unix.IPPROTO_UDP, Seconds: []uint32{5, 1}}
)

// probesChain gives the connections of checks their timeouts.
func probesChain() *ruleset.Chain {
	return &ruleset.Chain{Name: ProbesChain, Hook: ruleset.Output(manglePriority, "mangle"), Filter: true, Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.PriorityIs(ProbePriority, true), ruleset.Accept()}},
		{Statements: []ruleset.Statement{ruleset.SetTimeouts(probesTCP)}},
		{Statements: []ruleset.Statement{ruleset.SetTimeouts(probesUDP)}},
	}}
}

// Timeouts of a service: a policy for TCP and one for UDP, named by its content, so
// that services with the same share it. A policy is attached to a connection by its
// first packet, and stays with it. So an object stays in the table when no service
// has it any more: connections that began with it would fall back to what the kernel
// has.

// closeWait is what a service with other timeouts of TCP has where it does not say:
// what nlb wants of the kernel (package needs), which is set only after the object is made.
const closeWait = 3600

// timeoutRules give the connections of a service their timeouts.
func timeoutRules(t lb.Timeouts) []ruleset.Rule {
	var out []ruleset.Rule
	add := func(protocol byte, states []string, words ...string) {
		comment, seconds := "timeouts", make([]uint32, len(states))
		for i, word := range states {
			if word != "" {
				seconds[i] = uint32(*t.Of(word) / time.Second)
			}
		}
		for _, word := range words {
			if d := *t.Of(word); d > 0 {
				comment += " " + word + " " + d.String()
			}
		}
		if slices.Max(seconds) == 0 {
			return
		}
		if protocol == unix.IPPROTO_TCP {
			seconds[4] = cmp.Or(seconds[4], closeWait)
		}
		h := fnv.New32a()
		fmt.Fprint(h, seconds)
		o := &ruleset.Timeouts{Name: fmt.Sprintf("timeouts-%s-%08x", lb.Protocol(protocol), h.Sum32()), Protocol: protocol, Seconds: seconds}
		out = append(out, ruleset.Rule{Statements: []ruleset.Statement{ruleset.SetTimeouts(o)}, Comment: comment})
	}
	add(unix.IPPROTO_TCP, []string{"half-open", "half-open", "established", "", "close-wait", "", "time-wait", ""}, "established", "close-wait", "half-open", "time-wait")
	add(unix.IPPROTO_UDP, []string{"udp-idle", "udp"}, "udp", "udp-idle")
	return out
}

// readTimeouts reads the comment of such a rule: "timeouts established 1h0m0s".
func readTimeouts(comment string, s *lb.Service) bool {
	words := strings.Fields(comment)
	if len(words) == 0 || words[0] != "timeouts" {
		return false
	}
	for pair := range slices.Chunk(words[1:], 2) {
		to := s.Timeouts.Of(pair[0])
		if d, err := time.ParseDuration(pair[len(pair)-1]); err == nil && to != nil && lb.CheckConnectionTimeout(pair[0], d) == nil {
			*to = d
		}
	}
	return true
}

// leaveProbes is the rule that leaves checks where they go.
func leaveProbes() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{ruleset.PriorityIs(ProbePriority, false), ruleset.Accept()}}
}
