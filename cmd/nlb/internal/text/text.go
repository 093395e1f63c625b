// Package text is what every text for people is made of: colors, numbers with
// their nouns, lists, wrapped lines, aligned columns, near misses.
package text

// Words and lines.

import (
	"fmt"
	"strings"
)

// Count is a number and a noun, which gets an s where it is not one: 1 service,
// 2 services.
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// List is words with commas, the last of them behind an and.
func List(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// Wrap puts words into lines of at most width columns; a longer word has a line
// of its own.
func Wrap(words []string, between string, width int) []string {
	var lines []string
	for _, w := range words {
		if n := len(lines); n > 0 && len(lines[n-1])+len(between)+len(w) <= width {
			lines[n-1] += between + w
		} else {
			lines = append(lines, w)
		}
	}
	return lines
}

// Gap is between columns, and what is indented once.
const Gap = "  "

// Column says how the cells of a column are aligned.
type Column struct {
	// Right aligns numbers.
	Right bool
	// Least is how wide the column is at least.
	Least int
}

// Align makes a line of each row: as many cells as there are columns, with a
// Gap between them. No line ends with a space.
func Align(columns []Column, rows [][]string) []string {
	wide := make([]int, len(columns))
	for i, c := range columns {
		wide[i] = c.Least
		for _, row := range rows {
			wide[i] = max(wide[i], len(row[i]))
		}
		if !c.Right {
			wide[i] = -wide[i]
		}
	}
	lines := make([]string, len(rows))
	for k, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString(Gap)
			}
			fmt.Fprintf(&b, "%*s", wide[i], cell)
		}
		lines[k] = strings.TrimRight(b.String(), " ")
	}
	return lines
}
