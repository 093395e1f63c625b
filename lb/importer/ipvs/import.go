package ipvs

// Import: from commands to a profile.

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"

	"nlb/lb/importer"
	"nlb/lb/importer/iptables/syntax"
	"nlb/lb/importer/shell"
)

// Import reads what `ipvsadm -S -n` or `ipvsadm -Ln` prints, or commands of
// ipvsadm. Marks of services are looked up in rules of iptables that set them,
// where the text has those, too (iptables-save -t mangle). The error is
// lb.Errors.
func Import(file string, data []byte) (*importer.Import, error) {
	draft, err := importer.Begin(file, "ipvs", data)
	if err != nil {
		return nil, err
	}
	t := &table{Draft: draft}
	if slices.ContainsFunc(t.Lines, listing.MatchString) {
		var after []importer.Place
		for i, line := range t.Lines {
			switch t.row(i); {
			case listing.MatchString(line):
				after = nil
			case changes.MatchString(line):
				after = append(after, importer.PlaceOf(t.Lines, i))
			}
		}
		if len(after) > 0 {
			t.Lost("this changes what was listed before, and is not read", "import what ipvsadm -Ln prints in the end", after...)
		}
	} else {
		shell.Read(file, t.Lines, draft, t)
	}
	if !t.ran && len(t.marks) == 0 && t.Count() == 0 {
		t.Fail(importer.Place{Line: 1, Column: 1}, "nothing in this text is of ipvsadm", "what ipvsadm -S -n prints, or its commands")
	}
	t.finish()
	return t.Import()
}

// Add adds services that ipvsadm -S -n prints so to the draft of something else. The
// error is lb.Errors.
func Add(draft *importer.Draft, saved []string) error {
	t := &table{Draft: draft}
	before := len(t.Lines)
	t.Lines = slices.Concat(t.Lines, saved)
	for i := range saved {
		t.Line(before + i)
	}
	t.finish()
	return t.Err()
}

// finish turns the table into services.
func (t *table) finish() {
	for _, v := range t.services {
		t.translate(v)
	}
	t.unused()
}

// Command reads a command of a script.
func (t *table) Command(c *shell.Command) (shell.Outcome, bool) {
	return t.words(c.Words, c.Place, c)
}

// Line reads a line that ipvsadm -S or iptables-save has printed.
func (t *table) Line(line int) bool {
	words := syntax.Lex(t.Lines[line], line, false)
	if len(words) == 0 || strings.HasPrefix(words[0].Text, "#") {
		return true
	}
	_, ours := t.words(words, words[0].Place, &shell.Command{})
	return ours
}

// changes finds a command that changes the table, in a session that lists it.
var changes = regexp.MustCompile(`\bipvsadm\s+(-[AaEeDdCR]|--(add|edit|delete|clear|restore))`)

// words reads a command that begins at a place.
func (t *table) words(words []word, place importer.Place, c *shell.Command) (shell.Outcome, bool) {
	place.Width = 0
	if t.Count() == importer.MaxMistakes {
		return shell.Succeeds, true
	}
	program := path.Base(words[0].Text)
	// Lines of ipvsadm -S have an option behind the first; others are of iptables.
	saved := len(program) == 2 && program[0] == '-' && (program == "-C" || len(words) > 1 && strings.HasPrefix(words[1].Text, "-"))
	if to := slices.IndexFunc(words, func(w word) bool { return w.Text == "DNAT" || w.Text == "REDIRECT" }); to > 0 && (words[to-1].Text == "-j" || words[to-1].Text == "--jump") {
		t.Lost("this rule of iptables sends connections to a backend, and is not read here", "nlb import iptables reads it", place)
	}
	switch {
	case t.rule(words, place):
		return shell.Succeeds, true
	case program == "ipvsadm-restore" || program == "ipvsadm" && slices.ContainsFunc(words, func(w word) bool { return w.Text == "-R" || w.Text == "--restore" }):
		t.ran = true
		if c.Input == nil {
			t.Lost("what this command loads is not in this text", "import that file, too", place)
			return shell.Succeeds, true
		}
		t.Lines = slices.Clone(t.Lines)
		for i, line := range c.Input.Lines {
			if at := c.Input.First + i; at < len(t.Lines) {
				t.Lines[at] = line
				t.Line(at)
			}
		}
		return shell.Succeeds, true
	case program == "ipvsadm":
		words = words[1:]
	case !saved:
		return shell.Succeeds, false
	}
	t.ran = true
	if i := slices.IndexFunc(words, func(w word) bool { return w.Unknown != "" || strings.Contains(w.Text, "$") }); i >= 0 {
		t.Lost("the value of "+cmp.Or(words[i].Unknown, words[i].Text)+" is not known here, so this command is left out", "set it in a line before: NAME=value", place)
		return shell.Unsure, true
	}
	one, ok := t.parse(words, place)
	switch {
	case !ok || one.verb == 0:
	case c.May != "" && strings.IndexByte("DdC", one.verb) >= 0:
		if len(t.services) > 0 {
			t.Lost("it is not known whether this command runs, so what it takes away stays", "", place)
		}
	default:
		if c.May != "" {
			t.Lost(c.May, "", place)
		}
		t.do(one)
	}
	return shell.Succeeds, true
}
