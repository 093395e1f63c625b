package compile

// Probes: the checks of servers that this host makes itself. Their sockets have a
// priority of their own. They are not balanced, so that a check of an address that
// is also a service reaches the server that has it. And conntrack forgets them as
// soon as they have ended: else thousands of checks a second would fill it.

import (
	"golang.org/x/sys/unix"

	"nlb/nft/ruleset"
)

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

// leaveProbes is the rule that leaves checks where they go.
func leaveProbes() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{ruleset.PriorityIs(ProbePriority, false), ruleset.Accept()}}
}
