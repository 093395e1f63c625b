//go:build linux

package lab

// Drills: backends of services with health fail while a real agent watches them.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"nlb/integration/lab/plan"
	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// Agent is nlb run.
type Agent interface {
	// Run keeps a host true to profiles until ctx ends, and leaves nothing behind.
	// An error means that it ended before.
	Run(ctx context.Context, h *netlab.Host, profiles []*lb.Profile) error
	// Known reads what the kernel of the host that it is called in balances, with what
	// is known of the backends.
	Known() ([]*lb.Profile, error)
}

const (
	mostDrills  = 3                     // services, where nobody asks for one
	mostTime    = 45 * time.Second      // of all their outages, as settings promise
	longest     = 20 * time.Second      // outage that is tried unasked
	pace        = 20 * time.Millisecond // from one new connection to the next
	lateAfter   = time.Second
	readyWithin = 15 * time.Second // beside a timeout
	busy        = 2 * time.Second  // what a busy machine may add to a promise
	mostFlows   = 300              // of UDP, which last for 5 s (short) at this pace, and more
)

// drill is a service that is tried.
type drill struct {
	profile *lb.Profile
	service *lb.Service
	steps   []plan.Step      // of the plan; nil: nobody asks for one
	trials  []*trial         // one for each family; outages that nobody asks for are of the first
	posts   map[string]*post // by backend
	streams map[lb.Family]*traffic.Stream

	mu       sync.Mutex
	failings []*failing
}

// failing is a Failing with its moments.
type failing struct {
	Failing
	family                    lb.Family
	began, out, mended, until time.Time
}

// enroll makes a drill of a service whose trials are as due.
func (l *Lab) enroll(p *lb.Profile, v *lb.Service, whole []*trial) *drill {
	d := &drill{profile: p, service: v, posts: map[string]*post{}, streams: map[lb.Family]*traffic.Stream{}}
	for _, s := range l.options.Plan {
		if s.Profile == p.Name && s.Service == v.Name {
			d.steps = append(d.steps, s)
		}
	}
	for _, t := range whole {
		if d.of(t.family) == nil {
			d.trials = append(d.trials, t)
		}
	}
	return d
}

// of is the trial of a family; nil: there is none.
func (d *drill) of(f lb.Family) *trial {
	i := slices.IndexFunc(d.trials, func(t *trial) bool { return t.family == f })
	if i < 0 {
		return nil
	}
	return d.trials[i]
}

func (d *drill) name() string { return d.profile.Name + "/" + d.service.Name }

func (d *drill) id(b *lb.Backend) lb.BackendID {
	return lb.BackendID{Profile: d.profile.Name, Service: d.service.Name, Address: b.Address}
}

// drills are the outages of services with health: those of the plan, or some of each
// way for a few services.
func (l *Lab) drills(ctx context.Context, whole map[*lb.Service][]*trial, r *Report) error {
	if l.options.Agent == nil {
		return nil
	}
	planned := len(l.options.Plan) > 0
	var all []*drill
	for p, v := range lb.Services(l.site.profiles) {
		d := l.enroll(p, v, whole[v])
		if len(v.Health) == 0 || planned && d.steps == nil {
			continue
		}
		if why := l.unfit(d); why != "" {
			if planned {
				return fmt.Errorf("no outages of %s: %s", d.name(), why)
			}
			l.site.note("%s: its outages are not rehearsed, since %s", d.name(), why)
			continue
		}
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil
	}
	var err error
	if planned {
		if a, b := shared(all); a != nil {
			return fmt.Errorf("%s and %s have a server in common; --fail can be about one of them only", a.name(), b.name())
		}
		err = l.session(ctx, all, r, func(ctx context.Context, s *session) error { return s.follow(ctx) })
	} else {
		err = l.drillEach(ctx, all, r)
	}
	if err != nil {
		return err
	}
	return l.apply(ctx, l.site.profiles)
}

// drillEach tries some services, each by itself.
func (l *Lab) drillEach(ctx context.Context, all []*drill, r *Report) error {
	left := mostTime
	for i, d := range all {
		ways, takes := l.ways(d)
		if i >= mostDrills || i > 0 && takes > left {
			l.site.note("outages of %s are not rehearsed, to save time; --fail SERVICE/BACKEND=WAY asks for one",
				times(len(all)-i, "more service", "more services"))
			return nil
		}
		left -= takes
		if len(ways) == 0 {
			continue
		}
		err := l.session(ctx, []*drill{d}, r, func(ctx context.Context, s *session) error { return s.each(ctx, d, ways) })
		if err != nil {
			return err
		}
	}
	return nil
}

