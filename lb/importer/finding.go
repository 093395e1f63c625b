package importer

// Findings as people read them.

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/config"
)

// Pos is the first place; where there is none, the beginning of the text.
func (f *Finding) Pos() lb.Pos {
	if len(f.Places) == 0 {
		return lb.Pos{File: f.file, Line: 1, Column: 1}
	}
	return lb.Pos{File: f.file, Line: f.Places[0].Line, Column: f.Places[0].Column}
}

// Lines are the lines that the finding is about, sorted, each once.
func (f *Finding) Lines() []int {
	var out []int
	for _, p := range f.Places {
		out = append(out, p.Line)
	}
	return slices.Compact(out)
}

// Format is the finding with the line that it is about, in several lines
// without a final line break:
//
//	rules.v4:7:20: warning: -m geoip is not translated, and this rule is left out
//	   7 | -A PREROUTING -m geoip --source-country A1 -j DNAT --to-destination 10.0.0.11
//	     |               ^^^^^^^^
//	   hint: ...
func (f *Finding) Format() string {
	return f.Painted(func(_ config.Part, text string) string { return text })
}

// Painted is Format with each part as paint returns it.
func (f *Finding) Painted(paint func(config.Part, string) string) string {
	e := lb.Error{Pos: f.Pos(), Msg: f.Msg, Hint: f.Hint, Line: f.line}
	if len(f.Places) > 0 {
		e.Width = f.Places[0].Width
	}
	if more := f.Lines(); len(more) > 1 {
		e.Msg += " (also in " + LineList(more[1:]) + ")"
	}
	return config.Painted(&e, f.Level.String(), paint)
}

// maxListed is how many ranges of lines a message names.
const maxListed = 8

// LineList is numbers of lines as people write them: line 7, lines 3, 5-9.
func LineList(lines []int) string {
	slices.Sort(lines)
	lines = slices.Compact(lines)
	var parts []string
	for i := 0; i < len(lines); {
		j := i
		for j+1 < len(lines) && lines[j+1] == lines[j]+1 {
			j++
		}
		if len(parts) == maxListed {
			parts = append(parts, fmt.Sprintf("and %d more", len(lines)-i))
			break
		}
		part := strconv.Itoa(lines[i])
		if j > i {
			part += "-" + strconv.Itoa(lines[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	word := "line "
	if len(lines) != 1 {
		word = "lines "
	}
	return word + strings.Join(parts, ", ")
}
