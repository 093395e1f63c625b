//go:build linux

package roster

// States: what comes out. Verdicts, orders and shares, put over the profiles.

import (
	"cmp"
	"slices"
	"time"

	"nlb/lb"
	"nlb/lb/health"
)

// Event is a change of a verdict, the end of an order whose time is over, or a check
// that cannot be made.
type Event struct {
	ID       lb.BackendID
	Name     string // the backend's
	Was, Now lb.Standing
	Unable   string // why it cannot be checked; empty: it can
}

// Events are the changes since the last call, in order.
func (r *Roster) Events() []Event {
	out := r.events
	r.events = nil
	return out
}

// byAgentCheck is who gives the orders of agent-checks.
const byAgentCheck = "agent-check"

// standing is all that is known of a backend.
func (b *backend) standing() lb.Standing {
	var out lb.Standing
	if b.order != nil {
		out = *b.order
	}
	if len(b.checks) > 0 {
		out.Verdict, out.Since, out.Reason = b.verdict, b.since, b.reason
	}
	out.Since, out.Until = out.Since.Round(0).Truncate(time.Second), out.Until.Round(0).Truncate(time.Second)
	if out.Order == lb.NoOrder && slices.ContainsFunc(b.checks, func(c *check) bool { return c.drain }) {
		out.Order, out.By = lb.OrderDrain, byAgentCheck
	}
	return out
}

// part is the part of its weight that a backend has, in parts of lb.Shares; 0: all
// of it.
func (b *backend) part(now time.Time) uint8 {
	allowed, balanced := cmp.Or(int(b.allowed(now)), lb.Shares), cmp.Or(int(b.balanced), lb.Shares)
	part := max(1, allowed*balanced/lb.Shares)
	if part == lb.Shares {
		return 0
	}
	return uint8(part)
}

// allowed is the part that a backend may have, whatever its connections: less while
// it starts slowly, or by the word of its agent.
func (b *backend) allowed(now time.Time) uint8 {
	share := uint8(0)
	if !b.rising.IsZero() {
		share, _ = health.Share(b.rising, now, b.service.SlowStart)
	}
	for _, c := range b.checks {
		if p := int(c.percent); p >= 0 && p < 100 {
			part := uint8(max(1, p*lb.Shares/100))
			if share == 0 || part < share {
				share = part
			}
		}
	}
	return share
}

// Changed are the services of which something has changed since the last call, with
// the states of their backends.
func (r *Roster) Changed(now time.Time) []*lb.Profile {
	if len(r.changed) == 0 {
		return nil
	}
	touched := make([]place, len(r.changed))
	for i, b := range r.changed {
		touched[i], b.changed = b.service.place, false
	}
	r.changed = nil
	slices.SortFunc(touched, place.compare)
	var part []*lb.Profile
	for _, at := range slices.Compact(touched) {
		p := r.profiles[at.profile]
		if len(part) == 0 || part[len(part)-1].Name != p.Name {
			part = append(part, &lb.Profile{Name: p.Name, Pos: p.Pos, Sysctl: p.Sysctl})
		}
		of := part[len(part)-1]
		of.Services = append(of.Services, p.Services[at.service])
	}
	return r.Preview(part, nil, now)
}

// Preview is what is known over profiles, as after a Set; of backends that the roster
// does not have, what known says.
func (r *Roster) Preview(profiles []*lb.Profile, known map[lb.BackendID]lb.Standing, now time.Time) []*lb.Profile {
	balanced := map[name]bool{} // by the profiles, which the roster need not have yet
	for p, s := range lb.Services(profiles) {
		if follows(s) {
			balanced[name{p.Name, s.Name}] = true
		}
	}
	return lb.OverlayOf(profiles, func(id lb.BackendID) (lb.Standing, uint8) {
		b := r.backend(id)
		if b == nil {
			held, there := known[id]
			if there {
				held = first(held)
			}
			return held, 0
		}
		b.share = b.allowed(now)
		if len(balanced) > 0 && balanced[name{id.Profile, id.Service}] {
			b.share = b.part(now)
		}
		return b.standing(), b.share
	})
}

