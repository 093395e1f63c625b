//go:build linux

package agent

// Reconcile: what checks find, what the kernel sees and what others do to the
// table, brought into the kernel.

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/agent/probe"
	"nlb/cmd/nlb/internal/agent/roster"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/lb/announce"
	"nlb/nft/conntrack"
)

const (
	// gather is from one update to the next at least: what comes meanwhile goes in one
	// batch.
	gather = 5 * time.Millisecond
	// lookEvery is how often the agent looks whether somebody else has changed its
	// table: meanwhile this host refuses connections that it should balance, the live ones
	// too.
	lookEvery = 100 * time.Millisecond
	// guardEvery is how often it looks at all that it keeps, and how often at most it
	// repairs.
	guardEvery = 500 * time.Millisecond
	// again is when what failed is tried again.
	again = time.Second
	// recheck is in what time all servers are asked where the kernel had more to say
	// of them than could be heard.
	recheck = time.Second
)

func (a *agent) hear(results []probe.Result) {
	now := time.Now()
	for _, r := range results {
		a.board.Counts.Check(r.Kind, r.Took, r.OK, r.Late, r.Ours)
		for _, id := range a.roster.Result(r, now) {
			if t := a.board.Tally(id); t != nil {
				t.Failures.Add(1)
			}
		}
	}
	a.noted()
}

// refused takes the marks of connections that servers have refused; nil: some were
// not heard of.
func (a *agent) refused(marks []uint32) {
	if marks == nil {
		a.board.Counts.Lost.Inc()
		a.roster.Recheck(recheck)
	}
	for _, mark := range marks {
		if id, ok := a.engine.Owner(mark); ok {
			if t := a.board.Tally(id); t != nil {
				t.Refusals.Add(1)
			}
			a.roster.Refused(id)
		}
	}
}

// noted has done what follows from what the roster has learnt.
func (a *agent) noted() {
	now := time.Now()
	if next := a.roster.Due(now); !next.IsZero() {
		a.due.Reset(max(0, next.Sub(now)))
	}
	for _, e := range a.roster.Events() {
		a.logEvent(e)
	}
	if a.applied && a.roster.HasChanged() && !a.updating {
		a.updating = true
		a.update.Reset(max(0, gather-now.Sub(a.updated)))
		a.announce() // what nobody serves any more goes first
	}
}

// reconcile brings the services that have changed into the kernel. What fails is
// tried again, as a whole.
func (a *agent) reconcile(ctx context.Context) {
	a.updating = false
	began := time.Now()
	defer func() { a.updated = time.Now() }()
	part := a.roster.Changed(began)
	if !a.applied || len(part) == 0 {
		return
	}
	result, err := a.engine.Update(ctx, part)
	a.counter.cost += time.Since(began)
	a.board.Counts.Updates.Observe(time.Since(began).Seconds())
	if err != nil && result == nil {
		a.fail(err)
		return
	}
	a.board.Update(part)
	a.Log.Debug("updated", "services", len(part), "generation", result.Generation, "took", time.Since(began))
	a.follow(result)
	a.noteOpen(part)
	a.announce()
	a.unsaid = true // with many backends, to count them takes as long as to commit
}

// announce brings the addresses of the host up to date. Those that come wait until the
// table has what is known of their servers.
func (a *agent) announce() {
	current := !a.updating && !a.roster.HasChanged() && a.retry.IsZero()
	if a.applied && a.announcer.Update(a.wanted, a.serves, current) {
		a.unsaid = true
	}
}

// serves reports whether a service has somebody to serve, by what the checks have
// found. An agent that is told to end, is out, or has lost an interface, has nobody.
func (a *agent) serves(p *lb.Profile, s *lb.Service, f lb.Family) bool {
	return !a.announcer.Leaving && !a.out && a.announcer.Linked(p) && announce.Serves(a.roster.Judged(p, s), f)
}

// guard brings the status up to date, and puts back what somebody else has changed,
// and what could not be applied before.
func (a *agent) guard(ctx context.Context) {
	a.announce()
	if a.unsaid {
		a.say()
	}
	if a.names.gone(time.Now()) {
		a.applyAgain(ctx, "names do not have it any more")
	}
	if !a.retry.IsZero() {
		if time.Now().After(a.retry) {
			a.repair(ctx)
		}
		return
	}
	touched, err := a.engine.Touched()
	switch {
	case err != nil:
		a.fail(err)
		return
	case touched:
		a.Log.Warn("something else has changed the table", "table", a.Table)
	case !a.engine.Tuned(a.wanted):
		a.board.Counts.Repairs.Inc()
		a.Log.Warn("something else has changed a kernel parameter")
	case !a.engine.Offloaded():
		a.Log.Info("what can be offloaded has changed: devices, routes or the filters of others")
	case !a.engine.Sourced():
		a.Log.Info("the routes to backends with snat: auto say other sources")
	default:
		return
	}
	a.repair(ctx)
}

// look is the part of guard that cannot wait.
func (a *agent) look(ctx context.Context) {
	if a.applied && a.retry.IsZero() && time.Since(a.repaired) >= guardEvery && !a.engine.Intact() {
		a.Log.Warn("something else has changed the table", "table", a.Table)
		a.repair(ctx)
	}
}

func (a *agent) repair(ctx context.Context) {
	a.applyAgain(ctx, "repair")
	a.repaired = time.Now()
}

// applyAgain brings what was read last into the kernel, with what names stand for now.
func (a *agent) applyAgain(ctx context.Context, reason string) {
	if err := a.apply(ctx, a.names.written, nil, reason); err != nil {
		a.fail(err)
	}
}

