package config

// Mistakes as people read them: the line they are on, and a caret below.

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

// before and after are how many characters around the caret are shown of a line
// that is longer than both.
const before, after = 50, 70

// FormatError is the mistake with its line, in several lines without a final line
// break:
//
//	web.yaml:12:15: error: weight 3000 is out of range
//	   12 |       weight: 3000
//	      |               ^^^^ want 0 to 1000
//	   hint: weights are relative; 30 and 10 send three times as much to the first
func FormatError(e *lb.Error) string {
	return Painted(e, "error", func(_ Part, text string) string { return text })
}

// Part is a part of a formatted mistake that may have a color of its own.
type Part uint8

// The parts.
const (
	PartPlace Part = iota // web.yaml:12:15:
	PartLevel             // error:
	PartMark              // the carets, and what would be right
	PartHint              // hint:
)

// Painted is FormatError with another level than error, and with each part as
// paint returns it.
func Painted(e *lb.Error, level string, paint func(Part, string) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", paint(PartPlace, safe.Visible(e.Pos.String())+":"), paint(PartLevel, level+":"), e.Msg)
	want := ""
	if e.Want != "" {
		want = "want " + e.Want
	}
	switch {
	case e.Line != "":
		line, indent, carets := excerpt(e)
		number := strconv.Itoa(e.Pos.Line)
		fmt.Fprintf(&b, "\n   %s | %s", number, line)
		switch {
		case carets != "":
			b.WriteString("\n   " + strings.Repeat(" ", len(number)) + " | " + indent + paint(PartMark, strings.TrimRight(carets+" "+want, " ")))
		case want != "":
			b.WriteString("\n   " + strings.Repeat(" ", len(number)) + " | " + indent + want)
		}
	case want != "":
		b.WriteString("\n   " + want)
	}
	if e.Hint != "" {
		b.WriteString("\n   " + paint(PartHint, "hint:") + " " + e.Hint)
	}
	return b.String()
}

// Format is all mistakes, each with its line, without a final line break.
func Format(e lb.Errors) string {
	parts := make([]string, len(e))
	for i, err := range e {
		parts[i] = FormatError(err)
	}
	return strings.Join(parts, "\n")
}

// excerpt is the part of the line around the place, with what cannot be seen
// made visible, and what stands below it: an indent and carets.
func excerpt(e *lb.Error) (line, indent, carets string) {
	at := safe.Offset(e.Line, e.Pos.Column-1)
	from, to := 0, len(e.Line)
	if to > before+after {
		from = at
		for n := 0; n < before && from > 0; n++ {
			_, size := utf8.DecodeLastRuneInString(e.Line[:from])
			from -= size
		}
		to = at + safe.Offset(e.Line[at:], after)
	}
	end := min(at+safe.Offset(e.Line[at:to], e.Width), to)
	if from > 0 {
		line = "..."
	}
	line += safe.Visible(e.Line[from:at])
	indent = strings.Repeat(" ", utf8.RuneCountInString(line))
	marked := safe.Visible(e.Line[at:end])
	line += marked + safe.Visible(e.Line[end:to])
	if to < len(e.Line) {
		line += "..."
	}
	if e.Width > 0 {
		carets = strings.Repeat("^", max(1, utf8.RuneCountInString(marked)))
	}
	return line, indent, carets
}

// Quote gives the mistakes in this file the text of their lines, and what to
// underline: the word, the quoted text or the brackets at their place. Parse
// has done so; it is for mistakes that were found without the text (Conflicts).
func Quote(e lb.Errors, file string, data []byte) {
	var in lb.Errors
	for _, err := range e {
		if err.Pos.File == file && err.Line == "" {
			in = append(in, err)
		}
	}
	if len(in) == 0 {
		return
	}
	slices.SortStableFunc(in, byPlace)
	quote(in, withoutBOM(string(data)))
}

// quote does so for mistakes that are sorted by their place.
func quote(e lb.Errors, text string) {
	number, start := 1, 0
	for _, err := range e {
		for number < err.Pos.Line {
			i := strings.IndexByte(text[start:], '\n')
			if i < 0 {
				return
			}
			start += i + 1
			number++
		}
		line, _, _ := strings.Cut(text[start:], "\n")
		err.Line = strings.TrimSuffix(line, "\r")
		at := safe.Offset(err.Line, err.Pos.Column-1)
		if rest := utf8.RuneCountInString(err.Line[at:]); err.Width == 0 || err.Width > rest {
			err.Width = width(err.Line, at)
		}
	}
}

// width is the number of characters of what stands at a place in a line of
// YAML: a word, a quoted text, a bracket with what it holds, a dash.
func width(line string, at int) int {
	s := line[at:]
	end := len(s)
	switch {
	case s == "":
		return 1
	case s[0] == '"' || s[0] == '\'':
		end = closing(s)
	case s[0] == '[' || s[0] == '{':
		depth := 0
		for i := 0; i < len(s); i++ {
			switch s[i] {
			case '[', '{':
				depth++
			case ']', '}':
				if depth--; depth == 0 {
					return utf8.RuneCountInString(s[:i+1])
				}
			case '"', '\'':
				i += closing(s[i:]) - 1
			}
		}
		end = len(strings.TrimRight(s, " \t"))
	case s[0] == '\t':
		end = len(s) - len(strings.TrimLeft(s, "\t"))
	case s[0] == '*' || s[0] == '&' || s[0] == '!':
		if i := strings.IndexAny(s, " ,]}"); i > 0 {
			end = i
		}
	case s == "-" || strings.HasPrefix(s, "- "):
		end = 1
	default:
		if i := strings.Index(s, " #"); i >= 0 {
			end = i
		}
		if i := strings.Index(s, ": "); i >= 0 {
			end = min(end, i)
		}
		if strings.LastIndexAny(line[:at], "[{") > strings.LastIndexAny(line[:at], "]}") {
			if i := strings.IndexAny(s, ",]}"); i >= 0 {
				end = min(end, i)
			}
		}
		end = len(strings.TrimRight(s[:end], " \t"))
		end = len(strings.TrimSuffix(s[:end], ":"))
	}
	return max(1, utf8.RuneCountInString(s[:end]))
}

// closing is the length of a quoted text at the beginning of s, which may not
// end in s.
func closing(s string) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[0] == '"' && s[i] == '\\':
			i++
		case s[i] != s[0]:
		case s[0] == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
		default:
			return i + 1
		}
	}
	return len(s)
}
