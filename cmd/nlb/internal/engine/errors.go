//go:build linux

package engine

// What went wrong, what was changed, and what helps.

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/nft"
	"nlb/nft/probe"
	"nlb/nft/wire"
)

// Error is a failure with its outcome and a hint. It wraps the cause, which is one
// of *nft.ConflictError, *nft.PartialError, *nft.FlowsError, nft.ErrForeign,
// nft.ErrLayout, wire.ErrUnknown, *wire.Error, *ParameterError, the error of a
// context, or that of a file in /proc/sys.
type Error struct {
	Err error
	// Outcome says what was changed, for people; empty where the call only reads.
	Outcome string
	// Hint helps further; may be empty.
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Explain is the outcome and the hint.
func (e *Error) Explain() (outcome, hint string) { return e.Outcome, e.Hint }

// ParameterError says that the rules are as they are wanted, but a kernel
// parameter is not.
type ParameterError struct {
	// Generation is the ruleset's, with the rules.
	Generation uint32
	// Flushed says that the rules were removed, not applied.
	Flushed bool
	Err     error
}

func (e *ParameterError) Error() string { return e.Err.Error() }
func (e *ParameterError) Unwrap() error { return e.Err }

// committed reports whether an error comes from what follows the commit.
func committed(err error) bool {
	_, ok := errors.AsType[*nft.FlowsError](err)
	return ok
}

// withHint adds what helps where the kernel refused something.
func withHint(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Err: err}
	refused, isRefused := errors.AsType[*wire.Error](err)
	switch {
	case errors.Is(err, wire.ErrUnknown):
		e.Hint = "nlb diff says whether it was applied"
	case nft.NotPermitted(err):
		e.Err = &reworded{"not permitted: nlb needs CAP_NET_ADMIN in this network namespace", err}
		e.Hint = "run it as root, or give it the capability: setcap cap_net_admin+ep $(command -v nlb)"
	case errors.Is(err, nft.ErrForeign):
		e.Hint = "nlb --table NAME uses another one"
	case errors.Is(err, wire.ErrStale), errors.Is(err, wire.ErrInterrupted):
		e.Hint = "something changes the ruleset all the time; nft monitor shows it"
	case isRefused && slices.Contains(unsupported, refused.Errno):
		e.Hint = "this kernel, Linux " + release() + ", may lack " + lacking(refused.Expr)
	case errors.Is(err, unix.EPROTONOSUPPORT):
		e.Hint = "this kernel, Linux " + release() + ", has no nfnetlink; modprobe nf_tables"
	}
	return e
}

// reworded is an error in better words.
type reworded struct {
	words string
	err   error
}

func (e *reworded) Error() string { return e.words }
func (e *reworded) Unwrap() error { return e.err }

// addOutcome is withOutcome of an error that is about to be returned.
func addOutcome(err *error) {
	if *err != nil {
		*err = withOutcome(*err)
	}
}

// withOutcome says also what was changed, of a failure of what changes the
// kernel.
func withOutcome(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok && e.Outcome != "" {
		return e
	}
	partial, isPartial := errors.AsType[*nft.PartialError](err)
	parameter, isParameter := errors.AsType[*ParameterError](err)
	switch {
	case isParameter && parameter.Flushed:
		return &Error{Err: err, Outcome: "the rules are gone"}
	case isParameter:
		return &Error{
			Err: err, Hint: "mend it and apply again, or nlb flush",
			Outcome: fmt.Sprintf("the rules were applied, generation %d, but do not work without it", parameter.Generation),
		}
	case committed(err):
		return &Error{Err: err, Outcome: "all else was done"}
	case isPartial:
		inner := withHint(partial.Err)
		return &Error{
			Err: &reworded{inner.Error(), err}, Hint: cmp.Or(inner.Hint, "apply again, or nlb flush; what makes a service reachable comes last"),
			Outcome: fmt.Sprintf("%d of about %d batches were committed before", partial.Done, partial.All),
		}
	}
	e := withHint(err)
	e.Outcome = "nothing was changed"
	if errors.Is(err, wire.ErrUnknown) {
		e.Outcome = "it is not known whether anything was changed"
	}
	return e
}

// What the kernel says of something that it does not have, and the modules
// that nlb's rules are made of.
var unsupported = []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.EAFNOSUPPORT}

const modules = "nf_tables, nft_chain_nat, nft_ct, nft_numgen, nft_hash, nft_nat, nft_masq, nft_reject_inet"

// lacking says what the kernel needs for the expression that it refused; empty: it named
// none.
func lacking(expression string) string {
	for _, p := range probe.Parts() {
		if p.Name != expression {
			continue
		}
		s := "the expression " + p.Name + ", for " + p.For + ": it needs Linux >= " + p.Since
		if p.Module != "" {
			s += " and the module " + p.Module + " (modprobe " + p.Module + ")"
		}
		return s
	}
	return "something that nlb needs: " + modules
}

// release is the version of the kernel.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "(unknown)"
	}
	return unix.ByteSliceToString(u.Release[:])
}
