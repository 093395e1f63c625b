// Package fleet is what a table has for services of a fleet, where connections come
// from one balancer to another: which of them are taken in their middle, and which
// answers are dropped. It knows no kernel.
package fleet

// Pick-ups and strays.
//
// A TCP segment without SYN of which conntrack knows nothing belongs to a connection
// that was open before conntrack came to life, on this host or, in a fleet, on another
// one. A connection that a socket of this host has is left alone. Any other to an
// address of a fleet is picked up: balanced as a new one would be.
//
// A stray is a packet of a backend to a connection that this balancer has not got. If
// it passed, conntrack would take it for a connection of its own, untranslated, and the
// client's next segment could not be translated any more. So it is dropped, and the
// server sends it again, until the client has spoken or the entry has come.
//
// While routers change, a handshake may be answered by way of another balancer. Then the
// client's next segment does not fit what conntrack has seen here, is not translated, and
// this host, which has the address, would reset the connection. It is dropped, too: by the
// time that it comes again, the entry does, or the routers have agreed.

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// The chains. They are there where a service picks connections up.
const (
	PickUpChain = "pick-up" // what prerouting does with segments without SYN
	straysChain = "strays"

	manglePriority = -150 // NF_IP_PRI_MANGLE: behind conntrack
)

// addresses has what a fleet listens on, servers where its answers come from.
func addresses(f *ruleset.Family) string { return "fleet" + f.Digit }
func servers(f *ruleset.Family) string   { return "servers" + f.Digit }

// PicksUp reports whether a service of the profiles picks connections up.
func PicksUp(profiles []*lb.Profile) bool {
	return lb.AnyService(profiles, (*lb.Service).PicksUp)
}

// Maps are the maps of the layout that fleets need, empty.
func Maps() []*ruleset.Map {
	out := []*ruleset.Map{{Name: askedSet, Key: ruleset.Type{ruleset.Number}, Dynamic: true, Timeout: true, Size: mostAsked, TypeOf: "tcp ackseq", Udata: ruleset.AckUdata()}}
	for _, f := range ruleset.Families {
		out = append(out,
			&ruleset.Map{Name: addresses(f), Kind: ruleset.Exemptions, Key: ruleset.Type{f.Addr, ruleset.InetProto}, Interval: true},
			&ruleset.Map{Name: servers(f), Kind: ruleset.Exemptions, Key: ruleset.Type{f.Addr, ruleset.InetProto, ruleset.InetService}, Interval: true})
	}
	return out
}

// Chains are the chains of fleets. ours matches connections with a mark of nlb. The others
// are the rules that segments without SYN to other addresses meet.
func Chains(ours ruleset.Statement, others ...ruleset.Rule) []*ruleset.Chain {
	pickUp := &ruleset.Chain{Name: PickUpChain, Rules: []ruleset.Rule{ruleset.NewRule(ruleset.HasSocket(), ruleset.Accept())}}
	strays := &ruleset.Chain{Name: straysChain, Hook: ruleset.Prerouting(manglePriority, "mangle"), Filter: true, Rules: []ruleset.Rule{
		vain(ours),
		ruleset.NewRule(ruleset.IsTracked(), ruleset.Accept()),
		ruleset.NewRule(ruleset.IsSYN(), ruleset.Accept()),
		ruleset.NewRule(ruleset.IsInvalid(), ruleset.HasSocket(), ruleset.Accept()),
	}}
	for _, f := range ruleset.Families {
		pickUp.Rules = append(pickUp.Rules, ruleset.Rule{
			Statements: []ruleset.Statement{f.In(addresses(f), f.Destination(), ruleset.L4Protocol), ruleset.Return()}, Needs: addresses(f),
		})
		strays.Rules = append(strays.Rules, ruleset.Rule{
			Statements: []ruleset.Statement{f.In(servers(f), f.Source(), ruleset.L4Protocol, ruleset.SourcePort), ruleset.Drop()}, Needs: servers(f),
		}, ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.IsInvalid(), f.In(addresses(f), f.Destination(), ruleset.L4Protocol), ruleset.Drop()}, Needs: addresses(f),
		})
	}
	pickUp.Rules = append(append(pickUp.Rules, others...), ruleset.NewRule(ruleset.Accept()))
	return []*ruleset.Chain{pickUp, strays}
}

// server is a backend for a protocol.
type server struct {
	addr     netip.Addr
	protocol lb.Protocol
}

// Elements are the elements of the maps, by their names. They follow from all profiles
// of a table. An address belongs to a fleet as a whole, since it moves as a whole.
func Elements(profiles []*lb.Profile) map[string][]ruleset.Element {
	var listens []netip.Prefix
	ports := map[server][]lb.PortRange{}
	for _, s := range lb.Services(profiles) {
		if !s.PicksUp() {
			continue
		}
		for _, l := range s.Listen {
			if l.Prefix.IsValid() {
				listens = append(listens, l.Prefix)
			}
		}
		for _, b := range s.Backends {
			if b.Address.OfHost() {
				continue // whatever addresses this host has
			}
			for _, p := range s.Protocols {
				k := server{b.Address.Addr, p}
				ports[k] = append(ports[k], s.PortsOf(b)...)
			}
		}
	}
	out := map[string][]ruleset.Element{}
	for _, p := range lb.Outer(listens) {
		out[addresses(ruleset.FamilyOf(p.Addr()))] = append(out[addresses(ruleset.FamilyOf(p.Addr()))], ruleset.Element{
			Key: ruleset.AddrBytes(p.Addr()) + ruleset.ProtoBytes(byte(lb.TCP)), End: ruleset.LastOf(p) + ruleset.ProtoBytes(byte(lb.TCP)),
		})
	}
	for _, k := range slices.SortedFunc(maps.Keys(ports), func(a, b server) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.protocol, b.protocol))
	}) {
		at := ruleset.AddrBytes(k.addr) + ruleset.ProtoBytes(byte(k.protocol))
		name := servers(ruleset.FamilyOf(k.addr))
		for _, r := range lb.JoinPorts(ports[k]) {
			out[name] = append(out[name], ruleset.Element{Key: at + ruleset.PortBytes(r.First), End: at + ruleset.PortBytes(r.Last)})
		}
	}
	return out
}
