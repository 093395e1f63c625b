//go:build linux

package lab

// The rehearsal: every trial in turn, then an outage of each service.

import (
	"cmp"
	"context"
	"errors"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// Time limits. No packet of a world takes a millisecond; the rest is for a
// busy machine.
const (
	callLimit    = 3 * time.Second
	silenceLimit = 300 * time.Millisecond // for what is not to be answered, if shorter
	workers      = 4
)

// Rehearse sends connections and compares what came of them with what is due.
// An error means that it did not come to its end.
func (l *Lab) Rehearse(ctx context.Context) (*Report, error) {
	r := &Report{Problems: foresee(l.site)}
	l.made = 0
	alpha := l.alpha()
	whole := map[*lb.Service][]*trial{}
	for _, p := range l.site.profiles {
		rp := Profile{Name: p.Name}
		for i := range p.Services {
			s, err := l.rehearse(ctx, p, &p.Services[i], alpha, whole)
			if err != nil {
				return nil, err
			}
			rp.Services = append(rp.Services, s)
		}
		r.Profiles = append(r.Profiles, rp)
	}
	if err := l.drills(ctx, whole, r); err != nil {
		return nil, err
	}
	r.Connections, r.Notes = l.made, l.site.notes
	r.Seconds = time.Since(l.started).Seconds()
	return r, nil
}

// alpha is the probability of a false alarm that each backend of each trial may
// have.
func (l *Lab) alpha() float64 {
	n := 1
	for _, t := range l.site.trials {
		n += len(t.backends())
	}
	return falseAlarm / float64(n)
}

func (l *Lab) rehearse(ctx context.Context, p *lb.Profile, v *lb.Service, alpha float64, whole map[*lb.Service][]*trial) (Service, error) {
	s := Service{
		Name: v.Name, Role: v.Role.String(), Scheduler: v.Scheduler.String(), SNAT: v.SNAT.String(),
		Listen: []string{}, Protocol: []string{}, Trials: []Trial{},
	}
	for _, listen := range v.Listen {
		s.Listen = append(s.Listen, listen.String())
	}
	for _, proto := range v.Protocols {
		s.Protocol = append(s.Protocol, proto.String())
	}
	for _, t := range l.site.trials {
		if t.service != v {
			continue
		}
		l.options.Progress(p.Name + "/" + v.Name + ": " + t.words())
		result, err := l.try(ctx, t, alpha)
		if err != nil {
			return s, err
		}
		s.Trials = append(s.Trials, result)
		if len(result.Problems) == 0 && t.calls > 0 { // outages are shown with such ones
			whole[v] = append(whole[v], t)
		}
	}
	for _, q := range l.site.limits {
		if q.service != v {
			continue
		}
		l.options.Progress(p.Name + "/" + v.Name + ": " + q.what)
		limit, err := l.probe(ctx, q)
		if err != nil {
			return s, err
		}
		s.Limits = append(s.Limits, limit)
	}
	if len(whole[v]) == 0 {
		return s, nil
	}
	l.options.Progress(p.Name + "/" + v.Name + ": ending a backend")
	var err error
	s.Outage, err = l.outage(ctx, whole[v][0])
	return s, err
}

// try makes the calls of a trial and judges them.
func (l *Lab) try(ctx context.Context, t *trial, alpha float64) (Trial, error) {
	base := l.client(t)
	if t.due() == DueSilence {
		base.Timeout = min(base.Timeout, silenceLimit)
	}
	var calls []traffic.Call
	for _, batch := range t.plan(base) {
		made, err := l.call(ctx, t, batch)
		if err != nil {
			return Trial{}, err
		}
		calls = append(calls, made...)
	}
	r := l.site.judge(t, calls, alpha)
	if t.strangers != nil {
		if err := l.deny(ctx, t, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}

// client is one of a trial, without its source.
func (l *Lab) client(t *trial) traffic.Client {
	return traffic.Client{Host: l.origin(t), Timeout: cmp.Or(l.options.patience, callLimit)}
}

// origin is the host that a trial's connections come from.
func (l *Lab) origin(t *trial) *netlab.Host {
	if t.fromHost {
		return l.balancer
	}
	return l.clients[t.link]
}

// call makes calls and returns those that were made: where most are not
// answered at all, the rest is left.
func (l *Lab) call(ctx context.Context, t *trial, calls []traffic.Call) ([]traffic.Call, error) {
	// After a few calls it is known whether there are answers.
	for done, size := 0, workers; done < len(calls); size = 256 {
		if t.chunk > 0 {
			size = t.chunk
			l.forget(t)
		}
		part := calls[done:min(done+size, len(calls))]
		if err := l.send(ctx, t, part); err != nil {
			return nil, err
		}
		done += len(part)
		silent := 0
		for i := range part {
			if errors.Is(part[i].Err, traffic.ErrTimeout) {
				silent++
			}
		}
		if 2*silent > len(part) {
			return calls[:done], nil
		}
	}
	return calls, nil
}

// run makes calls as fast as they go.
func (l *Lab) run(ctx context.Context, t *trial, calls []traffic.Call) error {
	l.made += len(calls)
	return traffic.Run(ctx, l.origin(t), calls, workers)
}

// send makes calls, several at once, or one after the other below a rate
// limit: after a delay none is made up for.
func (l *Lab) send(ctx context.Context, t *trial, calls []traffic.Call) error {
	if t.rest == 0 {
		return l.run(ctx, t, calls)
	}
	for i := range calls {
		pause := time.NewTimer(t.rest)
		if err := l.run(ctx, t, calls[i:i+1]); err != nil {
			return err
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// deny tries what allow and deny turn away, and what they let in beside it has
// been tried by then.
func (l *Lab) deny(ctx context.Context, t *trial, r *Trial) error {
	calls := make([]traffic.Call, len(t.strangers))
	for i, a := range t.strangers {
		client := l.client(t)
		client.Source = a
		calls[i] = traffic.Call{Client: client, Network: t.protocol.String(), To: t.targets[i%len(t.targets)]}
	}
	if err := l.run(ctx, t, calls); err != nil {
		return err
	}
	r.Denied = &Denied{Of: len(calls)}
	for i := range calls {
		switch c := &calls[i]; {
		case t.turnedAway(c.Err):
			r.Denied.Refused++
		case c.Err == nil:
			r.problem("a connection of %s was answered, although allow and deny turn it away", c.Client.Source)
		default:
			r.problem("a connection of %s is to be refused, but: %v", c.Client.Source, c.Err)
		}
	}
	return nil
}

func (t *trial) words() string { return title(t.family.String(), t.protocol.String(), t.fromHost) }
