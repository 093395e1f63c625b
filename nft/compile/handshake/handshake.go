// Package handshake is what a table has for services with a limit of half-open
// connections: those whose client has not completed the handshake. It knows no kernel.
//
// A SYN from the network puts its connection into a set of the service, which has as many
// elements as the limit says. Where that is full, the SYN is refused, or answered by a
// cookie. The first other segment of the connection takes it out again: the client's ACK,
// or a reset. Chains of type nat do not see that one, so a chain looks at all segments
// from the network:
//
//	handshakes                 TCP, and the mark is in the map half-open -> the service's chain
//	PROFILE/SERVICE/half-open  a SYN, from either side: keep for longer; else: take out
//
// An element lives as long as the entry of conntrack may. It is not deleted, but given a
// moment to live: kernels before Linux 6.5 count an element that a packet has deleted for
// ever. Each connection gets that moment once, which is what PROFILE/SERVICE/completed
// remembers: with one more for each of its segments, a busy one would count on.
package handshake

import (
	"cmp"
	"fmt"
	"time"

	"nlb/lb"
	"nlb/nft/ruleset"
)

const (
	// Backends is the map from the marks of backends to the chain of their service.
	Backends = "half-open"
	chain    = "handshakes"
	suffix   = "/half-open"

	completedSuffix = "/completed"

	manglePriority = -150 // NF_IP_PRI_MANGLE: behind conntrack

	// longest is how long conntrack remembers a SYN by itself
	// (nf_conntrack_tcp_timeout_syn_sent); one that is answered it remembers for half of it.
	longest = 2 * time.Minute
	// A connection counts for so long after its handshake, and until the kernel collects
	// what is over. It is known as completed for longer.
	over, known, collect = 20 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond
	// mostCompleted is about what the largest limit lets complete in the time of both.
	mostCompleted = 1 << 17
)

// Of names the chain that sees the segments of a service's connections, by the service's
// own.
func Of(service string) string { return service + suffix }

// set names the set of half-open connections. The kernel changes the size of none, so a
// changed limit has another.
func set(service string, s *lb.Service) string {
	return fmt.Sprintf("%s%s-%d", service, suffix, s.Limit.HalfOpen)
}

// lifetime is how long a connection counts that is not completed.
func lifetime(s *lb.Service) time.Duration { return cmp.Or(s.Timeouts.HalfOpen, longest) }

// Map is the map that all services share, empty.
func Map() *ruleset.Map {
	return &ruleset.Map{Name: Backends, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Verdict}}
}

// Chain is the chain that all services share. kept are bits of the mark that are others'.
func Chain(kept uint32) *ruleset.Chain {
	look := ruleset.NewRule(ruleset.IsL4(byte(lb.TCP)), ruleset.MarkVmap(Backends, ^kept))
	look.Needs = Backends
	return &ruleset.Chain{Name: chain, Hook: ruleset.Prerouting(manglePriority, "mangle"), Filter: true, Rules: []ruleset.Rule{look}}
}

// Bounds reports whether a service of the profiles has such a limit.
func Bounds(profiles []*lb.Profile) bool {
	return lb.AnyService(profiles, func(s *lb.Service) bool { return s.Limit.HalfOpen > 0 })
}

// connections is a set of connections, which packets fill.
func connections(service, name string, most uint32) *ruleset.Map {
	return &ruleset.Map{
		Name: name, Key: ruleset.Type{ruleset.Number}, TypeOf: "ct id", Udata: ruleset.IDUdata(),
		Dynamic: true, Timeout: true, Size: most, Collect: collect, OfChain: service,
	}
}

// Service is what a service with such a limit has of its own.
func Service(service string, s *lb.Service) (sets []*ruleset.Map, segments *ruleset.Chain) {
	begun, completed := set(service, s), service+completedSuffix
	sets = []*ruleset.Map{connections(service, begun, s.Limit.HalfOpen), connections(service, completed, mostCompleted)}
	unknown := ruleset.IDIn(completed, true)
	return sets, &ruleset.Chain{Name: Of(service), Rules: []ruleset.Rule{
		ruleset.NewRule(ruleset.HasSYN(), ruleset.IDIn(begun, false), unknown, ruleset.UpdateID(begun, lifetime(s)), ruleset.Return()),
		ruleset.NewRule(ruleset.IDIn(begun, false), unknown, ruleset.AddID(completed, known), ruleset.UpdateID(begun, over)),
	}}
}

// Forget is the rule that takes a connection out of the set that is refused.
func Forget(service string, s *lb.Service, match ...ruleset.Statement) ruleset.Rule {
	set := set(service, s)
	return ruleset.NewRule(append(match, ruleset.IDIn(set, false), ruleset.UpdateID(set, over))...)
}

// Enter is the rule by which a SYN counts, and the match of one for which there was no
// room.
func Enter(service string, s *lb.Service) (enter ruleset.Rule, full ruleset.Statement) {
	set := set(service, s)
	enter = ruleset.NewRule(ruleset.IsSYN(), ruleset.HasEntered(), ruleset.AddID(set, lifetime(s)))
	enter.Comment = fmt.Sprintf("limit half-open %d", s.Limit.HalfOpen)
	return enter, ruleset.IDIn(set, true)
}
