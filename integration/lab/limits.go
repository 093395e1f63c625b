//go:build linux

package lab

// Limits: each is driven to its bound and over it.

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// A limit beyond these is not tried: it would take too many sockets, or too
// long.
const (
	mostLive   = 300
	mostHalf   = 600
	mostFast   = 3000
	mostSilent = 100 // that are dropped, and wait in vain
	overLive   = 3   // live connections over a limit that are tried
	dropLimit  = time.Second
	// passedOver is for how long a backend that was found full gets no connection
	// that another can take (docs/profile.md, max-connections).
	passedOver = 10*time.Second + settled
)

// probe drives one limit of a trial's service.
type probe struct {
	*trial
	what string
	// clients are this probe's own, so that no other connection counts.
	clients []netip.Addr
	// run returns what was found in words, and the problems.
	run func(l *Lab, ctx context.Context, p *probe) (Limit, error)
}

// probes plans those of a service, with the clients of its first trial.
func (s *site) probes(t *trial) []*probe {
	limit := t.service.Limit
	var out []*probe
	add := func(what string, clients int, run func(*Lab, context.Context, *probe) (Limit, error)) {
		p := &probe{trial: t, what: what, run: run}
		bits := cmp.Or(t.sticky(), t.targets[0].Addr().BitLen())
		p.clients = s.recruit(t.family, clients, bits, t.service.Allow, t.service.Deny, true, t)
		if len(p.clients) == clients {
			out = append(out, p)
		}
	}
	if n := limit.ConnectionsPerSource; n > 0 && !t.slow() {
		add(fmt.Sprintf("connections-per-source %d", n), 1, (*Lab).probeLive)
	}
	if r := limit.NewPerSource; r.Events > 0 && !t.slow() {
		add(fmt.Sprintf("new-per-source %s, burst %d", r, burst(limit)), 1, (*Lab).probeSource)
	}
	if r := limit.New; r.Events > 0 {
		add("new "+r.String(), t.spread(int(min(r.Events, mostFast))*2), (*Lab).probeNew)
	}
	if n := t.halfOpen(); n > 0 {
		add(fmt.Sprintf("half-open %d", n), t.spread(n+overLive), (*Lab).probeHalfOpen)
	}
	var last time.Time // when backends of the service were full
	for _, b := range t.backends() {
		if b.MaxConnections > 0 && b.Effective() > 0 && t.service.Scheduler.Exact() && len(out) < 4 {
			add(fmt.Sprintf("max-connections %d of %s", b.MaxConnections, b.Name), t.spread(mostLive), func(l *Lab, ctx context.Context, p *probe) (Limit, error) {
				select {
				case <-time.After(passedOver - time.Since(last)):
				case <-ctx.Done():
					return Limit{}, ctx.Err()
				}
				defer func() { last = time.Now() }()
				return l.probeBackend(ctx, p, b)
			})
		}
	}
	return out
}

// spread is how many clients make n calls within what one client may do.
func (t *trial) spread(n int) int {
	q := t.perClient()
	switch {
	case t.sticky() > 0:
		return min(n, mostClients)
	case q > 0:
		return min((n+q-1)/q, mostClients)
	}
	return someClients
}

func burst(l lb.Limit) uint64 { return cmp.Or(uint64(l.Burst), l.NewPerSource.Events) }

// probe drives a limit, and leaves conntrack empty.
func (l *Lab) probe(ctx context.Context, p *probe) (Limit, error) {
	l.forget(p.trial)
	r, err := p.run(l, ctx, p)
	r.What = p.what
	if r.Problems == nil {
		r.Problems = []string{}
	}
	l.forget(p.trial)
	return r, err
}

// another reports whether so many connections at once may meet the limit of all new
// ones, or be too many for backends, or too many half-open ones.
func (p *probe) another(n int) bool {
	r := p.service.Limit.New
	return r.Events > 0 && r.Events < uint64(n) || p.crowded(n)
}

func (p *probe) crowded(n int) bool { return p.chunk > 0 && p.chunk < n }

func notTried(why string) (Limit, error) {
	return Limit{Found: "not tried, since " + why, Skipped: true}, nil
}

// request is the i-th call of a probe.
func (l *Lab) request(p *probe, i int) traffic.Call {
	c := p.call(l.client(p.trial), i)
	c.Client.Source = p.clients[i%len(p.clients)]
	if p.service.OnRefuse == lb.Drop { // those before are not to be forgotten while this one waits
		c.Client.Timeout = min(c.Client.Timeout, dropLimit)
	}
	return c
}

