package compile

// Timeouts: for how long conntrack remembers connections, of checks and of services that
// say it.

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/ruleset"
)

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

// leaveProbes is the rule that leaves checks where they go.
func leaveProbes() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{ruleset.PriorityIs(ProbePriority, false), ruleset.Accept()}}
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
	if t == (lb.Timeouts{}) {
		return nil
	}
	var out []ruleset.Rule
	add := func(protocol byte, states ...string) { // in the kernel's order; empty: no key says it
		comment, seconds := "timeouts", make([]uint32, len(states))
		for i, word := range states {
			if word == "" || *t.Of(word) == 0 {
				continue
			}
			seconds[i] = uint32(*t.Of(word) / time.Second)
			if !slices.Contains(states[:i], word) {
				comment += " " + word + " " + t.Of(word).String()
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
	add(unix.IPPROTO_TCP, "half-open", "half-open", "established", "", "close-wait", "", "time-wait", "")
	add(unix.IPPROTO_UDP, "udp-idle", "udp")
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
