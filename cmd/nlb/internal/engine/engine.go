//go:build linux

// Package engine makes a host balance: nftables rules and the kernel parameters
// that they need, as one act. It prints nothing and keeps nothing; what was done
// and what was not are values.
package engine

// The engine: plan and apply.

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/links"
	"nlb/nft/probe"
	"nlb/nft/wire"
	"nlb/sysctl"
)

// Engine is the way to one table and to the kernel parameters of a network
// namespace. It is not safe for concurrent use.
type Engine struct {
	conn    *wire.Conn
	links   *links.Reader
	gate    *gate
	table   string
	params  sysctl.Tree
	open    *nft.Table // nil: each apply is on its own
	offload offloader
	sources map[netip.Addr]netip.Addr // of backends with snat: auto, by their addresses
	sourced time.Time                 // when these are looked at again, at the earliest
	missed  bool                      // they could not be read, after something had changed
	hides   *bool                     // whether the kernel has what Options.Probes needs; nil: it was not asked
}

// Open opens the way to a table, of family inet, of the calling thread's network
// namespace. The table need not be there. Errors are *Error.
func Open(table string) (*Engine, error) {
	g := &gate{}
	conn, err := dial(g)
	if err != nil {
		return nil, withHint(err)
	}
	routes, err := links.Open()
	if err != nil {
		return nil, withHint(errors.Join(err, conn.Close()))
	}
	return &Engine{conn: conn, links: routes, gate: g, table: table, params: sysctl.Local, offload: offloader{table: table}}, nil
}

// Dial opens the way to nftables alone, and asks whether this process may use
// it.
func Dial() (*wire.Conn, error) {
	conn, err := dial(&gate{})
	if err != nil {
		return nil, withHint(err)
	}
	return conn, nil
}

