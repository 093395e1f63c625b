package main

// Failures, as the user reads them, and the exit codes.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

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

// invalidError is what is wrong with profiles.
type invalidError struct{ errs lb.Errors }

// Error counts; the mistakes themselves are printed one by one.
func (e *invalidError) Error() string {
	var files []string
	for _, err := range e.errs {
		if !slices.Contains(files, err.Pos.File) {
			files = append(files, err.Pos.File)
		}
	}
	where := files[0]
	if len(files) > 1 {
		where = count(len(files), "file")
	}
	return fmt.Sprintf("%s in %s", count(len(e.errs), "error"), where)
}

// takenError says that services in the kernel hold what profiles claim.
type takenError struct{ errs lb.Errors }

func (e *takenError) Error() string {
	return count(len(e.errs), "conflict") + " with what is in the kernel"
}

// failure is an error with more to say.
type failure struct {
	err error
	// state says what was changed; empty: nothing could be.
	state string
	// hint helps further.
	hint string
}

func (e *failure) Error() string { return e.err.Error() }
func (e *failure) Unwrap() error { return e.err }

const unchanged = "nothing was changed"

// failed adds to an error what was changed and what helps further, where it
// does not say so already.
func failed(err error, state, hint string) error {
	f := failure{err: err, state: state, hint: hint}
	if inner, ok := errors.AsType[*failure](err); ok {
		f.state = cmp.Or(inner.state, state)
		f.hint = cmp.Or(inner.hint, hint)
	}
	return &f
}

// report prints an error and returns the exit code.
func (c *console) report(err error) int {
	var f failure
	if outer, ok := errors.AsType[*failure](err); ok {
		f = *outer
	}
	invalid, isInvalid := errors.AsType[*invalidError](err)
	taken, isTaken := errors.AsType[*takenError](err)
	usage, isUsage := errors.AsType[*usageError](err)
	code, prefix := exitFailed, c.onErr(red, "error: ")
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDiffer):
		return exitDiffer
	case isInvalid:
		c.snippets(invalid.errs)
		code, prefix = exitInvalid, ""
	case isTaken:
		c.snippets(taken.errs)
	case isUsage:
		code, f.hint = exitUsage, usage.hint
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	msg := prefix + err.Error()
	if f.state != "" {
		msg += "; " + f.state
	}
	c.complain("%s", msg)
	if f.hint != "" {
		c.complain("%s%s", c.onErr(cyan, "hint: "), f.hint)
	}
	return code
}
