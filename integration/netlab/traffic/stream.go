//go:build linux

package traffic

// A stream: clients that open connections all the time, whatever becomes of them.

import (
	"context"
	"sync"
	"time"
)

// mostFlying is how many connections of a stream are under way at a time.
const mostFlying = 256

// Attempt is a new connection, and what came of it.
type Attempt struct {
	Began   time.Time
	Took    time.Duration
	Backend string // who answered
	// Err wraps ErrRefused, ErrTimeout and so on; nil: Backend answered.
	Err error
}

// Late reports whether the client had to send its first packet again.
func (a *Attempt) Late() bool { return a.Took >= 900*time.Millisecond }

// Stream opens connections at a pace, and waits for none. While too many are under
// way it opens no more.
type Stream struct {
	mu      sync.Mutex
	done    []Attempt
	waiting int
	wait    sync.WaitGroup
	end     context.CancelFunc
}

// StartStream begins one, of the calls that next gives by their number. Ctx ends
// those that are under way as well.
func StartStream(ctx context.Context, pace time.Duration, next func(i int) Call) *Stream {
	s := &Stream{}
	more, end := context.WithCancel(ctx)
	s.end = end
	s.wait.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-more.Done():
				return
			case <-tick.C:
			}
			if s.room() {
				c := next(i)
				s.wait.Go(func() { s.fly(ctx, &c) })
			}
		}
	})
	return s
}

// room takes a place among those that are under way; false: there is none.
func (s *Stream) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == mostFlying {
		return false
	}
	s.waiting++
	return true
}

func (s *Stream) fly(ctx context.Context, c *Call) {
	a := Attempt{Began: time.Now()}
	reply, err := c.Client.Exchange(ctx, c.Network, c.To)
	a.Took, a.Backend, a.Err = time.Since(a.Began), reply.Backend, err
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	s.done = append(s.done, a)
}

// Stop opens no more, waits for those that are under way, and returns all.
func (s *Stream) Stop() []Attempt {
	s.end()
	s.wait.Wait()
	return s.done
}
