//go:build linux

package lab

// An outage: a backend ends, and then leaves the profile.

import (
	"context"
	"errors"
	"slices"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// outageCalls is how many new connections show an outage, about.
const outageCalls = 30

// outage ends the heaviest backend of a trial that has another one to take
// over, says what clients see, applies the profiles without it, says it again, and
// puts all back. It is nil where there is no such backend.
func (l *Lab) outage(ctx context.Context, t *trial) (*Outage, error) {
	var usable []lb.Backend
	for _, b := range t.backends() {
		if b.Effective() > 0 {
			usable = append(usable, b)
		}
	}
	if len(usable) < 2 || t.service.Limit != (lb.Limit{}) {
		return nil, nil
	}
	victim := slices.MaxFunc(usable, func(a, b lb.Backend) int { return a.Weight - b.Weight })
	if victim.MaxConnections > 0 {
		return nil, nil
	}
	o := &Outage{Backend: victim.Name, Trial: t.words()}
	live, err := l.keep(ctx, t, victim, o)
	if err != nil {
		return nil, err
	}
	for _, s := range l.of(victim) {
		s.Stop()
		s.Abort()
	}
	for _, c := range live {
		if _, err := c.Again(); err != nil {
			o.Ended++
		}
		c.Close()
	}
	rest := t.beside(victim)
	calls, failures, err := l.sample(ctx, rest)
	if err != nil {
		return nil, err
	}
	o.Connections, o.Failures = len(calls), failures
	// Without it nobody is to notice anything.
	if err := l.apply(ctx, without(l.site.profiles, t.service, victim)); err != nil {
		return nil, err
	}
	calls, failures, err = l.sample(ctx, rest)
	if err != nil {
		return nil, err
	}
	o.AfterConnections, o.AfterFailures = len(calls), failures
	still := 0
	for i := range calls {
		if t.reached(&calls[i], victim) {
			still++
		}
	}
	o.judge(calls, still)
	if err := l.revive(victim); err != nil {
		return nil, err
	}
	return o, l.apply(ctx, l.site.profiles)
}

// keep opens a few connections and keeps those that the backend got. UDP has
// none.
func (l *Lab) keep(ctx context.Context, t *trial, victim lb.Backend, o *Outage) ([]*traffic.Conn, error) {
	if t.protocol == lb.UDP {
		return nil, nil
	}
	var kept []*traffic.Conn
	for i := range outageCalls {
		c := t.call(l.client(t), i)
		conn, err := c.Client.Dial(ctx, c.Network, c.To)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			continue
		}
		c.Reply = conn.Reply
		if t.reached(&c, victim) {
			kept = append(kept, conn)
		} else {
			conn.Close()
		}
	}
	o.Live = len(kept)
	return kept, nil
}

// sample makes some calls and counts how they fail.
func (l *Lab) sample(ctx context.Context, t *trial) ([]traffic.Call, Failures, error) {
	n := min(t.whole(outageCalls), 10*outageCalls)
	if t.chunk > 0 {
		n = min(n, mostChunks*t.chunk)
	}
	calls := make([]traffic.Call, n)
	for i := range calls {
		calls[i] = t.call(l.client(t), i)
	}
	made, err := l.call(ctx, t, calls)
	failures := Failures{}
	for i := range made {
		if made[i].Err != nil {
			failures[traffic.Way(made[i].Err)]++
		}
	}
	return made, failures, err
}

func (o *Outage) judge(calls []traffic.Call, still int) {
	o.Problems = []string{}
	if still > 0 {
		o.Problems = append(o.Problems, times(still, "new connection", "new connections")+" went to it")
	}
	for i := range calls {
		if calls[i].Err != nil {
			o.Problems = append(o.Problems, times(o.AfterFailures.Total(), "new connection", "new connections")+" failed ("+calls[i].Err.Error()+")")
			return
		}
	}
}

// of are the servers that stand in for a backend.
func (l *Lab) of(b lb.Backend) []*traffic.Server {
	var out []*traffic.Server
	for p, s := range l.servers {
		if l.site.isAt(b, p) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// revive starts the servers again that have been stopped for a backend.
func (l *Lab) revive(b lb.Backend) error {
	ended := l.of(b)
	var errs []error
	for _, s := range ended {
		errs = append(errs, s.Close())
	}
	for _, s := range l.site.standins {
		if len(s.ports) == 0 || !slices.Contains(ended, l.servers[s.ports[0]]) {
			continue
		}
		errs = append(errs, l.start(l.hostOf(s), s))
	}
	return errors.Join(errs...)
}

// without are the profiles with one backend of one service less.
func without(profiles []*lb.Profile, v *lb.Service, b lb.Backend) []*lb.Profile {
	out := slices.Clone(profiles)
	for i, p := range out {
		for k := range p.Services {
			if &p.Services[k] != v {
				continue
			}
			q := *p
			q.Services = slices.Clone(p.Services)
			q.Services[k].Backends = slices.DeleteFunc(slices.Clone(v.Backends), func(x lb.Backend) bool { return x.Address == b.Address })
			out[i] = &q
		}
	}
	return out
}
