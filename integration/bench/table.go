//go:build linux

package main

// The table: a row for each thing that was measured, beside its yardstick.

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// row is one line of the table.
type row struct {
	work      string // what was measured
	figure    string
	yardstick string  // what it is compared with, and that one's figure
	ratio     float64 // of the two; 0: they have none
	wanted    string  // empty: it is only said
	met       bool
	because   string // why not, where it is known
}

type table struct{ rows []row }

func (t *table) add(r row) { t.rows = append(t.rows, r) }

// print writes the table as Markdown that can also be read as it is.
func (t *table) print(w io.Writer) error {
	cells := [][]string{{"work", "figure", "yardstick", "ratio", "wanted", "met"}, nil}
	for range cells[0] {
		cells[1] = append(cells[1], "---")
	}
	var notes []string
	for _, r := range t.rows {
		ratio, met := "", "yes"
		if r.ratio > 0 {
			ratio = fmt.Sprintf("%.3g", r.ratio)
		}
		switch {
		case r.wanted == "":
			met = ""
		case !r.met:
			met = "no"
			if r.because != "" {
				notes = append(notes, r.because)
				met = fmt.Sprintf("no (%d)", len(notes))
			}
		}
		cells = append(cells, []string{r.work, r.figure, r.yardstick, ratio, r.wanted, met})
	}
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, line := range cells {
		for i, c := range line {
			fmt.Fprintf(&b, "| %s%s ", c, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)))
		}
		b.WriteString("|\n")
	}
	for i, n := range notes {
		fmt.Fprintf(&b, "\n(%d) %s\n", i+1, n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// compare makes a row of times and those of the yardstick; only said. Both are
// medians. The ratio is the median of what the rounds had, since what disturbs
// a machine disturbs both of a round.
func compare(work string, figures []time.Duration, name string, yardsticks []time.Duration) row {
	ratios := make([]float64, min(len(figures), len(yardsticks)))
	for i := range ratios {
		ratios[i] = float64(figures[i]) / float64(yardsticks[i])
	}
	return row{
		work: work, figure: short(median(figures)), yardstick: name + ": " + short(median(yardsticks)),
		ratio: median(ratios),
	}
}

// atMost adds a row whose ratio has a limit.
func (t *table) atMost(limit float64, because string, r row) {
	r.wanted, r.met, r.because = fmt.Sprintf("at most %g", limit), r.ratio <= limit, because
	t.add(r)
}

// short is a time with three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", d.Seconds()*1e3)
	case d >= 10*time.Microsecond:
		return fmt.Sprintf("%.3g us", d.Seconds()*1e6)
	}
	return fmt.Sprintf("%d ns", d.Nanoseconds())
}

// mebibytes is a size in memory.
func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

// grouped is a number with commas.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// median is the middle one; of an even number, the lower of the two.
func median[T cmp.Ordered](values []T) T {
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}
