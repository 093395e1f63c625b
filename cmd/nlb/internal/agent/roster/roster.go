//go:build linux

// Package roster knows all backends of some profiles: what their checks have
// found, what admins have ordered, and which states follow. It is driven by values
// and moments, and belongs to one goroutine.
package roster

// The roster: what goes in.

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"time"

	"nlb/cmd/nlb/internal/agent/probe"
	"nlb/lb"
	"nlb/lb/health"
	"nlb/nft"
)

// Prober carries checks out. It is told when, and gives its results to whoever
// owns the roster.
type Prober interface {
	// Start has a target checked after a time, once. What was to become of the key
	// before is forgotten.
	Start(key probe.Key, t probe.Target, after time.Duration)
	// Stop forgets a key.
	Stop(key probe.Key)
}

// Roster is what is known of the backends of some profiles.
type Roster struct {
	profiles []*lb.Profile // wanted
	backends map[lb.BackendID]*backend
	checks   map[string]*check // by what is asked where
	asked    map[probe.Key]*check
	last     probe.Key // that was given away
	prober   Prober
	rand     *rand.Rand

	// timed are those whose time changes something: of a slow start, of an order.
	timed   map[*backend]bool
	changed map[lb.BackendID]bool // since the last Changed
	serving bool                  // see Serve
	events  []Event               // since the last Events
	pools   []place               // services whose shares follow their connections
	turn    int                   // which of them Balance has looked at last
}

// place is where a service is among the profiles.
type place struct{ profile, service int }

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.profile, b.profile), cmp.Compare(a.service, b.service))
}

// backend is what is known of a backend.
type backend struct {
	id      lb.BackendID
	place   place // of its service
	name    string
	service *lb.Service // wanted
	checks  []*check    // nil: it is not checked
	order   lb.Standing // the part that is an order
	// verdict is the last one that was noted, with since and reason.
	verdict lb.Standing
	// rising is when it came up, of one that has not got its whole weight yet, and
	// share what it had of that last.
	rising time.Time
	share  uint8
	// balanced is the share by its live connections, 0: the whole, and stats are
	// those that it was made of; nil: none yet.
	balanced uint8
	stats    *nft.Stats
}

// check is one probe, of all backends whose checks are equal and ask the same
// server.
type check struct {
	key     probe.Key
	target  probe.Target
	judge   *health.Judge
	users   []*backend
	hinted  bool          // the kernel saw a refusal since the last result
	last    probe.Outcome // whose words of the weight count
	unasked string        // why it could not be made, "" where it could
	past    history
}

// New is a roster without profiles.
func New(p Prober, seed uint64) *Roster {
	return &Roster{
		backends: map[lb.BackendID]*backend{}, checks: map[string]*check{}, asked: map[probe.Key]*check{}, prober: p,
		rand: rand.New(rand.NewPCG(seed, seed)), timed: map[*backend]bool{}, changed: map[lb.BackendID]bool{},
	}
}

// Set makes these the profiles. Backends that were there keep what is known of
// them, and checks that are equal go on undisturbed; what other checks make of them
// is a change. known is what a table holds of
// backends that are new here; those that it does not have are newcomers.
func (r *Roster) Set(profiles []*lb.Profile, known map[lb.BackendID]lb.Standing, now time.Time) {
	old, oldChecks := r.backends, r.checks
	r.profiles, r.pools = profiles, pools(profiles)
	clear(r.timed)
	clear(r.changed)
	r.backends, r.checks = make(map[lb.BackendID]*backend, len(old)), make(map[string]*check, len(oldChecks))
	for i, p := range profiles {
		for j := range p.Services {
			s := &p.Services[j]
			for k := range s.Backends {
				b := &s.Backends[k]
				id := lb.BackendID{Profile: p.Name, Service: s.Name, Address: b.Address}
				one := r.enlist(id, s, b, old[id], known, oldChecks, now)
				one.place = place{i, j}
				r.backends[id] = one
				r.time(one)
				if one.differs(old[id], known, now) {
					r.changed[id] = true
				}
			}
		}
	}
	for text, c := range oldChecks {
		if r.checks[text] == nil {
			r.prober.Stop(c.key)
			delete(r.asked, c.key)
		}
	}
}

