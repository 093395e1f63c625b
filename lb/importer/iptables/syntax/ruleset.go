package syntax

// Rulesets: tables, chains and rules, as commands leave them.

import (
	"nlb/lb"
	"nlb/lb/importer"
)

// Ruleset is what the tables of one family hold.
type Ruleset struct {
	Family lb.Family
	tables []*Table // in the order in which they were met
}

// Table is one of raw, mangle, nat, filter and security.
type Table struct {
	Name   string
	chains []*Chain // in the order in which they were met
	byName map[string]*Chain
}

// Chain is a list of rules.
type Chain struct {
	Name string
	// Policy is what a built-in chain does at its end: ACCEPT or DROP; empty
	// for a chain of the user's own.
	Policy string
	Rules  []*Rule
}

// Rule is one rule.
type Rule struct {
	// Place is the command of the rule, on its first line.
	Place importer.Place
	// Table and Chain say where it is.
	Table, Chain string
	// Text is its arguments.
	Text string
	// Comment is what -m comment says; the first, where there are several.
	Comment string
	// Matches are in the order in which the kernel looks at them.
	Matches []Match
	// Target is what the rule does.
	Target Target
	// Issues are what is not understood of it.
	Issues []Issue
	// Skip: it is not known when the rule applies, or what it does.
	Skip bool
}

// Issue is a part of a rule that does not get into a profile. It matters where
// the rule does.
type Issue struct {
	Level     importer.Level
	Place     importer.Place
	Msg, Hint string
}

// builtin are the chains that the kernel calls, by table.
var builtin = map[string][]string{
	"raw":      {"PREROUTING", "OUTPUT"},
	"mangle":   {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"nat":      {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"filter":   {"INPUT", "FORWARD", "OUTPUT"},
	"security": {"INPUT", "FORWARD", "OUTPUT"},
}

// Make is the chain of a table, which is made where it is not there yet.
func (r *Ruleset) Make(table, chain string) *Chain { return r.table(table).chain(chain) }

// Table is the table of this name; nil where the text has none.
func (r *Ruleset) Table(name string) *Table {
	for _, t := range r.tables {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Rules are all rules, in the order of the tables and chains.
func (r *Ruleset) Rules(yield func(*Rule) bool) {
	for _, t := range r.tables {
		for _, c := range t.chains {
			for _, rule := range c.Rules {
				if !yield(rule) {
					return
				}
			}
		}
	}
}

// Reached are the chains that the kernel calls or that rules of these lead to.
func (r *Ruleset) Reached() map[*Chain]bool {
	out := map[*Chain]bool{}
	for _, t := range r.tables {
		var todo []*Chain
		for _, c := range t.chains {
			if c.Policy != "" {
				todo = append(todo, c)
			}
		}
		for i := 0; i < len(todo); i++ {
			c := todo[i]
			if c == nil || out[c] {
				continue
			}
			out[c] = true
			for _, rule := range c.Rules {
				if j, ok := rule.Target.(Jump); ok && !rule.Skip {
					todo = append(todo, t.Chain(j.Chain))
				}
			}
		}
	}
	return out
}

// table is the table of this name, which is made.
func (r *Ruleset) table(name string) *Table {
	if t := r.Table(name); t != nil {
		return t
	}
	t := &Table{Name: name, byName: map[string]*Chain{}}
	for _, chain := range builtin[name] {
		t.chain(chain).Policy = "ACCEPT"
	}
	r.tables = append(r.tables, t)
	return t
}

// Chain is the chain of this name; nil where there is none.
func (t *Table) Chain(name string) *Chain {
	if t == nil {
		return nil
	}
	return t.byName[name]
}

// chain is the chain of this name, which is made.
func (t *Table) chain(name string) *Chain {
	c := t.Chain(name)
	if c == nil {
		c = &Chain{Name: name}
		t.chains = append(t.chains, c)
		t.byName[name] = c
	}
	return c
}
