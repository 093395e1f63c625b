//go:build linux

package traffic

// How an exchange fails.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The ways in which an exchange fails, for errors.Is.
var (
	// ErrRefused: a TCP reset, or an ICMP port unreachable.
	ErrRefused = errors.New("refused")
	// ErrTimeout: no answer within the client's time.
	ErrTimeout = errors.New("timeout")
	// ErrUnreachable: no route, here or at a router; or prohibited by one.
	ErrUnreachable = errors.New("unreachable")
	// ErrClosed: the other side closed before it answered.
	ErrClosed = errors.New("closed without an answer")
	// ErrNotMade: the exchange was not made, since its time was over before.
	ErrNotMade = errors.New("not made")
	// ErrUnsupported: this kernel has no such protocol.
	ErrUnsupported = errors.New("this kernel lacks the protocol")
)

var failures = []struct {
	way    error
	causes []error
}{
	{ErrTimeout, []error{os.ErrDeadlineExceeded, context.DeadlineExceeded, unix.ETIMEDOUT}},
	{ErrRefused, []error{unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE}},
	{ErrUnreachable, []error{unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET, unix.EACCES, unix.EPERM}},
	{ErrUnsupported, []error{unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT, unix.EAFNOSUPPORT}},
	{ErrClosed, []error{io.EOF, io.ErrUnexpectedEOF}},
}

// classify wraps an error of the net package with the way in which it failed;
// errors.Is finds both. An error of no known way stays as it is.
func classify(err error) error {
	for _, f := range failures {
		for _, cause := range f.causes {
			if errors.Is(err, cause) {
				return fmt.Errorf("%w: %w", f.way, err)
			}
		}
	}
	return err
}

// Way is the name of the way in which an exchange failed: "refused",
// "timeout", and so on; "other" for an unknown one.
func Way(err error) string {
	for _, f := range failures {
		if errors.Is(err, f.way) {
			return f.way.Error()
		}
	}
	return "other"
}
