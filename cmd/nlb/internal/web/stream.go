//go:build linux

package web

// Streams: server-sent events (HTML, 9.2), a bounded number of them.

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// stream is one that is under way.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	free    func()
}

// stream begins one; nil: there are too many, and whoever asked was told.
func (s *Server) stream(w http.ResponseWriter) *stream {
	select {
	case s.streams <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, errors.New("too many streams"))
		return nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // that of the request would end it
	return &stream{w, control, func() { <-s.streams }}
}

func (o *stream) close() { o.free() }

// send sends an event. Its text may have lines.
func (o *stream) send(id, event string, text []byte) error {
	var b bytes.Buffer
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "event: %s\n", event)
	for line := range bytes.Lines(text) {
		fmt.Fprintf(&b, "data: %s\n", bytes.TrimRight(line, "\r\n"))
	}
	b.WriteByte('\n')
	return o.write(b.Bytes())
}

// write has as long as an answer may take, each time.
func (o *stream) write(b []byte) error {
	if err := o.control.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	_, err := o.w.Write(b)
	return err
}

// wait waits until there is something fresh, and says at times that it is still there. It
// reports whether anybody listens.
func (o *stream) wait(r *http.Request, fresh <-chan struct{}, still time.Duration) bool {
	for {
		if o.control.Flush() != nil {
			return false
		}
		select {
		case <-fresh:
			return true
		case <-r.Context().Done():
			return false
		case <-time.After(still):
			if o.write([]byte(":\n\n")) != nil {
				return false
			}
		}
	}
}
