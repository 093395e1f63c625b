//go:build linux

// Package fleet rehearses profiles on several balancers: routers spread connections over
// them, balancers die, leave and return, and backends come and go meanwhile. It counts
// the connections that are lost.
package fleet

// The rehearsal.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"nlb/integration/lab"
	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// The number of balancers, and of connections where Options do not say.
const (
	MinBalancers, MaxBalancers = 2, 16
	DefaultConnections         = 300
)

// Options of a rehearsal.
type Options struct {
	// Balancers is how many there are, MinBalancers to MaxBalancers.
	Balancers int
	// Connections is how many stay open; 0: DefaultConnections.
	Connections int
	// Progress is told what comes next; nil: nobody.
	Progress func(what string)
}

// Lab is a world with a fleet. It ends with the process, if not closed before.
type Lab struct {
	site     *site
	nodes    []*node
	balancer lab.Balancer
	options  Options
	all      []*lb.Profile // as they were given
	profiles []*lb.Profile // as they are applied now
	crowd    *crowd
	report   *Report
	started  time.Time
}

// New builds a lab and applies the profiles, which are free of conflicts among each
// other. The process must be able to make namespaces; see netlab.Isolate.
func New(ctx context.Context, profiles []*lb.Profile, b lab.Balancer, o Options) (*Lab, error) {
	if o.Connections == 0 {
		o.Connections = DefaultConnections
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	profiles = lb.Overlay(profiles, nil, nil) // backends of a priority that is not in use stand by
	l := &Lab{site: draft(profiles), balancer: b, options: o, all: profiles, profiles: profiles, started: time.Now()}
	if len(l.site.targets) == 0 {
		return nil, fmt.Errorf("there is nothing to rehearse on several balancers: %w", errors.Join(texts(l.site.notes)...))
	}
	o.Progress("building hosts")
	var err error
	if l.site.world, err = netlab.New(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err = l.build(ctx); err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

func texts(notes []string) (out []error) {
	for _, n := range notes {
		out = append(out, errors.New(n))
	}
	return out
}

func (l *Lab) build(ctx context.Context) error {
	if err := l.site.build(); err != nil {
		return err
	}
	for i := range l.options.Balancers {
		n := &node{number: i, serving: true}
		l.nodes = append(l.nodes, n)
		if err := l.join(ctx, n); err != nil {
			return err
		}
	}
	return l.spread()
}

// Close takes the lab down.
func (l *Lab) Close() error { return l.site.world.Close() }

// WriteDoors writes how to step into the lab's hosts and out of them.
func (l *Lab) WriteDoors(w io.Writer) error {
	hosts := []*netlab.Host{l.site.clients, l.site.front}
	for _, n := range l.nodes {
		hosts = append(hosts, n.host)
	}
	return netlab.WriteDoors(w, append(hosts, l.site.back, l.site.servers)...)
}

// step is one thing that happens.
type step struct {
	what string
	do   func(context.Context) error
	// changed are the backends that come or go meanwhile, by their addresses.
	changed map[string]bool
	added   bool
	// returns has the connections of the step before go on. Others begin with new ones,
	// of which no balancer but one has an entry.
	returns bool
	// then is done afterwards, and nothing is counted.
	then func(context.Context) error
}

// steps are all that happens, in this order. After each of them all balancers serve.
func (l *Lab) steps() []step {
	first, second, last := l.nodes[0], l.nodes[1], l.nodes[len(l.nodes)-1]
	less, changed := l.without()
	have := func(ctx context.Context, p []*lb.Profile) error {
		l.profiles = p
		return l.applyAll(ctx)
	}
	cut := func(n *node, p []*lb.Profile) func(context.Context) error {
		return func(ctx context.Context) error { return l.cut(n, func() error { return have(ctx, p) }) }
	}
	back := func(n *node) func(context.Context) error {
		return func(ctx context.Context) error { return l.mend(ctx, n) }
	}
	steps := []step{
		{what: "a balancer leaves", do: func(context.Context) error { return l.leave(first) }},
		{what: "it returns", returns: true, do: func(context.Context) error { return l.enter(first) }},
		{what: "a balancer drains and ends", do: func(context.Context) error {
			return errors.Join(l.leave(last), l.cut(last))
		}},
		{what: "it returns", returns: true, do: back(last)},
		{what: "a balancer is killed", do: func(context.Context) error { return l.cut(second) }},
		{what: "it returns", returns: true, do: back(second)},
		{what: "a balancer is upgraded", do: func(ctx context.Context) error { return l.replace(ctx, first) }},
		{what: "one is killed, and servers speak first", do: func(context.Context) error {
			err := l.cut(last)
			for _, s := range l.site.standins {
				s.Push()
			}
			time.Sleep(detection) // for what answers them
			return err
		}, then: back(last)},
	}
	if len(changed) == 0 {
		l.report.Notes = append(l.report.Notes, "no backend is removed or added: no service has three")
		return steps
	}
	return append(steps,
		step{what: "a backend is removed", do: func(ctx context.Context) error { return have(ctx, less) }, changed: changed},
		step{what: "it is added", do: func(ctx context.Context) error { return have(ctx, l.all) }, changed: changed, added: true},
		step{what: "one is removed, and a balancer killed", do: cut(first, less), changed: changed, then: back(first)},
		step{what: "it is added, and a balancer killed", do: cut(second, l.all), changed: changed, added: true, then: back(second)},
	)
}

// without are the profiles without one backend of each family of a service that is
// rehearsed, where that has three, and the addresses of these backends.
func (l *Lab) without() (less []*lb.Profile, gone map[string]bool) {
	gone = map[string]bool{}
	for _, p := range l.all {
		q := *p
		q.Services = slices.Clone(p.Services)
		for i := range q.Services {
			s := &q.Services[i]
			if !slices.ContainsFunc(l.site.targets, func(t target) bool { return t.service == &p.Services[i] }) {
				continue
			}
			for _, f := range s.Families() {
				of := slices.DeleteFunc(slices.Clone(s.Of(f)), func(b lb.Backend) bool { return b.Effective() == 0 })
				if len(of) < 3 {
					continue
				}
				leaves := of[len(of)/2].Address
				gone[leaves.Addr.String()] = true
				s.Backends = slices.DeleteFunc(slices.Clone(s.Backends), func(b lb.Backend) bool { return b.Address == leaves })
			}
		}
		less = append(less, &q)
	}
	return less, gone
}

// Rehearse has all of it happen. An error means that it did not come to its end; what
// was found is in the report.
func (l *Lab) Rehearse(ctx context.Context) (*Report, error) {
	l.report = &Report{Fleet: l.fleet(), Balancers: len(l.nodes), Connections: l.options.Connections, Steps: []Step{}, Problems: []string{}, Notes: l.site.notes}
	l.crowd = &crowd{site: l.site}
	defer func() { l.crowd.close() }()
	for _, s := range l.steps() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l.options.Progress(s.what)
		if err := l.try(ctx, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.what, err)
		}
	}
	l.judge()
	l.report.Seconds = time.Since(l.started).Seconds()
	return l.report, nil
}

// try does one step.
func (l *Lab) try(ctx context.Context, s *step) error {
	if !s.returns {
		l.crowd.close()
	}
	if err := l.crowd.fill(ctx, l.options.Connections); err != nil {
		return err
	}
	stream := traffic.StartStream(ctx, pace, l.site.call)
	wait(ctx, 20*pace)
	err := s.do(ctx)
	lost := l.crowd.speak()
	wait(ctx, 20*pace)
	flights := stream.Stop()
	if err != nil {
		return err
	}
	out := Step{What: s.what, Of: l.options.Connections, Lost: len(lost), New: len(flights), Gap: longestGap(flights).Milliseconds()}
	for _, server := range lost {
		if s.changed[server] && !s.added {
			out.Removed++
		}
	}
	for _, f := range flights {
		if f.Err != nil {
			out.Failed++
		}
	}
	out.due(l, s)
	l.report.Steps = append(l.report.Steps, out)
	if s.then != nil {
		return s.then(ctx)
	}
	return nil
}

// fleet is that of the profiles; of several, all that there are.
func (l *Lab) fleet() string {
	words := map[string]bool{}
	for _, p := range l.all {
		words[p.Fleet().String()] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(words)), ", ")
}
