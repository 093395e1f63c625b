package syntax

// Scripts: command lines of iptables among others.

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
)

// script is what is known while a script is read.
type script struct {
	vars map[string]variable
	// loops is how many loops and functions are open, branches how many ifs
	// and cases.
	loops, branches int
	heredoc         string // the word that ends it; empty outside
	ran             bool   // there was a command of iptables
}

// program reports whether a word runs iptables, and for which family.
func program(w string) (lb.Family, bool) {
	switch path.Base(w) {
	case "iptables", "iptables-nft", "iptables-legacy":
		return lb.IPv4, true
	case "ip6tables", "ip6tables-nft", "ip6tables-legacy":
		return lb.IPv6, true
	}
	return 0, false
}

// commands reads a line of a script, and those that it goes on in.
func (p *parser) commands() {
	start := p.line
	l := lexer{lines: p.lines, line: p.line, shell: true, vars: p.vars}
	words := l.command()
	p.line = l.line
	if p.heredoc != "" {
		if len(words) == 1 && words[0].text == p.heredoc {
			p.heredoc = ""
			return
		}
	}
	known := false
	for len(words) > 0 {
		end := slices.IndexFunc(words, func(w word) bool {
			return w.bare && slices.Contains([]string{";", ";;", "&&", "||", "|", "&", "(", ")"}, w.text)
		})
		one := words
		if end >= 0 {
			one, words = words[:end], words[end+1:]
		} else {
			words = nil
		}
		if p.simple(one) {
			known = true
		}
	}
	if !known {
		p.other = append(p.other, placeOf(p.lines, start))
	}
}

// simple reads one command; false where it is not for us.
func (p *parser) simple(words []word) bool {
	words = p.plain(words)
	if len(words) == 0 {
		return true
	}
	known := false
	for len(words) > 0 { // keywords before a command
		switch w := words[0]; {
		case p.assign(w):
		case !w.bare:
			return known
		case w.text == "then" || w.text == "do" || w.text == "else" || w.text == "{" || w.text == "!" || w.text == "$":
		case w.text == "if" || w.text == "elif":
			if w.text == "if" {
				p.branches++
			}
		case w.text == "case":
			p.branches++
			return true
		case w.text == "for" || w.text == "while" || w.text == "until" || w.text == "select":
			p.loops++
			if w.text == "for" || w.text == "select" {
				return true
			}
		case w.text == "done":
			p.loops = max(0, p.loops-1)
		case w.text == "fi" || w.text == "esac":
			p.branches = max(0, p.branches-1)
		case w.text == "}":
		case w.text == "export" || w.text == "local" || w.text == "readonly" || w.text == "sudo" || w.text == "command" || w.text == "exec" || w.text == "env" || w.text == "nohup" || w.text == "time":
			words = words[1:]
			for len(words) > 0 && strings.HasPrefix(words[0].text, "-") {
				words = words[1:]
			}
			known = true
			continue
		case strings.HasSuffix(w.text, "#") || strings.HasSuffix(w.text, "$") && len(words) > 1: // a prompt
		case w.text == "ip" && len(words) > 4 && words[1].text == "netns" && words[2].text == "exec":
			words = words[4:]
			continue
		default:
			return p.run(words) || known
		}
		known = true
		words = words[1:]
	}
	return known
}

// plain is a command without redirections.
func (p *parser) plain(words []word) []word {
	var out []word
	for i := 0; i < len(words); i++ {
		w := words[i]
		if !w.bare {
			out = append(out, w)
			continue
		}
		switch w.text {
		case ">", ">>", "<", "2>", "1>", "&>", ">&", "<<<":
			i++
		case "2>&1", "1>&2":
		case "<<", "<<-":
			if i++; i < len(words) {
				p.heredoc = words[i].text
			}
		default:
			out = append(out, w)
		}
	}
	return out
}

// assign reads NAME=value. A name that gets a second value, or one in a loop or
// under a condition, is not known any more.
func (p *parser) assign(w word) bool {
	name, value, ok := strings.Cut(w.text, "=")
	if !ok || name == "" || !isName(name[0], false) || strings.ContainsFunc(name, func(r rune) bool { return r > 127 || !isName(byte(r), true) }) {
		return false
	}
	if p.vars[name].known && p.vars[name].value == value {
		return true
	}
	_, before := p.vars[name]
	p.vars[name] = variable{value, !before && w.unknown == "" && p.loops+p.branches == 0}
	return true
}

// run reads a command from its name on.
func (p *parser) run(words []word) bool {
	name := words[0]
	place := name.place
	last := words[len(words)-1].place
	if last.Line == place.Line {
		place.Width = last.Column + last.Width - place.Column
	}
	family, ok := program(name.text)
	if !ok {
		if strings.HasPrefix(path.Base(name.text), "iptables-restore") || strings.HasPrefix(path.Base(name.text), "ip6tables-restore") {
			p.ran = true
			if p.heredoc == "" {
				p.draft.Lost("what this command loads is not in this text", "import that file, too", place)
			}
			return true
		}
		if name.unknown != "" && slices.ContainsFunc(words, func(w word) bool { return w.text == "-A" || w.text == "-I" || w.text == "--append" }) {
			p.ran = true
			p.draft.Lost("the value of "+name.unknown+" is not known here, so this command is left out",
				"set it in a line before, as in "+strings.Trim(name.unknown, "${}")+"=iptables", place)
			return true
		}
		return false
	}
	if slices.ContainsFunc(words, func(w word) bool { return w.text == "-4" || w.text == "--ipv4" }) && family == lb.IPv6 ||
		slices.ContainsFunc(words, func(w word) bool { return w.text == "-6" || w.text == "--ipv6" }) && family == lb.IPv4 {
		return true // iptables passes over it
	}
	p.family, p.ran = family, true
	if p.loops > 0 {
		p.draft.Lost("this command is in a loop, which is not run, so it is left out", "iptables-save prints what it has made", place)
		return true
	}
	if p.branches > 0 {
		p.draft.Note("this command runs under a condition, which is taken as true", "", place)
	}
	p.command(words[1:], place)
	return true
}

// command reads the arguments of iptables.
func (p *parser) command(words []word, place importer.Place) {
	name := ""
	for i := 0; i < len(words); i++ {
		w := words[i]
		if !w.bare {
			continue
		}
		value, has := strings.CutPrefix(w.text, "--table=")
		n := 1
		switch {
		case has:
		case (w.text == "-t" || w.text == "--table") && i+1 < len(words):
			value, n = words[i+1].text, 2
		case strings.HasPrefix(w.text, "-t") && builtin[w.text[2:]] != nil:
			value = w.text[2:]
		default:
			continue
		}
		if builtin[value] == nil {
			p.fail(w.place, fmt.Sprintf("unknown table %q", value), "raw, mangle, nat, filter or security")
			return
		}
		name = value
		words = slices.Concat(words[:i], words[i+n:])
		i--
	}
	said := name != ""
	if !said {
		name = "filter"
		for i, w := range words {
			// Tutorials forget -t nat.
			isNAT := w.text == "PREROUTING" || w.text == "POSTROUTING" ||
				(w.text == "-j" || w.text == "--jump") && i+1 < len(words) && slices.Contains([]string{"DNAT", "REDIRECT", "MASQUERADE", "SNAT"}, words[i+1].text)
			if isNAT {
				name = "nat"
			}
		}
		if name == "nat" {
			p.draft.Note("without -t nat, iptables refuses this command; it is taken as if it had that", "", place)
		}
	}
	p.edit(words, p.set().table(name), place)
}
