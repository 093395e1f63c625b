package lb

// What is wrong with a profile, and where.

import (
	"fmt"
	"strings"
)

// Pos is a place in a file. Line and Column count from 1, Column in
// characters; the zero Pos is no place.
type Pos struct {
	File         string
	Line, Column int
}

// String is file:line:column.
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Error is one mistake in a profile.
type Error struct {
	Pos Pos
	// Msg says what is wrong.
	Msg string
	// Line is the text of the line, Width the number of its characters that
	// are wrong, from Pos.Column on; 0 where there is nothing to point at.
	Line  string
	Width int
	// Want says what would be right; may be empty.
	Want string
	// Hint helps further; may be empty.
	Hint string
}

// Error is the mistake in one line.
func (e *Error) Error() string {
	s := e.Pos.String() + ": " + e.Msg
	if e.Want != "" {
		s += ", want " + e.Want
	}
	return s
}

// Errors are all mistakes of a profile, in the order of the file; never empty.
type Errors []*Error

// Error is one line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Problem is a rule that a value breaks: what is wrong, what would be right, and
// what helps further; Want and Hint may be empty.
type Problem struct{ Msg, Want, Hint string }

// Error is what is wrong, and what would be right.
func (p *Problem) Error() string {
	if p.Want == "" {
		return p.Msg
	}
	return p.Msg + ", want " + p.Want
}
