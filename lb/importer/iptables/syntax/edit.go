package syntax

// Commands: what -A, -I, -D and the others do to a table.

import (
	"slices"
	"strings"

	"nlb/lb/importer"
	"nlb/lb/importer/shell"
)

// verbs are the commands of iptables by their names, with how many words they are about.
var verbs = shell.OptionsOf("-A=--append -I=--insert/2 -D=--delete/2 -R=--replace/2 -N=--new-chain=--new -X=--delete-chain -F=--flush -P=--policy/2 " +
	"-C=--check -E=--rename-chain/2 -Z=--zero/0 -L=--list/0 -S=--list-rules/0 -V=--version/0 -h=--help/0")

// verbOf is the letter of a command; 0: it is none.
func verbOf(w word) byte {
	if o, ok := verbs[w.Text]; ok {
		return o.Name[1]
	}
	return 0
}

// edit does what a command says, to a table.
func (p *parser) edit(words []word, t *Table, place importer.Place) shell.Outcome {
	at := slices.IndexFunc(words, func(w word) bool { return verbOf(w) != 0 })
	if at < 0 {
		if !p.unknown(words, place) {
			p.Fail(place, "no command", "-A CHAIN, -I CHAIN or another command of iptables")
		}
		return shell.Unsure
	}
	verb := verbOf(words[at])
	var operands []word
	rest := words[at+1:]
	for len(rest) > 0 && len(operands) < verbs[words[at].Text].Values && !(rest[0].Text == "!" || rest[0].Bare && strings.HasPrefix(rest[0].Text, "-")) {
		if len(operands) == 1 && verb != 'P' && verb != 'E' {
			if _, ok := parseUint(rest[0].Text, 1<<31); !ok {
				break
			}
		}
		operands = append(operands, rest[0])
		rest = rest[1:]
	}
	if p.unknown(operands, place) {
		return shell.Unsure
	}
	rule := slices.Concat(words[:at], rest)
	if strings.IndexByte("AIDRCNPE", verb) >= 0 && len(operands) == 0 {
		p.Fail(words[at].Place, words[at].Text+" needs a chain", "a name after it")
		return shell.Unsure
	}
	switch verb {
	case 'A', 'I':
		return p.add(verb, operands, rule, t, place)
	case 'D', 'R', 'C':
		return p.change(verb, operands, rule, t, place)
	}
	return p.editChains(verb, operands, t, place)
}

// unknown reports whether the value of a word is not known, and says so.
func (p *parser) unknown(words []word, place importer.Place) bool {
	i := slices.IndexFunc(words, func(w word) bool { return w.Unknown != "" })
	if i >= 0 {
		p.Lost("the value of "+words[i].Unknown+" is not known here, so this command is left out", "", place)
	}
	return i >= 0
}

// number is the place of a rule in its chain, from 1; 0: not given.
func number(operands []word) int {
	if len(operands) < 2 {
		return 0
	}
	n, _ := parseUint(operands[1].Text, 1<<31)
	return int(n)
}

// add is -A and -I.
func (p *parser) add(verb byte, operands, words []word, t *Table, place importer.Place) shell.Outcome {
	c := t.chain(operands[0].Text)
	rules, errs := ReadRule(words, p.family, place)
	for _, e := range errs {
		p.Fail(e.Place, e.Msg, e.Hint)
	}
	if p.may != "" && t.Name == "nat" {
		p.Lost(p.may, "", place)
	}
	at := len(c.Rules)
	if verb == 'I' {
		at = max(number(operands), 1) - 1
	}
	c.Rules = slices.Insert(c.Rules, min(at, len(c.Rules)), rules...)
	return shell.Succeeds
}

// change is what names a rule that is there: -D, -R and -C.
func (p *parser) change(verb byte, operands, words []word, t *Table, place importer.Place) shell.Outcome {
	c := t.Chain(operands[0].Text)
	at := number(operands) - 1
	if verb == 'C' || verb == 'D' && at < 0 {
		if slices.ContainsFunc(words, func(w word) bool { return w.Unknown != "" }) {
			p.Note("it is not known which rule this is about", "", place)
			return shell.Unsure
		}
		at = -1
		if text := textOf(words); c != nil {
			at = slices.IndexFunc(c.Rules, func(r *Rule) bool { return r.Text == text })
		}
	}
	switch {
	case verb == 'C' && at >= 0:
		return shell.Succeeds
	case verb == 'C':
		return shell.Fails
	case c == nil || at < 0 || at >= len(c.Rules):
		p.Note("the rule that this changes is not in this text", "", place)
		if verb == 'D' || c == nil {
			return shell.Fails
		}
		return p.add('A', operands[:1], words, t, place)
	case p.may != "":
		p.spare(place)
	case verb == 'D':
		c.Rules = slices.Delete(c.Rules, at, at+1)
	default:
		c.Rules = slices.Delete(c.Rules, at, at+1)
		return p.add('I', operands, words, t, place)
	}
	return shell.Succeeds
}

// spare says that a command does not take away what it may.
func (p *parser) spare(place importer.Place) {
	p.Lost("it is not known whether this command runs, so what it takes away stays", "", place)
}

func (p *parser) editChains(verb byte, operands []word, t *Table, place importer.Place) shell.Outcome {
	name := ""
	if len(operands) > 0 {
		name = operands[0].Text
	}
	c := t.Chain(name)
	switch verb {
	case 'N':
		if c != nil {
			return shell.Fails
		}
		t.chain(name)
	case 'P':
		switch {
		case c == nil || c.Policy == "" || len(operands) < 2 || operands[1].Text != "ACCEPT" && operands[1].Text != "DROP":
		case p.may != "" && c.Policy != operands[1].Text:
			p.spare(place)
		default:
			c.Policy = operands[1].Text
		}
	case 'F', 'X':
		p.empty(verb, name, t, place)
	case 'E':
		if c != nil && len(operands) > 1 && c.Policy == "" {
			delete(t.byName, c.Name)
			c.Name = operands[1].Text
			t.byName[c.Name] = c
		}
	}
	return shell.Succeeds
}

// empty is -F and -X.
func (p *parser) empty(verb byte, name string, t *Table, place importer.Place) {
	for _, c := range slices.Clone(t.chains) {
		switch {
		case name != "" && c.Name != name:
		case verb == 'F' && p.may != "":
			if len(c.Rules) > 0 && t.Name == "nat" {
				p.spare(place)
			}
		case verb == 'F':
			c.Rules = nil
		case c.Policy == "" && len(c.Rules) == 0 && p.may == "":
			delete(t.byName, c.Name)
			t.chains = slices.DeleteFunc(t.chains, func(o *Chain) bool { return o == c })
		}
	}
}
