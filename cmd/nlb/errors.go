package main

// Errors, as the user reads them, and the exit codes.

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// The exit codes.
const (
	exitDone    = 0
	exitFailed  = 1 // or interrupted
	exitUsage   = 2
	exitInvalid = 3 // a profile
	exitDiffer  = 4
)

// errDiffer ends a command that has already said what differs.
var errDiffer = errors.New("it differs")

// usageError says that the command line is wrong.
type usageError struct{ msg, hint string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) *usageError {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

// takenError says that services in the kernel hold what profiles claim.
type takenError struct{ errs lb.Errors }

func (e *takenError) Error() string {
	return text.Count(len(e.errs), "conflict") + " with what is in the kernel"
}

// explained is an error with more to say: what was changed, and what helps
// further. Either may be empty.
type explained interface {
	error
	Explain() (outcome, hint string)
}

// failure is an error that a command has explained.
type failure struct {
	err           error
	outcome, hint string
}

func (e *failure) Error() string                   { return e.err.Error() }
func (e *failure) Unwrap() error                   { return e.err }
func (e *failure) Explain() (outcome, hint string) { return e.outcome, e.hint }

const unchanged = "nothing was changed"

// withOutcome adds to an error what was changed, where it does not say so
// already.
func withOutcome(err error, outcome string) error {
	f := &failure{err: err, outcome: outcome}
	if inner, ok := errors.AsType[explained](err); ok {
		said, hint := inner.Explain()
		f.outcome, f.hint = cmp.Or(said, outcome), hint
	}
	return f
}

// withHint adds to an error what helps further.
func withHint(err error, hint string) error { return &failure{err: err, hint: hint} }

// report prints an error and returns the exit code.
func (a *app) report(err error) int {
	var outcome, hint string
	if e, ok := errors.AsType[explained](err); ok {
		outcome, hint = e.Explain()
	}
	invalid, isInvalid := errors.AsType[*source.InvalidError](err)
	taken, isTaken := errors.AsType[*takenError](err)
	usage, isUsage := errors.AsType[*usageError](err)
	code, prefix := exitFailed, a.Err.Paint(text.Red, "error: ")
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDiffer):
		return exitDiffer
	case isInvalid:
		a.PrintErrors(invalid.Errors)
		code, prefix = exitInvalid, ""
	case isTaken:
		a.PrintErrors(taken.errs)
	case isUsage:
		code, hint = exitUsage, usage.hint
	case errors.Is(err, source.ErrTwice):
		code = exitUsage
	case errors.Is(err, context.Canceled):
		a.Progress("")
		err, outcome = errors.New("interrupted"), cmp.Or(outcome, unchanged)
	}
	msg := prefix + err.Error()
	if outcome != "" {
		msg += "; " + outcome
	}
	a.Errorf("%s", msg)
	if hint != "" {
		a.Errorf("%s%s", a.Err.Paint(text.Cyan, "hint: "), hint)
	}
	return code
}
