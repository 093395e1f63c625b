//go:build linux

package roster

// Results: what checks find, and what the kernel sees, becomes verdicts.

import (
	"time"

	"nlb/cmd/nlb/internal/agent/probe"
	"nlb/lb"
	"nlb/lb/health"
)

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
		r.events = append(r.events, Event{ID: b.id(), Name: b.wanted.Name, Was: b.standing(), Now: b.standing(), Unable: out.Reason})
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
				failed = append(failed, b.id())
			}
		}
		percent := int8(out.Percent)
		lowered := out.OK && (c.drain != out.Drain || c.percent != percent)
		if c.unasked = ""; lowered { // what fails says nothing of the weight
			c.drain, c.percent = out.Drain, percent
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
	r.prober.Start(c.key, &c.target, next)
	return failed
}

// judge notes what the checks of a backend come to.
func (r *Roster) judge(b *backend, now time.Time) {
	was := lb.Standing{Verdict: b.verdict, Since: b.since, Reason: b.reason}
	b.verdict, b.since, b.reason = b.judged()
	r.change(b)
	if b.verdict == was.Verdict {
		return
	}
	b.rising = time.Time{}
	if b.verdict == lb.VerdictUp && b.service.SlowStart > 0 && r.serving {
		b.rising = now
		r.time(b)
	}
	is := lb.Standing{Verdict: b.verdict, Since: b.since, Reason: b.reason}
	r.events = append(r.events, Event{ID: b.id(), Name: b.wanted.Name, Was: was, Now: is})
}

// Refused notes that the kernel saw a server of a backend refuse. It is checked at
// once; the word of the kernel alone changes nothing.
func (r *Roster) Refused(id lb.BackendID) {
	b := r.backend(id)
	if b == nil {
		return
	}
	for _, c := range b.checks {
		if c.target.Check.Passive && !c.hinted && c.judge.Verdict() != lb.VerdictDown {
			c.hinted = true
			r.prober.Start(c.key, &c.target, 0)
		}
	}
}

// Recheck has every server asked within a moment: what the kernel had to say of
// them was lost, or time has passed that nobody knows of.
func (r *Roster) Recheck(spread time.Duration) {
	for _, c := range r.asked {
		r.prober.Start(c.key, &c.target, time.Duration(r.rand.Int64N(int64(spread)+1)))
	}
}

// Unheard is how many checks have had no result yet.
func (r *Roster) Unheard() (n int) {
	for _, c := range r.asked {
		if c.judge.Streak() == 0 && c.unasked == "" {
			n++
		}
	}
	return n
}

// judged is what the checks of a backend come to.
func (b *backend) judged() (v lb.Verdict, since time.Time, reason string) {
	var room [lb.MaxChecks]*health.Judge
	judges := room[:0]
	for _, c := range b.checks {
		judges = append(judges, &c.judge)
	}
	return health.All(judges...)
}

// MostPast is how many results are known of a check.
const MostPast = 60

// history has two bits for each of the last results, the newest lowest.
type history struct{ low, high uint64 }

// What came of a check. Zero: there was none.
const (
	pastPassed = 1
	pastFailed = 2
	pastLate   = 3 // this host was, so it says nothing
)

func (h *history) add(past uint64) { h.low, h.high = h.low<<1|past&1, h.high<<1|past>>1 }

// String is a character for each, the newest last: + passed, - failed, ~ late.
func (h *history) String() string {
	out := make([]byte, 0, MostPast)
	for i := MostPast - 1; i >= 0; i-- {
		if past := h.low>>i&1 | h.high>>i&1<<1; past != 0 {
			out = append(out, " +-~"[past])
		}
	}
	return string(out)
}
