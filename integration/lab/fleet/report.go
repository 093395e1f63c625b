//go:build linux

package fleet

// The report: what was lost, and what may be.

import (
	"encoding/json"
	"fmt"
	"slices"

	"nlb/lb"
)

// Report is what a rehearsal found. Names are those of its JSON.
type Report struct {
	Fleet       string   `json:"fleet"` // of the profiles: anycast
	Balancers   int      `json:"balancers"`
	Connections int      `json:"connections"` // that stay open
	Seconds     float64  `json:"seconds"`
	Steps       []Step   `json:"steps"`
	Problems    []string `json:"problems"`
	Notes       []string `json:"notes"`
}

// Step is what happened at once, and what came of it. Lost connections are opened
// again before the next one.
type Step struct {
	What string `json:"what"`
	// Lost are open connections that did not answer any more; Removed are those of
	// them whose backend is removed.
	Lost    int `json:"lost"`
	Removed int `json:"removed"`
	Of      int `json:"of"`
	// Most is how many may be lost; -1: nothing is promised.
	Most int `json:"most"`
	// New are new connections meanwhile, and Failed those of them that failed.
	New    int `json:"new"`
	Failed int `json:"failed"`
	// Gap is the longest time without a new connection, in milliseconds.
	Gap int64 `json:"gap"`
}

// MarshalJSON adds ok to the fields.
func (r *Report) MarshalJSON() ([]byte, error) {
	type fields Report
	return json.Marshal(struct {
		OK bool `json:"ok"`
		*fields
	}{r.OK(), (*fields)(r)})
}

// OK reports whether no more was lost than may be.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// AllProblems are the problems.
func (r *Report) AllProblems() []string { return r.Problems }

// slack is the part of connections that may be lost where a backend is added while a
// balancer dies. Where one is removed, its own may.
const slack = 0.02

// due says how many connections a step may cost.
func (s *Step) due(l *Lab, did *step) {
	switch kept, consistent := l.promise(); {
	case !kept, did.changed != nil && !consistent:
		s.Most = -1
	case did.changed != nil && did.then != nil:
		s.Most = s.Removed
		if did.added {
			s.Most = int(slack * float64(s.Of))
		}
	}
}

// promise reports whether all that is rehearsed is of a fleet that loses nothing, and
// whether few clients move when backends change.
func (l *Lab) promise() (kept, consistent bool) {
	all := func(ok func(s *lb.Service) bool) bool {
		return !slices.ContainsFunc(l.site.targets, func(t target) bool { return !ok(t.service) })
	}
	return all(func(s *lb.Service) bool { return s.Fleet == lb.FleetAnycast }), all(func(s *lb.Service) bool { return s.Scheduler == lb.Consistent })
}

// judge finds the problems, and says what is not promised.
func (l *Lab) judge() {
	r := l.report
	for _, s := range r.Steps {
		if s.Most >= 0 && s.Lost > s.Most {
			r.Problems = append(r.Problems, fmt.Sprintf("%s: %d of %d open connections were lost, want at most %d", s.What, s.Lost, s.Of, s.Most))
		}
	}
	kept, consistent := l.promise()
	switch {
	case !kept:
		r.Notes = append(r.Notes, "nothing is promised: a service is not of fleet: anycast, and this rehearsal shares no connections (conntrackd)")
	case !consistent:
		r.Notes = append(r.Notes, "nothing is promised where backends change: scheduler: hash moves many clients; consistent moves few")
	}
}
