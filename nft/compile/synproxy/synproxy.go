// Package synproxy is what a table has for services with syn-protection: the kernel
// answers a SYN by a cookie, and begins the connection to a backend once the client has
// sent that back. It knows no kernel.
//
// A SYN leaves the service's chain in prerouting undrawn and untranslated, as does what
// the client sends next: conntrack has no entry of either. Behind routing, in input where
// this host has the address and in forward where it has not, the kernel takes them:
//
//	synproxy-input, synproxy-forward    destination -> the service's chain
//	PROFILE/SERVICE/synproxy4           takes a SYN, and an ACK with a good cookie
//
// Then the kernel sends a SYN in the client's name, by the hook output. There it meets the
// service's chain once more, as what this host itself sends does, and is balanced.
package synproxy

import (
	"fmt"
	"strings"

	"nlb/lb"
	"nlb/nft/ruleset"
)

const (
	// InputChain is there where the others are.
	InputChain   = "synproxy-input"
	forwardChain = "synproxy-forward"
	outputChain  = "synproxy-output"
	// KeptChain stays when no service is protected any more.
	KeptChain = "synproxy-kept"

	// manglePriority is NF_IP_PRI_MANGLE: ahead of the filters of others, which have no
	// rule for what is not translated.
	manglePriority = -150

	suffix = "/synproxy"
	note   = "syn-protection "
)

// ChainsBy names the map from a destination to the chain of a service, and Protected the set
// of these destinations.
func ChainsBy(f *ruleset.Family) string  { return "synproxy" + f.Digit }
func Protected(f *ruleset.Family) string { return "protected" + f.Digit }

// Of names the chain that a service, with this chain, has for a family.
func Of(chain string, f *ruleset.Family) string { return chain + suffix + f.Digit }

// Maps are the maps that all services share, empty.
func Maps() []*ruleset.Map {
	var out []*ruleset.Map
	for _, f := range ruleset.Families {
		key := ruleset.Type{f.Addr, ruleset.InetProto, ruleset.InetService}
		out = append(out,
			&ruleset.Map{Name: Protected(f), Kind: ruleset.Addresses, Key: key, Interval: true},
			&ruleset.Map{Name: ChainsBy(f), Kind: ruleset.Addresses, Key: key, Data: ruleset.Type{ruleset.Verdict}, Interval: true})
	}
	return out
}

// Protects reports whether a service of the profiles has syn-protection.
func Protects(profiles []*lb.Profile) bool {
	return lb.AnyService(profiles, func(s *lb.Service) bool { return s.SYNProtection != nil })
}

// Chains are the chains that all services share.
func Chains() []*ruleset.Chain {
	take := func(name string, hook *ruleset.Hook) *ruleset.Chain {
		c := &ruleset.Chain{Name: name, Hook: hook, Filter: true, Rules: []ruleset.Rule{ruleset.NewRule(ruleset.IsTracked(), ruleset.Accept())}}
		for _, f := range ruleset.Families {
			ask := ruleset.NewRule(f.Vmap(ChainsBy(f), f.Destination(), ruleset.L4Protocol, ruleset.DestinationPort))
			ask.Needs = ChainsBy(f)
			c.Rules = append(c.Rules, ask)
		}
		return c
	}
	return []*ruleset.Chain{
		take(InputChain, ruleset.Input(manglePriority, "mangle")),
		take(forwardChain, ruleset.Forward(manglePriority)),
		{Name: outputChain, Hook: ruleset.Output(manglePriority, "mangle"), Filter: true, Rules: []ruleset.Rule{ruleset.NewRule(ruleset.BlankTimestamp()...)}},
	}
}

// Kept is a chain that nothing leads to. The kernel translates timestamps while there is any
// synproxy in the network namespace (nft_synproxy_do_init in net/netfilter/nft_synproxy.c):
// connections that began with one would stall without.
func Kept() *ruleset.Chain {
	return &ruleset.Chain{Name: KeptChain, Rules: []ruleset.Rule{ruleset.NewRule(ruleset.SYNProxy(uint16(lb.SYNProxy.MSS), uint8(lb.SYNProxy.WindowScale)))}}
}

// ChainsFor are the shared chains of a table with all these profiles. there says which
// objects it has.
func ChainsFor(all []*lb.Profile, there func(object string) bool) (out []*ruleset.Chain) {
	protects := Protects(all)
	if protects || there(InputChain) {
		out = Chains()
	}
	if protects || there(KeptChain) {
		out = append(out, Kept())
	}
	return out
}

// Segments are the rules that a TCP segment meets which begins no connection: one with a
// cookie is let pass.
func Segments() []ruleset.Rule {
	var out []ruleset.Rule
	for _, f := range ruleset.Families {
		match := f.In(Protected(f), f.Destination(), ruleset.L4Protocol, ruleset.DestinationPort)
		out = append(out, ruleset.Rule{Statements: []ruleset.Statement{ruleset.UnlessSYN(), match, ruleset.Accept()}, Needs: Protected(f)})
	}
	return out
}

// Service is the chain that takes what clients of a service send, of a family; none where it
// is not protected.
func Service(chain string, s *lb.Service, f *ruleset.Family) []*ruleset.Chain {
	if s.SYNProtection == nil {
		return nil
	}
	mss := s.SYNProtection.MSS
	if f == ruleset.IPv6 {
		mss -= 20 // its header is so much longer than that of IPv4
	}
	take := ruleset.NewRule(ruleset.SYNProxy(uint16(mss), uint8(s.SYNProtection.WindowScale)))
	return []*ruleset.Chain{{Name: Of(chain, f), Rules: []ruleset.Rule{take}}}
}

// Leave are the rules of a service's own chain by which a SYN from the network leaves it.
// The families are those that have a backend to serve: clients of another are told at once
// that there is none. full is what else such a SYN has to match.
func Leave(s *lb.Service, families, full []ruleset.Statement) []ruleset.Rule {
	if s.SYNProtection == nil {
		return nil
	}
	out := []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.Continue()}, Comment: note + s.SYNProtection.String()}}
	for _, f := range families {
		out = append(out, ruleset.NewRule(append(append([]ruleset.Statement{f, ruleset.IsL4(byte(lb.TCP)), ruleset.HasEntered()}, full...), ruleset.Accept())...))
	}
	return out
}

// ReadNote reads the comment of such a rule into a service, and reports whether it was
// one.
func ReadNote(comment string, s *lb.Service) bool {
	text, ok := strings.CutPrefix(comment, note)
	if !ok {
		return false
	}
	var p lb.SYNProtection
	if n, _ := fmt.Sscanf(text, "mss %d window-scale %d", &p.MSS, &p.WindowScale); n != 2 || p.Problem() != nil {
		return false
	}
	s.SYNProtection = &p
	return true
}
