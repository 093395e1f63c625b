//go:build linux

// Package roster knows all backends of some profiles: what their checks have
// found, what admins have ordered, and which states follow. It is driven by values
// and moments, and belongs to one goroutine.
package roster

// The roster: what goes in.

import (
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sort"
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
	// before is forgotten. The target must not change.
	Start(key probe.Key, t *probe.Target, after time.Duration)
	// Stop forgets a key.
	Stop(key probe.Key)
}

// Roster is what is known of the backends of some profiles.
type Roster struct {
	profiles []*lb.Profile // wanted
	services map[name]*service
	asked    map[probe.Key]*check
	last     probe.Key // that was given away
	prober   Prober
	rand     *rand.Rand

	// timed are those whose time changes something: of a slow start, of an order.
	timed   map[*backend]bool
	changed []*backend // since the last Changed
	serving bool       // see Serve
	events  []Event    // since the last Events
	pools   []*service // whose shares follow their connections
	turn    int        // which of them Balance has looked at last
}

// name is that of a service.
type name struct{ profile, service string }

// place is where a service is among the profiles.
type place struct{ profile, service int }

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.profile, b.profile), cmp.Compare(a.service, b.service))
}

// service is what is known of the backends of a service.
type service struct {
	*lb.Service // wanted
	profile     string
	place       place
	backends    []backend // by their addresses
}

// backend is what is known of a backend. There may be tens of thousands, so what few of
// them have is apart.
type backend struct {
	service *service
	wanted  *lb.Backend
	checks  []*check // nil: it is not checked
	// order is the part of its standing that is an order; nil: none.
	order *lb.Standing
	// verdict is the last one that was noted.
	since   time.Time
	reason  string
	verdict lb.Verdict
	changed bool // it is in changed of the roster
	// rising is when it came up, of one that has not got its whole weight yet, and
	// share what it had of that last.
	share  uint8
	rising time.Time
	// balanced is the share by its live connections, 0: the whole, and stats are
	// those that it was made of; nil: none yet.
	balanced uint8
	stats    *nft.Stats
}

func (b *backend) id() lb.BackendID {
	return lb.BackendID{Profile: b.service.profile, Service: b.service.Name, Address: b.wanted.Address}
}

// check is one probe, of all backends whose checks are equal and ask the same
// server.
type check struct {
	key     probe.Key
	target  probe.Target
	judge   health.Judge
	users   []*backend
	unasked string // why it could not be made, "" where it could
	past    history
	hinted  bool // the kernel saw a refusal since the last result
	// What it last said of the weight: to drain, and how much, -1: nothing.
	drain   bool
	percent int8
}

// New is a roster without profiles.
func New(p Prober, seed uint64) *Roster {
	return &Roster{asked: map[probe.Key]*check{}, prober: p, rand: rand.New(rand.NewPCG(seed, seed)), timed: map[*backend]bool{}}
}

// backend is one of those that there are; nil: there is none such.
func (r *Roster) backend(id lb.BackendID) *backend {
	return r.services[name{id.Profile, id.Service}].backend(id.Address)
}

func (s *service) backend(at lb.Endpoint) *backend {
	if s == nil {
		return nil
	}
	i := sort.Search(len(s.backends), func(i int) bool { return s.backends[i].wanted.Address.Compare(at) >= 0 })
	if i == len(s.backends) || s.backends[i].wanted.Address != at {
		return nil
	}
	return &s.backends[i]
}

// all are all backends, in no order.
func (r *Roster) all() iter.Seq[*backend] {
	return func(yield func(*backend) bool) {
		for _, s := range r.services {
			for i := range s.backends {
				if !yield(&s.backends[i]) {
					return
				}
			}
		}
	}
}

// change notes that something of a backend has changed.
func (r *Roster) change(b *backend) {
	if !b.changed {
		b.changed, r.changed = true, append(r.changed, b)
	}
}

// Set makes these the profiles. Backends that were there keep what is known of
// them, and checks that are equal go on undisturbed; what other checks make of them
// is a change. known is what a table holds of backends that are new here; those that
// it does not have are newcomers.
func (r *Roster) Set(profiles []*lb.Profile, known map[lb.BackendID]lb.Standing, now time.Time) {
	old, c := r.services, newCensus(r.asked)
	r.profiles, r.pools, r.changed = profiles, nil, nil
	clear(r.timed)
	r.services = make(map[name]*service, len(old))
	for i, p := range profiles {
		for j := range p.Services {
			s := &service{Service: &p.Services[j], profile: p.Name, place: place{i, j}}
			s.backends = make([]backend, len(s.Backends))
			for k := range s.Backends {
				s.backends[k] = backend{service: s, wanted: &s.Backends[k]}
			}
			slices.SortStableFunc(s.backends, func(a, b backend) int { return a.wanted.Address.Compare(b.wanted.Address) })
			of := name{p.Name, s.Name}
			r.services[of] = s
			if follows(s.Service) {
				r.pools = append(r.pools, s)
			}
			for k := range s.backends {
				b := &s.backends[k]
				was := old[of].backend(b.wanted.Address)
				r.enlist(b, was, known, c, now)
				r.time(b)
				if b.differs(was, known, now) {
					r.change(b)
				}
			}
		}
	}
	for key, one := range r.asked {
		if len(one.users) == 0 {
			r.prober.Stop(key)
			delete(r.asked, key)
		}
	}
}

