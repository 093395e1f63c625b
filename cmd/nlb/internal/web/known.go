//go:build linux

package web

// Known: what the agent knows of a service's backends, asked for at most once a second.

import (
	"context"
	"sync"
	"time"

	"nlb/cmd/nlb/internal/view"
)

const (
	askEvery  = time.Second
	mostAsked = 256 // services whose answers are kept
)

// asker asks the agent, and remembers the answers for a moment.
type asker struct {
	ask Ask

	mu      sync.Mutex
	answers map[string]answered
}

type answered struct {
	at    time.Time
	known map[string]*view.Known
}

// of is what is known of the backends of a service, by their names; nil: the agent
// does not say.
func (a *asker) of(ctx context.Context, profile, service string) map[string]*view.Known {
	name := profile + "/" + service
	a.mu.Lock()
	last, there := a.answers[name]
	if there && time.Since(last.at) < askEvery {
		a.mu.Unlock()
		return last.known
	}
	// Others make do with the last answer meanwhile.
	if len(a.answers) >= mostAsked || a.answers == nil {
		a.answers = map[string]answered{}
	}
	a.answers[name] = answered{time.Now(), last.known}
	a.mu.Unlock()
	known, err := a.ask(ctx, profile, service)
	if err != nil {
		return last.known
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[name] = answered{time.Now(), known}
	return known
}
