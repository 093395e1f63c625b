package nftables

// Sets that packets fill: which clients came to a rule, and are sent there again.

import (
	"fmt"
	"strings"

	"nlb/lb/importer/iptables/syntax"
)

// write notes the sets that a rule writes into: nft -j may not show that they are dynamic,
// as that of version 1.0.6 does not.
func (r *ruleset) write(rule *object) {
	for _, e := range rule.Expr {
		if kind, value, _ := single(e); kind == "set" || kind == "map" {
			if name, ok := strings.CutPrefix(text(get(value, kind)), "@"); ok {
				r.written[rule.chain(name)] = true
			}
		}
	}
}

// dynamic reports whether packets change a set.
func (r *ruleset) dynamic(set *object) bool {
	return r.written[set.chain(set.Name)] || strings.Contains(fmt.Sprint(set.Flags), "dynamic")
}

// recent is the list that such a set is; false where it has more in it than clients that
// are forgotten after a time.
func (p *program) recent(set any) (syntax.Recent, bool) {
	name, ok := strings.CutPrefix(text(set), "@")
	s := p.sets[p.chain(name)]
	if !ok || s == nil || s.Timeout == 0 || !p.dynamic(s) {
		return syntax.Recent{}, false
	}
	return syntax.Recent{List: s.chain(s.Name), Seconds: s.Timeout, Bits: 32, Bits6: 128}, true
}

// client reports whether an expression is the address of the client.
func client(v any) bool {
	p := get(v, "payload")
	return text(get(p, "field")) == "saddr" && text(get(p, "protocol")) != "ether"
}

// remembers is a statement that writes the client into a set.
func (p *program) remembers(value any, matches *[]syntax.Match) bool {
	m, ok := p.recent(get(value, "set"))
	if !ok || !client(get(value, "elem")) || text(get(value, "op")) == "delete" {
		return false
	}
	m.Set = true
	*matches = append(*matches, m)
	return true
}

func remembered(m syntax.Match) bool {
	r, ok := m.(syntax.Recent)
	return ok && r.Set
}