func dial(g *gate) (*wire.Conn, error) {
	t, err := wire.Open()
	if err != nil {
		return nil, err
	}
	conn := wire.NewConn(gated{t, g})
	if _, err := conn.Generation(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Close ends the conversation with the kernel. What was applied stays.
func (e *Engine) Close() error {
	e.links.Close()
	if e.open != nil {
		return errors.Join(e.open.Close(), e.conn.Close())
	}
	return e.conn.Close()
}

// Stay keeps the table open from now on, for Update, Touched and Sourced. What follows a
// commit is then for the caller to run: Result.Cleanup.
func (e *Engine) Stay() {
	e.open = nft.Open(e.conn, e.table, wire.Dial)
	_ = e.links.Follow() // without it Sourced looks at all, now and then
}

// Claim says to others that this process keeps the table, until it ends or release is
// called, and whether another process of this network namespace says so. It waits for one
// that is about to end. Anybody may say it, so it is no reason to give up.
func (e *Engine) Claim(ctx context.Context) (release func(), taken bool) {
	release, err := e.conn.Lock(ctx, "agent of "+e.table, time.Second/2)
	if err != nil {
		return func() {}, errors.Is(err, wire.ErrBusy)
	}
	return release, false
}

// State reads what the table holds. Errors are *Error.
func (e *Engine) State() (*nft.State, error) {
	state, err := nft.Load(e.conn, e.table)
	if err != nil {
		return nil, withHint(err)
	}
	return state, nil
}

// About reads what the table holds, of PROFILE/SERVICE that service alone where that is
// possible, without where it listens. Errors are *Error.
func (e *Engine) About(name string) ([]*lb.Profile, error) {
	if profile, service, one := strings.Cut(name, "/"); one {
		if s := nft.ReadService(e.conn, e.table, profile, service); s != nil {
			return []*lb.Profile{{Name: profile, Services: []lb.Service{*s}}}, nil
		}
	}
	state, err := e.State()
	if err != nil {
		return nil, err
	}
	return state.Profiles, nil
}

// Held reads the profiles that a table holds; none where it cannot be read.
func Held(table string) func() []*lb.Profile {
	return func() []*lb.Profile {
		e, err := Open(table)
		if err != nil {
			return nil
		}
		defer e.Close()
		if state, err := e.State(); err == nil {
			return state.Profiles
		}
		return nil
	}
}

// Usage counts the connections of the backends of a state. An error says that
// conntrack cannot be read.
func (e *Engine) Usage(state *nft.State) (nft.Usage, error) { return nft.ReadUsage(e.conn, state) }

// Options say how to apply. The zero Options leave other profiles alone.
type Options struct {
	// Prune also removes the profiles that are not applied.
	Prune bool
	// Cut also ends the live TCP and SCTP connections of removed backends.
	Cut bool
	// DryRun has the kernel check all of it, and changes nothing.
	DryRun bool
	// Full reads the whole table and compares it, although the table's own record
	// says what was applied last.
	Full bool
	// Placed takes states and standings as the profiles have them. Otherwise what
	// the table knows of its backends goes on to hold, and states follow from that.
	Placed bool
	// ForgetHealth lets backends in that checks have found down. Orders go on to
	// hold.
	ForgetHealth bool
	// Probes has the table leave the checks of servers alone that this host makes,
	// and conntrack forget them soon, where the kernel can.
	Probes bool
	// Counted leaves limits that are dear to count (nft.Countable) to the caller, who
	// says by Saturate which backends are full.
	Counted bool
	// MostChanges is how many changes Result names, about; 0: all.
	MostChanges int
	// Begin is called before the first change; nil: it is not. An error of it is
	// returned, and nothing is changed.
	Begin func() error
}

// Result says what an apply did, or what it would do.
type Result struct {
	*nft.Result
	// Health is who gets no connections because of what the table knew.
	Health Health
	// Parameters are the kernel parameters that were set, or would be. One that
	// is Silent had its value before, and is only remembered.
	Parameters []sysctl.Change
	// Left says which parameters should be other than they are, and why they are
	// not; nil: none.
	Left error
	// Offloading is what of the wishes to be offloaded holds; nil: there are none.
	Offloading *Offloading
	// Refused is why Apply would fail because of a kernel parameter, or a kernel that
	// does not offload; set by Plan only.
	Refused error
}

// Plan says what Apply would do, by reading alone. Errors are *Error.
func (e *Engine) Plan(ctx context.Context, profiles []*lb.Profile) (*Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	profiles, held, err := e.overlay(profiles, false)
	if err == nil {
		profiles, err = e.choose(profiles)
	}
	if err != nil {
		return nil, withHint(err)
	}
	kept, _ := KeptBits() // doctor says where they are not kept
	result, err := nft.Diff(e.conn, profiles, nft.Options{Table: e.table, Keep: kept, Links: e.links.Read, Offload: e.offloadFor})
	if err != nil {
		return nil, withHint(err)
	}
	out := &Result{Result: result, Health: held}
	out.Parameters, out.Left, out.Refused = e.parameters(profiles)
	if out.Refused == nil {
		out.Refused = e.refuseOffload(profiles)
	}
	return out, nil
}

// Apply makes the kernel hold the profiles, which are free of conflicts among
// each other, and sets what they need: first the rules, which remember the
// parameters as they were, then the parameters. ctx ends it up to the first
// change; what follows that is done in any case. Errors are *Error; there is a
// result as well where the rules were applied.
func (e *Engine) Apply(ctx context.Context, profiles []*lb.Profile, o Options) (_ *Result, err error) {
	defer addOutcome(&err)
	e.track(profiles)
	changes, left, err := e.parameters(profiles)
	if err != nil {
		return nil, err
	}
	if err := e.refuseOffload(profiles); err != nil {
		return nil, err
	}
	e.offload.last = nil
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var held Health
	if !o.Placed {
		if profiles, held, err = e.overlay(profiles, o.ForgetHealth); err != nil {
			return nil, err
		}
	}
	if profiles, err = e.choose(profiles); err != nil {
		return nil, err
	}
	if !o.DryRun {
		defer e.gate.guard(ctx, o.Begin)()
	}
	kept, _ := KeptBits() // doctor says where they are not kept
	p := nft.Options{Table: e.table, Keep: kept, Links: e.links.Read, Prune: o.Prune, Cut: o.Cut, DryRun: o.DryRun, Probes: o.Probes && e.hidesChecks(), Counted: o.Counted, MostChanges: o.MostChanges, Params: records(changes), Offload: e.offloadFor}
	if !o.Full {
		p.Record, p.Build = true, build()
	}
	result, err := e.apply(ctx, profiles, p)
	if err != nil && !committed(err) {
		return nil, err
	}
	// A parameter that is recorded for the first time is no repair.
	result.Repaired = result.Repaired && len(changes) == 0
	out := &Result{Result: result, Health: held, Parameters: changes, Left: left, Offloading: e.offload.last}
	if o.DryRun {
		return out, nil
	}
	if done, err := e.params.Write(changes); err != nil {
		out.Parameters = done
		return out, &ParameterError{Generation: result.Generation, Err: err}
	}
	return out, err
}

// hidesChecks asks the kernel, once, whether it has what Options.Probes needs.
func (e *Engine) hidesChecks() bool {
	if e.hides == nil {
		hides := probe.Checks(e.conn) == nil
		e.hides = &hides
	}
	return *e.hides
}

func (e *Engine) apply(ctx context.Context, profiles []*lb.Profile, o nft.Options) (*nft.Result, error) {
	if !o.DryRun {
		defer e.lower()
		if err := e.links.Raise(e.table, profiles, e.gate.passed); err != nil {
			return nil, err
		}
	}
	if e.open == nil {
		return nft.Apply(ctx, e.conn, profiles, o)
	}
	return e.open.Apply(ctx, profiles, o)
}

// lower removes the tunnels that nothing uses any more. One that stays does no harm: the
// next apply or flush tries again.
func (e *Engine) lower() {
	_ = e.links.Lower(e.table, func() (map[uint32]bool, error) { return nft.LinksInUse(e.conn, e.table) })
}

// errNotOpen: Update and Touched come after Stay.
var errNotOpen = errors.New("the table was not kept open")

// Update changes backends of services that Apply has applied since Stay: part has
// these services, whole, with states and standings as they are to be. Where more
// than backends differs, or somebody else has changed the table, it comes to an
// Apply with the options of the last one. Errors are *Error; there is a result as
// well where the rules were applied.
func (e *Engine) Update(ctx context.Context, part []*lb.Profile) (_ *Result, err error) {
	defer addOutcome(&err)
	if e.open == nil {
		return nil, errNotOpen
	}
	if part, err = e.choose(part); err != nil {
		return nil, err
	}
	defer e.gate.guard(ctx, nil)()
	result, err := e.open.Update(ctx, part)
	if err != nil && !committed(err) {
		return nil, err
	}
	return &Result{Result: result}, err
}

// Intact reports that nobody else has changed the table since the last commit of this
// engine. It is cheaper than Touched, which also looks at links.
func (e *Engine) Intact() bool { return e.open != nil && e.open.Intact() }

// Touched reports whether anybody else has changed the table since the last commit
// of this engine, or may have. An Apply repairs it. It is cheap. Errors are *Error.
func (e *Engine) Touched() (bool, error) {
	if e.open == nil {
		return false, withHint(errNotOpen)
	}
	touched, err := e.open.Touched()
	if err != nil {
		return touched, withHint(err)
	}
	return touched, nil
}

// Alone reports whether the table has what this engine has applied, as it was applied,
// and nothing else.
func (e *Engine) Alone() bool {
	if e.open == nil {
		return false
	}
	alone, err := e.open.Alone()
	return alone && err == nil
}

// Saturate has new connections pass over the backends with these marks, of those whose
// connections the caller counts, for so long or until the next call. Errors are *Error.
func (e *Engine) Saturate(marks []uint32, d time.Duration) error {
	if e.open == nil {
		return withHint(errNotOpen)
	}
	if err := e.open.Saturate(marks, d); err != nil {
		return withHint(err)
	}
	return nil
}

// Owner is the backend of what was applied that a connection with a mark belongs
// to.
func (e *Engine) Owner(mark uint32) (lb.BackendID, bool) {
	if e.open == nil {
		return lb.BackendID{}, false
	}
	return e.open.Owner(mark)
}

// Refusals hears of connections that servers refuse, on a socket of its own.
func (e *Engine) Refusals() (*conntrack.Events, error) {
	return conntrack.Watch(e.conn, compile.OursMark, compile.OursMask)
}

// build stands for this program: another one may make other rules of the same
// profiles. It is short, since each service's fingerprint begins with it.
func build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	sum := sha256.Sum256([]byte(info.String()))
	return string(sum[:])
}
