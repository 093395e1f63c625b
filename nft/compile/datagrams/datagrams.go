// Package datagrams balances each datagram for itself, for services with balance:
// datagrams. It knows no kernel.
//
// A datagram is taken before conntrack, which then does not track it, and its
// destination is written over:
//
//	datagrams                    destination -> the service's chain
//	PROFILE/SERVICE/datagrams4   in turn or at random: slot -> address
//
// Fragments have been put together before (NF_IP_PRI_CONNTRACK_DEFRAG).
package datagrams

import (
	"fmt"

	"nlb/lb"
	"nlb/nft/ruleset"
)

const (
	// EntryChain takes the datagrams.
	EntryChain = "datagrams"

	rawPriority = -300 // NF_IP_PRI_RAW, ahead of conntrack
	suffix      = "/datagrams"
	note        = "balance datagrams"
)

// Destinations names the map that leads to the chains of services.
func Destinations(f *ruleset.Family) string { return EntryChain + f.Digit }

// Of names what a service, with this chain, has for a family: a chain, and a map of
// its servers.
func Of(chain string, f *ruleset.Family) string { return chain + suffix + f.Digit }

// Maps are the maps that all services share, empty.
func Maps() []*ruleset.Map {
	var out []*ruleset.Map
	for _, f := range ruleset.Families {
		out = append(out, &ruleset.Map{
			Name: Destinations(f), Kind: ruleset.Addresses, Key: ruleset.Type{f.Addr, ruleset.InetProto, ruleset.InetService},
			Data: ruleset.Type{ruleset.Verdict}, Interval: true,
		})
	}
	return out
}

// Entry is the chain that all that comes from the network meets.
func Entry() *ruleset.Chain {
	c := &ruleset.Chain{Name: EntryChain, Hook: ruleset.Prerouting(rawPriority, "raw"), Filter: true}
	for _, f := range ruleset.Families {
		c.Rules = append(c.Rules, ruleset.Rule{
			Statements: []ruleset.Statement{f.Vmap(Destinations(f), f.Destination(), ruleset.L4Protocol, ruleset.DestinationPort)},
			Needs:      Destinations(f),
		})
	}
	return c
}

// Servers is the map of the servers of a service and family that has this name, empty;
// nil: it is none.
func Servers(name string) *ruleset.Map {
	chain, f, ok := ruleset.Suffixed(name, suffix)
	if !ok {
		return nil
	}
	return &ruleset.Map{
		Name: name, Kind: ruleset.OwnSlots, Key: ruleset.Type{ruleset.Integer}, Data: ruleset.Type{f.Addr}, Counter: true, OfChain: chain,
		TypeOf: fmt.Sprintf("numgen inc mod 2 : %s saddr", f.Word), Udata: f.SourcesUdata(),
	}
}

// Service is what a service has for a family with these backends: the map of its servers,
// and the chain that sends a datagram to one. guard is what turns clients away, and refuse
// the chain that answers where there is no server.
func Service(chain string, s *lb.Service, f *ruleset.Family, backends []lb.Backend, guard []ruleset.Statement, refuse string) (*ruleset.Map, *ruleset.Chain) {
	m := Servers(Of(chain, f))
	c := &ruleset.Chain{Name: m.Name}
	rule := func(statements ...ruleset.Statement) {
		c.Rules = append(c.Rules, ruleset.Rule{Statements: statements})
	}
	for slot, i := range s.SlotsWith(backends, 0) {
		m.Elements = append(m.Elements, ruleset.Element{Key: ruleset.MarkBytes(uint32(slot)), Data: ruleset.AddrBytes(backends[i].Address.Addr)})
	}
	for _, away := range guard {
		rule(away, ruleset.Drop())
	}
	switch slots := uint32(len(m.Elements)); {
	case slots == 0 && s.OnEmpty == lb.Drop:
		rule(ruleset.Drop())
	case slots == 0:
		rule(ruleset.Goto(refuse))
	default:
		rule(ruleset.NoTrack())
		if port := backends[0].Address.Port; port != 0 {
			for _, set := range ruleset.SetUDPPort(port) {
				rule(set)
			}
		}
		rule(f.SetDestination(s.Scheduler == lb.Random, slots, m.Name), ruleset.Accept())
		rule(ruleset.Drop()) // the map has become shorter meanwhile
	}
	return m, c
}

// Note is the rule of a service's own chain that says it; it does nothing.
func Note() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{ruleset.Continue()}, Comment: note}
}

// ReadNote reads the comment of such a rule into a service, and reports whether it was
// one.
func ReadNote(comment string, s *lb.Service) bool {
	if comment == note {
		s.Balance = lb.Datagrams
	}
	return comment == note
}
