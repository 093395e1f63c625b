// Package syntax reads the text of iptables: what iptables-save prints, and
// command lines as they stand in scripts and tutorials.
package syntax

// Words: what a line is made of.

import (
	"strings"
	"unicode/utf8"

	"nlb/lb/importer"
)

// word is one argument of a command.
type word struct {
	text  string
	place importer.Place
	// bare: nothing of it stood in quotes, so it may be an operator.
	bare bool
	// unknown is the part of it whose value only a shell would know, such as
	// $VIP; empty where all is known.
	unknown string
}

// lexer reads words, over line ends that have a backslash before them.
type lexer struct {
	lines []string
	line  int // from 0
	at    int // byte in the line
	shell bool
	vars  map[string]variable
}

// variable is what a script has set.
type variable struct {
	value string
	known bool
}

// command reads the words up to the end of the line, and is then at the
// beginning of the next. Operators of a shell are words of their own.
func (l *lexer) command() []word {
	var out []word
	for {
		w, ok := l.next()
		if !ok {
			l.line++
			l.at = 0
			return out
		}
		out = append(out, w)
	}
}

func (l *lexer) rest() string {
	if l.line >= len(l.lines) {
		return ""
	}
	return l.lines[l.line][l.at:]
}

// next reads a word; false at the end of the line.
func (l *lexer) next() (word, bool) {
	for {
		rest := l.rest()
		trimmed := strings.TrimLeft(rest, " \t\r")
		l.at += len(rest) - len(trimmed)
		if l.shell && trimmed == `\` && l.line+1 < len(l.lines) {
			l.line++
			l.at = 0
			continue
		}
		if trimmed == "" || l.shell && trimmed[0] == '#' {
			return word{}, false
		}
		return l.word(), true
	}
}

// word reads a word that begins here.
func (l *lexer) word() word {
	startLine, start := l.line, l.at
	w := word{bare: true}
	var b strings.Builder
	if l.shell {
		if op := operator(l.rest()); op != "" {
			l.at += len(op)
			b.WriteString(op)
			return l.finish(w, &b, startLine, start)
		}
	}
scan:
	for {
		rest := l.rest()
		if rest == "" {
			break
		}
		switch c := rest[0]; {
		case c == ' ', c == '\t', c == '\r':
			break scan
		case c == '"':
			w.bare = false
			l.at++
			l.quoted(&w, &b)
		case !l.shell:
			b.WriteByte(c)
			l.at++
		case c == '\'':
			w.bare = false
			l.at++
			l.literal(&b)
		case c == '\\':
			l.at++
			if rest = l.rest(); rest == "" {
				if l.line+1 == len(l.lines) {
					break scan
				}
				l.line++
				l.at = 0
				continue
			}
			_, size := utf8.DecodeRuneInString(rest)
			b.WriteString(rest[:size])
			l.at += size
		case c == '$' || c == '`':
			l.expand(&w, &b)
		case strings.IndexByte(";|&<>()", c) >= 0:
			break scan
		default:
			b.WriteByte(c)
			l.at++
		}
	}
	return l.finish(w, &b, startLine, start)
}

func (l *lexer) finish(w word, b *strings.Builder, startLine, start int) word {
	w.text = b.String()
	end := l.at
	if l.line != startLine || end > len(l.lines[startLine]) {
		end = len(l.lines[startLine])
	}
	w.place = importer.Place{
		Line: startLine + 1, Column: utf8.RuneCountInString(l.lines[startLine][:start]) + 1,
		Width: max(1, utf8.RuneCountInString(l.lines[startLine][start:end])),
	}
	return w
}

// operator is the operator of a shell that s begins with.
func operator(s string) string {
	for _, op := range []string{"<<<", "<<-", "<<", ">>", "&>", ">&", "2>&1", "1>&2", "2>", "1>", "&&", "||", ";;", ";", "|", "&", "<", ">", "(", ")"} {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

// quoted reads up to the closing double quote.
func (l *lexer) quoted(w *word, b *strings.Builder) {
	for {
		rest := l.rest()
		if rest == "" {
			if !l.shell || l.line+1 >= len(l.lines) {
				return
			}
			l.line++
			l.at = 0
			b.WriteByte('\n')
			continue
		}
		switch c := rest[0]; {
		case c == '"':
			l.at++
			return
		case c == '\\' && len(rest) > 1 && (!l.shell || strings.IndexByte("\"\\$`", rest[1]) >= 0):
			b.WriteByte(rest[1])
			l.at += 2
		case l.shell && (c == '$' || c == '`'):
			l.expand(w, b)
		default:
			b.WriteByte(c)
			l.at++
		}
	}
}

// literal reads up to the closing single quote.
func (l *lexer) literal(b *strings.Builder) {
	for {
		rest := l.rest()
		if i := strings.IndexByte(rest, '\''); i >= 0 {
			b.WriteString(rest[:i])
			l.at += i + 1
			return
		}
		b.WriteString(rest)
		l.at += len(rest)
		if l.line+1 >= len(l.lines) {
			return
		}
		l.line++
		l.at = 0
		b.WriteByte('\n')
	}
}

// expand reads $NAME, ${NAME}, $(command) or `command`.
func (l *lexer) expand(w *word, b *strings.Builder) {
	rest := l.rest()
	end := 1
	name := ""
	switch {
	case rest[0] == '`':
		end = 1 + closing(rest[1:], '`', 0)
	case strings.HasPrefix(rest, "$("):
		end = 2 + closing(rest[2:], ')', '(')
	case strings.HasPrefix(rest, "${"):
		end = 2 + closing(rest[2:], '}', '{')
		name = strings.TrimSuffix(rest[2:end], "}")
	default:
		for end < len(rest) && isName(rest[end], end > 1) {
			end++
		}
		name = rest[1:end]
		if name == "" && end < len(rest) && strings.IndexByte("@*#?$!0123456789-", rest[end]) >= 0 {
			end++
		}
	}
	l.at += end
	if v, ok := l.vars[name]; ok && v.known {
		b.WriteString(v.value)
		return
	}
	b.WriteString(rest[:end])
	if w.unknown == "" {
		w.unknown = rest[:end]
	}
}

// closing is the length of what ends with a closing character, and may have
// pairs inside.
func closing(s string, end, open byte) int {
	depth := 0
	for i := range len(s) {
		switch {
		case s[i] == end && depth == 0:
			return i + 1
		case s[i] == end:
			depth--
		case open != 0 && s[i] == open:
			depth++
		}
	}
	return len(s)
}

// isName reports whether c can be in the name of a variable.
func isName(c byte, digits bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || digits && c >= '0' && c <= '9'
}
