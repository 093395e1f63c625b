//go:build linux

package main

// nlb show --watch: the table again and again, in place at a terminal, with
// what has changed since the last look.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"nlb/nft/wire"
)

// shortest is how often the kernel is asked at most.
const shortest = 100 * time.Millisecond

// watch looks until it is told to end: by q or Ctrl-C at the terminal, by a
// signal, by a terminal that is gone. Elsewhere than at a terminal it prints
// one table below the other, each with the time above it.
func (j *job) watch(ctx context.Context, conn *wire.Conn) error {
	interval := j.duration("interval")
	if interval < shortest {
		return usagef("--interval %s is too short, want at least %s", interval, shortest)
	}
	s, ctx, err := openScreen(ctx, j)
	if err != nil {
		return err
	}
	defer s.close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	w := &watcher{job: j, conn: conn, screen: s, interval: interval}
	for {
		if err := w.look(); s.gone() {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.resized:
			w.draw()
		case <-tick.C:
		}
	}
}

// watcher is one watch.
type watcher struct {
	*job
	conn     *wire.Conn
	screen   *screen
	interval time.Duration

	last *look // nil before the first one
	at   time.Time
	note string // in place of a table
}

// look reads the kernel and prints what it holds. What is named and is not
// there any more may come back.
func (w *watcher) look() error {
	l, err := w.job.look(w.conn)
	if err != nil {
		return err
	}
	at := time.Now()
	w.note = ""
	if err := w.pick(l.shown); err != nil {
		if w.last == nil {
			return err
		}
		w.note = err.Error()
	}
	if w.last != nil {
		paced(l.shown, w.last.shown, at.Sub(w.at))
	}
	w.last, w.at = l, at
	if w.json {
		return errors.Join(w.value(l.shown), w.out.err)
	}
	w.draw()
	return w.out.err
}

// draw prints the last look.
func (w *watcher) draw() {
	var frame bytes.Buffer
	width, height := w.screen.size(w.width)
	c := *w.console
	c.out = &sink{w: &frame, color: w.out.color}
	c.width = width
	j := *w.job
	j.console = &c
	clock := w.at.Format(time.TimeOnly)
	if w.screen.terminal {
		fmt.Fprintf(j.out, "%s\n\n", j.onOut(dim, fmt.Sprintf("%s  every %s, q ends it", clock, w.interval)))
	} else {
		fmt.Fprintf(j.out, "%s\n", clock)
	}
	if w.note != "" {
		fmt.Fprintln(j.out, w.note)
	} else {
		j.seen(w.last)
	}
	if !w.screen.terminal {
		fmt.Fprintln(j.out)
	}
	w.screen.show(w.out, frame.String(), width, height)
}
