//go:build linux

package main

// nlb show: what is in the kernel now; and again and again with --watch.

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
	"nlb/lb"
	"nlb/nft"
)

func show(ctx context.Context, j *job) error {
	if j.given("interval") && !j.flag("watch") {
		return usagef("--interval is for --watch")
	}
	if j.flag("prometheus") && (j.flag("watch") || j.JSON) {
		return usagef("--prometheus is a format of its own, for one look")
	}
	e, err := engine.Open(j.table)
	if err != nil {
		return err
	}
	defer e.Close()
	if j.flag("watch") {
		return j.watch(ctx, e)
	}
	snapshot, unknown, err := takeSnapshot(e)
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

// takeSnapshot reads what is in the kernel; unknown is why live connections are
// not known.
func takeSnapshot(e *engine.Engine) (snapshot *view.Snapshot, unknown, err error) {
	state, err := e.State()
	if err != nil {
		return nil, nil, err
	}
	var usage nft.Usage
	if len(state.Profiles) > 0 { // else there is nothing to count
		usage, unknown = e.Usage(state)
	}
	should := e.Offloading(state.Profiles, state.Offload())
	return view.NewSnapshot(state, usage, func(s *lb.Service) view.Offloaded {
		by, note := should.Of(s, state.Offload())
		return view.Offloaded{By: by, Note: note}
	}), unknown, nil
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

// minInterval bounds how often the kernel is asked.
const minInterval = 100 * time.Millisecond

// watch shows snapshots until it is told to end.
func (j *job) watch(ctx context.Context, e *engine.Engine) error {
	interval := j.duration("interval")
	if interval < minInterval {
		return usagef("--interval %s is too short, want at least %s", interval, minInterval)
	}
	j.setBegun(true) // a signal is how it ends, and no failure
	return view.Watch(ctx, j.Console, interval, func() (*view.Snapshot, error, error) {
		snapshot, _, err := takeSnapshot(e)
		if err != nil {
			return nil, nil, err
		}
		return snapshot, j.selectIn(ctx, snapshot), nil
	})
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