// fail notes that the kernel is not as it should be. The guard tries again.
func (a *agent) fail(err error) {
	a.retry = time.Now().Add(again)
	if trouble := "The kernel is not as it should be: " + err.Error(); a.trouble != trouble {
		a.trouble = trouble
		a.Log.Error("the kernel is not as it should be", "error", err)
		a.tellStatus()
	}
}

// follow says what others had changed, and has the connections settled that a commit
// concerns, while the agent goes on.
func (a *agent) follow(result *engine.Result) {
	if result.Repaired {
		a.board.Counts.Repairs.Inc()
		a.Log.Warn("repaired what something else had changed", "table", a.Table)
	}
	if result.Cleanup == nil {
		return
	}
	a.cleanups.Go(func() {
		if ended, err := result.Cleanup.Run(a.ending); err != nil {
			a.Log.Error("connections of backends that are down or gone were not settled", "error", err)
		} else if ended > 0 {
			a.Log.Debug("settled connections", "ended", ended)
		}
	})
}

// hearKernel hears of connections that servers refuse, until it is stopped.
func (a *agent) hearKernel(ctx context.Context) (stop func()) {
	events, err := a.engine.Refusals()
	if err != nil {
		a.Log.Warn("the kernel does not tell of refused connections", "error", err)
		return func() {}
	}
	go a.hearRefusals(ctx, events)
	return func() { _ = events.Close() }
}

// hearRefusals passes on what the kernel tells, until that ends. Marks that were lost
// are nil.
func (a *agent) hearRefusals(ctx context.Context, events interface{ Next() ([]uint32, error) }) {
	for {
		marks, err := events.Next()
		switch {
		case err == nil, errors.Is(err, conntrack.ErrLost):
		case errors.Is(err, net.ErrClosed):
			return
		default:
			a.Log.Warn("the kernel does not tell of refused connections any more", "error", err)
			return
		}
		select {
		case a.refusals <- marks:
		case <-ctx.Done():
			return
		}
	}
}

// logEvent is one line for a change of a verdict, for an order that ends by itself, or
// for a check that cannot be made.
func (a *agent) logEvent(e roster.Event) {
	backend := e.ID.Profile + "/" + e.ID.Service + "/" + e.Name
	switch {
	case e.Unable != "":
		a.Log.Warn("a check cannot be made", "backend", backend, "reason", e.Unable)
		return
	case e.Was.Verdict == e.Now.Verdict:
		a.Log.Info("the time of an order is over", "order", Order{Order: e.Was.Order}.Word(), "backend", backend, "by", e.Was.By)
		return
	}
	if t := a.board.Tally(e.ID); t != nil && e.Was.Verdict != lb.VerdictNew {
		t.Changes.Add(1)
	}
	say := a.Log.Info
	switch {
	case e.Now.Verdict == lb.VerdictDown:
		say = a.Log.Warn
	case e.Was.Verdict == lb.VerdictNew:
		say = a.Log.Debug // as all of them at the beginning
	}
	args := []any{"backend", backend, "reason", e.Now.Reason}
	if !e.Was.Since.IsZero() && e.Was.Verdict != lb.VerdictNew {
		args = append(args, e.Was.Verdict.String()+"-for", e.Now.Since.Sub(e.Was.Since).Round(time.Millisecond))
	}
	say(e.Now.Verdict.String(), args...)
}

// noteAllOpen is noteOpen of all profiles. What is not among them is forgotten.
func (a *agent) noteAllOpen(all []*lb.Profile) {
	before := a.open
	a.open = map[string]bool{}
	for p, s := range lb.Services(all) {
		if name := p.Name + "/" + s.Name; before[name] {
			a.open[name] = true
		}
	}
	a.noteOpen(all)
}

// noteOpen logs services that begin or cease to ignore health.
func (a *agent) noteOpen(part []*lb.Profile) {
	for p, s := range lb.Services(part) {
		name, open := p.Name+"/"+s.Name, s.IsOpen()
		switch {
		case open && !a.open[name]:
			a.open[name] = true
			a.Log.Warn("too few backends are up, so all get connections", "service", name)
		case !open && a.open[name]:
			delete(a.open, name)
			a.Log.Info("enough backends are up again", "service", name)
		}
	}
}

// say brings the status up to date.
func (a *agent) say() {
	status := a.size
	down, ordered := a.roster.Counts()
	var parts []string
	if down > 0 {
		parts = append(parts, text.Count(down, "backend")+" down")
	}
	if ordered > 0 {
		parts = append(parts, text.Count(ordered, "order")+" in force")
	}
	if n := len(a.open); n > 0 {
		parts = append(parts, text.Count(n, "service")+" with too few up")
	}
	if parts != nil {
		status += "; " + strings.Join(parts, ", ")
	}
	if n := a.announcer.Held(); n > 0 {
		status += "; " + text.Count(n, "address") + " announced"
	}
	a.status, a.unsaid = status+".", false
	a.tellStatus()
	if a.Fleet != nil {
		a.Fleet.Changed(a.board)
	}
}

// tellStatus tells systemd the status, where that has changed.
func (a *agent) tellStatus() {
	a.board.Counts.Astray.Store(a.trouble != "")
	a.board.Counts.Keeps.Store(a.kept != "")
	if s := a.sentence(); s != a.said {
		a.said = s
		a.board.Say(s)
		a.tell(a.systemd.Status(s))
	}
}

// sentence is the status, with what does not work.
func (a *agent) sentence() string {
	out := a.kept + a.says
	for _, trouble := range []string{a.trouble, a.announcer.Trouble} {
		if trouble != "" {
			out += trouble + ". "
		}
	}
	return out + a.status
}
