//go:build linux

package agent

// The log: one line for each change, with its reason.

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// NewLog logs to w as key=value. The journal has times of its own.
func NewLog(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{}
	if isJournal(w, os.Getenv("JOURNAL_STREAM")) {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, o))
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
