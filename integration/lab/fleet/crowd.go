//go:build linux

package fleet

// The crowd: connections that stay open, and new ones meanwhile.

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"nlb/integration/netlab/traffic"
)

const (
	// answerWithin is how long a connection waits, for its first answer and for any
	// other: it survives one segment that is lost, even if that is the first.
	answerWithin = 2 * time.Second
	pace         = 5 * time.Millisecond // from one new connection to the next
	workers      = 32
	// A limit may refuse connections that come too fast: they are tried again.
	tries, pause = 6, 300 * time.Millisecond
)

// crowd is connections that are open.
type crowd struct {
	site  *site
	conns []*traffic.Conn
	next  int // of the calls
}

// call is the i-th call: of each target in turn, from each of its clients in turn.
func (s *site) call(i int) traffic.Call {
	t := &s.targets[i%len(s.targets)]
	from := t.clients[i/len(s.targets)%len(t.clients)]
	return traffic.Call{
		Client:  traffic.Client{Host: s.clients, Source: from, Timeout: answerWithin, Reset: true},
		Network: "tcp", To: t.to,
	}
}

// fill opens connections until there are n.
func (c *crowd) fill(ctx context.Context, n int) error {
	missing := max(0, n-len(c.conns))
	first := c.next
	c.next += missing
	opened, errs := make([]*traffic.Conn, missing), make([]error, missing)
	each(len(opened), workers, func(i int) {
		call := c.site.call(first + i)
		for try := range tries {
			opened[i], errs[i] = call.Client.Dial(ctx, call.Network, call.To)
			if errs[i] == nil || try == tries-1 || !wait(ctx, pause) {
				return
			}
		}
	})
	for i, conn := range opened {
		if errs[i] == nil {
			c.conns = append(c.conns, conn)
		}
	}
	if err := cmp.Or(errs...); err != nil {
		return fmt.Errorf("open connections: %w", err)
	}
	return nil
}

// speak has every client speak, and returns the servers of the connections that are
// lost; these are closed.
func (c *crowd) speak() (lost []string) {
	gone := make([]bool, len(c.conns))
	each(len(c.conns), len(c.conns)+1, func(i int) {
		_, err := c.conns[i].Again()
		gone[i] = err != nil
	})
	var left []*traffic.Conn
	for i, conn := range c.conns {
		if gone[i] {
			lost = append(lost, conn.Reply.Backend)
			conn.Close()
		} else {
			left = append(left, conn)
		}
	}
	c.conns = left
	return lost
}

// close ends all connections.
func (c *crowd) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// each does f for 0 to n-1, so many at a time.
func each(n, atATime int, f func(i int)) {
	var wait sync.WaitGroup
	turn := make(chan struct{}, atATime)
	for i := range n {
		turn <- struct{}{}
		wait.Go(func() { f(i); <-turn })
	}
	wait.Wait()
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// longestGap is the longest time without a new connection while some were tried.
func longestGap(all []traffic.Attempt) (longest time.Duration) {
	var end time.Time
	for _, f := range all {
		if f.Began.After(end) {
			end = f.Began
		}
	}
	done := []time.Time{end}
	for _, f := range all {
		if at := f.Began.Add(f.Took); f.Err == nil && at.Before(end) {
			done = append(done, at)
		}
	}
	slices.SortFunc(done, time.Time.Compare)
	for i := 1; i < len(done); i++ {
		longest = max(longest, done[i].Sub(done[i-1]))
	}
	return longest
}
