//go:build linux

package main

// nlb show --watch at a terminal: a pseudo-terminal whose other end is the
// test.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

// What a screen is made of (see package view).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	eraseLine   = "\x1b[K"
	eraseRest   = "\x1b[J"
)

// terminal is a pseudo-terminal (pty(7)) with a program on it.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	before unix.Termios
	cmd    *exec.Cmd
	done   chan error

	mu      sync.Mutex
	output  bytes.Buffer
	awaited int // the number of the frame
}

const testProfile = `profile: shop
services:
  - name: web
    listen: 203.0.113.10:80
    protocol: udp
    snat: none
    backends: [10.0.0.11:8080, {address: "10.0.0.12:8080", name: second}]
`

// watchAt runs nlb show --watch on a terminal of a host with a profile.
func watchAt(t *testing.T, columns, lines uint16, args ...string) (*terminal, *netlab.Host) {
	t.Helper()
	h := netlabtest.NewHost(t, netlabtest.NewWorld(t), "balancer")
	netlabtest.Must(t, h.AddLocal(netip.MustParsePrefix("203.0.113.0/24")), h.AddLocal(netip.MustParsePrefix("10.0.0.0/24")))
	apply := nlbOn(h, "apply", "-")
	apply.Stdin = strings.NewReader(testProfile)
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := &terminal{t: t, done: make(chan error, 1)}
	p.open(columns, lines)
	c := nlbOn(h, append([]string{"show", "--watch", "--interval", "200ms"}, args...)...)
	c.Stdin, c.Stdout, c.Stderr = p.slave, p.slave, p.slave
	c.Env = append(os.Environ(), "TERM=xterm")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	netlabtest.Must(t, c.Start())
	p.cmd = c.Cmd
	go func() { p.done <- c.Wait() }()
	go p.read()
	return p, h
}

// nlbOn prepares this program on a host.
func nlbOn(h *netlab.Host, args ...string) *netlab.Cmd {
	c := h.Command(context.Background(), "/proc/self/exe", args...)
	c.Args[0] = "nlb" // see TestMain
	return c
}

// open makes the pseudo-terminal.
func (p *terminal) open(columns, lines uint16) {
	p.t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	netlabtest.Must(p.t, err)
	p.master = os.NewFile(uintptr(fd), "ptmx")
	netlabtest.Must(p.t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	netlabtest.Must(p.t, err)
	p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	netlabtest.Must(p.t, err)
	p.t.Cleanup(func() { p.master.Close(); p.slave.Close() })
	p.resize(columns, lines)
	before, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	netlabtest.Must(p.t, err)
	p.before = *before
}

func (p *terminal) resize(columns, lines uint16) {
	p.t.Helper()
	netlabtest.Must(p.t, unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns}))
}

func (p *terminal) read() {
	b := make([]byte, 1<<12)
	for {
		n, err := p.master.Read(b)
		p.mu.Lock()
		p.output.Write(b[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *terminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// frames are all whole frames, without colors.
func (p *terminal) frames() []string {
	all := strings.Split(p.text(), toTop)
	if len(all) < 3 {
		return nil
	}
	out := all[1 : len(all)-1]
	for i := range out {
		out[i] = colorless(out[i])
	}
	return out
}

// screen is the last of them.
func (p *terminal) screen() string {
	frames := p.frames()
	if len(frames) == 0 {
		return ""
	}
	return frames[len(frames)-1]
}

func colorless(s string) string {
	return strings.NewReplacer("\x1b[1m", "", "\x1b[2m", "", "\x1b[36m", "", "\x1b[33m", "", "\x1b[0m", "", eraseLine, "", eraseRest, "", "\r", "").Replace(s)
}

// patience is how long something may take on a busy machine.
const patience = time.Minute

// await waits for a frame, later than those that were awaited before, that
// matches; spaces count as one.
func (p *terminal) await(pattern string) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		frames := p.frames()
		for i := p.awaited; i < len(frames); i++ {
			if re.MatchString(strings.Join(strings.Fields(frames[i]), " ")) {
				p.awaited = i
				return
			}
		}
	}
	p.t.Fatalf("no frame matches %q; the last one:\n%s\n%.3000q", pattern, p.screen(), p.text()[max(0, len(p.text())-1000):])
}

// ended waits for the end, with this exit code, and compares the terminal with
// how it was.
func (p *terminal) ended(code int) {
	p.t.Helper()
	select {
	case err := <-p.done:
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != code) {
			p.t.Errorf("ended with %v, want exit code %d", err, code)
		} else if err == nil && code != 0 {
			p.t.Errorf("ended with 0, want %d", code)
		}
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		p.t.Fatal("it does not end")
	}
}

// sent waits until the terminal has been sent a text.
func (p *terminal) sent(text string) {
	p.t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(p.text(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%q is not in %q", text, p.text())
		}
	}
}

// restored compares the terminal with how it was.
func (p *terminal) restored() {
	p.t.Helper()
	after, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	netlabtest.Must(p.t, err)
	if *after != p.before {
		p.t.Errorf("the terminal is %+v, and was %+v", *after, p.before)
	}
	p.sent(leaveScreen)
	if text := p.text(); strings.Count(text, enterScreen) != 1 || strings.Count(text, leaveScreen) != 1 {
		p.t.Errorf("the second screen: %q", text)
	}
}

// datagrams sends some to the service, each from a port of its own.
func datagrams(t *testing.T, h *netlab.Host, n int) {
	t.Helper()
	netlabtest.Must(t, h.Do(func() error {
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { unix.Close(fd) }) // at the end: a port is not to come twice
			if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{203, 0, 113, 10}}); err != nil {
				return err
			}
		}
		return nil
	}))
}

