//go:build linux

package traffic

// A load: new TCP connections at a steady rate, however many are under way. Whoever
// waits takes no thread.

import (
	"bufio"
	"cmp"
	"context"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

// Load says what connections are made.
type Load struct {
	From *netlab.Host
	To   netip.AddrPort
	// Rate is how many begin in a second.
	Rate int
	// Timeout bounds each: connecting and the answer. 0: DefaultTimeout.
	Timeout time.Duration
	// HTTP has the client ask for /; without it the server speaks first.
	HTTP bool
}

// Loading is a load that goes on.
type Loading struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	err    error

	mu   sync.Mutex
	done []Attempt
}

// Start begins it. It ends with ctx at the latest.
func (s Load) Start(ctx context.Context) *Loading {
	ctx, cancel := context.WithCancel(ctx)
	f := &Loading{cancel: cancel}
	f.wait.Go(func() { f.err = s.From.Do(func() error { return s.run(ctx, f) }) })
	return f
}

// Stop makes no more connections, waits for the end of those under way, and returns
// all, in no order. An error says that one could not be made at all.
func (f *Loading) Stop() ([]Attempt, error) {
	f.cancel()
	f.wait.Wait()
	return f.done, f.err
}

// run makes connections on this thread, at their moments.
func (s Load) run(ctx context.Context, f *Loading) error {
	s.Timeout = cmp.Or(s.Timeout, DefaultTimeout)
	for began, i := time.Now(), 0; ctx.Err() == nil; i++ {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(s.Rate))))
		a := Attempt{Began: time.Now()}
		c, err := s.connect()
		if err != nil {
			return err
		}
		f.wait.Go(func() {
			defer c.Close()
			a.Backend, a.Err = s.hear(c, a.Began)
			a.Took = time.Since(a.Began)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.done = append(f.done, a)
		})
	}
	return nil
}

// connect is a socket that connects. It belongs to the thread's host for good, and
// whoever waits for it needs no thread.
func (s Load) connect() (*os.File, error) {
	f, err := socket(s.To, 0)
	if err != nil {
		return nil, err
	}
	// Its end is a reset, so that no end waits in TIME_WAIT.
	err = unix.SetsockoptLinger(int(f.Fd()), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.Connect(int(f.Fd()), sockaddr(s.To))
	}
	if err != nil && err != unix.EINPROGRESS {
		f.Close()
		return nil, os.NewSyscallError("connect", err)
	}
	return f, nil
}

// hear is who answers.
func (s Load) hear(c *os.File, began time.Time) (backend string, err error) {
	if err := c.SetDeadline(began.Add(s.Timeout)); err != nil {
		return "", err
	}
	if s.HTTP {
		if _, err := c.WriteString("GET / HTTP/1.1\r\nHost: service\r\n\r\n"); err != nil {
			return "", classify(err)
		}
	}
	r := bufio.NewReader(c)
	for body := !s.HTTP; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", classify(err)
		}
		if f := strings.Fields(line); body && len(f) > 0 {
			return f[0], nil
		}
		body = body || line == "\r\n"
	}
}
