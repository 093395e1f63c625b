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

// Flight is one connection of a stream.
type Flight struct {
	Began time.Time
	Took  time.Duration
	Err   error
}

// Stream opens connections at a pace, and waits for none. While too many are under
// way it opens no more.
type Stream struct {
	mu      sync.Mutex
	flights []Flight
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
	f := Flight{Began: time.Now()}
	_, f.Err = c.Client.Exchange(ctx, c.Network, c.To)
	f.Took = time.Since(f.Began)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	s.flights = append(s.flights, f)
}

// Stop opens no more, waits for those that are under way, and returns all.
func (s *Stream) Stop() []Flight {
	s.end()
	s.wait.Wait()
	return s.flights
}
