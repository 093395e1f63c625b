package ipvs

// Marks: a service of IPVS can be a firewall mark. What that stands for is in
// the rules that set it.

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
)

// marks are rules of iptables that set a mark.
type marks struct {
	rules []markRule
}

type markRule struct {
	place    importer.Place
	mark     uint32
	prefix   netip.Prefix
	protocol lb.Protocol
	ports    []lb.PortRange
	// why it cannot be resolved; empty: it can.
	why  string
	used bool
}

// line reads a line of iptables, of iptables-save or as a command; false where
// it is neither. Only rules that set a mark are kept.
func (m *marks) line(t *table, ws []word, place importer.Place) bool {
	if len(ws) == 0 {
		return false
	}
	switch first := ws[0].Text; {
	case first[0] == '*' || first[0] == ':' || first == "COMMIT":
		return true
	case first[0] == '[' && len(ws) > 1:
		ws = ws[1:]
	}
	program := strings.HasSuffix(ws[0].Text, "iptables") || strings.HasSuffix(ws[0].Text, "ip6tables")
	// -A of ipvsadm is followed by an option, that of iptables by a chain.
	if !program && !((ws[0].Text == "-A" || ws[0].Text == "-N" || ws[0].Text == "-P") && len(ws) > 1 && ws[1].Text[0] != '-') {
		return false
	}
	r := markRule{place: place}
	sets := false
	for i := 0; i < len(ws); i++ {
		value := ""
		if i+1 < len(ws) {
			value = ws[i+1].Text
		}
		switch ws[i].Text {
		case "!":
			r.because("it has a !")
		case "-d", "--destination":
			r.destination(value)
			i++
		case "-p", "--protocol":
			switch value {
			case "tcp", "udp", "sctp":
				_ = r.protocol.UnmarshalText([]byte(value))
			default:
				r.because("it is for protocol " + value)
			}
			i++
		case "--dport", "--dports", "--destination-port", "--destination-ports":
			r.port(value)
			i++
		case "-t", "-A", "-I", "--append":
			i++
			if ws[i-1].Text != "-t" && value != "PREROUTING" && value != "OUTPUT" {
				r.because("it is in chain " + value)
			}
		case "-m", "--match":
			if value != "tcp" && value != "udp" && value != "sctp" && value != "multiport" && value != "comment" {
				r.because("it has -m " + value)
			}
			i++
		case "--comment":
			for i++; i < len(ws) && strings.HasPrefix(value, `"`) && !strings.HasSuffix(ws[i].Text, `"`); i++ {
			}
		case "-j", "--jump":
			sets = value == "MARK"
			i++
		case "--set-mark", "--set-xmark":
			v, mask, _ := strings.Cut(value, "/")
			n, err := strconv.ParseUint(v, 0, 32)
			if err != nil || mask != "" && !strings.EqualFold(mask, "0xffffffff") {
				r.because("its mark has a mask")
			}
			r.mark = uint32(n)
			i++
		case "iptables", "ip6tables":
		default:
			if !strings.HasSuffix(ws[i].Text, "tables") {
				r.because("it has " + ws[i].Text)
			}
		}
	}
	if sets {
		m.rules = append(m.rules, r)
	}
	return true
}

// because notes the first reason.
func (r *markRule) because(why string) {
	if r.why == "" {
		r.why = why
	}
}

func (r *markRule) destination(s string) {
	p, ok := importer.Prefix(s)
	if !ok {
		r.because("its destination is " + s)
		return
	}
	r.prefix = p
}

func (r *markRule) port(s string) {
	for part := range strings.SplitSeq(s, ",") {
		ports, ok := importer.PortRange(part, ":")
		if !ok {
			r.because("its ports are " + s)
			return
		}
		r.ports = append(r.ports, ports)
	}
}

// of returns the rules that set a mark for a family.
func (m *marks) of(v *Virtual) []*markRule {
	var out []*markRule
	for i := range m.rules {
		r := &m.rules[i]
		if r.mark == v.mark && (!r.prefix.IsValid() || r.prefix.Addr().Is6() == v.IPv6) {
			out = append(out, r)
		}
	}
	return out
}

// rest notes rules that set marks of no service.
func (m *marks) rest(t *table) {
	var at []importer.Place
	for _, r := range m.rules {
		if !r.used {
			at = append(at, r.place)
		}
	}
	if len(at) > 0 {
		t.Note("no service of IPVS is for the mark that this sets", "", at...)
	}
}

// resolve makes one service of each rule that sets the mark.
func (m *marks) resolve(t *table, v *Virtual) []*markRule {
	rules := m.of(v)
	if len(rules) == 0 {
		t.Lost(fmt.Sprintf("what mark %d stands for is not in this text, so this service is left out", v.mark),
			"import it together with what iptables-save -t mangle prints", v.Place)
		return nil
	}
	var out []*markRule
	for _, r := range rules {
		r.used = true
		why := r.why
		if why == "" && r.protocol == 0 {
			why = "it is for all protocols"
		}
		if why != "" {
			t.Lost(fmt.Sprintf("this rule is not understood as it sets mark %d: %s", v.mark, why), "", r.place)
			continue
		}
		out = append(out, r)
	}
	return out
}
