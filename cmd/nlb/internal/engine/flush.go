//go:build linux

package engine

// Flush: remove profiles, or everything, and put kernel parameters back.

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nlb/cmd/nlb/internal/engine/vip"
	"nlb/nft"
	"nlb/sysctl"
)

// FlushOptions say how to flush.
type FlushOptions struct {
	// Restore also puts kernel parameters back to what was found.
	Restore bool
	// Cut also ends the connections that would go on, translated by an empty
	// table.
	Cut bool
	// Begin is as in Options.
	Begin func() error
}

// Flushed says what a flush did.
type Flushed struct {
	// Generation is the ruleset's, afterwards.
	Generation uint32
	// Existed says that there was a table.
	Existed bool
	// There are the profiles that were in it; Removed of them are gone, and
	// Stay are not.
	There, Removed, Stay []string
	// Missing are the names that were given and not there.
	Missing []string
	// Ended counts the connections of removed backends that were ended, and the
	// unanswered ones of drained backends.
	Ended int
	// Open counts the connections that go on.
	Open int
	// Restored are the kernel parameters that were put back, Left those that
	// somebody else has set since, with From being the value that they have.
	Restored, Left []sysctl.Change
	// Restorable are the kernel parameters that stay as an apply has set them: To
	// is the value that it found, which nothing remembers any more.
	Restorable []sysctl.Change
	// Withdrawn are the addresses that were announced, and are not any more.
	Withdrawn []vip.Address
	// Kept says that kernel parameters were to be put back, but stay because Stay
	// needs them.
	Kept bool
}

// Flush removes profiles, or everything where no name is given. ctx ends it up to
// the first change. Errors are *Error; there is a result as well where the rules
// are gone.
func (e *Engine) Flush(ctx context.Context, names []string, o FlushOptions) (_ *Flushed, err error) {
	defer addOutcome(&err)
	if o.Restore {
		if err := e.restorable(names); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer e.gate.guard(ctx, o.Begin)()
	if e.open != nil {
		e.open.Forget()
	}
	withdrawn, err := e.withdraw(names)
	if err != nil {
		return nil, err
	}
	had, result, failed := nft.Flush(ctx, e.conn, names, nft.Options{Table: e.table, Cut: o.Cut, Links: e.links.Read})
	if failed != nil && !committed(failed) {
		told := withOutcome(failed)
		if len(withdrawn) > 0 {
			told.Outcome = fmt.Sprintf("addresses withdrawn: %d; beside that, %s", len(withdrawn), told.Outcome)
		}
		return nil, told
	}
	e.lower()
	out := flushed(had, names)
	out.Withdrawn = withdrawn
	out.Generation, out.Ended, out.Open = result.Generation, result.Ended, result.Open
	params := recorded(had.Params())
	switch {
	case !had.Exists():
	case len(out.Stay) > 0:
		out.Kept = o.Restore && len(params) > 0
	case o.Restore:
		back, others, err := e.params.Undo(params)
		if err == nil {
			out.Left = others
			out.Restored, err = e.params.Write(back)
		}
		if err != nil {
			return out, &ParameterError{Generation: out.Generation, Flushed: true, Err: err}
		}
	default:
		// A parameter that cannot be read is not reported.
		out.Restorable, _, _ = e.params.Undo(params)
	}
	return out, failed
}

// flushed says what a flush of these profiles removes of what was there.
func flushed(had *nft.State, names []string) *Flushed {
	out := &Flushed{Existed: had.Exists()}
	for _, p := range had.Profiles {
		out.There = append(out.There, p.Name)
		if len(names) == 0 || slices.Contains(names, p.Name) {
			out.Removed = append(out.Removed, p.Name)
		} else {
			out.Stay = append(out.Stay, p.Name)
		}
	}
	for _, name := range names {
		if !slices.Contains(out.There, name) && !slices.Contains(out.Missing, name) {
			out.Missing = append(out.Missing, name)
		}
	}
	return out
}

// restorable finds out whether the parameters that a flush would put back can be
// written.
func (e *Engine) restorable(names []string) error {
	state, err := nft.Load(e.conn, e.table)
	if errors.Is(err, nft.ErrLayout) {
		return nil // the flush itself reads what it remembers
	}
	if err != nil {
		return err
	}
	if len(flushed(state, names).Stay) > 0 {
		return nil // the table stays, and the parameters with it
	}
	back, _, err := e.params.Undo(recorded(state.Params()))
	if err == nil {
		err = e.params.Writable(back)
	}
	if err != nil {
		return &Error{Err: err, Hint: "nlb flush without --sysctl leaves kernel parameters alone"}
	}
	return nil
}
