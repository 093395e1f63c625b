//go:build linux

package traffic

// Many exchanges, and what came of them.

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"nlb/integration/netlab"
)

// Tally counts exchanges.
type Tally struct {
	// Backends are the exchanges that each backend answered.
	Backends map[string]int
	// Sources are the answered exchanges by the source that the backend saw.
	Sources map[netip.Addr]int
	// Failures are the others, by the way in which they failed; see Way.
	Failures map[string]int
	// Err is one of the failures; nil: there was none.
	Err error
}

// Call is an exchange to make, and what came of it.
type Call struct {
	Client  Client
	Network string
	To      netip.AddrPort
	// Reply and Err are set by Run; Err is ErrNotMade where it was not made.
	Reply Reply
	Err   error
}

// Run makes calls, all from one host, at most so many at a time as there are
// workers; one worker makes them in order. When ctx ends it returns its error,
// and the calls that were not made by then say so.
func Run(ctx context.Context, h *netlab.Host, calls []Call, workers int) error {
	for i := range calls {
		calls[i].Err = ErrNotMade
	}
	var (
		next   atomic.Int64
		wait   sync.WaitGroup
		errs   = make([]error, min(workers, len(calls)))
		worker = func() error { // on one thread of the host
			for {
				i := int(next.Add(1)) - 1
				if i >= len(calls) {
					return nil
				}
				c := &calls[i]
				conn, err := c.Client.dial(ctx, c.Network, c.To)
				switch {
				case err == nil:
					c.Reply, c.Err = conn.Reply, conn.Close()
				case ctx.Err() != nil:
					return ctx.Err()
				default:
					c.Err = err
				}
			}
		}
	)
	for i := range errs {
		wait.Go(func() { errs[i] = h.Do(worker) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// Many makes n exchanges, at most so many of them at a time as there are
// workers. When ctx ends it returns what has been counted until then, and Err
// is that of ctx.
func (c Client) Many(ctx context.Context, network string, to netip.AddrPort, n, workers int) *Tally {
	calls := make([]Call, n)
	for i := range calls {
		calls[i] = Call{Client: c, Network: network, To: to}
	}
	err := Run(ctx, c.Host, calls, workers)
	t := &Tally{Backends: map[string]int{}, Sources: map[netip.Addr]int{}, Failures: map[string]int{}}
	for i := range calls {
		switch c := &calls[i]; {
		case errors.Is(c.Err, ErrNotMade):
		case c.Err != nil:
			t.Failures[Way(c.Err)]++
			t.Err = cmp.Or(t.Err, c.Err)
		default:
			t.Backends[c.Reply.Backend]++
			t.Sources[c.Reply.Seen.Addr()]++
		}
	}
	if err != nil {
		t.Err = err
	}
	return t
}
