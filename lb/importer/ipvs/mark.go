package ipvs

// Marks: a service of IPVS can be a firewall mark. What that stands for is in
// the rules that set it.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// mark is a rule of iptables that sets a mark, as far as a service can be made of it.
type mark struct {
	place    importer.Place
	value    uint32
	prefix   netip.Prefix
	protocol lb.Protocol
	ports    []lb.PortRange
	// why it cannot be resolved; empty: it can.
	why  string
	used bool
}

// rule reads a line of iptables, of iptables-save or as a command; false where
// it is neither. Only rules that set a mark are kept.
func (t *table) rule(ws []word, place importer.Place) bool {
	switch first := ws[0].Text; {
	case strings.HasPrefix(first, "*") || strings.HasPrefix(first, ":") || first == "COMMIT":
		return true
	case strings.HasPrefix(first, "[") && len(ws) > 1:
		ws = ws[1:]
	}
	switch {
	case strings.HasSuffix(ws[0].Text, "iptables") || strings.HasSuffix(ws[0].Text, "ip6tables"):
		ws = ws[1:]
	case !slices.Contains([]string{"-A", "-N", "-P"}, ws[0].Text) || len(ws) < 2 || strings.HasPrefix(ws[1].Text, "-"):
		return false // -A of ipvsadm is followed by an option, that of iptables by a chain
	}
	chain := ""
	var rest []word
	for i := 0; i < len(ws); i++ {
		switch ws[i].Text {
		case "-t", "--table":
			i++
		case "-A", "-I", "--append", "--insert":
			if i++; i < len(ws) {
				chain = ws[i].Text
			}
		default:
			rest = append(rest, ws[i])
		}
	}
	family := lb.IPv4
	rules, errs := syntax.ReadRule(rest, family, place)
	if other, wrong := syntax.ReadRule(rest, lb.IPv6, place); errs != nil && wrong == nil {
		family, rules, errs = lb.IPv6, other, nil
	}
	for _, r := range rules {
		set, ok := r.Target.(syntax.SetMark)
		if !ok || set.Connection || chain == "" {
			continue
		}
		m := &mark{place: place, value: set.Value}
		switch {
		case errs != nil:
			m.why = errs[0].Msg
		case chain != "PREROUTING" && chain != "OUTPUT":
			m.why = "it is in chain " + chain
		case r.Skip:
			m.why = strings.TrimSuffix(r.Issues[0].Msg, syntax.LeftOut)
		case set.Mask != ^uint32(0):
			m.why = "its mark has a mask"
		default:
			m.why = m.conditions(r.Matches, family)
		}
		t.marks = append(t.marks, m)
	}
	return true
}

// conditions reads those of a rule. It returns why they are not what a service can have;
// empty: they are.
func (m *mark) conditions(matches []syntax.Match, f lb.Family) string {
	for _, one := range matches {
		if _, isSource := one.(syntax.Source); isSource {
			return "it has -s"
		}
		within, ok := one.(syntax.Within)
		if !ok || within.Of == space.Local {
			return "it asks for more than destination, protocol and port"
		}
		switch within.Of {
		case space.Destination:
			prefixes, ok := within.Prefixes(f, 1)
			if !ok || len(prefixes) == 0 || within.Original {
				return "its destination is no network"
			}
			m.prefix = prefixes[0]
		case space.Protocol:
			for _, p := range []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP} {
				if within.Equal(space.Protocols(uint8(p))) {
					m.protocol = p
				}
			}
		case space.Port:
			m.ports = within.PortRanges()
		}
	}
	if m.protocol == 0 {
		return "it is not for TCP, UDP or SCTP alone"
	}
	return ""
}

// unused notes rules that set marks of no service.
func (t *table) unused() {
	for _, m := range t.marks {
		if !m.used {
			t.Note("no service of IPVS is for the mark that this sets", "", m.place)
		}
	}
}

// resolve returns what makes a service each: the rules that set the mark.
func (t *table) resolve(v *Virtual) (out []*mark) {
	known := false
	for _, m := range t.marks {
		if m.value != v.mark || m.prefix.IsValid() && m.prefix.Addr().Is6() != v.IPv6 {
			continue
		}
		known, m.used = true, true
		if m.why != "" {
			t.Lost(fmt.Sprintf("this rule is not understood as it sets mark %d: %s", v.mark, m.why), "", m.place)
			continue
		}
		out = append(out, m)
	}
	if !known {
		t.Lost(fmt.Sprintf("what mark %d stands for is not in this text, so this service is left out", v.mark),
			"import it together with what iptables-save -t mangle prints", v.Place)
	}
	return out
}
