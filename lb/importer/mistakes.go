package importer

// Mistakes of a text, while it is read.

import (
	"cmp"
	"slices"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

// MaxMistakes is after how many mistakes no more are kept.
const MaxMistakes = 50

// Mistakes are those of one text.
type Mistakes struct {
	File  string
	Lines []string
	errs  lb.Errors
	spent int
}

// maxWork bounds what is read again and again: settings that hold for many services,
// servers that many services have.
const maxWork = 1_000_000

// Spend notes that n directives are read at a place. It is false once that is too much,
// which is a mistake of the text.
func (m *Mistakes) Spend(n int, at Place) bool {
	if m.spent += n; m.spent > maxWork {
		m.Fail(at, "the text has too much that holds for many services", "a part of it")
	}
	return m.spent <= maxWork
}

// Fail adds a mistake; the same at the same place counts once.
func (m *Mistakes) Fail(at Place, msg, want string) {
	e := Mistake(m.File, m.Lines, at, msg, want)
	if len(m.errs) < MaxMistakes && !slices.ContainsFunc(m.errs, func(o *lb.Error) bool { return o.Pos == e.Pos && o.Msg == e.Msg }) {
		m.errs = append(m.errs, e)
	}
}

// Count is how many mistakes there are, MaxMistakes at most.
func (m *Mistakes) Count() int { return len(m.errs) }

// Err is lb.Errors in the order of the text, nil where there are none.
func (m *Mistakes) Err() error {
	if len(m.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(m.errs, func(a, b *lb.Error) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	return m.errs
}

// Mistake is an error in a text, with its line.
func Mistake(file string, lines []string, at Place, msg, want string) *lb.Error {
	e := &lb.Error{Pos: lb.Pos{File: file, Line: at.Line, Column: at.Column}, Width: at.Width, Msg: safe.Visible(msg), Want: safe.Visible(want)}
	if 0 < at.Line && at.Line <= len(lines) {
		e.Line = lines[at.Line-1]
	}
	return e
}
