//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// manager stands for systemd.
func manager(t *testing.T, watchdog time.Duration) (s *Systemd, told func() string) {
	t.Helper()
	told = listenForAgent(t, watchdog)
	s, err := NewSystemd()
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s, told
}

// listenForAgent makes the environment that systemd gives a service: told is what
// it was told since the last time.
func listenForAgent(t *testing.T, watchdog time.Duration) (told func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	if watchdog > 0 {
		t.Setenv("WATCHDOG_USEC", fmt.Sprint(watchdog.Microseconds()))
		t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	}
	return func() string {
		var all []string
		raw, err := c.SyscallConn()
		must(t, err)
		// What was sent is there: it needs no waiting.
		must(t, raw.Control(func(fd uintptr) {
			var b [4096]byte
			for {
				n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT)
				if err != nil {
					return
				}
				all = append(all, strings.ReplaceAll(string(b[:n]), "\n", "|"))
			}
		}))
		return strings.Join(all, "; ")
	}
}

func TestSystemd(t *testing.T) {
	s, told := manager(t, 0)
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if _, ok := os.LookupEnv(name); ok {
			t.Errorf("children get %s", name)
		}
	}
	must(t, s.Ready("Balances shop."), s.Reloading(), s.Status("web is down:\nMAINPID=1\n"), s.Progress(), s.Stopping())
	want := `^READY=1\|STATUS=Balances shop\.; RELOADING=1\|MONOTONIC_USEC=[1-9][0-9]*; STATUS=web is down: MAINPID=1; STOPPING=1$`
	if got := told(); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("told %s, want %s", got, want)
	}
}

// TestSystemdReload: systemd takes the time of a reload for that of the system's
// monotonic clock.
func TestSystemdReload(t *testing.T) {
	s, told := manager(t, 0)
	now := func() int64 {
		var ts unix.Timespec
		must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
		return ts.Nano() / 1000
	}
	before := now()
	must(t, s.Reloading())
	var usec int64
	_, err := fmt.Sscanf(told(), "RELOADING=1|MONOTONIC_USEC=%d", &usec)
	must(t, err)
	if usec < before || usec > now() {
		t.Errorf("%d is not between %d and now", usec, before)
	}
}

// TestWatchdog: it is fed by progress alone, and often enough by somebody who
// comes when Every says.
func TestWatchdog(t *testing.T) {
	s, told := manager(t, 30*time.Second)
	synctest.Test(t, func(t *testing.T) {
		if s.Every() != 15*time.Second {
			t.Errorf("every %v", s.Every())
		}
		must(t, s.Progress(), s.Progress())
		if got := told(); got != "WATCHDOG=1" {
			t.Errorf("at first: told %q", got)
		}
		for range 3 {
			time.Sleep(s.Every())
			must(t, s.Progress())
			if got := told(); got != "WATCHDOG=1" {
				t.Errorf("after progress: told %q", got)
			}
		}
		time.Sleep(time.Hour)
		if got := told(); got != "" {
			t.Errorf("without progress: told %q", got)
		}
	})
}

// TestNoSystemd: without a manager nothing is told, and nothing fails; and a
// watchdog of another process is none.
func TestNoSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("WATCHDOG_PID", "1")
	s, err := NewSystemd()
	must(t, err)
	must(t, s.Ready("x"), s.Reloading(), s.Progress(), s.Status("x"), s.Stopping(), s.Close())
	if s.watchdog != 0 {
		t.Error("it feeds the watchdog of another process")
	}
}

// TestLog: the time is there, unless the journal is where it goes; there a line begins
// with its priority.
func TestLog(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	defer file.Close()
	var st unix.Stat_t
	must(t, unix.Fstat(int(file.Fd()), &st))
	line := func(stream string, level slog.Level) string {
		t.Setenv("JOURNAL_STREAM", stream)
		must(t, file.Truncate(0))
		NewLog(file).Log(t.Context(), level, "changed", "detail", "weight 1 -> 2", "time", slog.GroupValue(slog.Int("time", 1)))
		b, err := os.ReadFile(file.Name())
		must(t, err)
		return string(bytes.TrimLeft(b, "\x00"))
	}
	const rest = ` msg=changed detail="weight 1 -> 2"` + " time.time=1\n"
	for level, priority := range map[slog.Level]string{slog.LevelInfo: "<6>", slog.LevelWarn: "<4>", slog.LevelError: "<3>"} {
		if got, want := line(fmt.Sprintf("%d:%d", st.Dev, st.Ino), level), priority+"level="+level.String()+rest; got != want {
			t.Errorf("in the journal: %q, want %q", got, want)
		}
	}
	for _, stream := range []string{"", "1:1"} {
		if got := line(stream, slog.LevelError); !strings.HasPrefix(got, "time=") || !strings.HasSuffix(got, "level=ERROR"+rest) {
			t.Errorf("elsewhere: %q", got)
		}
	}
}
