//go:build linux

package agent

// Direct: orders where no agent runs, straight into the table.

import (
	"context"
	"os"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/lb"
)

// Obey carries an order out on what the table holds. Nothing else of it changes.
// Errors: *RefusedError, *engine.Error.
func Obey(ctx context.Context, e *engine.Engine, o Order, begin func() error) (Done, error) {
	if o.For > 0 {
		return Done{}, &RefusedError{Message: "no agent is running, so nobody would take the order back", Hint: "give it without --for, and nlb enable later"}
	}
	state, err := e.State()
	if err != nil {
		return Done{}, err
	}
	p, s, b, err := find(state.Profiles, o)
	if err != nil {
		return Done{}, err
	}
	b.Standing = o.given(b.Standing, nameOf(uint32(os.Getuid())), time.Now())
	b.State = stateOf(s, b)
	p.Sysctl = lb.SysctlKeep // what the profile says of it is not known
	if _, err := e.Apply(ctx, []*lb.Profile{p}, engine.Options{Placed: true, Begin: begin}); err != nil {
		return Done{}, err
	}
	return Done{o.String()}, nil
}

// stateOf is the state of a backend with its order. The table does not say how
// backends are checked, so lb's Place cannot: the others keep their states.
func stateOf(s *lb.Service, b *lb.Backend) lb.BackendState {
	switch {
	case b.Standing.Order == lb.OrderDisable, b.Standing.Verdict == lb.VerdictDown:
		return lb.Down
	case b.Standing.Order == lb.OrderDrain:
		return lb.Draining
	}
	for i := range s.Backends {
		other := &s.Backends[i]
		if other.State == lb.Up && other.Weight > 0 && other.Priority < b.Priority && other.Address.Addr.Is4() == b.Address.Addr.Is4() {
			return lb.Standby
		}
	}
	return lb.Up
}
