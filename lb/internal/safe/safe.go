// Package safe has what messages are made of: text from a file in a form that is
// safe to print.
package safe

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tabWidth is how many spaces a tab becomes.
const tabWidth = 4

// Offset is where the character with this number (from 0) begins, or the end.
func Offset(s string, char int) int {
	for i := range s {
		if char--; char < 0 {
			return i
		}
	}
	return len(s)
}

// Visible replaces what would not be seen, or would move the cursor.
func Visible(s string) string {
	if Printable(s) {
		return s
	}
	var b []byte
	for i, r := range s {
		switch {
		case r == '\t':
			b = append(b, strings.Repeat(" ", tabWidth)...)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			b = fmt.Appendf(b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		default:
			q := strconv.AppendQuoteRuneToASCII(nil, r)
			b = append(b, q[1:len(q)-1]...)
		}
	}
	return string(b)
}

// Printable reports whether s is ASCII that can be seen.
func Printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Show is text from a file as it stands in a message: bare where it is a word,
// quoted otherwise, and cut where it is long.
func Show(s string) string {
	const long = 64
	cut := ""
	if i := Offset(s, long); i < len(s) {
		s, cut = s[:i], "..."
	}
	if s != "" && Printable(s) && !strings.ContainsAny(s, "\"\\ ") {
		return s + cut
	}
	return strconv.Quote(s) + cut
}

// OneOf is "a, b or c".
func OneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// NameRune reports whether a name may have this character.
func NameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}
