//go:build linux

package fleet

// Watch: reports again and again, in place at a terminal.

import (
	"bytes"
	"context"
	"time"

	"nlb/cmd/nlb/internal/view"
)

// Show prints how the fleet is, once or until ctx ends, and reports whether all was
// well at the end.
func Show(ctx context.Context, c *view.Console, s *Store, watch bool) (ok bool, err error) {
	if !watch {
		k, err := s.Known(ctx)
		if err != nil {
			return false, err
		}
		r := k.Report()
		if c.JSON {
			return r.OK, c.Value(r)
		}
		r.Print(c, time.Now())
		return r.OK, nil
	}
	screen, ctx, err := view.OpenScreen(ctx, c)
	if err != nil {
		return false, err
	}
	defer screen.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		k, err := s.Known(ctx)
		if ctx.Err() != nil {
			return true, nil
		}
		var b bytes.Buffer
		frame := screen.Frame(c, &b)
		switch {
		case err != nil:
			frame.Out.Write([]byte(Said(err) + "\n"))
		case c.JSON:
			_ = frame.Value(k.Report()) // the stream remembers an error
		default:
			k.Report().Print(frame, time.Now())
			if !screen.Terminal {
				frame.Out.Write([]byte("\n"))
			}
		}
		screen.Show(b.String())
		if c.Out.Failed != nil {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return true, nil
		case <-screen.Resized:
		case <-tick.C:
		}
	}
}
