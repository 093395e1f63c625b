package nftables

// Marks of packets and connections: conditions on them, and what sets them.

import (
	"nlb/lb/importer/iptables/syntax"
)

// all are the bits of a mark.
const all = 1<<32 - 1

// mark is a condition on a mark, in the bits of a mask.
func (p *program) mark(op string, connection bool, mask uint64, values []any) ([][]syntax.Match, bool) {
	var out [][]syntax.Match
	for _, v := range values {
		in := mask
		if prefix := get(v, "prefix"); prefix != nil { // of its bits
			if length, ok := number(get(prefix, "len")); ok && length <= 32 {
				v, in = get(prefix, "addr"), mask&(all<<(32-length))
			}
		}
		n, ok := number(v)
		if !ok || n > all || in > all || !equality(op) || op == "!=" && len(values) > 1 {
			return nil, false
		}
		out = append(out, []syntax.Match{syntax.Mark{Connection: connection, Value: uint32(n), Mask: uint32(in), Not: op == "!="}})
	}
	return out, len(out) > 0
}

// mangle sets marks of packets and connections; what else it sets does not matter.
func (p *program) mangle(value any) []branch {
	kind, key := markOf(get(value, "key"))
	if key != "mark" {
		return nil
	}
	connection := kind == "ct"
	v := get(value, "value")
	set := func(v any) syntax.Target {
		if n, ok := number(v); ok && n <= all {
			return syntax.SetMark{Connection: connection, Value: uint32(n), Mask: all}
		}
		return nil
	}
	if t := set(v); t != nil {
		return []branch{{target: t}}
	}
	if from, keep, flip, ok := bits(v); ok && from == kind {
		return []branch{{target: syntax.SetMark{Connection: connection, Value: flip, Mask: ^keep}}}
	} else if ok && flip == 0 {
		return []branch{{target: syntax.CopyMark{Save: connection, Clear: all, Take: keep}}}
	}
	if m := get(v, "map"); m != nil {
		return p.cases(get(m, "key"), get(m, "data"), set)
	}
	if round, ok := p.round(v); ok && round.mod <= maxRound {
		var elements []any
		for i := range round.mod {
			elements = append(elements, []any{float64(round.offset + i), float64(round.offset + i)})
		}
		return p.cases(v, map[string]any{"set": elements}, set)
	}
	p.lost("how this rule sets a mark is not translated", "")
	return nil
}

// bits is an expression that changes bits of a mark: those that it keeps, and those that
// it turns over then.
func bits(v any) (kind string, keep, flip uint32, ok bool) {
	if kind, key := markOf(v); key == "mark" {
		return kind, all, 0, true
	}
	op, value, _ := single(v)
	parts, _ := value.([]any)
	if len(parts) != 2 {
		return "", 0, 0, false
	}
	kind, keep, flip, ok = bits(parts[0])
	n, known := number(parts[1])
	m := uint32(n)
	switch op {
	case "&":
		keep, flip = keep&m, flip&m
	case "|":
		keep, flip = keep&^m, flip|m
	case "^":
		flip ^= m
	default:
		known = false
	}
	return kind, keep, flip, ok && known && n <= all
}

// markOf is meta or ct, and the key of it.
func markOf(v any) (kind, key string) {
	for _, kind := range []string{"meta", "ct"} {
		if k := text(get(get(v, kind), "key")); k != "" && get(get(v, kind), "dir") == nil {
			return kind, k
		}
	}
	return "", ""
}
