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
	had, result, err := nft.Flush(ctx, conn, j.args, nft.Options{Table: j.table})
	if err != nil {
		return aftermath(err)
	}
	value := flushedValue{Table: j.table, Generation: result.Generation, Flushed: []string{}, Missing: []string{}, Parameters: []parameterValue{}}
	var stay, here []string
	for _, p := range had.Profiles {
		here = append(here, p.Name)
		if len(j.args) == 0 || slices.Contains(j.args, p.Name) {
			value.Flushed = append(value.Flushed, p.Name)
		} else {
			stay = append(stay, p.Name)
		}
	}
	for _, name := range j.args {
		if !slices.Contains(here, name) && !slices.Contains(value.Missing, name) {
			value.Missing = append(value.Missing, name)
		}
	}
	switch params := recorded(had.Params()); {
	case !had.Exists():
	case len(stay) > 0:
		if j.flag("sysctl") && len(params) > 0 {
			j.remark("kernel parameters stay as they are: %s is still balanced", strings.Join(stay, ", "))
		}
	case j.flag("sysctl"):
		if value.Parameters, err = j.putBack(params); err != nil {
			return failed(err, "the rules are gone", "")
		}
	default:
		j.leave(params)
	}
	return j.result(value, "%s", flushedLine(j.table, had.Exists(), value, here))
}

// flushedLine says what flush did.
func flushedLine(table string, existed bool, v flushedValue, here []string) string {
	var parts []string
	switch {
	case !existed:
		return "nothing to flush (no table inet " + table + ")"
	case len(v.Flushed) > 0:
		parts = append(parts, "flushed "+strings.Join(v.Flushed, ", "))
	case len(v.Missing) == 0:
		parts = append(parts, "flushed table inet "+table)
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
	for _, c := range visible(done) {
		j.remark("put back %s = %s (was %s)", c.Name, c.To, c.From)
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
	for _, c := range visible(back) {
		j.remark("%s stays %s; sysctl -w %s=%s puts it back", c.Name, c.From, c.Name, c.To)
	}
}