// hold opens connections, several at once, since what finds all backends full waits for
// a second, and keeps them. It returns the calls, and what closes them.
func (l *Lab) hold(ctx context.Context, p *probe, n int) ([]traffic.Call, func(), error) {
	l.made += n
	calls, open := make([]traffic.Call, n), make([]*traffic.Conn, n)
	closeAll := func() {
		for _, c := range open {
			if c != nil {
				c.Close()
			}
		}
	}
	var (
		next atomic.Int64
		wait sync.WaitGroup
	)
	for range 2 * workers {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				c := &calls[i]
				*c = l.request(p, i)
				if open[i], c.Err = c.Client.Dial(ctx, c.Network, c.To); c.Err == nil {
					c.Reply = open[i].Reply
				}
			}
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		closeAll()
		return nil, nil, ctx.Err()
	}
	return calls, closeAll, nil
}

// count counts the calls that were answered and those that were refused; what
// else came of one is a problem.
func (r *Limit) count(t *trial, calls []traffic.Call) (answered, refused int) {
	for i := range calls {
		switch err := calls[i].Err; {
		case err == nil:
			answered++
		case t.turnedAway(err):
			refused++
		case len(r.Problems) == 0:
			r.Problems = append(r.Problems, "a connection is to be answered or refused, but: "+err.Error())
		}
	}
	return answered, refused
}

// probeLive opens as many connections of one client as may be live, and some
// more.
func (l *Lab) probeLive(ctx context.Context, p *probe) (Limit, error) {
	limit, most := p.service.Limit, int(min(p.service.Limit.ConnectionsPerSource, math.MaxInt32))
	switch n := most + overLive; {
	case most > mostLive:
		return notTried(fmt.Sprintf("that is more than the %d live connections of a rehearsal", mostLive))
	case limit.NewPerSource.Events > 0 && burst(limit) < uint64(n):
		return notTried("new-per-source comes first")
	case p.another(n):
		return notTried("another limit comes first")
	}
	calls, done, err := l.hold(ctx, p, most+overLive)
	if err != nil {
		return Limit{}, err
	}
	defer done()
	var r Limit
	answered, refused := r.count(p.trial, calls)
	r.Found = fmt.Sprintf("of %d live connections of one client %d were refused", len(calls), refused)
	if answered != most {
		r.Problems = append(r.Problems, fmt.Sprintf("%d live connections of one client, due were %d", answered, most))
	}
	return r, nil
}

// probeHalfOpen begins as many connections as may be half-open, and some more. What is over
// is not tracked: it is refused, or answered by a cookie.
func (l *Lab) probeHalfOpen(ctx context.Context, p *probe) (Limit, error) {
	most := p.halfOpen()
	n := most + overLive
	switch q := p.perClient(); {
	case most > mostHalf:
		return notTried(fmt.Sprintf("that is more than the %d half-open connections of a rehearsal", mostHalf))
	case q > 0 && q*len(p.clients) < n, p.another((most + 1) / 2):
		return notTried("another limit comes first")
	}
	l.made += n
	for i := range n {
		c := l.request(p, i)
		open, err := c.Client.Knock(c.To)
		if err != nil {
			return Limit{}, err
		}
		defer open.Close()
	}
	time.Sleep(settled)
	tracked, err := l.tracked(p)
	if err != nil {
		return Limit{}, err
	}
	r := Limit{Found: fmt.Sprintf("of %d that no client completes %d were tracked", n, tracked)}
	if tracked != most {
		r.Problems = append(r.Problems, fmt.Sprintf("%d half-open connections, due were %d", tracked, most))
	}
	return r, nil
}

var inet = map[lb.Family]netlink.InetFamily{lb.IPv4: unix.AF_INET, lb.IPv6: unix.AF_INET6}

// tracked is how many TCP connections of a probe's clients the balancer knows.
func (l *Lab) tracked(p *probe) (n int, err error) {
	err = l.balancer.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, inet[p.family])
		for _, f := range flows {
			from, _ := netip.AddrFromSlice(f.Forward.SrcIP)
			if f.Forward.Protocol == unix.IPPROTO_TCP && slices.Contains(p.clients, from.Unmap()) {
				n++
			}
		}
		return err
	})
	return n, err
}

