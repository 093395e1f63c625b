package health

// A backend: what several checks say together, and how it comes up.

import (
	"time"

	"nlb/lb"
)

// All is what several checks of one backend come to: down where one of them says
// so, else new where one of them does; up takes all. Since and reason are of the
// first that fell, or of the last that came up. Without judges it is new.
func All(judges ...*Judge) (v lb.Verdict, since time.Time, reason string) {
	var best *Judge
	for _, j := range judges {
		if best == nil || decides(j, best) {
			best = j
		}
	}
	if best == nil {
		return lb.VerdictNew, time.Time{}, ""
	}
	return best.verdict, best.since, best.reason
}

// decides reports whether a counts rather than b.
func decides(a, b *Judge) bool {
	if a.verdict != b.verdict {
		return a.verdict == lb.VerdictDown || a.verdict == lb.VerdictNew && b.verdict == lb.VerdictUp
	}
	if a.verdict == lb.VerdictDown {
		return a.since.Before(b.since)
	}
	return a.since.After(b.since)
}

// Share is the part of its weight that a backend has which came up at upSince, in
// parts of lb.Shares, and how long that holds: it begins with one part, and gets one
// more at a time, until it has all after slowStart: (0, 0).
func Share(upSince, now time.Time, slowStart time.Duration) (share uint8, next time.Duration) {
	const steps = lb.Shares - 1
	up := max(0, now.Sub(upSince))
	if up >= slowStart {
		return 0, 0
	}
	step := 1 + up*steps/slowStart
	return uint8(step), (step*slowStart+steps-1)/steps - up
}
