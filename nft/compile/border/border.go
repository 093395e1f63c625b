// Package border is about what is beside the connections that services take: other traffic
// for their addresses, what this host forwards for others, and what connections announce.
// It knows no kernel.
package border

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// ForwardChain lets nothing but balanced connections be forwarded.
const ForwardChain = "balanced-only"

// AddressesOf names the map from an address that services listen on to what becomes of
// what they do not take.
func AddressesOf(f *ruleset.Family) string { return "unserved" + f.Digit }

const prefix = "unserved-" // of the chains that such a map leads to

// Maps are the maps of addresses, empty.
func Maps() []*ruleset.Map {
	var out []*ruleset.Map
	for _, f := range ruleset.Families {
		out = append(out, &ruleset.Map{Name: AddressesOf(f), Kind: ruleset.Addresses, Key: ruleset.Type{f.Addr}, Data: ruleset.Type{ruleset.Verdict}})
	}
	return out
}

// Rest are the rules that a connection meets which no service takes, or what else matches.
func Rest(match ...ruleset.Statement) []ruleset.Rule {
	var out []ruleset.Rule
	for _, f := range ruleset.Families {
		ask := f.Vmap(AddressesOf(f), f.Destination())
		out = append(out, ruleset.Rule{Statements: append(slices.Clip(match), ask), Needs: AddressesOf(f)})
	}
	return out
}

// Elements are those of the maps, by their names, for all profiles of a table. Where
// services differ about an address, the strictest holds.
func Elements(profiles []*lb.Profile) map[string][]ruleset.Element {
	strictest := map[string]map[string]lb.Unserved{} // by map and address
	for _, s := range lb.Services(profiles) {
		for _, l := range s.Listen {
			if s.Unserved == lb.UnservedPass || !l.Prefix.IsValid() || !l.Prefix.IsSingleIP() {
				continue
			}
			a := l.Prefix.Addr()
			name, key := AddressesOf(ruleset.FamilyOf(a)), ruleset.AddrBytes(a)
			if strictest[name] == nil {
				strictest[name] = map[string]lb.Unserved{}
			}
			strictest[name][key] = max(strictest[name][key], s.Unserved)
		}
	}
	out := map[string][]ruleset.Element{}
	for name, keys := range strictest {
		for key, what := range keys {
			out[name] = append(out[name], ruleset.Element{Key: key, Data: prefix + what.String()})
		}
	}
	return out
}

// Ends are the chains that such elements lead to; refuse is the one that answers.
func Ends(refuse string) []*ruleset.Chain {
	var out []*ruleset.Chain
	for what := lb.UnservedReject; what <= lb.UnservedDropAll; what++ {
		end := ruleset.Drop()
		if what == lb.UnservedReject || what == lb.UnservedRejectAll {
			end = ruleset.Goto(refuse)
		}
		out = append(out, &ruleset.Chain{Name: prefix + what.String(), Rules: ends(what, end)})
	}
	return out
}

// ends refuse or drop what is for an address of others, and which would go round. Where
// this host has the address, ICMP stays, and so does what is open to a daemon; and the
// way in by the link that has it, unless that was asked for.
func ends(what lb.Unserved, end ruleset.Statement) []ruleset.Rule {
	out := []ruleset.Rule{
		ruleset.NewRule(ruleset.IsForeign(), end),
		ruleset.NewRule(ruleset.IsL4(unix.IPPROTO_ICMP), ruleset.Accept()),
		ruleset.NewRule(ruleset.IsL4(unix.IPPROTO_ICMPV6), ruleset.Accept()),
		ruleset.NewRule(ruleset.UnlessSYN(), ruleset.Accept()),
	}
	if what == lb.UnservedReject || what == lb.UnservedDrop {
		out = append(out, ruleset.NewRule(ruleset.IsOfInputLink(), ruleset.Accept()))
	}
	return append(out, ruleset.NewRule(end))
}

// Forward is the chain for lb.ForwardBalanced. Connections that are open go on, and what belongs to
// them. What is not tracked is so by a rule, and so by somebody's will.
func Forward() *ruleset.Chain {
	return &ruleset.Chain{Name: ForwardChain, Hook: ruleset.Forward(0), Filter: true, Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.IsKnown(), ruleset.Accept()}},
		{Statements: []ruleset.Statement{ruleset.IsTranslated(), ruleset.Accept()}},
		{Statements: []ruleset.Statement{ruleset.Drop()}},
	}}
}

// Helpers are rules that give the connections of a service their helper.
func Helpers(s *lb.Service) []ruleset.Rule {
	if s.Helper == lb.HelperNone {
		return nil
	}
	var out []ruleset.Rule
	for _, p := range s.Protocols {
		h := &ruleset.Helper{Name: fmt.Sprintf("%s-%s", s.Helper, p), Type: s.Helper.String(), Protocol: byte(p)}
		out = append(out, ruleset.Rule{Statements: []ruleset.Statement{ruleset.SetHelper(h)}, Comment: helperWord + s.Helper.String()})
	}
	return out
}

// Notes are rules of a service that do nothing, and say what it wants.
func Notes(s *lb.Service) []ruleset.Rule {
	var out []ruleset.Rule
	note := func(comment string) {
		out = append(out, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Continue()}, Comment: comment})
	}
	if s.Unserved != lb.UnservedPass {
		note(unservedWord + s.Unserved.String())
	}
	if s.RandomPorts {
		note(randomPorts)
	}
	if s.Forward != lb.ForwardOpen {
		note(forwardWord + s.Forward.String())
	}
	return out
}

const unservedWord, forwardWord, helperWord, randomPorts = "unserved ", "forward ", "helper ", "random-ports"

// ReadNote reads the comment of such a rule, or of one of Helpers, into a service, and
// reports whether it was one.
func ReadNote(comment string, s *lb.Service) bool {
	if word, ok := strings.CutPrefix(comment, unservedWord); ok {
		return lb.Read(&s.Unserved, word) == nil
	}
	if word, ok := strings.CutPrefix(comment, helperWord); ok {
		return lb.Read(&s.Helper, word) == nil
	}
	if comment == randomPorts {
		s.RandomPorts = true
		return true
	}
	word, ok := strings.CutPrefix(comment, forwardWord)
	return ok && lb.Read(&s.Forward, word) == nil
}
