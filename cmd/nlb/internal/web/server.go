//go:build linux

// Package web shows an agent by HTTP: values, events, metrics and a page. It gives no
// orders, and asks the agent for nothing that would hold it up.
package web

// The server: who may look, and how much of it there may be.

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/view"
)

const (
	mostConnections = 128
	mostStreams     = 64 // on all ways together
	maxHeader       = 16 << 10
	requestTime     = 5 * time.Second  // to send a request
	answerTime      = 30 * time.Second // to take the answer
	idleTime        = time.Minute
	// stillTime is how long the agent may not go on before it is not healthy.
	stillTime = 10 * time.Second
)

// Ask asks the agent what it knows of the backends of a service, by their names.
type Ask func(ctx context.Context, profile, service string) (map[string]*view.Known, error)

// Server shows an agent.
type Server struct {
	board   *board.Board
	history *history
	asker   *asker
	streams chan struct{} // has a place for each
	server  *http.Server  // nil: it does not listen
}

// New shows what is on a board, and what the agent is asked for.
func New(b *board.Board, ask Ask) *Server {
	return &Server{board: b, history: &history{board: b}, asker: &asker{ask: ask}, streams: make(chan struct{}, mostStreams)}
}

// Handler answers whoever has been let in.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.ready)
	s.addAPI(mux)
	s.addPages(mux)
	return headers(http.NewCrossOriginProtection().Handler(mux))
}

// Listen opens what c says, and answers in the background until Close. Errors:
// *RefusedError, and those of the system.
func (s *Server) Listen(c Config, log *slog.Logger) error {
	if err := c.Check(); err != nil || c.Listen == "" {
		return err
	}
	token, err := c.readToken()
	if err != nil {
		return err
	}
	secure, err := c.tls()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	l = netutil.LimitListener(l, mostConnections)
	if secure != nil {
		secure.NextProtos = []string{"http/1.1"} // HTTP/2 has streams without end in one connection
		l = tls.NewListener(l, secure)
	}
	s.server = &http.Server{
		Handler: c.guard(token, s.Handler()), MaxHeaderBytes: maxHeader,
		ReadTimeout: requestTime, IdleTimeout: idleTime, WriteTimeout: requestTime + answerTime,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() { _ = s.server.Serve(l) }()
	log.Info("listens", "at", l.Addr().String())
	return nil
}

// Close ends it, and all that is under way.
func (s *Server) Close() error {
	s.history.close()
	if s.server == nil {
		return nil
	}
	return s.server.Close()
}

// guard lets those in who ask by a name of ours, know the token, and want to read.
func (c Config) guard(token []byte, next http.Handler) http.Handler {
	want := sha256.Sum256(token)
	reject := func(w http.ResponseWriter, code int, why string) {
		w.Header().Set("Connection", "close") // it takes no place of those who are let in
		http.Error(w, why, code)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !c.knows(r.Host):
			reject(w, http.StatusMisdirectedRequest, "this host is not known by that name; nlb run --host NAME makes it so")
		case token != nil && !hasToken(r, want):
			w.Header().Set("WWW-Authenticate", `Basic realm="nlb: the token is the password", charset="UTF-8"`)
			reject(w, http.StatusUnauthorized, "this needs the token: Authorization: Bearer TOKEN, or as the password of any user")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			reject(w, http.StatusMethodNotAllowed, "here is nothing but to read; orders go through the unix socket")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// hasToken compares hashes, so that the time it takes says nothing.
func hasToken(r *http.Request, want [sha256.Size]byte) bool {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, password, ok := r.BasicAuth(); ok && !bearer {
		token = password
	}
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// headers keep browsers from doing more with an answer than to show it.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// health is 200 while the agent goes on.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if s.board.Still() > stillTime {
		http.Error(w, fmt.Sprintf("it has not gone on for %s", stillTime), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "goes on")
}

// ready is 200 while the kernel is as it should be.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	status := s.board.Status()
	if !s.board.Ready() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, status)
}
