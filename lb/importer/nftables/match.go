package nftables

// Matches: the conditions of a rule.

import (
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// match reads a condition. It is one of several that exclude each other where it
// cannot be one; each is a list of which all must hold.
func (p *program) match(value any) [][]syntax.Match {
	return p.holds(text(get(value, "op")), get(value, "left"), get(value, "right"))
}

var always = [][]syntax.Match{nil}

// holds is that an expression lies to a value as op says.
func (p *program) holds(op string, left, right any) [][]syntax.Match {
	if op == "" || op == "in" {
		op = "=="
	}
	if parts, ok := get(left, "concat").([]any); ok {
		return p.concatenated(op, parts, right)
	}
	if r, ok := p.round(left); ok {
		return p.numbered(op, r, right)
	}
	if m, ok := p.recent(right); ok && op == "==" && client(left) {
		m.Check = true
		return [][]syntax.Match{{m}}
	}
	values, ok := p.values(right)
	if !ok {
		p.lost("a set of this rule changes by itself, or is not in this text", "")
		return always
	}
	matches, ok := p.field(op, left, values)
	if !ok {
		if !p.skip {
			p.lost("its condition "+describe(left)+" is not translated", "")
		}
		return always
	}
	return matches
}

// describe names what a condition looks at.
func describe(v any) string {
	kind, value, ok := single(v)
	if !ok {
		return "of this kind"
	}
	parts := []string{kind}
	for _, key := range []string{"key", "protocol", "field", "result", "name"} {
		if s := text(get(value, key)); s != "" {
			parts = append(parts, s)
		}
	}
	if list, isList := value.([]any); isList && len(list) > 0 {
		return describe(list[0])
	}
	return strings.TrimPrefix(strings.Join(parts, " "), "payload ")
}

// values are what a value stands for: itself, or the elements of a set.
func (p *program) values(right any) ([]any, bool) {
	if list, ok := right.([]any); ok { // flags such as states
		return list, true
	}
	if get(right, "set") == nil && !strings.HasPrefix(text(right), "@") {
		return []any{right}, true
	}
	elements, ok := p.elements(right)
	if !ok {
		return nil, false
	}
	out := make([]any, len(elements))
	for i, e := range elements {
		out[i] = plain(e)
	}
	return out, true
}

// concatenated is a condition on several fields at once.
func (p *program) concatenated(op string, parts []any, right any) [][]syntax.Match {
	values, ok := p.values(right)
	if !ok || op != "==" {
		p.lost("a condition on several fields is not translated", "")
		return always
	}
	var out [][]syntax.Match
	for _, v := range values {
		list, ok := get(v, "concat").([]any)
		if !ok || len(list) != len(parts) {
			p.lost("a condition on several fields is not translated", "")
			return always
		}
		all := always
		for i, part := range parts {
			var next [][]syntax.Match
			for _, one := range p.holds("==", part, list[i]) {
				if len(next)+len(all) > maxRules {
					break // it is too many below, too
				}
				for _, before := range all {
					next = append(next, slices.Concat(before, one))
				}
			}
			all = next
		}
		if out = append(out, all...); len(out)+len(all) > maxRules {
			p.lost("a set of this rule has too many elements", "")
			return always
		}
	}
	return out
}

// numbered is a condition on what is drawn.
func (p *program) numbered(op string, r round, right any) [][]syntax.Match {
	values, known := p.values(right)
	set, ok := compared(op, values, numbers, space.One(0, 1<<32-1))
	if !known || !ok {
		p.lost("a condition on a number that is drawn is not translated", "")
		return always
	}
	hits := set.And(space.One(r.offset, r.offset+r.mod-1))
	n := uint64(hits.Size())
	switch {
	case n == 0:
		return [][]syntax.Match{{syntax.Fixed{Holds: false}}}
	case n == 1 && r.inTurn && n < r.mod:
		return [][]syntax.Match{{&syntax.Nth{Every: uint32(r.mod), Packet: uint32(hits[0].First.Low - r.offset)}}}
	case r.inTurn && n < r.mod:
		p.lost("a condition on several numbers of a round is not translated", "")
		return always
	}
	return [][]syntax.Match{{r.part(n, r.mod)}}
}

// compared is the set, of all, that a comparison with values holds for. read reads one.
func compared(op string, values []any, read func(any) (space.Set, bool), all space.Set) (space.Set, bool) {
	var s space.Set
	for _, v := range values {
		one, ok := read(v)
		if !ok {
			return nil, false
		}
		s = append(s, one...)
	}
	if s = space.Of(s...); len(s) == 0 {
		return s, op == "=="
	}
	low, high := s[0].First, s[len(s)-1].Last
	below := space.Of(space.Range{First: all[0].First, Last: low}).Without(space.Of(space.Range{First: low, Last: low}))
	above := space.Of(space.Range{First: high, Last: all[len(all)-1].Last}).Without(space.Of(space.Range{First: high, Last: high}))
	switch op {
	case "==":
		return s, true
	case "!=":
		return all.Without(s), true
	case "<":
		return below, true
	case ">":
		return above, true
	case "<=":
		return below.Union(s), true
	case ">=":
		return above.Union(s), true
	}
	return nil, false
}

// numbers are a number, or a range of them.
func numbers(v any) (space.Set, bool) {
	first, last := bounds(v)
	a, ok := number(first)
	b, ok2 := number(last)
	if !ok || !ok2 || b < a {
		return nil, false
	}
	return space.One(a, b), true
}

// addresses are those of a value.
func (p *program) addresses(v any) (space.Set, bool) {
	if prefix := get(v, "prefix"); prefix != nil {
		n, ok := number(get(prefix, "len"))
		a, err := netip.ParseAddr(text(get(prefix, "addr")))
		if !ok || err != nil || int(n) > a.BitLen() {
			return nil, false
		}
		return space.Prefix(netip.PrefixFrom(a, int(n)).Masked()), lb.FamilyOf(a) == p.family
	}
	to, ok := p.natRange(v, nil)
	if !ok || !to.First.IsValid() {
		return nil, false
	}
	return space.Between(to.First, to.Last), true
}

// field is a condition on one field.
func (p *program) field(op string, left any, values []any) ([][]syntax.Match, bool) {
	kind, value, ok := single(left)
	if !ok {
		return nil, false
	}
	switch kind {
	case "payload":
		return p.payload(op, text(get(value, "protocol")), text(get(value, "field")), values)
	case "&":
		return p.masked(op, value, values)
	case "fib":
		flags, _ := get(value, "flags").([]any)
		if text(get(value, "result")) != "type" || len(flags) != 1 || !equality(op) {
			return nil, false
		}
		local := slices.Contains(values, any("local"))
		if not := (op == "!=") == local; flags[0] == "daddr" {
			return [][]syntax.Match{{syntax.ToLocal(not)}}, true
		} else if flags[0] == "saddr" {
			return [][]syntax.Match{{syntax.FromLocal{Not: not}}}, true
		}
	case "meta":
		return p.meta(op, text(get(value, "key")), values)
	case "ct":
		return p.conntrack(op, value, values)
	}
	return nil, false
}

func equality(op string) bool { return op == "==" || op == "!=" }

// payload is a condition on a header.
func (p *program) payload(op, protocol, field string, values []any) ([][]syntax.Match, bool) {
	var out []syntax.Match
	switch {
	case (protocol == "ip" || protocol == "ip6") && !has(protocol, p.family):
		p.never = true
		return always, true
	case (protocol == "ip" || protocol == "ip6") && (field == "saddr" || field == "daddr"):
		set, ok := compared(op, values, p.addresses, space.Addresses(p.family))
		if field == "saddr" {
			return [][]syntax.Match{{syntax.Source{Set: set}}}, ok
		}
		return [][]syntax.Match{{syntax.Within{Of: space.Destination, Set: set}}}, ok
	case field == "protocol" || field == "nexthdr":
		return p.meta(op, "l4proto", values)
	case protocol != "th":
		set, err := syntax.ParseProtocol(protocol)
		if err != nil {
			return nil, false
		}
		out = append(out, syntax.Within{Of: space.Protocol, Set: set})
	}
	switch {
	case field == "dport":
		set, ok := compared(op, values, numbers, space.AllPorts())
		return [][]syntax.Match{append(out, syntax.Within{Of: space.Port, Set: set})}, ok
	case protocol == "tcp" && field == "flags" && equality(op):
		return [][]syntax.Match{append(out, syntax.Fixed{Holds: slices.Contains(values, any("syn")) == (op == "==")})}, true
	}
	return nil, false
}

// meta is a condition on what is known of a packet.
func (p *program) meta(op, key string, values []any) ([][]syntax.Match, bool) {
	switch key {
	case "iifname", "iif", "oifname", "oif":
		var out [][]syntax.Match
		var all []syntax.Match
		for _, v := range values {
			name := text(v)
			if name == "" || !equality(op) {
				return nil, false
			}
			if begin, ok := strings.CutSuffix(name, "*"); ok {
				name = begin + "+"
			}
			m := syntax.Interface{Pattern: name, Leaving: key[0] == 'o', Not: op == "!="}
			out = append(out, []syntax.Match{m})
			all = append(all, m)
		}
		if op == "!=" {
			return [][]syntax.Match{all}, true
		}
		return out, true
	case "nfproto", "protocol":
		own := slices.ContainsFunc(values, func(v any) bool {
			return has(map[string]string{"ipv4": "ip", "ipv6": "ip6", "ip": "ip", "ip6": "ip6"}[text(v)], p.family)
		})
		if own != (op == "==") {
			p.never = true
		}
		return always, equality(op)
	case "l4proto":
		set, ok := compared(op, values, func(v any) (space.Set, bool) {
			if set, err := syntax.ParseProtocol(text(v)); err == nil {
				return set, true
			}
			return numbers(v)
		}, space.AllProtocols())
		return [][]syntax.Match{{syntax.Within{Of: space.Protocol, Set: set}}}, ok
	case "mark":
		return p.mark(op, false, 1<<32-1, values)
	case "pkttype":
		holds := slices.Contains(values, any("host")) || slices.Contains(values, any("unicast"))
		return [][]syntax.Match{{syntax.Fixed{Holds: holds == (op == "==")}}}, equality(op)
	}
	return nil, false
}

// masked is a condition on some bits.
func (p *program) masked(op string, value any, values []any) ([][]syntax.Match, bool) {
	parts, ok := value.([]any)
	if !ok || len(parts) != 2 {
		return nil, false
	}
	kind, key := markOf(parts[0])
	if mask, ok := number(parts[1]); ok && key == "mark" {
		return p.mark(op, kind == "ct", mask, values)
	}
	if text(get(get(parts[0], "payload"), "field")) == "flags" && text(get(get(parts[0], "payload"), "protocol")) == "tcp" {
		return p.payload(op, "tcp", "flags", values)
	}
	return nil, false
}

// conntrack is a condition on a connection.
func (p *program) conntrack(op string, value any, values []any) ([][]syntax.Match, bool) {
	key, original := text(get(value, "key")), text(get(value, "dir")) == "original"
	not := op == "!="
	word := func(s string) bool { return slices.Contains(values, any(s)) }
	switch {
	case key == "state" && equality(op):
		return [][]syntax.Match{{syntax.State{New: word("new"), Known: word("established") || word("related"), Not: not}}}, true
	case key == "status" && equality(op) && len(values) == 1 && word("dnat"):
		return [][]syntax.Match{{syntax.State{DNAT: true, Not: not}}}, true
	case key == "direction" && equality(op):
		first := word("original")
		if n, ok := number(values[0]); ok {
			first = n == 0
		}
		return [][]syntax.Match{{syntax.Fixed{Holds: first != not}}}, true
	case key == "mark":
		return p.mark(op, true, 1<<32-1, values)
	case original && strings.HasSuffix(key, "daddr"):
		set, ok := compared(op, values, p.addresses, space.Addresses(p.family))
		return [][]syntax.Match{{syntax.Within{Of: space.Destination, Set: set, Original: true}}}, ok
	case original && key == "proto-dst":
		set, ok := compared(op, values, numbers, space.AllPorts())
		return [][]syntax.Match{{syntax.Within{Of: space.Port, Set: set, Original: true}}}, ok
	}
	return nil, false
}
