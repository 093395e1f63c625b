//go:build linux

package main

// The kernel: one way into it for every command, and its refusals in words.

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/probe"
	"nlb/nft/wire"
	"nlb/sysctl"
)

// dial opens the way to the kernel of this thread's network namespace, and
// asks whether we may use it.
func dial() (*wire.Conn, error) {
	conn, err := wire.Dial()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Generation(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// applied says what came of balance.
type applied struct {
	*nft.Result
	// Parameters were set, or would be by a dry run.
	Parameters []parameterValue
	// Left says which parameters should be other than they are, and why they
	// are not; empty: none.
	Left string
}

// lateError says that the rules are there, but a kernel parameter they need is
// not as it should be.
type lateError struct {
	generation uint32
	err        error
}

func (e *lateError) Error() string { return e.err.Error() }
func (e *lateError) Unwrap() error { return e.err }

// balance makes the kernel of this thread's network namespace hold the
// profiles, and turns on what they need: first the rules, which remember the
// parameters as they were, then the parameters. ctx ends it up to the commit,
// which cannot be interrupted, and what follows the commit is done in any case.
func balance(ctx context.Context, profiles []*lb.Profile, o nft.Options) (*applied, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	track(conn, profiles)
	changes, left, err := parameters(profiles)
	if err != nil {
		return nil, err
	}
	o.Params = records(changes)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	result, err := nft.Apply(ctx, conn, profiles, o)
	if err != nil && !committed(err) {
		return nil, err
	}
	// A parameter that is recorded for the first time is no repair.
	result.Repaired = result.Repaired && len(changes) == 0
	out := &applied{result, visible(changes), left}
	if o.DryRun {
		return out, nil
	}
	if done, err := sysctl.Local.Write(changes); err != nil {
		out.Parameters = visible(done)
		return out, &lateError{result.Generation, err}
	}
	return out, err
}

// committed reports whether an error comes from what follows the commit.
func committed(err error) bool {
	_, ok := errors.AsType[*nft.FlowsError](err)
	return ok
}

// explain says what helps where the kernel refused something, of the sources
// if any.
func explain(err error, sources ...source) error {
	conflict, isConflict := errors.AsType[*nft.ConflictError](err)
	refused, isRefused := errors.AsType[*wire.Error](err)
	hint := ""
	switch {
	case isConflict:
		quote(conflict.Errors, sources)
		err = &takenError{conflict.Errors}
	case errors.Is(err, wire.ErrUnknown):
		hint = "nlb diff says whether it was applied"
	case nft.NotPermitted(err):
		err = errors.New("not permitted: nlb needs CAP_NET_ADMIN in this network namespace")
		hint = "run it as root, or give it the capability: setcap cap_net_admin+ep $(command -v nlb)"
	case errors.Is(err, nft.ErrForeign):
		hint = "nlb --table NAME uses another one"
	case errors.Is(err, wire.ErrStale), errors.Is(err, wire.ErrInterrupted):
		hint = "something changes the ruleset all the time; nft monitor shows it"
	case isRefused && slices.Contains(unsupported, refused.Errno):
		hint = "this kernel, Linux " + release() + ", may lack " + needs(refused.Expr)
	case errors.Is(err, unix.EPROTONOSUPPORT):
		hint = "this kernel, Linux " + release() + ", has no nfnetlink; modprobe nf_tables"
	}
	return failed(err, "", hint)
}

// What the kernel says of something that it does not have, and the modules
// that nlb's rules are made of.
var unsupported = []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.EAFNOSUPPORT}

const modules = "nf_tables, nft_chain_nat, nft_ct, nft_numgen, nft_hash, nft_nat, nft_masq, nft_reject_inet"

// needs says what an expression that the kernel stumbled over needs; empty: it
// did not say which.
func needs(expression string) string {
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

// aftermath says also what was changed, of a failure of what changes the
// kernel.
func aftermath(err error, sources ...source) error {
	partial, isPartial := errors.AsType[*nft.PartialError](err)
	late, isLate := errors.AsType[*lateError](err)
	switch {
	case isLate:
		return failed(err, fmt.Sprintf("the rules were applied, generation %d, but do not work without it", late.generation),
			"mend it and apply again, or nlb flush")
	case committed(err):
		return failed(err, "all else was done", "")
	case isPartial:
		return failed(explain(partial.Err), fmt.Sprintf("%d of about %d batches were committed before", partial.Done, partial.All),
			"apply again, or nlb flush; what makes a service reachable comes last")
	case errors.Is(err, wire.ErrUnknown):
		return failed(explain(err), "it is not known whether anything was changed", "")
	}
	return failed(explain(err, sources...), unchanged, "")
}

// release is the version of the kernel.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "(unknown)"
	}
	return unix.ByteSliceToString(u.Release[:])
}