// Judged is a service with what is known of its backends, without their states.
func (r *Roster) Judged(p *lb.Profile, s *lb.Service) *lb.Service {
	out := *s
	out.Backends = slices.Clone(s.Backends)
	of := r.services[name{p.Name, s.Name}]
	for i := range out.Backends {
		if b := of.backend(s.Backends[i].Address); b != nil {
			out.Backends[i].Standing = b.standing()
		}
	}
	return &out
}

// Due notes what time alone has changed: steps of slow starts, and the ends of
// orders. It returns when it has to be called next; zero: not before something
// else happens.
func (r *Roster) Due(now time.Time) (next time.Time) {
	soonest := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for b := range r.timed {
		if !b.rising.IsZero() {
			share, left := health.Share(b.rising, now, b.service.SlowStart)
			if share == 0 {
				b.rising = time.Time{}
			} else {
				soonest(now.Add(left))
			}
			if b.part(now) != b.share {
				r.change(b)
			}
		}
		if b.order != nil && !b.order.Until.IsZero() {
			if until := b.order.Until; now.Before(until) {
				soonest(until)
			} else {
				was := b.standing()
				r.order(b, lb.Standing{})
				r.events = append(r.events, Event{ID: b.id(), Name: b.wanted.Name, Was: was, Now: b.standing()})
			}
		}
		if b.rising.IsZero() && (b.order == nil || b.order.Until.IsZero()) {
			delete(r.timed, b)
		}
	}
	return next
}

// Order gives a backend an order, or takes it back (lb.NoOrder). It reports whether
// there is such a backend.
func (r *Roster) Order(id lb.BackendID, order lb.Order, by string, until time.Time) bool {
	b := r.backend(id)
	if b != nil {
		r.order(b, lb.Standing{Order: order, By: by, Until: steady(until)})
	}
	return b != nil
}

// steady gives a moment of the wall clock a reading of the clock that nobody sets: an order
// ends in the time that it was given, also where the wall clock is set meanwhile.
func steady(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	now := time.Now()
	return now.Add(t.Sub(now))
}

func (r *Roster) order(b *backend, order lb.Standing) {
	if b.order = nil; order.Order != lb.NoOrder {
		b.order = &order
	}
	r.time(b)
	r.change(b)
}

// Leave drains these backends, and no others any more that were drained by the same
// name, unless an admin has given another order.
func (r *Roster) Leave(leaving map[lb.BackendID]bool, by string) {
	for b := range r.all() {
		switch given := b.order != nil; {
		case !given && leaving[b.id()]:
			r.order(b, lb.Standing{Order: lb.OrderDrain, By: by})
		case given && b.order.By == by && !leaving[b.id()]:
			r.order(b, lb.Standing{})
		}
	}
}

// Check is what is known of one check of a backend.
type Check struct {
	Kind   lb.CheckKind
	At     string
	Streak int    // passed in a row, or failed where it is negative
	Have   int    // of one that is held: successes in a row, of Need
	Need   int    //
	Late   int    // checks that were too late to say anything
	Unable string // why it cannot be made
	Past   string // the last MostPast: + passed, - failed, ~ late; the newest last
}

// Checks are those of a backend.
func (r *Roster) Checks(id lb.BackendID) (out []Check) {
	b := r.backend(id)
	if b == nil {
		return nil
	}
	for _, c := range b.checks {
		have, need := c.judge.Held()
		out = append(out, Check{
			Kind: c.target.Check.Kind, At: c.target.At.String(), Streak: c.judge.Streak(),
			Have: have, Need: need, Late: c.judge.Lates(), Unable: c.unasked, Past: c.past.String(),
		})
	}
	return out
}

// Standing is all that is known of a backend, and whether it has not got its whole
// weight yet since it came up.
func (r *Roster) Standing(id lb.BackendID) (is lb.Standing, starting bool) {
	b := r.backend(id)
	if b == nil {
		return lb.Standing{}, false
	}
	return b.standing(), !b.rising.IsZero()
}

// HasChanged reports whether Changed would return something.
func (r *Roster) HasChanged() bool { return len(r.changed) > 0 }

// Counts are how many backends are down by their checks, and how many are under an
// order.
func (r *Roster) Counts() (down, ordered int) {
	for b := range r.all() {
		if len(b.checks) > 0 && b.verdict == lb.VerdictDown {
			down++
		}
		if b.order != nil {
			ordered++
		}
	}
	return down, ordered
}
