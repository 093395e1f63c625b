package nftables

// Statements: what a rule does.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/syntax"
)

// single is a mapping with one key, as most of nft's JSON is.
func single(v any) (string, any, bool) {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		if s, word := v.(string); word { // "accept" in place of {"accept": null}
			return s, nil, true
		}
		return "", nil, false
	}
	for k, v := range m {
		return k, v, true
	}
	return "", nil, false
}

// get is a value of a mapping; nil where there is none.
func get(v any, key string) any {
	m, _ := v.(map[string]any)
	return m[key]
}

// bounds are the ends of a range; of what is none, itself.
func bounds(v any) (first, last any) {
	if r, ok := get(v, "range").([]any); ok && len(r) == 2 {
		return r[0], r[1]
	}
	return v, v
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// number is a whole number.
func number(v any) (uint64, bool) {
	f, ok := v.(float64)
	return uint64(f), ok && f >= 0 && f < 1<<53 && f == float64(uint64(f))
}

// conditional reads statements that are conditions, which are not translated as
// such: limits. No connection is over a limit, as the first is not.
func (p *program) conditional(name string, value any, matches *[]syntax.Match) bool {
	over := get(value, "inv") == true
	switch name {
	case "limit":
		rate, _ := number(get(value, "rate"))
		l := syntax.Limit{}
		_ = l.UnmarshalText(fmt.Appendf(nil, "%d/%s", rate, text(get(value, "per"))))
		if !p.onlyLogs() {
			p.issue(importer.Lost, "the limit of this rule is not in the profile", "a service can have limit: with new-per-source or new")
		}
		if over {
			*matches = append(*matches, syntax.Fixed{Holds: false})
		} else {
			*matches = append(*matches, l)
		}
	case "ct count", "quota":
		p.issue(importer.Lost, "the "+name+" of this rule is not in the profile", "a service can have limit: with connections-per-source")
		*matches = append(*matches, syntax.Fixed{Holds: !over})
	case "set", "meter": // of each element
		list, ok := get(value, "stmt").([]any)
		if !ok {
			list = []any{get(value, "stmt")}
		}
		known := false
		for _, one := range list {
			name, value, _ := single(one)
			known = p.conditional(name, value, matches) || known
		}
		return known || p.remembers(value, matches)
	default:
		return false
	}
	return true
}

// onlyLogs reports whether the rule does nothing but log.
func (p *program) onlyLogs() bool {
	return !slices.ContainsFunc(p.Expr, func(e any) bool {
		name, _, _ := single(e)
		return !slices.Contains([]string{"match", "limit", "log", "counter"}, name)
	})
}

// statement is what one does, in branches; false where it does nothing that matters.
func (p *program) statement(name string, value any) ([]branch, bool) {
	one := func(t syntax.Target) ([]branch, bool) { return []branch{{target: t}}, true }
	switch name {
	case "accept", "drop", "reject", "return", "continue", "jump", "goto":
		t := p.verdict(name, value)
		if t == nil {
			return nil, false
		}
		return one(t)
	case "vmap":
		return p.cases(get(value, "key"), get(value, "data"), func(v any) syntax.Target {
			name, value, ok := single(v)
			if !ok {
				return nil
			}
			return p.verdict(name, value)
		}), true
	case "dnat", "snat", "redirect":
		return p.nat(name, value), true
	case "masquerade":
		return one(syntax.SNAT{Masquerade: true, Random: strings.Contains(fmt.Sprint(get(value, "flags")), "random")})
	case "mangle":
		return p.mangle(value), true
	case "log":
		l := syntax.Log{Prefix: text(get(value, "prefix")), Level: 4}
		if level := text(get(value, "level")); level != "" {
			_ = lb.Read(&l.Level, level)
		}
		return one(l)
	case "notrack":
		return one(syntax.Untrack{})
	case "counter", "comment", "last", "ct helper", "ct timeout", "ct expectation", "flow", "synproxy", "secmark":
		return nil, false
	case "set", "map":
		p.issue(importer.Lost, "what this rule writes into a set is not in the profile", "affinity: keeps clients with their backend, limit: bounds their connections")
		return nil, false
	case "xt":
		p.lost("a part of this rule is of iptables, which nft does not show", "iptables-save prints it: nlb import iptables")
	default:
		p.lost(name+" is not translated", "")
	}
	return nil, true
}

// verdict is the target of a verdict; nil where it goes on.
func (p *program) verdict(name string, value any) syntax.Target {
	switch name {
	case "accept":
		p.accepts = true
		return syntax.Accept{}
	case "drop", "reject":
		return syntax.Drop{}
	case "return":
		return syntax.Return{}
	case "jump", "goto":
		to := p.chains[p.chain(text(get(value, "target")))]
		if to == nil {
			p.lost("the chain "+text(get(value, "target"))+" is not in this text", "")
			return syntax.Pass{}
		}
		return syntax.Jump{Chain: p.writer.chain(to), Goto: name == "goto"}
	case "continue":
		return nil
	}
	p.lost("the verdict "+name+" is not translated", "")
	return syntax.Pass{}
}

// nat is dnat, snat and redirect.
func (p *program) nat(name string, value any) []branch {
	if f := text(get(value, "family")); f != "" && !has(f, p.family) {
		p.never = true
		return nil
	}
	flags := fmt.Sprint(get(value, "flags"))
	random := strings.Contains(flags, "random")
	target := func(to syntax.NATRange) syntax.Target {
		switch {
		case to.Wide(random):
			p.lost(syntax.WideRange, "")
			return syntax.Pass{}
		case name == "snat":
			return syntax.SNAT{To: to, Random: random}
		}
		return syntax.DNAT{To: []syntax.NATRange{to}, Host: name == "redirect", Persistent: strings.Contains(flags, "persistent"), Random: random}
	}
	addr, port := get(value, "addr"), get(value, "port")
	for i, v := range []any{addr, port} {
		if m := get(v, "map"); m != nil {
			return p.cases(get(m, "key"), get(m, "data"), func(v any) syntax.Target {
				pair := [2]any{addr, port}
				pair[i] = v
				if to, ok := p.natRange(pair[0], pair[1]); ok {
					return target(to)
				}
				return nil
			})
		}
	}
	to, ok := p.natRange(addr, port)
	if !ok {
		if !p.never {
			p.lost("the target of this "+name+" is not translated", "")
		}
		return nil
	}
	return []branch{{target: target(to)}}
}

// natRange is an address, or a range of them, with a port or a range of ports.
func (p *program) natRange(addr, port any) (to syntax.NATRange, ok bool) {
	if pair, isPair := get(addr, "concat").([]any); isPair {
		if len(pair) != 2 || port != nil {
			return to, false
		}
		addr, port = pair[0], pair[1]
	}
	if to.Ports, ok = portRange(port); !ok {
		return to, false
	}
	if addr == nil {
		return to, true
	}
	first, last := bounds(addr)
	a, err := netip.ParseAddr(text(first))
	b, err2 := netip.ParseAddr(text(last))
	if err != nil || err2 != nil || a.BitLen() != b.BitLen() || b.Less(a) || a.Zone()+b.Zone() != "" {
		return to, false
	}
	if lb.FamilyOf(a) != p.family {
		p.never = true
		return to, false
	}
	to.First, to.Last = a, b
	return to, true
}

// portRange is a port or a range of them; 0 where there is none.
func portRange(v any) (lb.PortRange, bool) {
	if v == nil {
		return lb.PortRange{}, true
	}
	first, last := bounds(v)
	a, ok := number(first)
	b, ok2 := number(last)
	return lb.PortRange{First: uint16(a), Last: uint16(b)}, ok && ok2 && a > 0 && a <= b && b <= 65535
}
