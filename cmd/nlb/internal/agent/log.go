//go:build linux

package agent

// The log: one line for each change, with its reason.

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

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
