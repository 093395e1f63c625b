// Package resolve follows names in the DNS, so that backends may be given by
// name. It asks the servers of /etc/resolv.conf, and /etc/hosts before them. What
// it found last holds for ever: no failure of the DNS takes an address away.
package resolve

// The resolver: names that are asked for again and again, and what came of it.

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"nlb/lb"
	"nlb/lb/names"
)

// A record is believed for its TTL, within these bounds. A name that could not be
// resolved is asked for again after the shortest of them, then after twice as
// long, and so on up to longestRetry.
const (
	shortestTTL  = 5 * time.Second
	longestTTL   = 10 * time.Minute
	longestRetry = time.Minute
)

// MaxRecords is the largest number of records of a name: those that sort behind
// are left out.
const MaxRecords = 256

// Options say where names are looked up. The zero Options are those of the host.
type Options struct {
	// Conf and Hosts are files as resolv.conf(5) and hosts(5) have them; empty:
	// those in /etc.
	Conf, Hosts string
	// Port is that of all servers; 0: 53.
	Port uint16
	// Shortest is how long an answer is believed at least; 0: 5 s.
	Shortest time.Duration
	// Dial reaches a server, as net.Dialer.DialContext does; nil: that.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Answer is what is known of a name.
type Answer struct {
	Host lb.Host
	// Records are sorted by names.Sort, at most MaxRecords, and not to be
	// changed. None: the name has not been resolved yet.
	Records []names.Record
	// Err is why the records, or some of them, could not be found, or were left
	// out; nil: all is well.
	Err error
	// Stale: some of the records are of an earlier answer, since Since.
	Stale bool
	Since time.Time
	// Next is when the name will be asked for again.
	Next time.Time
}

// Resolver follows names. It is safe for concurrent use.
type Resolver struct {
	least   time.Duration // that an answer is believed
	look    func(context.Context, lb.Host, memory) found
	answers chan Answer
	ctx     context.Context
	cancel  context.CancelFunc
	all     sync.WaitGroup

	mu       sync.Mutex
	followed map[lb.Host]context.CancelFunc
}

// New makes a resolver that follows nothing yet. Close ends it.
func New(o Options) *Resolver {
	r := follower(newClient(o).look)
	r.least = cmp.Or(o.Shortest, shortestTTL)
	return r
}

func follower(look func(context.Context, lb.Host, memory) found) *Resolver {
	ctx, cancel := context.WithCancel(context.Background())
	return &Resolver{least: shortestTTL, look: look, answers: make(chan Answer), ctx: ctx, cancel: cancel, followed: map[lb.Host]context.CancelFunc{}}
}

// Set says which names are followed from now on. Those that were so before go on
// undisturbed. It waits for nothing: an answer of a name that is followed no
// longer may still come.
func (r *Resolver) Set(hosts []lb.Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for host, cancel := range r.followed {
		if !slices.Contains(hosts, host) {
			cancel()
			delete(r.followed, host)
		}
	}
	for _, host := range hosts {
		if r.followed[host] != nil || r.ctx.Err() != nil {
			continue
		}
		ctx, cancel := context.WithCancel(r.ctx)
		r.followed[host] = cancel
		r.all.Go(func() { r.follow(ctx, host) })
	}
}

// Answers gives the first answer of each name, and another one whenever its
// records changed, or became stale, or are so no longer. Somebody has to receive
// them: a name waits until its answer is taken.
func (r *Resolver) Answers() <-chan Answer { return r.answers }

// Close ends it, and waits for that.
func (r *Resolver) Close() {
	r.cancel()
	r.all.Wait()
}

// follow asks for one name until ctx ends.
func (r *Resolver) follow(ctx context.Context, host lb.Host) {
	var last Answer
	var known memory
	for failures := 0; ; {
		f := r.look(ctx, host, known)
		if ctx.Err() != nil {
			return
		}
		if f.known != nil {
			known = f.known
		}
		if failures++; f.err == nil {
			failures = 0
		}
		pause := f.pause(failures, r.least)
		a := f.answer(host, last, time.Now().Add(pause))
		if news(last, a) {
			select {
			case r.answers <- a:
			case <-ctx.Done():
				return
			}
		}
		last = a
		select {
		case <-time.After(time.Until(a.Next)):
		case <-ctx.Done():
			return
		}
	}
}

// pause is how long what was found is believed, at least so long, after so many failures
// in a row. Names that were asked for together spread.
func (f found) pause(failures int, least time.Duration) time.Duration {
	d := min(max(f.ttl, least), longestTTL)
	if failures > 0 {
		d = min(d, least<<min(failures-1, 8), longestRetry)
	}
	return d + rand.N(d/10)
}

// answer is the answer after what was found, and the one before.
func (f found) answer(host lb.Host, last Answer, next time.Time) Answer {
	a := Answer{Host: host, Records: f.records, Err: f.err, Stale: f.stale, Next: next}
	if len(a.Records) == 0 {
		a.Records = last.Records
		a.Stale = len(a.Records) > 0
	}
	switch {
	case a.Stale && last.Stale:
		a.Since = last.Since
	case a.Stale:
		a.Since = time.Now()
	}
	return a
}

// news reports whether an answer says something that the last one did not.
func news(last, a Answer) bool {
	return last.Host == (lb.Host{}) || last.Stale != a.Stale || (last.Err == nil) != (a.Err == nil) || !slices.Equal(last.Records, a.Records)
}

// Once asks for each of the names once, and gives the answers in their order. ctx
// bounds it.
func Once(ctx context.Context, o Options, hosts []lb.Host) []Answer {
	c := newClient(o)
	answers := make([]Answer, len(hosts))
	var all sync.WaitGroup
	for i, host := range hosts {
		all.Go(func() { answers[i] = c.look(ctx, host, nil).answer(host, Answer{}, time.Time{}) })
	}
	all.Wait()
	return answers
}
