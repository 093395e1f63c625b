//go:build linux

package probe

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// site is a server of a few pages; it counts requests.
func site(t *testing.T, host string, leaf *tls.Certificate) (at string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "a=b")
		_, _ = io.WriteString(w, "host "+r.Host+", agent "+r.UserAgent()+", cookie "+r.Header.Get("Cookie")+", query "+r.URL.RawQuery)
		_, _ = io.WriteString(w, map[bool]string{true: ", closes"}[r.Close]+", "+r.Proto+".")
	})
	mux.HandleFunc("/fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/fails", http.StatusFound) })
	mux.HandleFunc("/denied", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("-", maxAnswer)+"behind")
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: x\n\n"); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/stuck", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		mux.ServeHTTP(w, r)
	}))
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	netlabtest.Must(t, err)
	s.Listener.Close()
	s.Listener = l
	t.Cleanup(s.Close)
	if leaf == nil {
		s.Start()
	} else {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}}
		s.EnableHTTP2 = true
		s.StartTLS()
	}
	return l.Addr().String(), requests
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	ca, leaf := authority(t, nil)
	onBoth(t, func(t *testing.T, host string) {
		plain, requests := site(t, host, nil)
		secure, _ := site(t, host, &leaf)
		for _, tt := range []struct {
			check lb.Check
			want  Outcome // without the kind
		}{
			{lb.Check{Path: "/"}, Outcome{OK: true, Reason: "200"}},
			{lb.Check{Path: "/?a=%20b&c", Body: "query a=%20b&c"}, Outcome{OK: true, Reason: "200"}},
			{lb.Check{Path: "/", Host: "www.example", Body: "host www.example,"}, Outcome{OK: true, Reason: "200"}},
			{lb.Check{Path: "/", Body: "agent nlb, cookie , query , closes, HTTP/1.1."}, Outcome{OK: true, Reason: "200"}},
			{lb.Check{Path: "/", Body: "nowhere"}, Outcome{Reason: "200 without the text"}},
			{lb.Check{Path: "/long", Body: "behind"}, Outcome{Reason: "200 without the text"}},
			{lb.Check{Path: "/fails"}, Outcome{Reason: "503"}},
			{lb.Check{Path: "/fails", Status: []lb.StatusRange{{First: 500, Last: 599}}}, Outcome{OK: true, Reason: "503"}},
			{lb.Check{Path: "/denied", Status: []lb.StatusRange{{First: 200, Last: 399}, {First: 401, Last: 401}}}, Outcome{OK: true, Reason: "401"}},
			{lb.Check{Path: "/denied"}, Outcome{Reason: "401"}},
			{lb.Check{Path: "/moved"}, Outcome{OK: true, Reason: "302"}},
			{lb.Check{Path: "/moved", Status: []lb.StatusRange{{First: 200, Last: 299}}}, Outcome{Reason: "302"}},
			{lb.Check{Path: "/endless"}, Outcome{OK: true, Reason: "200"}},
			{lb.Check{Path: "/endless", Body: "data: "}, Outcome{OK: true, Reason: "200"}},
			{lb.Check{Path: "/stuck"}, Outcome{OK: true, Reason: "200"}},
			{lb.Check{Path: "nowhere"}, Outcome{Ours: true, Reason: "the path is no path"}},
		} {
			want, reason := tt.want, tt.want.Reason
			tt.check.Kind, want.Reason = lb.CheckHTTP, "http: "+reason
			wantOutcome(t, carry(t, tt.check, plain, generous), want)
			tt.check.Kind, want.Reason = lb.CheckHTTPS, "https: "+reason
			wantOutcome(t, carry(t, tt.check, secure, generous), want)
		}
		at := answer(t, host, hostile["endless header"])
		o := carry(t, lb.Check{Kind: lb.CheckHTTP, Path: "/"}, at, generous)
		if o.Reason != "http: answered before it was asked" { // it may be that fast
			wantOutcome(t, o, Outcome{Reason: "http: header above 64 KiB"})
		}
		before := requests.Load()
		carry(t, lb.Check{Kind: lb.CheckHTTP, Path: "/moved"}, plain, generous)
		if got := requests.Load() - before; got != 1 {
			t.Errorf("a redirect made %d requests", got)
		}
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckHTTP, Path: "/stuck", Body: "x"}, plain, short), Outcome{Reason: "http: timeout"})
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckHTTPS, Path: "/", Verify: ca, Host: "www.other"}, secure, generous),
			Outcome{Reason: "https: certificate is for another name"})
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckHTTPS, Path: "/", Verify: ca}, secure, generous), Outcome{OK: true, Reason: "https: 200"})
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckHTTPS, Path: "/"}, plain, generous), Outcome{Reason: "https: the server does not speak TLS"})
	})
}