// differs reports whether a backend is not as Preview had it, which goes by the
// checks of before.
func (b *backend) differs(was *backend, known map[lb.BackendID]lb.Standing, now time.Time) bool {
	is, before := b.standing(), lb.Standing{}
	if held, there := known[b.id()]; was != nil {
		before = was.standing()
	} else if there {
		before = first(held)
	}
	return is.Order != before.Order || len(b.checks) > 0 && is.Verdict != before.Verdict || b.part(now) != b.share
}

// time notes a backend that time changes.
func (r *Roster) time(b *backend) {
	if !b.rising.IsZero() || b.order != nil && !b.order.Until.IsZero() {
		r.timed[b] = true
	}
}

// enlist puts into a backend of the profiles what was known of it.
func (r *Roster) enlist(b, was *backend, known map[lb.BackendID]lb.Standing, c *census, now time.Time) {
	if held, there := known[b.id()]; was != nil {
		b.verdict, b.since, b.reason, b.order, b.rising, b.share = was.verdict, was.since, was.reason, was.order, was.rising, was.share
		if len(was.checks) == 0 {
			b.verdict, b.since, b.reason = lb.VerdictUp, time.Time{}, "" // it has had connections, whatever was known earlier
		}
		if b.service.Scheduler.Follows() { // others have no shares by it
			b.balanced, b.stats = was.balanced, was.stats
		}
	} else if there {
		held = first(held)
		b.verdict, b.since, b.reason = held.Verdict, held.Since, held.Reason
		if held.Order != lb.NoOrder {
			b.order = &lb.Standing{Order: held.Order, By: held.By, Until: steady(held.Until)}
		}
	}
	if !b.wanted.CheckAt.None {
		for i := range b.service.Health {
			b.checks = append(b.checks, r.check(&b.service.Health[i], b, c, now))
		}
	}
	if b.order != nil && b.order.By == byAgentCheck { // an agent of before heard so, and this one will hear
		b.order = nil
		for _, c := range b.checks {
			c.drain = c.drain || c.target.Check.Kind == lb.CheckAgent && c.judge.Streak() == 0
		}
	}
	if len(b.checks) > 0 {
		b.verdict, b.since, b.reason = b.judged()
	}
}

// first is what a table holds of a backend as a beginning: one that it does not
// hold down has had connections.
func first(s lb.Standing) lb.Standing {
	if s.Verdict == lb.VerdictNew {
		s.Verdict = lb.VerdictUp
	}
	return s
}

// census finds checks by what they ask. A Set makes one, and needs none afterwards.
type census struct {
	checks map[identity]*check
	texts  map[*lb.Check]string // of their keys
}

// identity is what a check asks and where, without the pointer to its keys: checks of
// the same identity are one.
type identity struct {
	keys   string
	target probe.Target
}

// newCensus is one of these checks. It takes their users from them.
func newCensus(checks map[probe.Key]*check) *census {
	c := &census{map[identity]*check{}, map[*lb.Check]string{}}
	for _, one := range checks {
		one.users = nil
		c.checks[c.identify(one.target)] = one
	}
	return c
}

func (c *census) identify(t probe.Target) identity {
	keys, known := c.texts[t.Check]
	if !known {
		keys = fmt.Sprintf("%+v", *t.Check)
		c.texts[t.Check] = keys
	}
	t.Check = nil
	return identity{keys, t}
}

// check is the probe of a check of a backend, with its user added.
func (r *Roster) check(of *lb.Check, user *backend, c *census, now time.Time) *check {
	overTCP := slices.ContainsFunc(user.service.Protocols, func(p lb.Protocol) bool { return p != lb.UDP })
	t := probe.Target{Check: of, At: user.service.CheckTarget(of, user.wanted), UDP: !overTCP}
	if of.Kind == lb.CheckExec { // its environment has names
		t.Service, t.Backend = user.service.profile+"/"+user.service.Name, user.wanted.Name
	}
	is := c.identify(t)
	one := c.checks[is]
	if one == nil {
		r.last++
		held := lb.Standing{Verdict: user.verdict, Since: user.since, Reason: user.reason}
		one = &check{key: r.last, target: t, judge: *health.New(of, held, now), percent: -1}
		c.checks[is], r.asked[one.key] = one, one
		r.prober.Start(one.key, &one.target, one.judge.Next(now, now, r.rand))
	}
	one.users = append(one.users, user)
	return one
}
