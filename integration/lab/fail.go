//go:build linux

package lab

// A backend fails: how long it takes until the table says that it is out and back,
// what becomes of clients meanwhile, and whether that is as promised.

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"nlb/integration/lab/plan"
	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// each has the victims of a drill fail in some ways, in turn.
func (s *session) each(ctx context.Context, d *drill, ways []string) error {
	victims := s.lab.victims(d)
	for i, way := range ways {
		if err := s.outage(ctx, d, victims[i%len(victims)], way, time.Time{}, time.Time{}, true); err != nil {
			return err
		}
	}
	return nil
}

// follow follows the plan, each backend by itself.
func (s *session) follow(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var tasks sync.WaitGroup
	for _, d := range s.all {
		for i := range d.service.Backends {
			b := &d.service.Backends[i]
			var own []plan.Step
			for _, step := range d.steps {
				if step.Backend == b.Name {
					own = append(own, step)
				}
			}
			tasks.Go(func() {
				if err := s.steps(ctx, d, b, own); err != nil {
					end(err)
				}
			})
		}
	}
	tasks.Wait()
	return context.Cause(ctx)
}

// steps are those of one backend. Without a next one an outage ends as soon as the
// backend is out.
func (s *session) steps(ctx context.Context, d *drill, b *lb.Backend, own []plan.Step) error {
	moment := func(i int) time.Time {
		if i < len(own) {
			return s.began.Add(own[i].At)
		}
		return time.Time{}
	}
	for i, step := range own {
		if step.Way == plan.Back {
			continue
		}
		if err := s.rest(ctx, moment(i)); err != nil {
			return err
		}
		back, limit := true, moment(i+1)
		if i+1 < len(own) {
			back, limit = own[i+1].Way == plan.Back, moment(i+2)
		}
		if err := s.outage(ctx, d, b, step.Way, moment(i+1), limit, back); err != nil {
			return err
		}
	}
	return nil
}

// rest waits for a moment.
func (s *session) rest(ctx context.Context, moment time.Time) error {
	_, err := s.watch.until(ctx, moment, func() bool { return false })
	return err
}

