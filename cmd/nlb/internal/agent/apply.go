//go:build linux

package agent

// Files into the kernel: all of them, or none. What is wrong with one leaves what
// was read before.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

// begin applies what the files say for the first time. Where the kernel balances
// already, what it knows of the servers holds; where it does not, every server is
// asked once before.
func (a *agent) begin(ctx context.Context) error {
	written, err := a.readWhole(ctx)
	if err != nil {
		return err
	}
	state, err := a.engine.State()
	if err != nil {
		return err
	}
	a.firstNames(ctx, written, state.Profiles)
	known := knownIn(state.Profiles)
	if len(known) == 0 {
		wanted, _ := a.names.resolved(written)
		a.roster.Set(wanted, nil, time.Now())
		a.roster.Recheck(0)
		a.firstRound(ctx, wanted)
	}
	return a.apply(ctx, written, known, "started")
}

// readWhole reads the files, as soon as nobody is writing to them.
func (a *agent) readWhole(ctx context.Context) ([]*lb.Profile, error) {
	for {
		wanted, err := a.read(ctx)
		if !errors.Is(err, ErrUnsettled) {
			return wanted, err
		}
		select {
		case <-a.changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// longestRound is how long the first round of checks may take. systemd gives the
// beginning two minutes.
const longestRound = 30 * time.Second

// firstRound waits for a first result of every check, no longer than the longest
// timeout.
func (a *agent) firstRound(ctx context.Context, wanted []*lb.Profile) {
	var longest time.Duration
	for _, s := range lb.Services(wanted) {
		for i := range s.Health {
			longest = max(longest, s.Health[i].Timeout)
		}
	}
	over := time.After(min(longest, longestRound))
	for a.roster.Unheard() > 0 {
		select {
		case results := <-a.pool.Results():
			a.hear(results)
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}

// knownIn is what a table holds of its backends. A newcomer that has passed no check
// yet is still one.
func knownIn(held []*lb.Profile) map[lb.BackendID]lb.Standing {
	out := map[lb.BackendID]lb.Standing{}
	for p, s := range lb.Services(held) {
		for i := range s.Backends {
			b := &s.Backends[i]
			if b.State == lb.Down && b.Standing.Verdict == lb.VerdictNew && b.Standing.Order == lb.NoOrder {
				continue
			}
			out[lb.BackendID{Profile: p.Name, Service: s.Name, Address: b.Address}] = b.Standing
		}
	}
	return out
}

// reread reads and applies the files. What is wrong with them changes nothing.
func (a *agent) reread(ctx context.Context, reason string) error {
	wanted, err := a.read(ctx)
	if errors.Is(err, ErrUnsettled) {
		return err // they will say when they are whole
	}
	if err == nil {
		err = a.accept(ctx, wanted, reason)
	}
	if err != nil {
		a.board.Counts.NotReloaded.Inc()
		a.misread(reason, err)
		return err
	}
	a.board.Counts.Reloaded.Inc()
	a.mistakes, a.kept = "", ""
	a.tellStatus()
	return nil
}

// accept applies what was read anew. Where that fails, the names of before are
// followed again.
func (a *agent) accept(ctx context.Context, written []*lb.Profile, reason string) error {
	var known map[lb.BackendID]lb.Standing // of profiles that are kept, the roster knows all
	if slices.ContainsFunc(written, func(p *lb.Profile) bool { return !a.keeps(p.Name) }) {
		state, err := a.engine.State()
		if err != nil {
			return err
		}
		known = knownIn(state.Profiles)
	}
	before := a.names.written
	a.names.follow(written)
	if err := a.apply(ctx, written, known, reason); err != nil {
		a.names.follow(before)
		return err
	}
	return nil
}

// Fleet says what is wanted in place of files.
type Fleet struct {
	// First are the profiles to begin with, and Out says that this host begins out.
	First []source.Source
	Out   bool
	// Offers are what comes in their place, and Sentences how the fleet is.
	Offers    <-chan Offer
	Sentences <-chan string
	Turns     <-chan Turn
	// Changed is told after each change of what the board shows, and must not wait.
	Changed func(*board.Board)
}

// Offer are all profiles that are wanted from now on, and the names of those that are
// to go, whoever applied them. Reply takes one value, and never blocks.
type Offer struct {
	Profiles []source.Source
	Absent   []string
	Reply    chan<- error
}

// Turn has this host out, so that it has nobody to serve and announces nothing, or in
// again. Done is closed once that is so.
type Turn struct {
	Out  bool
	Done chan<- struct{}
}

// keeps reports whether a profile is one that was applied last.
func (a *agent) keeps(name string) bool {
	return slices.ContainsFunc(a.wanted, func(p *lb.Profile) bool { return p.Name == name })
}

// take applies an offer, or leaves all as it was.
func (a *agent) take(ctx context.Context, o Offer) error {
	offered, wanted := a.offered, a.wanted
	a.offered = o.Profiles
	for _, name := range o.Absent {
		if !a.keeps(name) {
			a.wanted = append(slices.Clip(a.wanted), &lb.Profile{Name: name})
		}
	}
	err := a.reread(ctx, "the fleet wants it")
	if err != nil {
		a.offered, a.wanted = offered, wanted
	}
	return err
}

// misread says why the files were not applied, the same only once: some systemd
// reload twice.
func (a *agent) misread(reason string, err error) {
	mistakes := err.Error()
	invalid, ok := errors.AsType[*source.InvalidError](err)
	if ok {
		mistakes = invalid.Errors.Error()
	}
	if mistakes != a.mistakes {
		a.mistakes = mistakes
		if ok {
			for _, e := range invalid.Errors {
				a.Log.Error(e.Error())
			}
		}
		a.Log.Error("what was read last stays", "reason", reason, "error", err)
	}
	a.kept = "Keeps what was read before: " + err.Error() + ". "
	a.tellStatus()
}

// read reads the files, and refuses what this agent does not do.
func (a *agent) read(ctx context.Context) ([]*lb.Profile, error) {
	sources, err := a.offered, error(nil)
	if a.Fleet == nil {
		sources, err = a.files.Read(ctx)
	}
	if err != nil {
		return nil, err
	}
	if errs := a.forbidden(sources); len(errs) > 0 {
		return nil, &source.InvalidError{Errors: errs}
	}
	wanted := source.Profiles(sources)
	if rate := lb.CheckRate(wanted); rate > lb.MaxCheckRate {
		return nil, fmt.Errorf("the profiles ask for %.0f checks a second, and an agent makes at most %d", rate, lb.MaxCheckRate)
	}
	return wanted, nil
}

// forbidden are the services that want commands run, where the agent must not run
// any.
func (a *agent) forbidden(sources []source.Source) (errs lb.Errors) {
	if a.AllowExec {
		return nil
	}
	for _, s := range sources {
		for i := range s.Profile.Services {
			service := &s.Profile.Services[i]
			if slices.ContainsFunc(service.Health, func(c lb.Check) bool { return c.Kind == lb.CheckExec }) {
				errs = append(errs, &lb.Error{Pos: service.Pos, Msg: "service " + service.Name + " has a check that runs a command", Hint: "nlb run --allow-exec runs commands"})
			}
		}
	}
	source.Quote(errs, sources)
	return errs
}

// mostLogged is how many changes have a line each, about.
const mostLogged = 100

// apply makes the kernel hold the profiles, with what is known of their backends.
// known is of those that the roster does not have. Profiles that were wanted before,
// and are not any more, go.
func (a *agent) apply(ctx context.Context, written []*lb.Profile, known map[lb.BackendID]lb.Standing, reason string) error {
	now := time.Now()
	wanted, notes := a.names.resolved(written)
	profiles := a.roster.Preview(wanted, known, now)
	seen := profiles
	for _, had := range a.wanted {
		if !slices.ContainsFunc(wanted, func(p *lb.Profile) bool { return p.Name == had.Name }) {
			profiles = append(profiles, &lb.Profile{Name: had.Name, Sysctl: had.Sysctl}) // without services: nothing is left of it
		}
	}
	result, err := a.engine.Apply(ctx, profiles, engine.Options{Placed: true, Probes: lb.CheckRate(wanted) > 0, Counted: len(limitsOf(wanted)) > 0, MostChanges: mostLogged})
	a.board.Counts.Applies.Observe(time.Since(now).Seconds())
	if err != nil && result == nil {
		return err
	}
	a.board.Offload(result.Offloading)
	a.board.Set(seen, engine.NumbersOf(seen))
	a.roster.Set(wanted, known, now)
	a.roster.Serve()
	a.wanted, a.applied, a.trouble, a.retry = wanted, true, "", time.Time{}
	a.size = "Balances nothing" // a fleet may want nothing yet
	if len(wanted) > 0 {
		a.size = fmt.Sprintf("Balances %s: %s", view.Names(wanted), view.Size(wanted...))
	}
	a.startCounting()
	a.roster.Leave(a.names.isLeaving(), byNames)
	for _, n := range notes {
		a.Log.Warn(n.String(), "reason", reason)
	}
	a.logResult(result, reason)
	if err != nil {
		a.trouble = err.Error()
		a.Log.Error("applied, but not all of it", "error", err)
	}
	a.follow(result)
	a.noteAllOpen(seen)
	a.announce()
	a.say()
	a.noted()
	return nil
}

// logResult is one line for each change of an apply, and one for the apply itself, which
// may have changed nothing in the kernel.
func (a *agent) logResult(result *engine.Result, reason string) {
	for _, c := range result.Changes {
		a.Log.Info("changed", "op", string(c.Op), "service", c.Service, "backend", c.Backend, "detail", c.Detail, "reason", reason)
	}
	if result.More > 0 {
		a.Log.Info("more services changed", "number", result.More, "reason", reason)
	}
	for _, note := range result.Offloading.Notes() {
		a.Log.Info(note, "reason", reason)
	}
	for _, p := range view.Parameters(result.Parameters) {
		a.Log.Info("set a kernel parameter", "name", p.Name, "from", p.From, "to", p.To)
	}
	a.Log.Info("applied", "profiles", view.Names(a.wanted), "size", view.Size(a.wanted...), "reason", reason)
}
