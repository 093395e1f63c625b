// Package health judges servers by what checks find. It is driven by values and
// moments: it asks nobody, and waits for nothing. Moments are compared by their
// monotonic reading, so a step of the wall clock changes no verdict.
package health

// The judge: results of one check become a verdict.

import (
	"math/rand/v2"
	"time"

	"nlb/lb"
)

// What a judge goes by, beside the check's own keys.
const (
	firstWithin = 2 * time.Second        // the first check begins in this time
	doubtPace   = 100 * time.Millisecond // the shortest pace in doubt
	flapWithin  = 5 * time.Minute        // from one fall to the next
	goodAfter   = 10 * time.Minute       // up for so long, falls are forgotten
)

// MaxHold is how many times Rise it takes a server that falls again and again, at
// most. Each fall doubles it.
const MaxHold = 32

// Judge is the verdict on one server by one check. It is not safe for use by
// several goroutines.
type Judge struct {
	check  *lb.Check
	since  time.Time
	reason string
	// rose and fell are when it last became up, and down from up; the zero fell:
	// it never did.
	rose, fell time.Time
	// streak is how many results of one sort came in a row: above 0 passed, below
	// 0 failed, 0 before the first.
	streak, late int32
	verdict      lb.Verdict
	hold         uint8 // how many times Rise it takes to come up again
}

// New begins with what is known of the server, which may be nothing: a verdict of
// before stands until results change it. The check must not change.
func New(c *lb.Check, first lb.Standing, now time.Time) *Judge {
	j := &Judge{check: c, verdict: first.Verdict, since: first.Since, reason: first.Reason, rose: now, hold: 1}
	if j.since.IsZero() {
		j.since = now
	}
	return j
}

// Result takes a result, and says whether it changed the verdict. Sudden is a
// refusal of a check that was made at once since the kernel saw one: the server is
// down, whatever Fall says.
func (j *Judge) Result(now time.Time, ok, sudden bool, reason string) (changed bool) {
	if ok {
		j.streak = max(j.streak, 0) + 1
	} else {
		j.streak = min(j.streak, 0) - 1
	}
	switch {
	case ok && (j.verdict == lb.VerdictNew || j.verdict == lb.VerdictDown && int(j.streak) >= j.need()):
		j.verdict, j.rose = lb.VerdictUp, now
	case !ok && j.verdict != lb.VerdictDown && (sudden || -int(j.streak) >= j.check.Fall):
		if j.verdict == lb.VerdictUp {
			j.fall(now)
		}
		j.verdict = lb.VerdictDown
	default:
		return false
	}
	j.since, j.reason = now, reason
	return true
}

// fall remembers that an up server fell.
func (j *Judge) fall(now time.Time) {
	switch {
	case now.Sub(j.rose) >= goodAfter:
		j.hold = 1
	case !j.fell.IsZero() && now.Sub(j.fell) <= flapWithin:
		j.hold = min(2*j.hold, MaxHold)
	}
	j.fell = now
}

// need is how many successes in a row bring a down server up.
func (j *Judge) need() int { return j.check.Rise * int(j.hold) }

// Late counts a check that says nothing of the server, since this host was late
// with it. Where it passed all the same, it is a Result as well.
func (j *Judge) Late() { j.late++ }

// Lates is how many checks were late.
func (j *Judge) Lates() int { return int(j.late) }

// Verdict is what the results come to.
func (j *Judge) Verdict() lb.Verdict { return j.verdict }

// Streak is how many results of one sort came in a row: 3 passed, or -3 failed; 0
// where there was none.
func (j *Judge) Streak() int { return int(j.streak) }

// Held says of a server that works again, but fell too often, how many successes
// in a row it has, and how many it needs. Need is 0 where it is not held.
func (j *Judge) Held() (have, need int) {
	if j.verdict != lb.VerdictDown || j.hold == 1 || j.streak <= 0 {
		return 0, 0
	}
	return int(j.streak), j.need()
}

// Next is how long from now the next check is due, 0 or more; began is when the
// last one began. The first is due at a random moment, so that the checks of many
// servers are spread, and then each is a little off, so that they stay so.
func (j *Judge) Next(began, now time.Time, r *rand.Rand) time.Duration {
	interval := j.check.Interval
	switch {
	case j.streak == 0:
		return time.Duration(r.Int64N(int64(min(interval, firstWithin))))
	case j.doubt():
		interval = Pace(j.check)
	default:
		interval += time.Duration(r.Int64N(int64(interval/10)+1)) - interval/20
	}
	return max(0, interval-now.Sub(began))
}

// Pace is how often a check is made in doubt.
func Pace(c *lb.Check) time.Duration { return max(c.Interval/4, doubtPace) }

// Longest is the longest time from one check to the next where there is no doubt.
func Longest(c *lb.Check) time.Duration { return c.Interval + c.Interval/20 }

// Detection is the longest time from the moment that an up server ceases to answer to
// the verdict, the host being in time: it fails when a check has just begun well, and
// each of those that follow takes its whole timeout.
func Detection(c *lb.Check) time.Duration {
	again := max(Pace(c), c.Timeout)
	return Longest(c) + time.Duration(c.Fall-1)*again + c.Timeout
}

// doubt reports whether the latest results are against the verdict.
func (j *Judge) doubt() bool {
	switch j.verdict {
	case lb.VerdictUp:
		return j.streak < 0
	case lb.VerdictDown:
		return j.streak > 0
	}
	return true
}