func TestWatch(t *testing.T) {
	t.Parallel()
	p, h := watchAt(t, 100, 30)
	p.await(`every 200ms, q ends it shop/web 203\.0\.113\.10:80 udp round-robin snat none backend address weight share connections live`)
	p.await(`snat none 0\.0/s backend address weight new /s connections \+ live \+- .* second 10\.0\.0\.12:8080 1 \.{8} 0% 0\.0 0 0$`)
	datagrams(t, h, 40)
	p.await(`second 10\.0\.0\.12:8080 1 #{3,5}\.{3,5} [3-6]\d% \d+(\.\d)? \d+ \+\d+ \d+ \+\d+$`)
	p.await(`second 10\.0\.0\.12:8080 1 \.{8} 0% 0\.0 20 20$`) // nothing new since
	p.resize(40, 5)
	p.await(`\.\.\. \d more lines$`)
	for line := range strings.Lines(p.screen()) {
		if n := len(strings.TrimSuffix(line, "\n")); n > 40 {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
	_, err := p.master.WriteString("xq")
	netlabtest.Must(t, err)
	p.ended(0)
	p.restored()
}

// TestWatchEnds: Ctrl-C, signals, and an error leave the terminal as it was; so
// does what is watched when it goes.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	t.Run("Ctrl-C", func(t *testing.T) {
		p, _ := watchAt(t, 100, 30)
		p.await("shop/web")
		_, err := p.master.WriteString("\x03")
		netlabtest.Must(t, err)
		p.ended(0)
		p.restored()
	})
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			p, _ := watchAt(t, 100, 30)
			p.await("shop/web")
			netlabtest.Must(t, p.cmd.Process.Signal(s))
			p.ended(0)
			p.restored()
		})
	}
	t.Run("closed terminal", func(t *testing.T) {
		p, _ := watchAt(t, 100, 30)
		p.await("shop/web")
		netlabtest.Must(t, p.slave.Close(), p.master.Close())
		p.ended(0)
	})
	t.Run("an error", func(t *testing.T) {
		p, h := watchAt(t, 100, 30, "shop/web")
		p.await("shop/web")
		if out, err := nlbOn(h, "flush").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		p.await("profile shop is not in the kernel")
		// A table that is not nlb's cannot be read.
		netlabtest.Must(t, foreignTable(h, "nlb"))
		p.ended(1)
		p.restored()
		p.sent("was not made by nlb")
	})
	t.Run("not there from the beginning", func(t *testing.T) {
		p, _ := watchAt(t, 100, 30, "shopp")
		p.ended(1)
		p.restored()
	})
}

// foreignTable adds a table that is not nlb's.
func foreignTable(h *netlab.Host, name string) error {
	return h.Do(func() error {
		return wiretest.Commit(func(b *wire.Batch) { wiretest.AddTable(b, unix.NFPROTO_INET, name) })
	})
}

// TestWatchElsewhere: without a terminal there is a block for each change, and none
// without one.
func TestWatchElsewhere(t *testing.T) {
	t.Parallel()
	p, h := watchAt(t, 100, 30)
	_, err := p.master.WriteString("q")
	netlabtest.Must(t, err)
	p.ended(0)
	for _, args := range [][]string{nil, {"--json"}} {
		c := nlbOn(h, append([]string{"show", "--watch", "--interval", "100ms"}, args...)...)
		r, w, err := os.Pipe()
		netlabtest.Must(t, err)
		c.Stdout = w
		netlabtest.Must(t, c.Start())
		w.Close()
		var got strings.Builder
		b := make([]byte, 1<<12)
		for blocks := 1; blocks <= 3; blocks++ {
			for strings.Count(got.String(), "203.0.113.10:80") < blocks {
				n, err := r.Read(b)
				got.Write(b[:n])
				netlabtest.Must(t, err)
			}
			time.Sleep(300 * time.Millisecond) // for looks in which nothing has changed
			if blocks < 3 {
				datagrams(t, h, 1)
			}
		}
		netlabtest.Must(t, c.Process.Signal(syscall.SIGINT))
		rest, _ := io.ReadAll(r)
		netlabtest.Must(t, c.Wait())
		text := got.String() + string(rest)
		// A look counts connections after it has read counters, so a datagram amid one makes two blocks.
		if n := strings.Count(text, "203.0.113.10:80"); n < 3 || n > 5 || strings.Contains(text, "\x1b") || len(args) == 0 && !strings.Contains(text, "\n\n") {
			t.Errorf("%d blocks, want one for each of 3 changes: %q", n, text)
		}
	}
}
