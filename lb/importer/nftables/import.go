// Package nftables turns rulesets of nftables into a profile. Its rules become
// those that package iptables walks through.
package nftables

// Import: objects of a ruleset, and the chains that packets come through.

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables"
	"nlb/lb/importer/iptables/syntax"
)

// object is one of the objects of libnftables-json(5): a table, chain, rule, set or
// map.
type object struct {
	Family, Table, Name, Chain string
	Handle                     uint64
	// of base chains
	Type         any // of a set, it may be a list
	Hook, Policy string
	Prio         int
	// of sets and maps; Map is also what the data of a map are.
	Elem    []any
	Timeout uint32 // in seconds
	Flags   any
	Map     any
	// of rules
	Expr    []any
	Comment string

	kind  string
	place importer.Place
}

// Import reads what `nft -j list ruleset` prints. The lines of findings are those of
// the objects, one each, since nft prints all in one. The error is lb.Errors.
func Import(file string, data []byte) (*importer.Import, error) {
	lines, err := importer.Lines(file, data)
	if err != nil {
		return nil, err
	}
	whole := []byte(strings.Join(lines, "\n"))
	var root struct{ Nftables []json.RawMessage }
	if err := json.Unmarshal(whole, &root); err != nil {
		at := importer.Place{Line: 1, Column: 1}
		if e, ok := err.(*json.SyntaxError); ok {
			before := whole[:min(int(e.Offset), len(whole))]
			at.Line += bytes.Count(before, []byte("\n"))
			at.Column = len([]rune(string(before[bytes.LastIndexByte(before, '\n')+1:])))
		}
		return nil, lb.Errors{importer.Mistake(file, lines, at, "this is no JSON of nft: "+err.Error(), "what nft -j list ruleset prints")}
	}
	if root.Nftables == nil {
		return nil, lb.Errors{importer.Mistake(file, lines, importer.Place{Line: 1, Column: 1}, "nothing in this text is of nft", "what nft -j list ruleset prints")}
	}
	return Ruleset(file, "nft", root.Nftables, "nlb")
}

// Ruleset is Import of the objects of a ruleset. own is the table that nlb keeps, which
// is left out.
func Ruleset(file, format string, objects []json.RawMessage, own string) (*importer.Import, error) {
	draft, err := Draft(file, format, objects, own)
	if err != nil {
		return nil, err
	}
	return draft.Finish(), nil
}

// Draft is Ruleset before its end: more can be added.
func Draft(file, format string, objects []json.RawMessage, own string) (*importer.Draft, error) {
	r := &ruleset{own: own, chains: map[string]*object{}, rules: map[string][]*object{}, sets: map[string]*object{}, written: map[string]bool{}, out: map[lb.Family]*syntax.Ruleset{}}
	r.draft = importer.New(file, format, nil)
	for i, raw := range objects {
		place := importer.Place{Line: i + 1, Column: 1}
		var one map[string]*object
		err := json.Unmarshal(raw, &one)
		r.draft.Lines = append(r.draft.Lines, line(raw, one))
		if err != nil || len(one) != 1 {
			r.draft.Fail(place, "this is no object of nft", "a table, chain, rule, set or map")
			continue
		}
		for kind, o := range one {
			if o != nil {
				o.kind, o.place = kind, place
				r.add(o)
			}
		}
	}
	if err := r.draft.Err(); err != nil {
		return nil, err
	}
	iptables.Translate(r.draft, r.build())
	return r.draft, nil
}

// line is an object in a line, for findings about it.
func line(raw []byte, one map[string]*object) string {
	var b bytes.Buffer
	if o := one["rule"]; o != nil {
		var whole map[string]struct{ Expr json.RawMessage }
		if json.Unmarshal(raw, &whole) == nil {
			raw = whole["rule"].Expr
		}
		fmt.Fprintf(&b, "%s handle %d: ", o.chain(o.Chain), o.Handle)
	}
	_ = json.Compact(&b, raw) // what is no JSON adds nothing
	return b.String()
}

// chain is the name of a chain of the same table, which no other table has.
func (o *object) chain(name string) string { return o.Family + " " + o.Table + " " + name }

