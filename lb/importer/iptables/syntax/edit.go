package syntax

// Commands: what -A, -I, -D and the others do to a table.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/lb/importer"
)

// verbs are the commands of iptables by their names.
var verbs = map[string]byte{
	"--append": 'A', "--insert": 'I', "--delete": 'D', "--replace": 'R', "--new-chain": 'N', "--new": 'N', "--delete-chain": 'X',
	"--flush": 'F', "--policy": 'P', "--zero": 'Z', "--list": 'L', "--list-rules": 'S', "--check": 'C', "--rename-chain": 'E',
	"--version": 'V', "--help": 'h',
}

// verbOf is the letter of a command; 0: it is none.
func verbOf(w word) byte {
	if !w.bare {
		return 0
	}
	if v, ok := verbs[w.text]; ok {
		return v
	}
	if len(w.text) == 2 && w.text[0] == '-' && strings.IndexByte("AIDRNXFPZLSCEVh", w.text[1]) >= 0 {
		return w.text[1]
	}
	return 0
}

// edit does what a command says, to a table.
func (p *parser) edit(words []word, t *Table, place importer.Place) {
	at := slices.IndexFunc(words, func(w word) bool { return verbOf(w) != 0 })
	if at < 0 {
		if len(words) > 0 && words[0].unknown != "" {
			p.draft.Lost("the value of "+words[0].unknown+" is not known here, so this command is left out", "", place)
			return
		}
		p.fail(place, "no command", "-A CHAIN, -I CHAIN or another command of iptables")
		return
	}
	verb := verbOf(words[at])
	var operands []word
	rest := words[at+1:]
	most := map[byte]int{'A': 1, 'C': 1, 'N': 1, 'X': 1, 'F': 1, 'I': 2, 'D': 2, 'R': 2, 'P': 2, 'E': 2}[verb]
	for len(rest) > 0 && len(operands) < most && !(rest[0].bare && (strings.HasPrefix(rest[0].text, "-") || rest[0].text == "!")) {
		if len(operands) == 1 && verb != 'P' && verb != 'E' {
			if _, ok := parseUint(rest[0].text, 1<<31); !ok {
				break
			}
		}
		operands = append(operands, rest[0])
		rest = rest[1:]
	}
	for _, w := range operands {
		if w.unknown != "" {
			p.draft.Lost("the value of "+w.unknown+" is not known here, so this command is left out", "", place)
			return
		}
	}
	rule := slices.Concat(words[:at], rest)
	if strings.IndexByte("AIDRNPE", verb) >= 0 && len(operands) == 0 {
		p.fail(words[at].place, words[at].text+" needs a chain", "a name after it")
		return
	}
	switch verb {
	case 'A', 'I', 'R', 'D':
		p.editRules(verb, operands, rule, t, place)
	default:
		p.editChains(verb, operands, t)
	}
}

func (p *parser) editRules(verb byte, operands, words []word, t *Table, place importer.Place) {
	c := t.chain(operands[0].text)
	number := 0
	if len(operands) > 1 {
		n, _ := parseUint(operands[1].text, 1<<31)
		number = int(n)
	}
	if verb == 'D' && number == 0 {
		text := textOf(words)
		if i := slices.IndexFunc(c.Rules, func(r *Rule) bool { return r.Text == text }); i >= 0 {
			c.Rules = slices.Delete(c.Rules, i, i+1)
		} else {
			p.draft.Note("the rule that this deletes is not in this text", "", place)
		}
		return
	}
	if (verb == 'D' || verb == 'R') && (number < 1 || number > len(c.Rules)) {
		p.draft.Note(fmt.Sprintf("chain %s has no rule %d in this text", c.Name, number), "", place)
		if verb == 'D' {
			return
		}
		number = len(c.Rules) + 1
	} else if verb == 'D' || verb == 'R' {
		c.Rules = slices.Delete(c.Rules, number-1, number)
	}
	if verb == 'D' {
		return
	}
	rules, errs := readRule(words, p.family, place)
	for _, e := range errs {
		p.fail(importer.Place{Line: e.Pos.Line, Column: e.Pos.Column, Width: e.Width}, e.Msg, e.Want)
	}
	switch {
	case verb == 'A':
		c.insert(len(c.Rules), rules...)
	case number == 0:
		c.insert(0, rules...)
	default:
		c.insert(number-1, rules...)
	}
}

func (p *parser) editChains(verb byte, operands []word, t *Table) {
	name := ""
	if len(operands) > 0 {
		name = operands[0].text
	}
	switch verb {
	case 'N':
		t.chain(name)
	case 'P':
		if c := t.chain(name); c.Policy != "" && len(operands) > 1 && (operands[1].text == "ACCEPT" || operands[1].text == "DROP") {
			c.Policy = operands[1].text
		}
	case 'F', 'X':
		for _, c := range slices.Clone(t.chains) {
			if name != "" && c.Name != name {
				continue
			}
			if verb == 'F' {
				c.Rules = nil
			} else if c.Policy == "" && len(c.Rules) == 0 {
				t.remove(c)
			}
		}
	case 'E':
		if c := t.Chain(name); c != nil && len(operands) > 1 && c.Policy == "" {
			delete(t.byName, c.Name)
			c.Name = operands[1].text
			t.byName[c.Name] = c
		}
	}
}
