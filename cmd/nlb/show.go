//go:build linux

package main

// nlb show: what is in the kernel now; and again and again with --watch, in
// place at a terminal, with what has changed since the last snapshot.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
	"nlb/nft"
)

func show(ctx context.Context, j *job) error {
	if j.given("interval") && !j.flag("watch") {
		return usagef("--interval is for --watch")
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
		err = j.selectIn(snapshot)
	}
	if err != nil {
		return err
	}
	if unknown != nil {
		j.Errorf("live connections are not known: %v", unknown)
	}
	if j.JSON {
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
	return view.NewSnapshot(state, usage), unknown, nil
}

// maxThere is how many names an error lists.
const maxThere = 10

// selectIn leaves only what the argument names, if there is one.
func (j *job) selectIn(v *view.Snapshot) error {
	if len(j.args) == 0 {
		return nil
	}
	err := v.Select(j.args[0])
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

// watch takes snapshots until it is told to end: by q or Ctrl-C at the terminal,
// by a signal, by a terminal that is gone. Elsewhere than at a terminal it
// prints one table below the other, each with the time above it.
func (j *job) watch(ctx context.Context, e *engine.Engine) error {
	interval := j.duration("interval")
	if interval < minInterval {
		return usagef("--interval %s is too short, want at least %s", interval, minInterval)
	}
	j.setBegun(true) // a signal is how it ends, and no failure
	s, ctx, err := view.OpenScreen(ctx, j.Console)
	if err != nil {
		return err
	}
	defer s.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	w := &watcher{job: j, engine: e, screen: s, interval: interval}
	for {
		if err := w.next(); s.Gone() {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.Resized:
			w.draw()
		case <-tick.C:
		}
	}
}

// watcher is one watch.
type watcher struct {
	*job
	engine   *engine.Engine
	screen   *view.Screen
	interval time.Duration

	last *view.Snapshot // nil before the first one
	at   time.Time
	note string // in place of a table
}

// next takes a snapshot and prints it. What is named and is not there any more
// may come back.
func (w *watcher) next() error {
	snapshot, _, err := takeSnapshot(w.engine)
	if err != nil {
		return err
	}
	at := time.Now()
	w.note = ""
	if err := w.selectIn(snapshot); err != nil {
		if w.last == nil {
			return err
		}
		w.note = err.Error()
	}
	if w.last != nil {
		snapshot.Since(w.last, at.Sub(w.at))
	}
	w.last, w.at = snapshot, at
	if w.JSON {
		return errors.Join(w.Value(snapshot), w.Out.Failed)
	}
	w.draw()
	return w.Out.Failed
}

// draw prints the last snapshot.
func (w *watcher) draw() {
	var frame bytes.Buffer
	c := w.screen.Frame(w.Console, &frame)
	clock := w.at.Format(time.TimeOnly)
	if w.screen.Terminal {
		fmt.Fprintf(c.Out, "%s\n\n", c.Out.Paint(text.Dim, fmt.Sprintf("%s  every %s, q ends it", clock, w.interval)))
	} else {
		fmt.Fprintf(c.Out, "%s\n", clock)
	}
	if w.note != "" {
		fmt.Fprintln(c.Out, w.note)
	} else {
		c.PrintSnapshot(w.last)
	}
	if !w.screen.Terminal {
		fmt.Fprintln(c.Out)
	}
	w.screen.Show(frame.String())
}

// running are the names of the profiles in the kernel, with their services where
// they are wanted, for completion. Who may not look gets none.
func running(table string, services bool) []string {
	e, err := engine.Open(table)
	if err != nil {
		return nil
	}
	defer e.Close()
	state, err := e.State()
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range state.Profiles {
		out = append(out, p.Name)
		for i := range p.Services {
			if services {
				out = append(out, p.Name+"/"+p.Services[i].Name)
			}
		}
	}
	return out
}
