//go:build linux

package agent

// systemd: what the agent tells it (sd_notify(3)), the watchdog, which it feeds while it
// makes progress, and the journal: one line for each change, with its reason.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/sdnotify"
	"golang.org/x/sys/unix"
)

// Systemd is the way to the service manager. Without one, all of it does nothing.
// It is not safe for concurrent use: its owner is who makes progress.
type Systemd struct {
	notifier *sdnotify.Notifier // nil: there is none
	watchdog time.Duration      // 0: there is none
	fed      time.Time
}

// NewSystemd reads where systemd is from the environment, and takes that out of it:
// children must not speak for the agent.
func NewSystemd() (*Systemd, error) {
	s := &Systemd{}
	notifier, err := sdnotify.New()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("systemd: %w", err)
	}
	s.notifier = notifier
	pid := os.Getenv("WATCHDOG_PID")
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, name := range []string{sdnotify.Socket, "WATCHDOG_PID", "WATCHDOG_USEC"} {
		os.Unsetenv(name)
	}
	return s, nil
}

// Close ends the way.
func (s *Systemd) Close() error { return s.notifier.Close() }

// Every is how often Progress is to be called at least: half of the time after
// which the watchdog bites, or 10 s where there is none.
func (s *Systemd) Every() time.Duration {
	if s.watchdog == 0 {
		return 10 * time.Second
	}
	return s.watchdog / 2
}

// Progress feeds the watchdog, at most four times in its time. Only who has done
// what it is there for may call it.
func (s *Systemd) Progress() error {
	if s.watchdog == 0 || time.Since(s.fed) < s.watchdog/4 {
		return nil
	}
	s.fed = time.Now()
	return s.notifier.Notify("WATCHDOG=1")
}

// Ready says that the agent has begun, or has reloaded, and how it is.
func (s *Systemd) Ready(status string) error {
	return s.notifier.Notify(sdnotify.Ready, "STATUS="+sentence(status))
}

// Reloading says that files are read. Ready ends it, whatever came of it.
func (s *Systemd) Reloading() error {
	// Without the time systemd would take this for an older reload.
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("clock_gettime: %w", err)
	}
	return s.notifier.Notify(sdnotify.Reloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)))
}

// Status says how the agent is, in a sentence.
func (s *Systemd) Status(status string) error { return s.notifier.Notify("STATUS=" + sentence(status)) }

// Stopping says that the agent ends.
func (s *Systemd) Stopping() error { return s.notifier.Notify(sdnotify.Stopping) }

// sentence is a text in one line, which cannot be taken for another message.
func sentence(text string) string { return strings.Join(strings.Fields(text), " ") }

// NewLog logs to w as key=value. The journal has times of its own, and priorities.
func NewLog(w io.Writer) *slog.Logger {
	if !isJournal(w, os.Getenv("JOURNAL_STREAM")) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(journal{w}, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// journal puts before each line the priority that its level, which comes first, has
// for systemd (sd-daemon(3)).
type journal struct{ io.Writer }

func (j journal) Write(line []byte) (int, error) {
	priority := "<6>"
	switch {
	case bytes.HasPrefix(line, []byte("level=ERROR")):
		priority = "<3>"
	case bytes.HasPrefix(line, []byte("level=WARN")):
		priority = "<4>"
	}
	if _, err := j.Writer.Write(append([]byte(priority), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// isJournal reports whether w is the stream that systemd says leads to the journal:
// device:inode (systemd.exec(5)).
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
