package syntax

// Commands: iptables and iptables-restore, as a script runs them.

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/shell"
)

// program reports whether a word runs iptables, and for which family.
func program(w string) (family lb.Family, restore, ok bool) {
	name := path.Base(w)
	name, six := strings.CutPrefix(name, "ip6")
	if family = lb.IPv4; six {
		family = lb.IPv6
	} else if name, ok = strings.CutPrefix(name, "ip"); !ok {
		return 0, false, false
	}
	switch name {
	case "tables", "tables-nft", "tables-legacy":
		return family, false, true
	case "tables-restore", "tables-nft-restore", "tables-legacy-restore":
		return family, true, true
	}
	return 0, false, false
}

// Command reads a command that runs.
func (p *parser) Command(c *shell.Command) (shell.Outcome, bool) {
	if p.Count() == importer.MaxMistakes {
		return shell.Succeeds, true
	}
	p.may = c.May
	name, words := c.Words[0], c.Words[1:]
	p.comments(name.Place.Line - 1)
	p.seen = max(p.seen, name.Place.Line) // behind a prompt, it may look like a comment
	family, restore, ok := program(name.Text)
	has := func(options ...string) bool {
		return slices.ContainsFunc(words, func(w word) bool { return slices.Contains(options, w.Text) })
	}
	switch {
	case !ok && name.Unknown != "" && has("-A", "-I", "--append", "--insert"):
		p.ran = true
		p.Lost("the value of "+name.Unknown+" is not known here, so this command is left out",
			"set it in a line before, as in "+strings.Trim(name.Unknown, "${}")+"=iptables", c.Place)
		return shell.Succeeds, true
	case !ok && c.Input == nil && c.Place.Line == name.Place.Line && (looksSaved(c.Words) || p.table != nil):
		return shell.Succeeds, p.saved(p.Lines[c.Place.Line-1], c.Place.Line-1, false)
	case !ok:
		return shell.Succeeds, false
	case restore:
		p.ran, p.family = true, family
		p.restore(c, has("-n", "--noflush"))
		return shell.Succeeds, true
	case has("-4", "--ipv4") && family == lb.IPv6 || has("-6", "--ipv6") && family == lb.IPv4:
		return shell.Succeeds, true // iptables passes over it
	}
	p.family, p.ran = family, true
	return p.command(words, c.Place), true
}

// looksSaved reports whether a command of a shell is a line that iptables-save
// prints.
func looksSaved(words []word) bool {
	text := words[0].Text
	return len(words) == 1 && (text == "COMMIT" || strings.HasPrefix(text, "*")) ||
		len(words) > 1 && (verbOf(words[0]) != 0 || text == "-t" || strings.HasPrefix(text, ":") || strings.HasPrefix(text, "[") && verbOf(words[1]) != 0)
}

// comments reads the comments up to a line (from 0).
func (p *parser) comments(line int) {
	for ; p.seen < line && p.seen < len(p.Lines); p.seen++ {
		if text := strings.TrimSpace(p.Lines[p.seen]); strings.HasPrefix(text, "#") {
			p.comment(text, importer.PlaceOf(p.Lines, p.seen))
		}
	}
}

// restore reads what iptables-restore loads.
func (p *parser) restore(c *shell.Command, keep bool) {
	if c.Input == nil {
		p.Lost("what this command loads is not in this text", "import that file, too", c.Place)
		return
	}
	if c.May != "" {
		p.Lost(c.May, "", c.Place)
	}
	p.may = ""
	p.restoring, p.keep = true, keep || c.May != ""
	for i, line := range c.Input.Lines {
		if at := min(c.Input.First+i, len(p.Lines)-1); !p.saved(line, at, c.Input.Dollar) {
			p.Fail(importer.PlaceOf(p.Lines, at), fmt.Sprintf("%q is no line of iptables-save", importer.Shorten(line)), "*TABLE, a rule, :CHAIN or COMMIT")
		}
	}
	p.commit()
	p.restoring, p.keep = false, false
}

// command reads the arguments of iptables.
func (p *parser) command(words []word, place importer.Place) shell.Outcome {
	name := ""
	for i := 0; i < len(words); i++ {
		w := words[i]
		value, has := strings.CutPrefix(w.Text, "--table=")
		n := 1
		switch {
		case has:
		case (w.Text == "-t" || w.Text == "--table") && i+1 < len(words):
			value, n = words[i+1].Text, 2
		case strings.HasPrefix(w.Text, "-t") && builtin[w.Text[2:]] != nil:
			value = w.Text[2:]
		default:
			continue
		}
		if builtin[value] == nil {
			if !p.unknown(words[i:i+n], place) {
				p.Fail(w.Place, fmt.Sprintf("unknown table %q", value), "raw, mangle, nat, filter or security")
			}
			return shell.Unsure
		}
		name = value
		words = slices.Delete(words, i, i+n)
		i--
	}
	if name == "" {
		name = "filter"
		for i, w := range words {
			// Tutorials forget -t nat.
			if w.Text == "PREROUTING" || w.Text == "POSTROUTING" ||
				(w.Text == "-j" || w.Text == "--jump") && i+1 < len(words) && slices.Contains([]string{"DNAT", "REDIRECT", "MASQUERADE", "SNAT"}, words[i+1].Text) {
				name = "nat"
			}
		}
		if name == "nat" {
			p.Note("without -t nat, iptables refuses this command; it is taken as if it had that", "", place)
		}
	}
	return p.edit(words, p.set().table(name), place)
}
