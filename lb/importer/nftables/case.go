package nftables

// Cases: of a map, what each element does; of numgen and hashes, with its share.

import (
	"cmp"
	"math/big"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
	"nlb/lb/importer/share"
)

// maxRound is the longest round of numgen inc that is followed.
const maxRound = 4096

// round is an expression that draws a number.
type round struct {
	mod, offset uint64
	inTurn      bool
	by          []lb.HashField // of a hash
}

// round reads numgen, jhash and symhash.
func (p *program) round(v any) (round, bool) {
	kind, value, ok := single(v)
	if !ok {
		return round{}, false
	}
	r := round{}
	switch kind {
	case "numgen":
		r.inTurn = text(get(value, "mode")) == "inc"
	case "jhash":
		if r.by, ok = hashed(get(value, "expr")); !ok {
			p.lost("what this hash looks at is not translated", "hash-by: has addresses, ports and protocol")
		}
	case "symhash":
		r.by = []lb.HashField{lb.SourceAddress, lb.SourcePort, lb.DestinationAddress, lb.DestinationPort, lb.ByProtocol}
	default:
		return r, false
	}
	r.mod, ok = number(get(value, "mod"))
	r.offset, _ = number(get(value, "offset"))
	return r, ok && r.mod > 0 && r.mod <= xtScale
}

// hashed are the fields that a hash looks at; false where one cannot be in a profile.
func hashed(v any) ([]lb.HashField, bool) {
	parts, ok := get(v, "concat").([]any)
	if !ok {
		parts = []any{v}
	}
	var out []lb.HashField
	for _, part := range parts {
		protocol, field := text(get(get(part, "payload"), "protocol")), text(get(get(part, "payload"), "field"))
		f, ok := map[string]lb.HashField{"saddr": lb.SourceAddress, "daddr": lb.DestinationAddress, "sport": lb.SourcePort, "dport": lb.DestinationPort, "protocol": lb.ByProtocol}[field]
		if _, key := markOf(part); key == "l4proto" {
			f, ok = lb.ByProtocol, true
		} else if protocol == "ether" {
			ok = false
		}
		if !ok {
			return []lb.HashField{lb.SourceAddress}, false
		}
		out = append(out, f)
	}
	slices.Sort(out)
	return slices.Compact(out), true
}

// cases are the branches of a map: those of a key that draws share what comes, the
// others exclude each other. target is what a value does; nil where that is not known.
func (p *program) cases(key, data any, target func(any) syntax.Target) []branch {
	elements, ok := p.elements(data)
	if !ok {
		p.lost("a map of this rule changes by itself, or is not in this text", "")
		return nil
	}
	if r, ok := p.round(key); ok {
		return p.drawn(r, elements, target)
	}
	var out []branch
	for _, e := range elements {
		pair, ok := e.([]any)
		if !ok || len(pair) != 2 {
			p.lost("an element of a map is not known", "")
			return nil
		}
		if p.size++; p.size > maxRules {
			p.lost("this map has too many elements", "")
			return nil
		}
		never, skip := p.never, p.skip
		alternatives := p.holds("==", key, plain(pair[0]))
		t := target(plain(pair[1]))
		if p.never && !never { // of the other family
			p.never = false
			continue
		}
		if t == nil && !p.skip {
			p.lost("an element of a map is not translated", "")
		}
		if p.skip && !skip {
			return nil
		}
		for _, a := range alternatives {
			out = append(out, branch{a, t})
		}
	}
	return out
}

// plain is an element without its timeout, counter and comment.
func plain(v any) any {
	if e := get(v, "elem"); e != nil {
		return get(e, "val")
	}
	return v
}

// drawn are the branches of a round.
func (p *program) drawn(r round, elements []any, target func(any) syntax.Target) []branch {
	type slot struct {
		first, n uint64
		target   syntax.Target
	}
	var slots []slot
	for _, e := range elements {
		pair, ok := e.([]any)
		if !ok || len(pair) != 2 {
			continue
		}
		set, ok := numbers(plain(pair[0]))
		t := target(plain(pair[1]))
		if p.never {
			return nil
		}
		if !ok || t == nil {
			p.lost("an element of a map is not translated", "")
			return nil
		}
		if hits := set.And(space.One(r.offset, r.offset+r.mod-1)); len(hits) > 0 {
			slots = append(slots, slot{hits[0].First.Low, uint64(hits.Size()), t})
		}
	}
	slices.SortStableFunc(slots, func(a, b slot) int { return cmp.Compare(a.first, b.first) })
	rest, next := r.mod, r.offset
	var out []branch
	for _, s := range slots {
		if r.inTurn && r.mod > maxRound || s.first < next {
			p.lost("a round of this rule is too long, or has a number twice", "")
			return nil
		}
		next = s.first + s.n
		if !r.inTurn {
			out = append(out, branch{[]syntax.Match{r.part(s.n, rest)}, s.target})
			rest -= s.n
			continue
		}
		for range s.n {
			out = append(out, branch{[]syntax.Match{r.part(1, rest)}, s.target})
			rest--
		}
	}
	return out
}

// xtScale is the 1 of -m statistic --mode random, whose probabilities were decimals
// (linux/netfilter/xt_statistic.h).
const xtScale = 1 << 31

// part holds for n of the rest of a round.
func (r round) part(n, rest uint64) syntax.Match {
	p := big.NewRat(int64(n), int64(rest))
	switch {
	case n == rest:
		return syntax.Fixed{Holds: true}
	case r.by != nil:
		return syntax.Hashed{Part: p, By: r.by}
	case r.inTurn && n == 1:
		return &syntax.Nth{Every: uint32(rest)}
	}
	if rest == xtScale {
		meant, _ := share.Parse(p.FloatString(11))
		return syntax.Chance{Probability: meant}
	}
	return syntax.Chance{Probability: share.Probability{Kernel: p, Meant: p}}
}

// elements are those of a map or set: of its own, or of one with a name.
func (p *program) elements(data any) ([]any, bool) {
	if name, ok := strings.CutPrefix(text(data), "@"); ok {
		s := p.sets[p.chain(name)]
		if s == nil || p.dynamic(s) {
			return nil, false
		}
		return s.Elem, true
	}
	list, ok := get(data, "set").([]any)
	if !ok && get(data, "set") != nil {
		return []any{get(data, "set")}, true
	}
	return list, ok
}