// ruleset is all objects by their names.
type ruleset struct {
	own    string
	draft  *importer.Draft
	tables []*object
	bases  []*object
	all    []*object // chains, in order
	chains map[string]*object
	rules  map[string][]*object
	sets   map[string]*object
	// written are sets that rules write into.
	written map[string]bool
	out     map[lb.Family]*syntax.Ruleset
	subs    int // chains that were made here
	size    int // rules that were made
}

func (r *ruleset) add(o *object) {
	switch o.kind {
	case "table":
		r.tables = append(r.tables, o)
	case "chain":
		key := o.chain(o.Name)
		if r.chains[key] == nil {
			r.all = append(r.all, o)
		}
		r.chains[key] = o
		if o.Hook != "" {
			r.bases = append(r.bases, o)
		}
	case "rule":
		key := o.chain(o.Chain)
		r.rules[key] = append(r.rules[key], o)
		r.write(o)
	case "set", "map":
		r.sets[o.chain(o.Name)] = o
	}
}

// build makes the rulesets of both families.
func (r *ruleset) build() []*syntax.Ruleset {
	skip := map[string]bool{}
	for _, t := range r.tables {
		if t.Name == r.own {
			skip[t.Family+" "+t.Name] = true
			r.draft.Note("the table "+r.own+" is left out: nlb made it", "", t.place)
		}
		if flags := fmt.Sprint(t.Flags); strings.Contains(flags, "dormant") {
			skip[t.Family+" "+t.Name] = true
			r.draft.Note("this table is dormant, so it is left out", "", t.place)
		}
	}
	slices.SortStableFunc(r.bases, func(a, b *object) int { return cmp.Compare(a.Prio, b.Prio) })
	done := map[string]bool{}
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		r.out[f] = &syntax.Ruleset{Family: f}
		accepts := map[string]*object{} // base chains that accept something, by where they are called
		for _, b := range r.bases {
			table, hook := where(b)
			if table == "" || skip[b.Family+" "+b.Table] || !has(b.Family, f) {
				continue
			}
			main := r.out[f].Make(table, hook)
			if earlier := accepts[table+hook]; earlier != nil && len(r.rules[b.chain(b.Name)]) > 0 {
				r.draft.Lost("an earlier chain of this hook accepts packets: that they come here all the same is not translated", "", b.place)
			}
			w := &writer{ruleset: r, family: f, table: table, made: done}
			main.Rules = append(main.Rules, &syntax.Rule{Place: b.place, Table: table, Chain: hook, Target: syntax.Jump{Chain: w.chain(b)}})
			if w.accepts && table == "nat" {
				accepts[table+hook] = b
			}
			if b.Policy == "drop" {
				main.Rules = append(main.Rules, &syntax.Rule{Place: b.place, Table: table, Chain: hook, Target: syntax.Drop{}})
			}
		}
		for _, c := range r.all { // what no hook leads to
			if !skip[c.Family+" "+c.Table] && has(c.Family, f) && !done[fmt.Sprint(f, c.chain(c.Name))] {
				w := &writer{ruleset: r, family: f, table: "nat", made: done}
				w.chain(c)
			}
		}
	}
	return []*syntax.Ruleset{r.out[lb.IPv4], r.out[lb.IPv6]}
}

// has reports whether a table of a family has packets of an IP version.
func has(family string, f lb.Family) bool {
	return family == "inet" || family == "ip" && f == lb.IPv4 || family == "ip6" && f == lb.IPv6
}

// where is the table of iptables that a base chain is nearest to, and its chain: by
// what it sees of a packet.
func where(b *object) (table, chain string) {
	const conntrack, dstnat = -200, -100 // linux/netfilter_ipv4.h
	hook := strings.ToUpper(b.Hook)
	first := hook == "PREROUTING" || hook == "OUTPUT"
	switch {
	case text(b.Type) == "nat" && hook != "INPUT":
		return "nat", hook
	case first && b.Prio < conntrack:
		return "raw", hook
	case first && (b.Prio < dstnat || text(b.Type) == "route"), hook == "POSTROUTING":
		return "mangle", hook
	case first:
		return "filter", "FORWARD" // it sees where packets go already
	case hook == "FORWARD" || hook == "INPUT":
		return "filter", hook
	}
	return "", ""
}
