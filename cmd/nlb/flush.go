//go:build linux

package main

// nlb flush: remove profiles, or everything.

import (
	"context"
	"strings"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
)

// flushedValue is what flush prints as JSON.
type flushedValue struct {
	Table      string           `json:"table"`
	Generation uint32           `json:"generation"`
	Flushed    []string         `json:"flushed"`    // profiles that were removed
	Missing    []string         `json:"missing"`    // profiles that were not there
	Parameters []view.Parameter `json:"parameters"` // that were put back
	Ended      int              `json:"ended"`      // flows of removed backends
	Open       int              `json:"open"`       // connections that go on
	Withdrawn  []string         `json:"withdrawn"`  // addresses that were announced
}

func flush(ctx context.Context, j *job) error {
	for _, name := range j.args {
		if profile, _, ok := strings.Cut(name, "/"); ok {
			err := usagef("%s is a service; flush removes whole profiles", name)
			err.hint = "take it out of the profile and apply that, or nlb flush " + profile
			return err
		}
	}
	if err := agent.MayFlush(ctx, j.socket(), j.table, j.args, j.Notef); err != nil {
		return withOutcome(err, unchanged)
	}
	e, err := engine.Open(j.table)
	if err != nil {
		return withOutcome(err, unchanged)
	}
	defer e.Close()
	result, err := e.Flush(ctx, j.args, engine.FlushOptions{Restore: j.flag("sysctl"), Cut: j.flag("cut"), Begin: j.begin})
	if result != nil {
		j.noteRestored(result)
	}
	if err != nil {
		return err
	}
	j.NoteEnded(result.Ended)
	if result.Open > 0 {
		j.Notef("left %s open: table inet %s stays, without services, until nlb flush finds none open; nlb flush --cut ends them", text.Count(result.Open, "connection"), j.table)
	}
	value := flushedValue{
		Table: j.table, Generation: result.Generation, Flushed: append([]string{}, result.Removed...),
		Missing: append([]string{}, result.Missing...), Parameters: view.Parameters(result.Restored), Ended: result.Ended, Open: result.Open, Withdrawn: []string{},
	}
	for _, a := range result.Withdrawn {
		value.Withdrawn = append(value.Withdrawn, a.Addr.String())
		j.Notef("%s is not announced any more", a)
	}
	return j.Result(value, "%s", flushedLine(result, j.table))
}

// noteRestored says what became of the kernel parameters.
func (j *job) noteRestored(r *engine.Flushed) {
	if r.Kept {
		j.Notef("kernel parameters stay as they are; still balanced: %s", strings.Join(r.Stay, ", "))
	}
	if done := view.Parameters(r.Restored); len(done) > 0 {
		j.Notef("put back %s", view.Assignments(done, "was"))
	}
	for _, p := range view.Parameters(r.Left) { // the others are as nlb found them
		j.Notef("left %s = %s: somebody else set it", p.Name, p.From)
	}
	var stay, commands []string
	for _, p := range view.Parameters(r.Restorable) {
		stay, commands = append(stay, p.Name+"="+p.From), append(commands, p.Name+"="+p.To)
	}
	if len(stay) > 0 {
		j.Notef("left %s; sysctl -w %s puts %s back", strings.Join(stay, ", "), strings.Join(commands, " "), view.Them(len(stay)))
	}
}

// flushedLine says what flush did.
func flushedLine(r *engine.Flushed, table string) string {
	var parts []string
	switch {
	case !r.Existed:
		return "nothing to flush (no table inet " + table + ")"
	case len(r.Removed) > 0:
		parts = append(parts, "flushed "+strings.Join(r.Removed, ", "))
	case len(r.Missing) == 0:
		parts = append(parts, "flushed table inet "+table)
	default:
		parts = append(parts, "nothing to flush")
	}
	if len(r.Missing) > 0 {
		is := " is"
		if len(r.Missing) > 1 {
			is = " are"
		}
		parts = append(parts, strings.Join(r.Missing, ", ")+is+" not there")
		if len(r.Removed) == 0 {
			parts[1] += " (there: " + strings.Join(r.There, ", ") + ")"
		}
	}
	return strings.Join(parts, "; ")
}
