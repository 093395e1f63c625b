//go:build linux

package main

// nlb flush: remove profiles, or everything.

import (
	"context"
	"errors"
	"slices"
	"strings"

	"nlb/nft"
	"nlb/nft/wire"
	"nlb/sysctl"
)

// flushedValue is what flush prints as JSON.
type flushedValue struct {
	Table      string           `json:"table"`
	Generation uint32           `json:"generation"`
	Flushed    []string         `json:"flushed"`    // profiles that were removed
	Missing    []string         `json:"missing"`    // profiles that were not there
	Parameters []parameterValue `json:"parameters"` // that were put back
	Ended      int              `json:"ended"`      // flows of removed backends
	Open       int              `json:"open"`       // connections that go on
}

func flush(ctx context.Context, j *job) error {
	for _, name := range j.args {
		if profile, _, ok := strings.Cut(name, "/"); ok {
			err := usagef("%s is a service; flush removes whole profiles", name)
			err.hint = "take it out of the profile and apply that, or nlb flush " + profile
			return err
		}
	}
	conn, err := dial()
	if err != nil {
		return aftermath(err)
	}
	defer conn.Close()
	if j.flag("sysctl") {
		if err := restorable(conn, j); err != nil {
			return failed(err, unchanged, "nlb flush without --sysctl leaves kernel parameters alone")
		}
	}
	if err := ctx.Err(); err != nil {
		return aftermath(err)
	}
	had, result, err := nft.Flush(ctx, conn, j.args, nft.Options{Table: j.table, Cut: j.flag("cut")})
	if err != nil && !committed(err) {
		return aftermath(err)
	}
	value, here, stay := flushedOf(had, j.args)
	value.Generation, value.Ended, value.Open = result.Generation, result.Ended, result.Open
	switch params := recorded(had.Params()); {
	case !had.Exists():
	case len(stay) > 0:
		if j.flag("sysctl") && len(params) > 0 {
			j.remark("kernel parameters stay as they are; still balanced: %s", strings.Join(stay, ", "))
		}
	case j.flag("sysctl"):
		var wrong error
		if value.Parameters, wrong = j.putBack(params); wrong != nil {
			return failed(wrong, "the rules are gone", "")
		}
	default:
		j.leave(params)
	}
	if err != nil {
		return aftermath(err)
	}
	j.flowsEnded(value.Ended)
	if value.Open > 0 {
		j.remark("%s go on, translated by an empty table inet %s; nlb flush removes it once they have ended, nlb flush --cut now",
			count(value.Open, "open connection"), j.table)
	}
	return j.result(value, "%s", flushedLine(value, had.Exists(), here))
}

// flushedOf says what a flush of these profiles, all where there are none,
// removes of what was there, and what stays.
func flushedOf(had *nft.State, names []string) (v flushedValue, here, stay []string) {
	v = flushedValue{Table: had.Table, Flushed: []string{}, Missing: []string{}, Parameters: []parameterValue{}}
	for _, p := range had.Profiles {
		here = append(here, p.Name)
		if len(names) == 0 || slices.Contains(names, p.Name) {
			v.Flushed = append(v.Flushed, p.Name)
		} else {
			stay = append(stay, p.Name)
		}
	}
	for _, name := range names {
		if !slices.Contains(here, name) && !slices.Contains(v.Missing, name) {
			v.Missing = append(v.Missing, name)
		}
	}
	return v, here, stay
}

// flushedLine says what flush did.
func flushedLine(v flushedValue, existed bool, here []string) string {
	var parts []string
	switch {
	case !existed:
		return "nothing to flush (no table inet " + v.Table + ")"
	case len(v.Flushed) > 0:
		parts = append(parts, "flushed "+strings.Join(v.Flushed, ", "))
	case len(v.Missing) == 0:
		parts = append(parts, "flushed table inet "+v.Table)
	default:
		parts = append(parts, "nothing to flush")
	}
	if len(v.Missing) > 0 {
		is := " is"
		if len(v.Missing) > 1 {
			is = " are"
		}
		parts = append(parts, strings.Join(v.Missing, ", ")+is+" not there")
		if len(v.Flushed) == 0 {
			parts[1] += " (there: " + strings.Join(here, ", ") + ")"
		}
	}
	return strings.Join(parts, "; ")
}

// restorable finds out whether the parameters that flush would put back can be
// written.
func restorable(conn *wire.Conn, j *job) error {
	state, err := nft.Load(conn, j.table)
	if errors.Is(err, nft.ErrLayout) {
		return nil // it can be flushed, but remembers nothing that we can read
	}
	if err != nil {
		return aftermath(err)
	}
	for _, p := range state.Profiles {
		if len(j.args) > 0 && !slices.Contains(j.args, p.Name) {
			return nil // the table stays, and the parameters with it
		}
	}
	back, _, err := sysctl.Local.Undo(recorded(state.Params()))
	if err != nil {
		return err
	}
	return sysctl.Local.Writable(back)
}

// putBack gives parameters the values that nlb found.
func (j *job) putBack(made []sysctl.Change) ([]parameterValue, error) {
	back, others, err := sysctl.Local.Undo(made)
	if err != nil {
		return nil, err
	}
	done, err := sysctl.Local.Write(back)
	if out := visible(done); len(out) > 0 {
		j.remark("put back %s", assignments(out, "was"))
	}
	for _, c := range others {
		if !c.Silent() { // else it is as nlb found it
			j.remark("left %s = %s: somebody else set it", c.Name, c.From)
		}
	}
	return visible(done), err
}

// leave says which parameters stay as nlb set them, now that nothing remembers
// how it found them.
func (j *job) leave(made []sysctl.Change) {
	back, _, err := sysctl.Local.Undo(made)
	if err != nil {
		return // it could not be read; there is nothing to say of it
	}
	var names, commands []string
	for _, c := range visible(back) {
		names = append(names, c.Name+"="+c.From)
		commands = append(commands, c.Name+"="+c.To)
	}
	if len(names) > 0 {
		j.remark("left %s; sysctl -w %s puts %s back", strings.Join(names, ", "), strings.Join(commands, " "), them(len(names)))
	}
}
