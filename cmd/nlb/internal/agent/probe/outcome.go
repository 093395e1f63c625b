//go:build linux

// Package probe carries checks out: it asks servers at the moments that it is
// told, and says what it found. What that means for a backend is lb/health's to
// judge.
package probe

// What is checked, what comes of it, and what all checks have in common: the
// sockets that they use, and the reasons that they give.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
)

// Priority is the SO_PRIORITY of the sockets of checks ("nlb"), by which rules
// know them: they are not balanced, and conntrack forgets them soon.
const Priority = 0x6e6c62

// Target is what is asked, and where.
type Target struct {
	Check *lb.Check
	// At is an address without a zone; its port is 0 where the kind has none.
	At netip.AddrPort
	// UDP: the service is one of UDP, and dns asks over that.
	UDP bool
	// Service and Backend are names for the environment of exec, empty for the
	// other kinds.
	Service, Backend string
}

// Outcome is what one check found.
type Outcome struct {
	// OK: the server works.
	OK bool
	// Refused: nobody listens there.
	Refused bool
	// Ours: this host could not ask, or an agent does not say anything, so nothing
	// is known of the server.
	Ours bool
	// Drain: an agent-check wants no new connections.
	Drain bool
	// Percent is what an agent-check says of the weight, 0 to 100; -1: nothing.
	// It counts where OK is true.
	Percent int
	// Reason is why a check failed, or what the server said of itself: "tcp:
	// refused". The pool makes it printable ASCII of at most lb.MaxReason bytes.
	Reason string
}

// Func carries out one check. It returns soon after ctx ends, which is when the
// check's timeout is over.
type Func func(ctx context.Context, t Target) Outcome

// kinds has the checks that a goroutine carries out. The plain check of tcp,
// without Send and Expect, is not among them: see connects.
var kinds = map[lb.CheckKind]Func{
	lb.CheckTCP:   talk,
	lb.CheckTLS:   handshake,
	lb.CheckHTTP:  ask,
	lb.CheckHTTPS: ask,
	lb.CheckGRPC:  overGRPC,
	lb.CheckDNS:   resolve,
	lb.CheckUDP:   datagram,
	lb.CheckICMP:  echo,
	lb.CheckExec:  run,
	lb.CheckAgent: askAgent,
}

// Dialer makes the connections of checks, of tcp and udp. The deadline is that of
// the context.
func Dialer(t Target) *net.Dialer {
	return &net.Dialer{
		KeepAlive: -1,
		Control: func(_, _ string, c syscall.RawConn) error {
			var failed error
			if err := c.Control(func(fd uintptr) { failed = prepare(int(fd), t) }); err != nil {
				return err
			}
			return failed
		},
	}
}

// prepare marks a socket that is not connected yet, and gives it the source
// address that the check wants.
func prepare(fd int, t Target) error {
	// This needs CAP_NET_ADMIN. Who lacks it has no table either.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, Priority)
	source := t.Check.Source
	if source.Is4() != t.At.Addr().Is4() || !source.IsValid() {
		return nil // it is for servers of its family
	}
	// The port is chosen when the socket connects: many sockets, to several
	// servers, may have the same one.
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	return unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0)))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// failed is what comes of a check whose socket did not do what it wanted; what
// is the part that failed: tcp, tls.
func failed(what string, err error) Outcome {
	o := Outcome{Percent: -1}
	var errno unix.Errno
	word := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		word = "timeout"
	case errors.Is(err, unix.ECONNREFUSED):
		word, o.Refused = "refused", true
	case errors.Is(err, unix.ECONNRESET):
		word = "reset"
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		word = "no route"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		word, o.Ours = "no such source, or no port", true
	case errors.As(err, &errno):
		word, o.Ours = unix.ErrnoName(errno), slices.Contains(ours, errno)
	}
	o.Reason = what + ": " + word
	return o
}

// ours are errors that say what this host lacks, or forbids.
var ours = []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN, unix.EPERM, unix.EACCES, unix.EAFNOSUPPORT, unix.EINVAL}

// tidy is a reason that fits a log, and a comment of nft: printable ASCII without
// what has a meaning there, at most lb.MaxReason bytes. One that was longer ends in dots.
func tidy(reason string) string {
	const cut = "..."
	isOdd := func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"\$;`, r) }
	if len(reason) <= lb.MaxReason && !strings.ContainsFunc(reason, isOdd) {
		return reason // as nearly all are: thousands of servers share it
	}
	out := make([]byte, 0, lb.MaxReason)
	for _, r := range reason {
		switch {
		case len(out) == lb.MaxReason:
			return string(out[:lb.MaxReason-len(cut)]) + cut
		case isOdd(r):
			out = append(out, '?')
		default:
			out = append(out, byte(r))
		}
	}
	return string(out)
}

// passed is the outcome of a check that found a server that works.
func passed(kind, format string, args ...any) Outcome {
	return Outcome{OK: true, Percent: -1, Reason: kind + ": " + fmt.Sprintf(format, args...)}
}

// wrong is the outcome of a check that got an answer, and not the right one.
func wrong(kind, format string, args ...any) Outcome {
	return Outcome{Percent: -1, Reason: kind + ": " + fmt.Sprintf(format, args...)}
}

// unable is the outcome of a check that this host could not make.
func unable(kind, format string, args ...any) Outcome {
	return Outcome{Ours: true, Percent: -1, Reason: kind + ": " + fmt.Sprintf(format, args...)}
}

// fault is the outcome of a check that met an error before or after its end.
func fault(ctx context.Context, kind string, err error) Outcome {
	o := failed(kind, err)
	switch {
	case o.Refused || o.Ours:
	case errors.Is(ctx.Err(), context.Canceled):
		return unable(kind, "stopped")
	case ctx.Err() != nil:
		return failed(kind, ctx.Err())
	default:
		if why := explain(err); why != "" {
			return wrong(kind, "%s", why)
		}
	}
	return o
}

// explain says in a few words what the library takes long for; empty: it does not.
func explain(err error) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if invalid.Cert != nil && time.Now().Before(invalid.Cert.NotBefore) {
			return "certificate is not valid yet"
		}
		return "certificate has expired"
	case errors.As(err, new(x509.HostnameError)):
		return "certificate is for another name"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "certificate of unknown authority"
	case errors.As(err, new(tls.RecordHeaderError)), errors.Is(err, http.ErrSchemeMismatch):
		return "the server does not speak TLS"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.EPIPE):
		return "closed by the server"
	case errors.As(err, new(unix.Errno)):
		return ""
	}
	why := err.Error()
	if strings.Contains(why, "server response headers exceeded") {
		return "header above 64 KiB"
	}
	if strings.Contains(why, "readLoopPeekFail") { // net/http met an answer before it had asked
		return "answered before it was asked"
	}
	for _, prefix := range []string{"net/http: HTTP/1.x transport connection broken: ", "net/http: ", "remote error: ", "tls: ", "x509: "} {
		why = strings.TrimPrefix(why, prefix)
	}
	return why
}
