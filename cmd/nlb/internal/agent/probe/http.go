//go:build linux

package probe

// The kinds http and https: one request, of which nothing is kept.

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"nlb/lb"
)

// maxHeader is the size of an answer's header, in bytes.
const maxHeader = 64 << 10

// usualPort is the port that a Host header does not say.
var usualPort = map[string]string{"http": "80", "https": "443"}

// ask sends a request, and judges the answer. Its body is not waited for unless
// the check is about it.
func ask(ctx context.Context, t Target) Outcome {
	scheme := t.Check.Kind.String()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	transport := &http.Transport{
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return dial(ctx, t, "tcp") },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		Protocols:              new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	if scheme == "https" {
		config, err := clientTLS(t)
		if err != nil {
			return unable(scheme, "%s", err)
		}
		transport.TLSClientConfig = config
	}
	u, err := url.ParseRequestURI(t.Check.Path)
	if err != nil {
		return unable(scheme, "the path is no path")
	}
	u.Scheme, u.Host = scheme, strings.TrimSuffix(t.At.String(), ":"+usualPort[scheme])
	request := (&http.Request{
		Method: http.MethodGet,
		URL:    u,
		Host:   t.Check.Host,
		Header: http.Header{"User-Agent": {"nlb"}, "Accept": {"*/*"}},
	}).WithContext(ctx)
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return fault(ctx, scheme, err)
	}
	defer answer.Body.Close()
	defer func() {
		// The connection ends by FIN if all was read that the server sends.
		defer time.AfterFunc(courtesy, cancel).Stop()
		_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer)
	}()
	if !isWanted(answer.StatusCode, t.Check.Status) {
		return wrong(scheme, "%d", answer.StatusCode)
	}
	if t.Check.Body != "" {
		found, err := contains(answer.Body, t.Check.Body)
		switch {
		case found:
		case err != nil && err != io.EOF:
			return fault(ctx, scheme, err)
		default:
			return wrong(scheme, "%d without the text", answer.StatusCode)
		}
	}
	return passed(scheme, "%d", answer.StatusCode)
}

// isWanted reports whether a status passes: by default that of success, and of
// a redirect, which is not followed.
func isWanted(status int, wanted []lb.StatusRange) bool {
	if len(wanted) == 0 {
		return 200 <= status && status < 400
	}
	return slices.ContainsFunc(wanted, func(r lb.StatusRange) bool { return int(r.First) <= status && status <= int(r.Last) })
}