// outage has a backend fail from now until end; zero: until it is out. Then, if it is
// to be back, it waits for that until limit; zero: as long as is promised.
func (s *session) outage(ctx context.Context, d *drill, b *lb.Backend, way string, end, limit time.Time, back bool) error {
	v, id := d.service, d.id(b)
	s.lab.options.Progress(d.name() + ": " + b.Name + " " + plan.Verbs[way])
	t, part := d.of(lb.FamilyOf(b.Address.Addr)), d.share(b, nil)
	due, sees := plan.Out(v, way, t.protocol == lb.TCP && part > 0)
	// The kernel sees it refuse once a client comes to it: ten have come by then.
	tolerance := due.Most/2 + busy + time.Duration(10/max(part, 0.01)*float64(pace))
	f := &failing{Failing: Failing{Backend: b.Name, Way: way, Trial: t.words(), Problems: []string{}}, family: t.family, began: time.Now()}
	f.Began = f.began.Sub(s.began).Seconds()
	before := s.watch.of(id)
	// One that flaps may be back before it is due to be out.
	if sees = sees && !before.down && (way != plan.Flap || due.Most <= plan.Beat(v)); sees {
		f.OutDue = due.Due()
	}
	fell := func() bool { return before.down || s.watch.of(id).falls > before.falls }
	var last time.Time // that it is waited for
	if sees || way != plan.Flap {
		last = f.began.Add(due.Most + tolerance)
	}
	if err := s.strike(ctx, d.posts[b.Name], v, way, end, last, fell); err != nil {
		return err
	}
	f.mended = time.Now()
	f.until = f.mended
	if times := s.watch.falls(id)[before.falls:]; len(times) > 0 {
		f.Falls, f.out = len(times), times[0]
		f.Out = seconds(f.out.Sub(f.began))
	}
	if sees {
		f.judgeOut(due, tolerance)
	}
	if back && s.watch.of(id).down {
		if err := s.back(ctx, v, id, f, limit); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failings = append(d.failings, f)
	return nil
}

// strike has a stand-in fail until end, and then work again. A zero end is when the
// backend has fallen, and limit at the latest.
func (s *session) strike(ctx context.Context, p *post, v *lb.Service, way string, end, limit time.Time, fell func() bool) error {
	if way == plan.Flap {
		return s.flap(ctx, p, plan.Beat(v), end, limit, fell)
	}
	err := p.fail(way, slowBy(v))
	if err == nil && end.IsZero() {
		if _, err = s.watch.until(ctx, limit, fell); err == nil {
			err = s.rest(ctx, time.Now().Add(plan.Lull))
		}
	} else if err == nil {
		err = s.rest(ctx, end)
	}
	if err == nil {
		err = p.mend(way)
	}
	return err
}

// flap has a server refuse and come back, until end. Without an end it refuses until
// it has fallen, in its last round, and until limit at the latest.
func (s *session) flap(ctx context.Context, p *post, beat time.Duration, end, limit time.Time, fell func() bool) error {
	for i := 0; end.IsZero() && i < plan.Flaps || !end.IsZero() && time.Now().Before(end); i++ {
		if err := p.fail(plan.Refuse, 0); err != nil {
			return err
		}
		if err := s.rest(ctx, time.Now().Add(beat)); err != nil {
			return err
		}
		last := end.IsZero() && i == plan.Flaps-1
		if last {
			if _, err := s.watch.until(ctx, limit, fell); err != nil {
				return err
			}
		}
		if err := p.mend(plan.Refuse); err != nil {
			return err
		}
		if last {
			return nil // it stays
		}
		if err := s.rest(ctx, time.Now().Add(beat)); err != nil {
			return err
		}
	}
	return nil
}

// back waits until a backend is back.
func (s *session) back(ctx context.Context, v *lb.Service, id lb.BackendID, f *failing, limit time.Time) error {
	due := plan.Return(v, s.watch.of(id).falls)
	f.BackDue = due.Due()
	last := f.mended.Add(due.Most*3/2 + busy)
	judged := limit.IsZero() || last.Before(limit)
	if !judged {
		last = limit
	}
	ok, err := s.watch.until(ctx, last, func() bool { return !s.watch.of(id).down })
	f.until = time.Now()
	switch {
	case err != nil:
		return err
	case ok:
		f.until = s.watch.of(id).rose
		f.Back = seconds(f.until.Sub(f.mended))
	case judged:
		f.problem("it was not back %s after it worked again, due is at most %s", plan.Seconds(last.Sub(f.mended)), plan.Seconds(due.Most))
	}
	return nil
}

// slowBy is how late a slow server answers: later than checks wait, and late for a
// client.
func slowBy(v *lb.Service) time.Duration {
	by := time.Duration(0)
	for i := range v.Health {
		by = max(by, v.Health[i].Timeout)
	}
	return by + lateAfter
}

func (f *failing) judgeOut(due plan.Span, tolerance time.Duration) {
	failed := f.mended.Sub(f.began)
	switch limit := due.Most + tolerance; {
	case f.Falls > 0 && f.out.Sub(f.began) > limit:
		f.problem("it was out after %s, due is %s", plan.Seconds(f.out.Sub(f.began)), due)
	case f.Falls == 0 && failed >= limit:
		f.problem("it was not out after %s, due is %s", plan.Seconds(failed), due)
	}
}

func (f *failing) problem(format string, args ...any) {
	f.Problems = append(f.Problems, fmt.Sprintf(format, args...))
}

func seconds(d time.Duration) *float64 {
	s := max(d, 0).Seconds()
	return &s
}

// count counts connections of a family for the outages in which they began.
func (d *drill) count(family lb.Family, all []traffic.Attempt) {
	for _, f := range d.failings {
		if f.family != family {
			continue
		}
		after := 0 // lost once it was out
		for _, c := range all {
			switch {
			case c.Began.Before(f.began) || c.Began.After(f.until):
				continue
			case c.Err != nil:
				f.Lost++
				if !f.out.IsZero() && c.Began.After(f.out) && c.Began.Before(f.mended) {
					after++
				}
			case c.Took > lateAfter:
				f.Late++
			}
			f.Connections++
		}
		b := d.backend(f.Backend)
		if after > 0 && f.Way != plan.Flap && d.alone(f) && d.share(b, b) == 0 {
			f.problem("%s after it was out", times(after, "new connection was lost", "new connections were lost"))
		}
	}
}

// alone reports whether nothing else of the service failed meanwhile.
func (d *drill) alone(f *failing) bool {
	return !slices.ContainsFunc(d.failings, func(o *failing) bool { return o != f && o.began.Before(f.until) && f.began.Before(o.until) })
}

// report puts the outages into the report.
func (d *drill) report(r *Report) {
	slices.SortFunc(d.failings, func(a, b *failing) int { return a.began.Compare(b.began) })
	for i := range r.Profiles {
		for k := range r.Profiles[i].Services {
			s := &r.Profiles[i].Services[k]
			if r.Profiles[i].Name != d.profile.Name || s.Name != d.service.Name {
				continue
			}
			for _, f := range d.failings {
				s.Failings = append(s.Failings, f.Failing)
			}
		}
	}
}

func (d *drill) backend(name string) *lb.Backend {
	v := d.service
	return &v.Backends[slices.IndexFunc(v.Backends, func(b lb.Backend) bool { return b.Name == name })]
}

// glance is from one look at the table to the next.
const glance = 10 * time.Millisecond

// seen is what the table says of a backend.
type seen struct {
	there, down, serves bool
	reason              string
	falls               int
	rose                time.Time
}

// watch looks at the balancer's table all the time.
type watch struct {
	mu      sync.Mutex
	seen    map[lb.BackendID]seen
	fells   map[lb.BackendID][]time.Time // when they fell
	changed chan struct{}                // closed at the next change
}

func newWatch() *watch {
	return &watch{seen: map[lb.BackendID]seen{}, fells: map[lb.BackendID][]time.Time{}, changed: make(chan struct{})}
}

// run looks until ctx ends.
func (w *watch) run(ctx context.Context, host *netlab.Host, read func() ([]*lb.Profile, error)) error {
	return host.Do(func() error {
		for ctx.Err() == nil {
			profiles, err := read()
			if err != nil {
				return err
			}
			w.note(profiles, time.Now())
			select {
			case <-ctx.Done():
			case <-time.After(glance):
			}
		}
		return nil
	})
}

func (w *watch) note(profiles []*lb.Profile, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := false
	for p, s := range lb.Services(profiles) {
		for i := range s.Backends {
			b := &s.Backends[i]
			id := lb.BackendID{Profile: p.Name, Service: s.Name, Address: b.Address}
			was := w.seen[id]
			is := was
			is.there, is.down, is.serves, is.reason = true, b.Standing.Verdict == lb.VerdictDown, b.State != lb.Down, b.Standing.Reason
			switch {
			case is.down && !was.down:
				is.falls++
				w.fells[id] = append(w.fells[id], now)
			case !is.down && was.down:
				is.rose = now
			}
			if is != was {
				w.seen[id], changed = is, true
			}
		}
	}
	if changed {
		close(w.changed)
		w.changed = make(chan struct{})
	}
}

// of is what was seen last.
func (w *watch) of(id lb.BackendID) seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[id]
}

// falls are the moments in which it fell.
func (w *watch) falls(id lb.BackendID) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fells[id]
}

// until waits until something is so, or a moment has come; then it is false.
func (w *watch) until(ctx context.Context, moment time.Time, so func() bool) (bool, error) {
	over := time.NewTimer(time.Until(moment))
	defer over.Stop()
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if so() {
			return true, nil
		}
		select {
		case <-changed:
		case <-over.C:
			return so(), nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}
