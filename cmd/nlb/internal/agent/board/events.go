//go:build linux

package board

// Events: the lines of the agent's log, of which the last ones are kept.

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MostEvents is how many are kept.
const MostEvents = 1000

// Event is one line of the log.
type Event struct {
	// ID is unique, in all runs of agents: 18a2f00-17.
	ID    string    `json:"id"`
	At    time.Time `json:"at"`
	Level string    `json:"level"` // info, warn, error
	Event string    `json:"event"` // what happened: down
	// Fields say more: backend, reason.
	Fields map[string]string `json:"fields"`

	number uint64
}

// events are the last ones.
type events struct {
	mu    sync.Mutex
	run   string // of the agent
	list  []Event
	last  uint64        // number
	fresh chan struct{} // is closed with the next one
}

// Events are those after the one with an ID, or all that are kept where that is not
// known. fresh is closed when there are more.
func (b *Board) Events(after string) (list []Event, fresh <-chan struct{}) {
	e := &b.events
	run, text, _ := strings.Cut(after, "-")
	number, err := strconv.ParseUint(text, 10, 64)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil || run != e.run || number > e.last {
		number = 0
	}
	i, _ := slices.BinarySearchFunc(e.list, number+1, func(a Event, n uint64) int { return cmp.Compare(a.number, n) })
	return slices.Clone(e.list[i:]), e.fresh
}

func (e *events) add(one Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	one.number, one.ID = e.last, fmt.Sprintf("%s-%d", e.run, e.last)
	if len(e.list) == MostEvents {
		e.list = slices.Delete(e.list, 0, 1)
	}
	e.list = append(e.list, one)
	close(e.fresh)
	e.fresh = make(chan struct{})
}

// Log is a log whose lines are events, too, but for those of debugging.
func (b *Board) Log(log *slog.Logger) *slog.Logger {
	return slog.New(&handler{Handler: log.Handler(), events: &b.events})
}

// handler passes lines on, and keeps them.
type handler struct {
	slog.Handler
	events *events
	attrs  []slog.Attr
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.Handler.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		e := Event{At: r.Time.UTC().Truncate(time.Millisecond), Level: strings.ToLower(r.Level.String()), Event: r.Message, Fields: map[string]string{}}
		note := func(a slog.Attr) bool { e.Fields[a.Key] = a.Value.String(); return true }
		for _, a := range h.attrs {
			note(a)
		}
		r.Attrs(note)
		h.events.add(e)
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.events, slices.Concat(h.attrs, attrs)}
}

// WithGroup groups the fields of what is passed on; events have no groups.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.events, h.attrs}
}