// differs reports whether a backend is not as Preview had it, which goes by the
// checks of before.
func (b *backend) differs(was *backend, known map[lb.BackendID]lb.Standing, now time.Time) bool {
	is, before := b.standing(), lb.Standing{}
	if held, there := known[b.id]; was != nil {
		before = was.standing()
	} else if there {
		before = first(held)
	}
	return is.Order != before.Order || len(b.checks) > 0 && is.Verdict != before.Verdict || b.part(now) != b.share
}

// time notes a backend that time changes.
func (r *Roster) time(b *backend) {
	if !b.rising.IsZero() || !b.order.Until.IsZero() {
		r.timed[b] = true
	}
}

// enlist is a backend of the profiles, with what was known of it.
func (r *Roster) enlist(id lb.BackendID, s *lb.Service, b *lb.Backend, was *backend, known map[lb.BackendID]lb.Standing, checks map[string]*check, now time.Time) *backend {
	out := &backend{id: id, name: b.Name, service: s}
	if held, there := known[id]; was != nil {
		out.verdict, out.order, out.rising, out.share = was.verdict, was.order, was.rising, was.share
		if len(was.checks) == 0 {
			out.verdict = lb.Standing{Verdict: lb.VerdictUp} // it has had connections, whatever was known earlier
		}
		if s.Scheduler.Follows() { // others have no shares by it
			out.balanced, out.stats = was.balanced, was.stats
		}
	} else if there {
		held = first(held)
		out.verdict = lb.Standing{Verdict: held.Verdict, Since: held.Since, Reason: held.Reason}
		out.order = lb.Standing{Order: held.Order, By: held.By, Until: held.Until}
	}
	for i := range s.Health {
		if !b.CheckAt.None {
			out.checks = append(out.checks, r.check(s, &s.Health[i], b, out, checks, now))
		}
	}
	if out.order.By == byAgentCheck { // an agent of before heard so, and this one will hear
		out.order = lb.Standing{}
		for _, c := range out.checks {
			c.last.Drain = c.last.Drain || c.target.Check.Kind == lb.CheckAgent && c.judge.Streak() == 0
		}
	}
	if len(out.checks) > 0 {
		out.verdict.Verdict, out.verdict.Since, out.verdict.Reason = health.All(judges(out.checks)...)
	}
	return out
}

// first is what a table holds of a backend as a beginning: one that it does not
// hold down has had connections.
func first(s lb.Standing) lb.Standing {
	if s.Verdict == lb.VerdictNew {
		s.Verdict = lb.VerdictUp
	}
	return s
}

// check is the probe of a check of a backend, with its user added.
func (r *Roster) check(s *lb.Service, c *lb.Check, b *lb.Backend, user *backend, old map[string]*check, now time.Time) *check {
	t := probe.Target{Check: c, At: s.CheckTarget(c, b), UDP: onlyUDP(s)}
	if c.Kind == lb.CheckExec { // its environment has names
		t.Service, t.Backend = user.id.Profile+"/"+s.Name, b.Name
	}
	text := fmt.Sprintf("%v %v %+v %v %v", t.At, t.UDP, *c, t.Service, t.Backend)
	one := r.checks[text]
	if one == nil {
		if one = old[text]; one != nil {
			one.users = nil
		} else {
			r.last++
			one = &check{key: r.last, target: t, judge: health.New(c, user.verdict, now), last: probe.Outcome{Percent: -1}}
			r.asked[one.key] = one
			r.prober.Start(one.key, t, one.judge.Next(now, now, r.rand))
		}
		r.checks[text] = one
	}
	one.users = append(one.users, user)
	return one
}

