package scenario

// Sessions: programs that run on a host while other things happen.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"nlb/integration/demand"
)

// session is a program that runs until its stdin ends, which it does at the
// latest with the process of the test. What it prints goes to a file on its
// host, and is read from there.
type session struct {
	host  Host
	stdin *os.File // a pipe, so that the program itself sees its end
	file  string
	over  chan struct{}
	err   error // once it is over
}

var sessions atomic.Int64

func start(ctx context.Context, h Host, script string) *session {
	r, w, err := os.Pipe()
	demand.OK(err)
	file := fmt.Sprintf("/tmp/nlb-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), sessions.Add(1))
	s := &session{host: h, stdin: w, file: file, over: make(chan struct{})}
	go func() {
		defer close(s.over)
		defer r.Close()
		result, err := h.Run(ctx, r, fmt.Sprintf("%s >%s 2>&1; code=$?; cat %[2]s; rm -f %[2]s; exit $code", script, file))
		if err == nil && result.Exit != 0 {
			err = fmt.Errorf("%s ended with %d: %s", script, result.Exit, result.Stdout)
		}
		s.err = err
	}()
	return s
}

// lines waits until the program has printed n lines.
func (s *session) lines(ctx context.Context, n int) []string {
	limit := time.Now().Add(30 * time.Second)
	for {
		select {
		case <-s.over:
			demand.OK(errors.Join(errors.New("it is over"), s.err))
		default:
		}
		lines := slices.Collect(strings.Lines(demand.Of(s.host.Run(ctx, nil, "cat "+s.file)).Stdout))
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		if len(lines) >= n {
			return lines
		}
		if time.Now().After(limit) {
			demand.Fail("it printed %q in 30 s, want %d lines", lines, n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *session) end() {
	s.stdin.Close()
	<-s.over
}

// held is a connection of the client's that stays open.
type held struct {
	*session
	said int
}

func (s *Stage) hold(ctx context.Context, network, to string) *held {
	return &held{session: start(ctx, s.lab.Client, s.lab.Peer+" hold "+network+" '"+to+"'")}
}

// say makes one exchange on the connection.
func (h *held) say(ctx context.Context) string {
	demand.Of(h.stdin.WriteString("hello\n"))
	h.said++
	return h.lines(ctx, h.said)[h.said-1]
}

// from demands that the next answer is one backend's.
func (h *held) from(ctx context.Context, backend string) {
	line := h.say(ctx)
	if name, _ := split(line); name != backend {
		demand.Fail("the connection got %q, want an answer of %s", line, backend)
	}
}
