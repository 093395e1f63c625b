// Package syntax reads the text of iptables: what iptables-save prints, and
// command lines as they stand in scripts and tutorials.
package syntax

// Words: what a line of iptables-save is made of.

import (
	"strings"
	"unicode/utf8"

	"nlb/lb/importer"
	"nlb/lb/importer/shell"
)

// word is one argument of a command.
type word = shell.Word

// Lex parts a line as iptables-restore does: only double quotes and
// backslashes in them mean something. at is the line's number from 0. dollar: a
// word with a '$' is not known.
func Lex(line string, at int, dollar bool) []word {
	var out []word
	columns := len(line) < 1<<14
	for i := 0; i < len(line); {
		if blank(line[i]) {
			i++
			continue
		}
		start, quoted := i, false
		w := word{Bare: true}
		var b strings.Builder
		for ; i < len(line) && (quoted || !blank(line[i])); i++ {
			switch c := line[i]; {
			case c == '"':
				quoted, w.Bare = !quoted, false
			case c == '\\' && quoted && i+1 < len(line):
				i++
				b.WriteByte(line[i])
			default:
				b.WriteByte(c)
			}
		}
		w.Text = b.String()
		if dollar && strings.ContainsAny(w.Text, "$`") {
			w.Unknown = w.Text
		}
		w.Place = importer.Place{Line: at + 1, Column: start + 1, Width: i - start}
		if columns {
			w.Place.Column = utf8.RuneCountInString(line[:start]) + 1
			w.Place.Width = utf8.RuneCountInString(line[start:i])
		}
		out = append(out, w)
	}
	return out
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }
