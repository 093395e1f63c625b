//go:build linux

package main

// The screen of a terminal: frames in place of one another, keys, and the way
// back to how it was (ECMA-48; xterm's control sequences for the second screen
// and the cursor).

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the second screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	eraseLine   = "\x1b[K"
	eraseRest   = "\x1b[J"
)

// screen is where frames go.
type screen struct {
	// terminal says that frames replace each other.
	terminal bool
	// resized has a value when the terminal has another size.
	resized chan os.Signal

	out     *sink
	fd      int
	restore func()
	once    sync.Once
	stop    context.CancelFunc
}

// openScreen takes the terminal, if stdout is one. The context ends with the
// other one, and when somebody at the terminal wants it to, or hangs up.
func openScreen(ctx context.Context, j *job) (*screen, context.Context, error) {
	ctx, stop := context.WithCancel(ctx)
	hangup := make(chan os.Signal, 1)
	// For good: it may come when the watch is over, and is no reason to die of.
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		<-hangup
		stop()
	}()
	s := &screen{out: j.out, restore: func() {}, stop: stop, resized: make(chan os.Signal, 1)}
	out, ok := j.out.w.(*os.File)
	if !ok || !j.out.terminal || j.json {
		return s, ctx, nil
	}
	s.terminal, s.fd = true, int(out.Fd())
	signal.Notify(s.resized, syscall.SIGWINCH)
	if in, ok := j.in.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			stop()
			return nil, nil, fmt.Errorf("take the terminal: %w", err)
		}
		s.restore = func() { _ = term.Restore(int(in.Fd()), before) }
		go func() {
			defer stop()
			awaitEnd(in)
		}()
	}
	fmt.Fprint(s.out, enterScreen)
	return s, ctx, nil
}

// awaitEnd returns when a key says so, or when the terminal is gone.
func awaitEnd(keys io.Reader) {
	const ctrlC, ctrlD = 3, 4
	b := make([]byte, 16)
	for {
		n, err := keys.Read(b)
		for _, key := range b[:n] {
			switch key {
			case 'q', 'Q', ctrlC, ctrlD:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// close gives the terminal back.
func (s *screen) close() {
	s.once.Do(func() {
		s.stop()
		signal.Stop(s.resized)
		if s.terminal {
			fmt.Fprint(s.out, leaveScreen)
			s.gone()
		}
		s.restore()
	})
}

// gone reports whether the terminal is: nobody reads what is written to it, so
// that is no error.
func (s *screen) gone() bool {
	if s.terminal && errors.Is(s.out.err, unix.EIO) {
		s.out.err = nil
		return true
	}
	return false
}

// size is what the terminal has of columns and lines; elsewhere there is no
// end of lines.
func (s *screen) size(width int) (columns, lines int) {
	if s.terminal {
		if w, h, err := term.GetSize(s.fd); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return width, 0
}

// show puts a frame in the place of the last one; what does not fit is left
// out, and the last line says so.
func (s *screen) show(out io.Writer, frame string, width, height int) {
	if !s.terminal {
		_, _ = io.WriteString(out, frame)
		return
	}
	lines := strings.Split(strings.TrimSuffix(frame, "\n"), "\n")
	if n := len(lines); height > 1 && n > height {
		lines = append(lines[:height-1], fmt.Sprintf("... %d more lines", n-height+1))
	}
	var b strings.Builder
	b.WriteString(toTop)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(clip(line, width) + eraseLine)
	}
	b.WriteString(eraseRest)
	_, _ = io.WriteString(out, b.String())
}

// clip cuts a line to a number of columns; colors take none, and end.
func clip(line string, width int) string {
	columns := 0
	for i := 0; i < len(line); {
		if strings.HasPrefix(line[i:], "\x1b[") {
			end := strings.IndexByte(line[i:], 'm')
			if end < 0 {
				return line[:i]
			}
			i += end + 1
			continue
		}
		if columns == width {
			if strings.Contains(line[:i], "\x1b[") {
				return line[:i] + "\x1b[0m"
			}
			return line[:i]
		}
		columns++
		_, size := utf8.DecodeRuneInString(line[i:])
		i += size
	}
	return line
}
