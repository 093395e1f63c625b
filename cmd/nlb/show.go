//go:build linux

package main

// nlb show: what is balanced now; and again and again with --watch.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/metrics"
	"nlb/cmd/nlb/internal/view"
)

func show(ctx context.Context, j *job) error {
	if j.given("interval") && !j.flag("watch") {
		return usagef("--interval is for --watch")
	}
	if j.flag("prometheus") && (j.flag("watch") || j.JSON) {
		return usagef("--prometheus is a format of its own, for one look")
	}
	l := agent.NewLooker(j.socket(), j.table)
	defer l.Close()
	if j.flag("watch") {
		return j.watch(ctx, l)
	}
	snapshot, unknown, err := l.Snapshot(ctx)
	if err == nil {
		err = j.selectIn(ctx, snapshot)
	}
	if err != nil {
		return err
	}
	if unknown != nil {
		j.Errorf("live connections are not known: %v", unknown)
	}
	switch {
	case j.flag("prometheus"):
		return metrics.Write(j.Out, metrics.Prometheus, snapshot, nil, metrics.Filter{})
	case j.JSON:
		return j.Value(snapshot)
	}
	j.PrintSnapshot(snapshot)
	return nil
}

// maxThere is how many names an error lists.
const maxThere = 10

// selectIn leaves only what the argument names, if there is one. Of one backend, an
// agent is asked what it knows.
func (j *job) selectIn(ctx context.Context, v *view.Snapshot) error {
	if len(j.args) == 0 {
		return nil
	}
	err := v.Select(j.args[0])
	if v.Single() {
		v.Know(agent.KnownOf(ctx, j.socket(), j.table, j.args[0]))
	}
	missing, ok := errors.AsType[*view.MissingError](err)
	if !ok {
		return err
	}
	there := missing.There
	switch best := near(missing.Name, there); {
	case best != "":
		return withHint(err, "did you mean "+best+"?")
	case len(there) == 0:
		return withHint(err, "nothing is balanced here")
	case len(there) > maxThere:
		return withHint(err, fmt.Sprintf("there: %s and %d more", strings.Join(there[:maxThere], ", "), len(there)-maxThere))
	}
	return withHint(err, "there: "+strings.Join(there, ", "))
}

// minInterval bounds how often is looked.
const minInterval = 100 * time.Millisecond

// watch shows snapshots until it is told to end.
func (j *job) watch(ctx context.Context, l *agent.Looker) error {
	interval := j.duration("interval")
	if interval < minInterval {
		return usagef("--interval %s is too short, want at least %s", interval, minInterval)
	}
	j.setBegun(true) // a signal is how it ends, and no failure
	return view.Watch(ctx, j.Console, interval, view.Source{Wait: l.Wait, Take: func(ctx context.Context) (*view.Snapshot, error, error) {
		snapshot, _, err := l.Snapshot(ctx)
		if err != nil {
			return nil, nil, err
		}
		return snapshot, j.selectIn(ctx, snapshot), nil
	}})
}

// running are the names of what the kernel holds, for completion. Who may not look
// gets none.
func running(table string, depth view.Depth) []string {
	e, err := engine.Open(table)
	if err != nil {
		return nil
	}
	defer e.Close()
	state, err := e.State()
	if err != nil {
		return nil
	}
	return view.Paths(state.Profiles, depth)
}