// ways are those in which a service is tried, and how long they take.
func (l *Lab) ways(d *drill) (ways []string, takes time.Duration) {
	s := d.service
	var unseen []string
	for _, way := range []string{plan.Refuse, plan.Silent, plan.Slow, plan.Flap} {
		refused := d.trials[0].protocol == lb.TCP
		n := plan.Length(s, way, refused)
		switch _, sees := plan.Out(s, way, refused); {
		case !sees:
			unseen = append(unseen, plan.Verbs[way])
		case n > longest:
			l.site.note("%s: no backend %s here, since that may take %s; --fail asks for it", d.name(), plan.Verbs[way], plan.Seconds(n))
		default:
			ways, takes = append(ways, way), takes+n
		}
	}
	if unseen != nil {
		l.site.note("%s: no check sees a backend that %s, so none does here", d.name(), strings.Join(unseen, ", or "))
	}
	return ways, takes
}

// unfit says why a service cannot be tried; empty: it can.
func (l *Lab) unfit(d *drill) string {
	v := d.service
	switch {
	case len(d.trials) == 0:
		return "its connections are not as due, or there are none"
	case v.Mode.Direct():
		return "with mode: " + v.Mode.String() + " a server that is gone is not told from one that is silent"
	case v.Limit != (lb.Limit{}):
		return "its limit would turn away clients that come all the time"
	}
	for i := range v.Health {
		if what := plan.Unplayable(v, &v.Health[i]); what != "" {
			return "its check " + v.Health[i].Kind.String() + " " + what + ", which no stand-in passes"
		}
	}
	owner := map[netip.Addr]string{}
	for i := range v.Backends {
		b := &v.Backends[i]
		if b.MaxConnections > 0 && b.MaxConnections < mostFlows && slices.Contains(v.Protocols, lb.UDP) {
			return "clients that come all the time would be too many flows for " + b.Name
		}
		for _, a := range addresses(v, b) {
			if other, ok := owner[a]; ok {
				return other + " and " + b.Name + " are on one server"
			}
			owner[a] = b.Name
			if a != b.Address.Addr && l.site.local(a) {
				return b.Name + " is checked on the balancer itself"
			}
			if l.direct[a] != nil {
				return b.Name + " is a backend of a service with mode: dsr or tunnel, too"
			}
		}
	}
	if d.steps == nil && len(l.victims(d)) == 0 {
		return "no backend could take over from another"
	}
	for _, step := range d.steps {
		if why := l.unable(d, d.backend(step.Backend)); why != "" {
			return step.Backend + " " + why
		}
	}
	return ""
}

// unable says why a backend cannot fail; empty: it can.
func (l *Lab) unable(d *drill, b *lb.Backend) string {
	switch {
	case d.of(lb.FamilyOf(b.Address.Addr)) == nil:
		return "has no connections that are as due"
	case l.site.local(b.Address.Addr):
		return "is on the balancer itself"
	case !d.service.Checked(b):
		return "is not checked"
	}
	return ""
}

// victims are the backends of the first trial that serve, and that others stand in
// for when they are down.
func (l *Lab) victims(d *drill) []*lb.Backend {
	var out []*lb.Backend
	for i := range d.service.Backends {
		b := &d.service.Backends[i]
		if d.of(lb.FamilyOf(b.Address.Addr)) == d.trials[0] && b.MaxConnections == 0 && l.unable(d, b) == "" && d.share(b, nil) > 0 && d.share(b, b) == 0 {
			out = append(out, b)
		}
	}
	return out
}

// share is the part of its family's connections that a backend gets while down is
// down and all others are up. Down may be nil: nobody is.
func (d *drill) share(b, down *lb.Backend) float64 {
	p, v := d.profile, d.service
	known := map[lb.BackendID]lb.Standing{}
	for i := range v.Backends {
		is := lb.VerdictUp
		if down != nil && v.Backends[i].Address == down.Address {
			is = lb.VerdictDown
		}
		known[lb.BackendID{Profile: p.Name, Service: v.Name, Address: v.Backends[i].Address}] = lb.Standing{Verdict: is}
	}
	placed := lb.Overlay([]*lb.Profile{{Name: p.Name, Services: []lb.Service{*v}}}, known, nil)[0].Services[0]
	sum, own := 0, 0
	for _, o := range placed.Of(lb.FamilyOf(b.Address.Addr)) {
		sum += o.Effective()
		if o.Address == b.Address {
			own = o.Effective()
		}
	}
	return float64(own) / float64(max(sum, 1))
}

