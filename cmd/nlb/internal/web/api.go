//go:build linux

package web

// The API: the values of nlb show --json, and events.

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/metrics"
	"nlb/cmd/nlb/internal/view"
)

//go:embed openapi.json
var openAPI []byte

func (s *Server) addAPI(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/show", s.show)
	mux.HandleFunc("GET /v1/show/{name...}", s.show) // shop, shop/web, shop/web/b1
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(openAPI)
	})
}

// show answers what nlb show --json prints, of what the agent keeps.
func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	all, err := s.board.Snapshot()
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	one, name := *all, r.PathValue("name")
	if name != "" {
		if err := one.Select(name); err != nil {
			refuse(w, http.StatusNotFound, err)
			return
		}
	}
	if one.Single() {
		parts := strings.SplitN(name, "/", 3)
		one.Know(s.asker.of(r.Context(), parts[0], parts[1])[parts[2]], "nlb run does not say")
	}
	Answer(w, http.StatusOK, &one)
}

// refuse says why there is no answer.
func refuse(w http.ResponseWriter, code int, err error) {
	out := RefusedError{Message: err.Error()}
	if missing, ok := errors.AsType[*view.MissingError](err); ok {
		out = RefusedError{missing.What + " " + missing.Name + " is not kept here", "GET /v1/show has what is"}
	}
	Answer(w, code, out)
}

// Answer answers a request with a value as JSON.
func Answer(w http.ResponseWriter, code int, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"message": "the answer is no JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // whoever asked may have gone
}

// stillEvery is how often a stream says that it is still there.
const stillEvery = 15 * time.Second

// events are the last ones as a list, or a stream that goes on after the one that
// Last-Event-ID or after= names.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	after := cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"))
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		list, _ := s.board.Events(after)
		Answer(w, http.StatusOK, map[string][]board.Event{"events": list})
		return
	}
	out := s.stream(w)
	if out == nil {
		return
	}
	defer out.close()
	for {
		list, fresh := s.board.Events(after)
		for _, e := range list {
			b, err := json.Marshal(e)
			if err != nil || out.send(e.ID, "event", b) != nil {
				return
			}
			after = e.ID
		}
		if !out.wait(r, fresh, stillEvery) {
			return
		}
	}
}

// metrics are for Prometheus: ?level=service leaves out backends, ?profile= others.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	filter := metrics.Filter{Profile: query.Get("profile")}
	switch level := query.Get("level"); level {
	case "", "backend":
	case "service":
		filter.Brief = true
	default:
		refuse(w, http.StatusBadRequest, fmt.Errorf("unknown level %q, want service or backend", level))
		return
	}
	all, err := s.board.Snapshot()
	if err != nil && !errors.Is(err, board.ErrEmpty) {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	format := metrics.FormatOf(r.Header)
	w.Header().Set("Content-Type", string(format))
	_ = metrics.Write(w, format, cmp.Or(all, &view.Snapshot{}), &metrics.Agent{Process: s.board.Counts, Tally: s.board.Tally}, filter) // whoever asked may have gone
}
