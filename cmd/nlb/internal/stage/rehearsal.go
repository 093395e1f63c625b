//go:build linux

package stage

// Rehearsals: on one balancer, or on several.

import (
	"context"
	"fmt"
	"io"

	"nlb/integration/lab"
	"nlb/integration/lab/fleet"
	"nlb/integration/lab/plan"
	"nlb/lb"
)

// maxConnections bounds the time that a rehearsal takes.
const maxConnections = 1_000_000

// Request is what is to be rehearsed.
type Request struct {
	// Connections and Balancers are how many; 0 balancers: one.
	Connections, Balancers int
	// Fail are the steps of a plan, of one balancer.
	Fail     []string
	Progress func(what string)
}

// Report is what a rehearsal found.
type Report interface {
	OK() bool
	AllProblems() []string
}

// Rehearsal is a world that stands.
type Rehearsal interface {
	Rehearse(context.Context) (Report, error)
	WriteDoors(io.Writer) error
	Close() error
}

// New builds a world with the profiles applied. What is wrong with the request is a
// *plan.Error.
func (s Stage) New(ctx context.Context, profiles []*lb.Profile, r Request) (Rehearsal, error) {
	if r.Connections < 1 || r.Connections > maxConnections {
		return nil, &plan.Error{Message: fmt.Sprintf("--connections %d is out of range, want 1 to %d", r.Connections, maxConnections)}
	}
	steps, err := plan.Read(r.Fail, profiles)
	switch {
	case err != nil:
		return nil, err
	case r.Balancers == 0:
		l, err := lab.New(ctx, profiles, s, lab.Options{Progress: r.Progress, Connections: r.Connections, Agent: s, Plan: steps})
		return one[*lab.Report]{l}, err
	case r.Balancers < fleet.MinBalancers || r.Balancers > fleet.MaxBalancers:
		return nil, &plan.Error{Message: fmt.Sprintf("--fleet %d is out of range, want %d to %d", r.Balancers, fleet.MinBalancers, fleet.MaxBalancers)}
	case len(steps) > 0:
		return nil, &plan.Error{Message: "--fail has no meaning with --fleet"}
	}
	l, err := fleet.New(ctx, profiles, s, fleet.Options{Progress: r.Progress, Connections: r.Connections, Balancers: r.Balancers})
	return one[*fleet.Report]{l}, err
}

// one is a world with reports of one kind.
type one[R Report] struct{ world[R] }

type world[R Report] interface {
	Rehearse(context.Context) (R, error)
	WriteDoors(io.Writer) error
	Close() error
}

// Rehearse has it happen. An error means that it did not come to its end.
func (o one[R]) Rehearse(ctx context.Context) (Report, error) { return o.world.Rehearse(ctx) }
