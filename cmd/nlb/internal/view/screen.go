//go:build linux

package view

// The screen of a terminal: frames in place of one another, keys, and the way
// back to how it was (ECMA-48; xterm's control sequences for the second screen
// and the cursor).

import (
	"bytes"
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

// Screen is where frames go.
type Screen struct {
	// Terminal says that frames replace each other.
	Terminal bool
	// Resized has a value when the terminal has another size.
	Resized chan os.Signal

	out     *Stream
	fd      int
	width   int // where there is no terminal to ask
	restore func()
	once    sync.Once
	stop    context.CancelFunc
}

// OpenScreen takes the terminal, if stdout is one and people read it. The context
// ends with the other one, and when somebody at the terminal wants it to, or
// hangs up.
func OpenScreen(ctx context.Context, c *Console) (*Screen, context.Context, error) {
	ctx, stop := context.WithCancel(ctx)
	hangup := make(chan os.Signal, 1)
	// For good: it may come when the watch is over, and is no reason to die of.
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		<-hangup
		stop()
	}()
	s := &Screen{out: c.Out, width: c.Width, restore: func() {}, stop: stop, Resized: make(chan os.Signal, 1)}
	out, ok := c.Out.W.(*os.File)
	if !ok || !c.Out.Terminal || c.JSON {
		if ok {
			go endWithReader(ctx, int(out.Fd()), stop)
		}
		return s, ctx, nil
	}
	s.Terminal, s.fd = true, int(out.Fd())
	signal.Notify(s.Resized, syscall.SIGWINCH)
	if in, ok := c.In.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
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

// endWithReader stops once nobody reads what is written to a pipe or socket.
func endWithReader(ctx context.Context, fd int, stop func()) {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 500) // POLLERR comes unasked
		if n > 0 {
			stop()
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// awaitEnd returns when a key says so, or when the terminal is gone.
func awaitEnd(keys io.Reader) {
	const ending = "qQ\x03\x04" // and Ctrl-C, Ctrl-D
	b := make([]byte, 16)
	for {
		n, err := keys.Read(b)
		if err != nil || bytes.ContainsAny(b[:n], ending) {
			return
		}
	}
}

// Close gives the terminal back.
func (s *Screen) Close() {
	s.once.Do(func() {
		s.stop()
		signal.Stop(s.Resized)
		if s.Terminal {
			fmt.Fprint(s.out, leaveScreen)
			s.Gone()
		}
		s.restore()
	})
}

// Gone reports whether the terminal is gone: nobody reads what is written to it,
// so that is no error.
func (s *Screen) Gone() bool {
	if s.Terminal && errors.Is(s.out.Failed, unix.EIO) {
		s.out.Failed = nil
		return true
	}
	return false
}

// Frame is a console that prints a frame into b, of the terminal's width now.
func (s *Screen) Frame(c *Console, b *bytes.Buffer) *Console {
	frame := *c
	frame.Out = &Stream{W: b, Painter: c.Out.Painter}
	frame.Width, _ = s.size()
	return &frame
}

// size is what the terminal has of columns and lines; elsewhere there is no
// end of lines.
func (s *Screen) size() (columns, lines int) {
	if s.Terminal {
		if w, h, err := term.GetSize(s.fd); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return s.width, 0
}

// Show puts a frame in the place of the last one; what does not fit is left
// out, and the last line says so.
func (s *Screen) Show(frame string) {
	if !s.Terminal {
		_, _ = io.WriteString(s.out, frame)
		return
	}
	width, height := s.size()
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
	_, _ = io.WriteString(s.out, b.String())
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
