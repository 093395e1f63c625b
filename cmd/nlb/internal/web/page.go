//go:build linux

package web

// The page: made here as a whole, and again whenever something has changed, for those
// who have it open.

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/view"
)

//go:embed assets
var assets embed.FS

var pages = template.Must(template.ParseFS(assets, "assets/*.html"))

// redraw is how often a page is made again, and redrawLeast the least time between two
// of an open page.
const (
	redraw      = 2 * time.Second
	redrawLeast = 300 * time.Millisecond
)

func (s *Server) addPages(mux *http.ServeMux) {
	for _, path := range []string{"GET /{$}", "GET /service/{profile}/{service}", "GET /events"} {
		mux.HandleFunc(path, s.page)
	}
	mux.HandleFunc("GET /live", s.live)
	for name, kind := range map[string]string{"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"} {
		text, err := assets.ReadFile("assets/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			_, _ = w.Write(text)
		})
	}
}

// drawn is a page.
type drawn struct {
	Title string
	Kind  string // which template makes its main part
	Value any
	Main  template.HTML
	code  int
}

// missing is the value of a page that there is not.
type missing struct{ Sentence, Alarm string }

// draw makes the page at an address.
func (s *Server) draw(ctx context.Context, at *url.URL) (*drawn, error) {
	s.history.look()
	out := &drawn{code: http.StatusOK}
	all, err := s.board.Snapshot()
	name, isService := strings.CutPrefix(at.Path, "/service/")
	switch {
	case errors.Is(err, board.ErrEmpty):
		all = &view.Snapshot{}
	case err != nil:
		return nil, err
	}
	switch {
	case at.Path == "/events":
		out.Title, out.Kind, out.Value = "Events", "events", s.lastEvents()
	case isService:
		one := *all
		if err := one.Select(name); err != nil || strings.Count(name, "/") != 1 {
			out.Title, out.Kind, out.Value, out.code = name, "missing", missing{Sentence: name + " is not kept here.", Alarm: s.alarm()}, http.StatusNotFound
			break
		}
		value := s.service(ctx, &one.Profiles[0].Services[0])
		out.Title, out.Kind, out.Value = value.Sentence, "service", value
	default:
		value := s.overview(all, at.Query())
		out.Title, out.Kind, out.Value = value.Sentence, "overview", value
	}
	var main bytes.Buffer
	if err := pages.ExecuteTemplate(&main, out.Kind, out.Value); err != nil {
		return nil, err
	}
	out.Main = template.HTML(main.String()) // the template has escaped it
	return out, nil
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	var whole bytes.Buffer
	d, err := s.draw(r.Context(), r.URL)
	if err == nil {
		err = pages.ExecuteTemplate(&whole, "page", d)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(d.code)
	_, _ = w.Write(whole.Bytes())
}

// live is a stream of the main part of the page at ?view=, each time that it changes.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	at, err := url.Parse(r.URL.Query().Get("view"))
	if err != nil || at.IsAbs() || at.Host != "" {
		refuse(w, http.StatusBadRequest, errors.New("view is no page of this host"))
		return
	}
	out := s.stream(w)
	if out == nil {
		return
	}
	defer out.close()
	var last string
	for {
		_, fresh := s.board.Events("")
		d, err := s.draw(r.Context(), at)
		if err == nil && string(d.Main) != last {
			last = string(d.Main)
			err = out.send("", "main", []byte(d.Title+"\n"+last))
		}
		if err != nil || !out.pause(r, fresh) {
			return
		}
	}
}

// pause waits until a page is to be made again, and reports whether anybody listens.
func (o *stream) pause(r *http.Request, fresh <-chan struct{}) bool {
	if o.control.Flush() != nil {
		return false
	}
	select {
	case <-r.Context().Done():
		return false
	case <-time.After(redrawLeast): // what comes at once is drawn at once
	}
	select {
	case <-fresh:
	case <-r.Context().Done():
		return false
	case <-time.After(redraw):
	}
	return true
}

// happened is an event in a list.
type happened struct {
	At, Clock, Level, What, Subject, More string
}

type eventList struct {
	Sentence, Alarm string
	Events          []happened
}

// lastEvents are the newest ones, the newest first.
func (s *Server) lastEvents() *eventList {
	list, _ := s.board.Events("")
	slices.Reverse(list)
	out := &eventList{Sentence: "What has happened, the newest first.", Alarm: s.alarm()}
	for _, e := range list {
		one := happened{At: e.At.Format(time.RFC3339), Clock: e.At.Local().Format("2006-01-02 15:04:05"), Level: e.Level, What: e.Event}
		one.Subject = e.Fields["backend"]
		if service := e.Fields["service"]; service != "" {
			one.Subject = strings.TrimSuffix(service+"/"+one.Subject, "/")
		}
		var more []string
		for _, key := range []string{"order", "op", "detail", "reason", "error", "by", "name", "from", "to", "records", "up-for", "down-for", "number", "table", "at"} {
			if v := e.Fields[key]; v != "" {
				more = append(more, key+": "+v)
			}
		}
		one.More = strings.Join(more, "; ")
		out.Events = append(out.Events, one)
	}
	return out
}