func onlyUDP(s *lb.Service) bool {
	for _, p := range s.Protocols {
		if p != lb.UDP {
			return false
		}
	}
	return true
}

func judges(checks []*check) []*health.Judge {
	out := make([]*health.Judge, len(checks))
	for i, c := range checks {
		out[i] = c.judge
	}
	return out
}

// Serve says that backends have connections from now on: who comes up after that
// starts slowly where its service wants it so.
func (r *Roster) Serve() { r.serving = true }

// Result takes the result of a check and has the next one made in its time. It returns
// the backends that the check has failed for.
func (r *Roster) Result(result probe.Result, now time.Time) (failed []lb.BackendID) {
	c, out := r.asked[result.Key], result.Outcome
	if c == nil {
		return nil // of a backend that is gone
	}
	first, hinted := c.judge.Streak() == 0, c.hinted
	c.hinted = false
	switch {
	case out.Ours && c.unasked != out.Reason:
		b := c.users[0]
		r.events = append(r.events, Event{ID: b.id, Name: b.name, Was: b.standing(), Now: b.standing(), Unable: out.Reason})
		c.unasked = out.Reason
	case out.Ours:
	case result.Late && !out.OK:
		c.judge.Late()
		c.past.add(pastLate)
	default:
		if out.OK {
			c.past.add(pastPassed)
		} else {
			c.past.add(pastFailed)
			for _, b := range c.users {
				failed = append(failed, b.id)
			}
		}
		lowered := out.OK && (c.last.Drain != out.Drain || c.last.Percent != out.Percent)
		if c.unasked = ""; lowered { // what fails says nothing of the weight
			c.last = out
		}
		changed := c.judge.Result(now, out.OK, hinted && out.Refused, out.Reason)
		if changed || lowered {
			for _, b := range c.users {
				r.judge(b, now)
			}
		}
	}
	next := c.judge.Next(result.Began, now, r.rand)
	if first && out.OK {
		// All may have been asked at one moment. They are spread from here on.
		next = time.Duration(r.rand.Int64N(int64(c.target.Check.Interval)))
	}
	r.prober.Start(c.key, c.target, next)
	return failed
}

// judge notes what the checks of a backend come to.
func (r *Roster) judge(b *backend, now time.Time) {
	was := b.verdict
	b.verdict.Verdict, b.verdict.Since, b.verdict.Reason = health.All(judges(b.checks)...)
	r.changed[b.id] = true
	if b.verdict.Verdict == was.Verdict {
		return
	}
	b.rising = time.Time{}
	if b.verdict.Verdict == lb.VerdictUp && b.service.SlowStart > 0 && r.serving {
		b.rising = now
		r.time(b)
	}
	r.events = append(r.events, Event{ID: b.id, Name: b.name, Was: was, Now: b.verdict})
}

// Refused notes that the kernel saw a server of a backend refuse. It is checked at
// once; the word of the kernel alone changes nothing.
func (r *Roster) Refused(id lb.BackendID) {
	b := r.backends[id]
	if b == nil {
		return
	}
	for _, c := range b.checks {
		if c.target.Check.Passive && !c.hinted && c.judge.Verdict() != lb.VerdictDown {
			c.hinted = true
			r.prober.Start(c.key, c.target, 0)
		}
	}
}

// Recheck has every server asked within a moment: what the kernel had to say of
// them was lost, or time has passed that nobody knows of.
func (r *Roster) Recheck(spread time.Duration) {
	for _, c := range r.checks {
		r.prober.Start(c.key, c.target, time.Duration(r.rand.Int64N(int64(spread)+1)))
	}
}

// Unheard is how many checks have had no result yet.
func (r *Roster) Unheard() (n int) {
	for _, c := range r.checks {
		if c.judge.Streak() == 0 && c.unasked == "" {
			n++
		}
	}
	return n
}
