//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFault(t *testing.T) {
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want Outcome
	}{
		{t.Context(), unix.ECONNREFUSED, Outcome{Refused: true, Reason: "tcp: refused"}},
		{over, unix.ECONNREFUSED, Outcome{Refused: true, Reason: "tcp: refused"}},
		{t.Context(), unix.EHOSTUNREACH, Outcome{Reason: "tcp: no route"}},
		{t.Context(), unix.ECONNRESET, Outcome{Reason: "tcp: reset"}},
		{t.Context(), io.ErrUnexpectedEOF, Outcome{Reason: "tcp: closed by the server"}},
		{t.Context(), unix.EMFILE, Outcome{Ours: true, Reason: "tcp: EMFILE"}},
		{over, unix.ENOBUFS, Outcome{Ours: true, Reason: "tcp: ENOBUFS"}},
		{t.Context(), unix.EADDRNOTAVAIL, Outcome{Ours: true, Reason: "tcp: no such source, or no port"}},
		{over, errors.New("use of closed connection"), Outcome{Reason: "tcp: timeout"}},
		{stopped, context.Canceled, Outcome{Ours: true, Reason: "tcp: stopped"}},
	} {
		wantOutcome(t, fault(tt.ctx, "tcp", fmt.Errorf("dial: %w", tt.err)), tt.want)
	}
}

// FuzzTidy: no text of a server's makes a reason that cannot be shown.
func FuzzTidy(f *testing.F) {
	f.Add("a \"b\"; c\x00\xff")
	f.Fuzz(func(t *testing.T, why string) { wantSound(t, Outcome{Percent: -1, Reason: tidy("exec: " + why)}) })
}
