package nftables

// Rules: conditions and statements in their order become rules with one target.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/syntax"
)

// writer writes the chains that one base chain leads to.
type writer struct {
	*ruleset
	family  lb.Family
	table   string
	made    map[string]bool // by family and table, and by family alone
	accepts bool
}

// maxRules bounds the rules that are made: of maps and rounds.
const maxRules = 300_000

// chain writes a chain and those that it leads to, and returns its name.
func (w *writer) chain(c *object) string {
	name := c.chain(c.Name)
	key := fmt.Sprint(w.family, w.table, name)
	if w.made[key] {
		return name
	}
	w.made[key], w.made[fmt.Sprint(w.family, name)] = true, true
	to := w.out[w.family].Make(w.table, name)
	for _, r := range w.rules[name] {
		if w.size > maxRules {
			w.draft.Lost("the ruleset has too many rules, or maps too many elements: not all are looked at", "import a part of it", r.place)
			break
		}
		p := &program{writer: w, object: r}
		rules := p.sequence(r.Expr, nil, true)
		for _, one := range rules {
			p.finish(one, name)
		}
		to.Rules = append(to.Rules, rules...)
	}
	return name
}

// program is a rule while it is read.
type program struct {
	*writer
	*object
	issues []syntax.Issue
	skip   bool
	// never: it is for the other family.
	never bool
}

// finish fills in what all rules of one have.
func (p *program) finish(r *syntax.Rule, chain string) {
	r.Place, r.Table, r.Chain, r.Comment = p.place, p.table, chain, p.Comment
	p.size++
	r.Text = fmt.Sprintf("%9d", p.size) // it puts rules of one place in order
}

// lost notes a part of the rule that is not understood; the rule is left out.
func (p *program) lost(msg, hint string) {
	p.issues = append(p.issues, syntax.Issue{Level: importer.Lost, Place: p.place, Msg: msg + syntax.LeftOut, Hint: hint})
	p.skip = true
}

func (p *program) issue(level importer.Level, msg, hint string) {
	p.issues = append(p.issues, syntax.Issue{Level: level, Place: p.place, Msg: msg, Hint: hint})
}

// sub makes a chain of rules, and returns its name.
func (p *program) sub(rules []*syntax.Rule) string {
	p.subs++
	name := fmt.Sprintf("%s (%d)", p.chain(p.Chain), p.subs)
	for _, r := range rules {
		p.finish(r, name)
	}
	p.out[p.family].Make(p.table, name).Rules = rules
	return name
}

func (p *program) chain(name string) string { return p.object.chain(name) }

// branch is one of several ways of a rule: what has to hold, and what is done then.
type branch struct {
	matches []syntax.Match
	target  syntax.Target
}

// sequence makes rules of statements that follow conditions. outer: only conditions of
// the rule stand before them.
func (p *program) sequence(expr []any, matches []syntax.Match, outer bool) []*syntax.Rule {
	for i, e := range expr {
		name, value, ok := single(e)
		if !ok {
			p.lost("a part of it is not known", "")
			break
		}
		if name == "match" {
			alternatives := p.match(value)
			if p.never {
				return nil
			}
			if len(alternatives) == 1 {
				matches = append(matches, alternatives[0]...)
				continue
			}
			var out []*syntax.Rule
			for _, a := range alternatives { // they exclude each other
				if p.size++; p.size > maxRules {
					p.lost("it has too many cases", "")
					break
				}
				out = append(out, p.sequence(expr[i+1:], slices.Concat(matches, a), outer)...)
			}
			return out
		}
		if p.conditional(name, value, &matches) {
			continue
		}
		branches, known := p.statement(name, value)
		if p.never {
			return nil
		}
		if !known || len(branches) == 0 && !p.skip {
			continue // nothing that matters
		}
		return p.then(branches, expr[i+1:], matches, outer)
	}
	if p.skip || (outer || len(matches) > 0) && len(p.issues) > 0 || slices.ContainsFunc(matches, remembered) {
		return []*syntax.Rule{{Matches: matches, Target: syntax.Pass{}, Issues: p.issues, Skip: p.skip}}
	}
	return nil
}

// then makes rules of a statement with its branches, and of what follows it.
func (p *program) then(branches []branch, rest []any, matches []syntax.Match, outer bool) []*syntax.Rule {
	var behind []*syntax.Rule
	final := !slices.ContainsFunc(branches, func(b branch) bool { return goesOn(b.target) })
	if !final || len(branches) != 1 || len(branches[0].matches) > 0 {
		behind = p.sequence(rest, nil, false)
	}
	var own []*syntax.Rule
	leaves := false // the chain that the rule is in
	drawn := slices.ContainsFunc(branches, func(b branch) bool { return draws(b.matches) })
	jumps := slices.ContainsFunc(branches, func(b branch) bool { j, ok := b.target.(syntax.Jump); return ok && !j.Goto })
	for _, b := range branches {
		j, isJump := b.target.(syntax.Jump)
		_, isReturn := b.target.(syntax.Return)
		leaves = leaves || isReturn || isJump && j.Goto
		target := b.target
		if drawn && (isJump && jumps || !isJump && len(branches) > 1 && goesOn(b.target)) { // what comes back is not drawn again
			target = syntax.Jump{Chain: p.sub([]*syntax.Rule{{Target: b.target}}), Goto: true}
			jumps = true
		}
		own = append(own, &syntax.Rule{Matches: b.matches, Target: target, Issues: p.issues, Skip: p.skip})
	}
	for _, r := range behind {
		switch t := r.Target.(type) {
		case syntax.Return:
			leaves = true
		case syntax.Jump:
			leaves = leaves || t.Goto && !strings.HasSuffix(t.Chain, ")") // as sub names chains
		}
	}
	if len(own) == 0 { // it is skipped
		return []*syntax.Rule{{Matches: matches, Target: syntax.Pass{}, Issues: p.issues, Skip: p.skip}}
	}
	alone := len(behind) == 0 && !(drawn && jumps)
	repeated := !draws(matches) && !(drawn && jumps) && !slices.ContainsFunc(matches, func(m syntax.Match) bool { _, ok := m.(syntax.Mark); return ok })
	switch {
	case len(own) == 1 && alone, alone && !draws(matches), repeated:
		out := slices.Concat(own, behind)
		for _, r := range out {
			r.Matches = slices.Concat(matches, r.Matches)
		}
		return out
	case drawn && jumps:
		own = []*syntax.Rule{{Target: syntax.Jump{Chain: p.sub(own)}}}
	}
	if leaves {
		p.lost("what it does beside leaving its chain is not translated", "")
		return []*syntax.Rule{{Matches: matches, Target: syntax.Pass{}, Issues: p.issues, Skip: true}}
	}
	if len(matches) == 0 && outer {
		return slices.Concat(own, behind)
	}
	return []*syntax.Rule{{Matches: matches, Target: syntax.Jump{Chain: p.sub(slices.Concat(own, behind))}, Issues: p.issues, Skip: p.skip}}
}

// goesOn reports whether a packet may come back from what a target does.
func goesOn(t syntax.Target) bool {
	switch t := t.(type) {
	case syntax.Accept, syntax.Drop, syntax.Return, syntax.DNAT, syntax.SNAT:
		return false
	case syntax.Jump:
		return !t.Goto
	}
	return true
}

// draws reports whether conditions count, or are at random.
func draws(matches []syntax.Match) bool {
	return slices.ContainsFunc(matches, func(m syntax.Match) bool {
		switch m.(type) {
		case *syntax.Nth, syntax.Chance, syntax.Hashed:
			return true
		}
		return false
	})
}