// probeSource opens connections of one client as fast as they go.
func (l *Lab) probeSource(ctx context.Context, p *probe) (Limit, error) {
	limit := p.service.Limit
	n := burst(limit)
	tries := n + max(10, n/2)
	switch {
	case tries > mostFast:
		return notTried(fmt.Sprintf("it takes more than %d connections", mostFast))
	case limit.ConnectionsPerSource > 0 && uint64(limit.ConnectionsPerSource) < tries:
		return notTried("connections-per-source comes first")
	case p.another(int(tries)):
		return notTried("another limit comes first")
	}
	return l.flood(ctx, p, int(tries), int(n), int(n), limit.NewPerSource)
}

// probeNew opens connections of many clients as fast as they go. How large a
// burst the limit lets through is not the profile's to say, so anything up to
// the events of its unit of time is right.
func (l *Lab) probeNew(ctx context.Context, p *probe) (Limit, error) {
	r := p.service.Limit.New
	tries := r.Events + max(60, r.Events/2)
	q := p.perClient()
	switch {
	case tries > mostFast:
		return notTried(fmt.Sprintf("it takes more than %d connections", mostFast))
	case q > 0 && uint64(q*len(p.clients)) < tries, p.crowded(int(tries)):
		return notTried("another limit comes first")
	}
	return l.flood(ctx, p, int(tries), 1, int(r.Events), r)
}

// flood makes calls as fast as they go, of which a token bucket lets at least
// so many through, and at most its burst and what came in meanwhile.
func (l *Lab) flood(ctx context.Context, p *probe, tries, least, burst int, r lb.Rate) (Limit, error) {
	if p.service.OnRefuse == lb.Drop && tries > mostSilent {
		return notTried(fmt.Sprintf("more than %d connections would wait for an answer", mostSilent))
	}
	calls := make([]traffic.Call, tries)
	for i := range calls {
		calls[i] = l.request(p, i)
	}
	begin := time.Now()
	if err := l.run(ctx, p.trial, calls); err != nil {
		return Limit{}, err
	}
	var out Limit
	answered, refused := out.count(p.trial, calls)
	out.weigh(answered, refused, time.Since(begin), least, burst, r)
	return out, nil
}

// weigh judges a flood. Where none was refused, and so many may come in that
// time, the machine was too slow to show the limit.
func (l *Limit) weigh(answered, refused int, took time.Duration, least, burst int, r lb.Rate) {
	most := burst + 1 + int(float64(r.Events)*took.Seconds()/r.Per.Seconds())
	flood := fmt.Sprintf("%d connections in %d ms", answered+refused, took.Milliseconds())
	l.Found = fmt.Sprintf("of %s %d were refused", flood, refused)
	switch {
	case answered < least || answered > most:
		l.Problems = append(l.Problems, fmt.Sprintf("of %s %d were let through, due were %d to %d", flood, answered, least, most))
	case refused == 0 && len(l.Problems) == 0:
		l.Found, l.Skipped = fmt.Sprintf("not tried, since %s are no more than it lets through", flood), true
	}
}

// probeBackend opens connections until a backend has had as many as may be
// live, and some more. What is more goes to other backends that have room.
func (l *Lab) probeBackend(ctx context.Context, p *probe, b lb.Backend) (Limit, error) {
	cycle, own := p.service.Slots(p.backends()), 0
	for _, i := range cycle {
		if p.backends()[i].Address == b.Address {
			own++
		}
	}
	most := int(min(b.MaxConnections, mostLive+1))
	rounds := (most + overLive + own - 1) / own
	n := rounds * len(cycle)
	q := p.perClient()
	switch {
	case most > mostLive || n > 2*mostLive:
		return notTried(fmt.Sprintf("it takes more than %d live connections", 2*mostLive))
	case p.sticky() > 0 && n > len(p.clients), q > 0 && n > q*len(p.clients), p.service.Limit.New.Events > 0, p.service.Limit.HalfOpen > 0:
		return notTried("other limits come first")
	}
	calls, done, err := l.hold(ctx, p, n)
	if err != nil {
		return Limit{}, err
	}
	defer done()
	var r Limit
	_, refused := r.count(p.trial, calls)
	got := 0
	for i := range calls {
		if p.reached(&calls[i], b) {
			got++
		}
	}
	r.Found = fmt.Sprintf("%d live connections, then %d were refused", got, refused)
	if got != most {
		r.Problems = append(r.Problems, fmt.Sprintf("%s had %d live connections, due were %d", b.Name, got, most))
	}
	return r, nil
}