// session is an agent that watches the services of some drills.
type session struct {
	lab   *Lab
	all   []*drill
	watch *watch
	began time.Time
}

// session runs a script while an agent watches, and puts what came of it into the
// report.
func (l *Lab) session(ctx context.Context, all []*drill, r *Report, script func(context.Context, *session) error) (err error) {
	s := &session{lab: l, all: all, watch: newWatch()}
	defer func() { err = errors.Join(err, l.dismiss(all)) }()
	for _, d := range all {
		if err := l.post(d); err != nil {
			return err
		}
	}
	// The agent asks all servers before it lets clients in.
	if err := l.apply(ctx, nil); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer end(nil)
	tasks.Go(func() { end(l.options.Agent.Run(ctx, l.balancer, s.profiles())) })
	tasks.Go(func() {
		if err := s.watch.run(ctx, l.balancer, l.options.Agent.Known); err != nil {
			end(err)
		}
	})
	l.options.Progress("nlb run begins")
	if ready, err := s.ready(ctx, r); err != nil || !ready {
		return err
	}
	s.began = time.Now()
	for _, d := range all {
		for _, t := range d.streamed() {
			client := traffic.Client{Host: l.origin(t), Timeout: patience(t), Reset: true, Hello: true}
			d.streams[t.family] = traffic.StartStream(ctx, pace, func(i int) traffic.Call { return t.call(client, i) })
		}
	}
	err = script(ctx, s)
	for _, d := range all {
		if err != nil {
			end(err) // those that are under way
		}
		for f, stream := range d.streams {
			flights := stream.Stop()
			l.made += len(flights)
			d.count(f, flights)
		}
		d.report(r)
	}
	return err
}

// patience is how long a client waits: as long as it may take TCP to say again what
// was lost, when the pause has doubled each time; a datagram is not said again.
func patience(t *trial) time.Duration {
	if t.protocol == lb.UDP {
		return slowBy(t.service) + time.Second
	}
	out, _ := plan.Out(t.service, plan.Silent, false)
	return 2*out.Most + slowBy(t.service) + 3*time.Second
}

// streamed are the trials whose clients connect all the time: the first, or those
// that a plan needs.
func (d *drill) streamed() []*trial {
	if d.steps == nil {
		return d.trials[:1]
	}
	return slices.DeleteFunc(slices.Clone(d.trials), func(t *trial) bool {
		return !slices.ContainsFunc(d.steps, func(s plan.Step) bool { return lb.FamilyOf(d.backend(s.Backend).Address.Addr) == t.family })
	})
}

// profiles are those of the drills, with nothing else.
func (s *session) profiles() []*lb.Profile {
	var out []*lb.Profile
	for _, d := range s.all {
		i := slices.IndexFunc(out, func(p *lb.Profile) bool { return p.Name == d.profile.Name })
		if i < 0 {
			i = len(out)
			out = append(out, &lb.Profile{Name: d.profile.Name})
		}
		out[i].Services = append(out[i].Services, *d.service)
	}
	return out
}

// ready waits until all backends are up; where one does not come up, nothing can be
// shown.
func (s *session) ready(ctx context.Context, r *Report) (bool, error) {
	within := readyWithin
	for _, d := range s.all {
		for i := range d.service.Health {
			within = max(within, d.service.Health[i].Timeout+readyWithin)
		}
	}
	down := func() (list []string) {
		for _, d := range s.all {
			for i := range d.service.Backends {
				b := &d.service.Backends[i]
				switch is := s.watch.of(d.id(b)); {
				case !is.there:
					list = append(list, d.name()+": "+b.Name+" is not in the kernel, although nlb run began")
				case is.down || !is.serves:
					list = append(list, strings.TrimSuffix(d.name()+": "+b.Name+" is down before anything fails: "+is.reason, ": "))
				}
			}
		}
		return list
	}
	ok, err := s.watch.until(ctx, time.Now().Add(within), func() bool { return len(down()) == 0 })
	if err == nil && !ok {
		r.Problems = append(r.Problems, down()...)
	}
	return ok, err
}
