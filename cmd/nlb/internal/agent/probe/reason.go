//go:build linux

package probe

// What comes of a check, and in what words. The pool tidies them.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

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
