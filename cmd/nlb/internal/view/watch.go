//go:build linux

package view

// Watch: snapshots again and again, in place at a terminal, with what has changed
// since the last one.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"nlb/cmd/nlb/internal/text"
)

// Watch takes snapshots until it is told to end: by q or Ctrl-C at the terminal,
// by ctx, by a terminal that is gone. Elsewhere than at a terminal it
// prints one table below the other, each with the time above it. take also returns
// why what is asked for is not in the snapshot: that is an error at first; later
// it may come back.
func Watch(ctx context.Context, c *Console, interval time.Duration, take func() (s *Snapshot, missing, err error)) error {
	s, ctx, err := OpenScreen(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	w := &watcher{Console: c, take: take, screen: s, interval: interval}
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
	*Console
	take     func() (s *Snapshot, missing, err error)
	screen   *Screen
	interval time.Duration

	last *Snapshot // nil before the first one
	at   time.Time
	note string // in place of a table
}

// next takes a snapshot and prints it.
func (w *watcher) next() error {
	snapshot, missing, err := w.take()
	if err != nil {
		return err
	}
	at := time.Now()
	w.note = ""
	if missing != nil {
		if w.last == nil {
			return missing
		}
		w.note = missing.Error()
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
