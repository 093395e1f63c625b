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

// Source is where a watch has its snapshots from.
type Source struct {
	// Take takes one. It also returns why what is asked for is not in it: that is an
	// error at first; later it may come back.
	Take func(ctx context.Context) (s *Snapshot, missing, err error)
	// Wait returns after a time, or earlier where there is news.
	Wait func(ctx context.Context, d time.Duration)
}

// leastWait bounds how often a watch looks, whatever the news.
const leastWait = 100 * time.Millisecond

// Watch shows snapshots until it is told to end: by q or Ctrl-C at the terminal,
// by ctx, by a terminal that is gone. It takes one each interval, and when there is
// news. Elsewhere than at a terminal it prints those in which something has changed, one
// below the other, each with the time above it.
func Watch(ctx context.Context, c *Console, interval time.Duration, from Source) error {
	s, ctx, err := OpenScreen(ctx, c)
	if err != nil {
		return err
	}
	w := &watcher{Console: c, screen: s, interval: interval}
	looks := make(chan look)
	go from.looks(ctx, interval, looks)
	defer func() {
		s.Close()
		for range looks { // until nobody uses the source any more
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.Resized:
			if w.last != nil {
				w.draw()
			}
		case l := <-looks:
			if err := w.show(l); s.Gone() || ctx.Err() != nil {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

// look is what was seen at a moment.
type look struct {
	at           time.Time
	snapshot     *Snapshot
	missing, err error
}

// looks sends what is seen, until ctx ends.
func (f Source) looks(ctx context.Context, interval time.Duration, to chan<- look) {
	defer close(to)
	for {
		var l look
		l.snapshot, l.missing, l.err = f.Take(ctx)
		l.at = time.Now()
		select {
		case to <- l:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(leastWait):
		case <-ctx.Done():
			return
		}
		f.Wait(ctx, interval-leastWait)
	}
}

// watcher is one watch.
type watcher struct {
	*Console
	screen   *Screen
	interval time.Duration

	last *Snapshot // nil before the first one
	at   time.Time
	note string // in place of a table
	had  []byte // what was shown, to tell whether it has changed
}

// show prints a look.
func (w *watcher) show(l look) error {
	if l.err != nil {
		return l.err
	}
	w.note = ""
	if l.missing != nil {
		if w.last == nil {
			return l.missing
		}
		w.note = l.missing.Error()
	}
	if w.last != nil {
		l.snapshot.Since(w.last, l.at.Sub(w.at))
	}
	w.last, w.at = l.snapshot, l.at
	if changed, err := w.changed(); err != nil || !changed {
		return err
	}
	if w.JSON {
		return errors.Join(w.Value(l.snapshot), w.Out.Failed)
	}
	w.draw()
	return w.Out.Failed
}

// changed reports whether there is something to show: a terminal has a clock, and rates
// that become zero; elsewhere it takes more than that.
func (w *watcher) changed() (bool, error) {
	if w.screen.Terminal {
		return true, nil
	}
	now := *w.last
	now.Generation = 0 // others have changed rules of theirs
	b, err := now.MarshalBinary()
	b = append(b, w.note...)
	changed := !bytes.Equal(b, w.had)
	w.had = b
	return changed, err
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
