//go:build linux

package traffic

// A stand-in web server that can hang: it takes connections, and answers nothing.

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"nlb/integration/netlab"
)

// Web answers requests with the line of a Server, and keeps connections open.
type Web struct {
	server http.Server
	name   string

	mu    sync.Mutex
	hung  chan struct{}            // closed when it answers again; nil: it answers
	taken map[netip.Addr]time.Time // by client: when its last connection came
}

// ServeWeb starts a web server called id on a host, which must have the addresses;
// it ends with the host's world at the latest.
func ServeWeb(h *netlab.Host, id string, at ...netip.AddrPort) (*Web, error) {
	w := &Web{name: id, taken: map[netip.Addr]time.Time{}}
	w.server.Handler = w
	w.server.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.taken[addrPort(c.RemoteAddr()).Addr()] = time.Now()
		}
	}
	for _, ap := range at {
		var l net.Listener
		if err := h.Do(func() (err error) { l, err = net.Listen("tcp", ap.String()); return err }); err != nil {
			return nil, fmt.Errorf("host %s: serve %s at %s: %w", h.Name(), id, ap, classify(err))
		}
		go w.server.Serve(l)
	}
	return w, h.World().Own(w)
}

func (w *Web) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	hung := w.hung
	w.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-r.Context().Done():
			return
		}
	}
	fmt.Fprintf(to, "%s %s %s\n", w.name, r.RemoteAddr, r.Context().Value(http.LocalAddrContextKey))
}

// Hang leaves requests without an answer until Resume.
func (w *Web) Hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hung == nil {
		w.hung = make(chan struct{})
	}
}

// Resume answers again, also what came meanwhile.
func (w *Web) Resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hung != nil {
		close(w.hung)
		w.hung = nil
	}
}

// Taken is when the last connection of a client came; zero: none did.
func (w *Web) Taken(client netip.Addr) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken[client]
}

// Close ends the server and its connections.
func (w *Web) Close() error {
	w.Resume()
	return w.server.Close()
}
