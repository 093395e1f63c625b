package nft

// Table: a table of ours that stays open. It keeps in memory what it has applied,
// and listens to what others change, so that it need not read what it knows.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// Table is the way to one table, of family inet. It is not safe for concurrent use.
type Table struct {
	conn *wire.Conn
	name string
	dial func() (*wire.Conn, error) // for cleanups
	// stays: it is used more than once. Otherwise nothing is kept, and Apply does
	// itself what follows its commit.
	stays bool
	watch *wire.Watch
	// memory is what is known without reading; nil: nothing.
	memory *memory
	applied
	// pending are cleanups that were given away.
	pending []*flows.Cleanup
	// quiesced is closed when no packet is under way any more that was so at the
	// last commit.
	quiesced chan struct{}
}

// applied is what the last Apply was given: options, profiles, and updated, what Update
// has changed since.
type applied struct {
	options  Options
	profiles []*lb.Profile
	updated  map[position]*lb.Service
	// places say where a service is, by its chain, and owners who has a number; nil: not
	// made yet.
	places map[string]position
	owners *compile.Owners
}

// position is where a service is among the profiles, and among all services.
type position struct{ profile, service, number int }

// Open opens the way to a table, which need not be there. The conversation is the
// Table's until Close. dial opens another one in the same network namespace, for
// what follows a commit.
func Open(c *wire.Conn, table string, dial func() (*wire.Conn, error)) *Table {
	return &Table{conn: c, name: table, dial: dial, stays: true}
}

// Close ends the watch. What was applied stays.
func (t *Table) Close() error {
	if t.watch == nil {
		return nil
	}
	return t.watch.Close()
}

// Forget makes the Table begin anew, after somebody else has changed the table on
// its conversation. Cleanups that were given away go on.
func (t *Table) Forget() {
	_ = t.Close()
	*t = Table{conn: t.conn, name: t.name, dial: t.dial, stays: t.stays, pending: t.pending}
}

// Apply makes the kernel hold the profiles, as Table.Apply does, once, and does
// itself what follows the commit.
func Apply(ctx context.Context, c *wire.Conn, profiles []*lb.Profile, o Options) (*Result, error) {
	return (&Table{conn: c, name: o.Table}).Apply(ctx, profiles, o)
}

// Apply makes the kernel hold the profiles. Other profiles stay, unless
// o.Prune. The profiles must be free of conflicts among themselves, and must not change
// as long as the Table stays open. Errors: those of Load, *ConflictError,
// *PartialError, *FlowsError (all of it is done but the flows), wire.ErrUnknown; after
// any other nothing was changed.
func (t *Table) Apply(ctx context.Context, profiles []*lb.Profile, o Options) (*Result, error) {
	o.Table = t.name
	if err := o.readLinks(profiles, nil); err != nil {
		return nil, err
	}
	before := t.applied
	last := t.begin(profiles, o)
	profiles = keptStandings(profiles)
	if !offloaded(t.conn, profiles, o) {
		last = &memory{} // a part is not enough
	}
	asked := sync.OnceValue(func() request { return requestOf(profiles, o) })
	if generation, ok := last.upToDate(t.conn, o, asked); ok && t.isBound(last, profiles, o.links) {
		if t.watch != nil && !o.DryRun {
			last.watch, last.touched = t.watch, false
			t.memory = last
		}
		return &Result{Generation: generation}, nil
	}
	// It is not needed at once, and of tens of thousands of services it takes a while.
	if o.Record {
		go asked()
	}
	w, err := newWriter(ctx, t.conn, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	w.listenWith(t.watch)
	w.pending = t.isPending()
	if !o.DryRun {
		t.memory = nil
	}
	var result *Result
	var p *plan
	var cleanup *flows.Cleanup
	err = w.retry(func() error {
		w.quiesced = grace()
		var have *State
		part := profiles
		if last != nil {
			have, part = last.loadChanged(t.conn, profiles, o, asked)
			last = nil // whatever makes it begin again, the table may be another one
		}
		if have == nil {
			part = profiles
			if have, err = w.load(); errors.Is(err, ErrLayout) {
				have, err = unknownTable(t.conn, o.Table)
			}
			if err != nil {
				return err
			}
		}
		var r *Result
		if p, r, err = planFor(have, part, o, asked); err != nil {
			return err
		}
		result = w.combine(result, r)
		if err := w.carryAffinity(have, p); err != nil {
			return err
		}
		t.hush(w, p)
		go result.compare() // while the kernel is at work
		cleanup, err = w.commit(have, p, o, result)
		result.compare()
		return w.withoutClients(p, err)
	})
	if t.stays && t.watch == nil {
		t.watch, w.borrowed = w.watch, true // it listens since somebody else wrote
	}
	if err != nil && cleanup == nil {
		// An Update goes on from what was applied, not from what was refused.
		t.applied = before
		return result, err
	}
	return t.finish(w, p, o, cleanup, result, err)
}

// begin takes note of what the table is to hold from now on, and returns what is
// known of it; nil: nothing.
func (t *Table) begin(profiles []*lb.Profile, o Options) *memory {
	if t.stays && !o.DryRun {
		t.applied = applied{options: o, profiles: profiles, updated: map[position]*lb.Service{}}
		t.options.Params, t.options.Cut = nil, false // they are done once
	}
	if t.stays && t.watch == nil {
		t.watch, _ = t.listen() // without it, it goes as before
	}
	if t.memory != nil {
		t.memory.sweeps = t.sweeps()
		return t.memory
	}
	kept, err := readSet(t.conn, ruleset.Inet, t.name, compile.NewRecordSet())
	if err != nil {
		return &memory{} // whoever reads it all will say why
	}
	return &memory{record: decodeRecord(kept), elements: kept, sweeps: true}
}

// finish follows a commit: it takes note of what the table holds now, and hands
// the cleanup over or carries it out. failed is an error that leaves the commit
// as it is.
func (t *Table) finish(w *writer, p *plan, o Options, cleanup *flows.Cleanup, result *Result, failed error) (*Result, error) {
	if !t.stays || o.DryRun {
		if err := w.settle(cleanup, result); err != nil {
			failed = err
		}
		return result, failed
	}
	t.placeOf("") // the first update is in a hurry
	t.quiesced = grace()
	if t.memory = nil; p.left != nil {
		touched := t.follow(result.Generation)
		t.memory = &memory{record: *p.left, elements: p.recorded, watch: t.watch, touched: touched, free: p.free, fixed: p.fixed}
	}
	t.spare(p)
	if cleanup == nil || cleanup.Idle() {
		return result, failed
	}
	var err error
	if cleanup.Conn, err = t.dial(); err != nil {
		cleanup.Conn = t.conn
		return result, errors.Join(failed, w.settle(cleanup, result))
	}
	cleanup.Own, cleanup.Turn.Conn = true, cleanup.Conn
	w.turn = &flows.Turn{} // the cleanup has it from now on
	if t.watch != nil {
		t.watch.Trust(cleanup.Conn)
	}
	t.pending, result.Cleanup = append(t.pending, cleanup), cleanup
	return result, failed
}

// Update changes backends of services that Apply has applied. The other services
// stay. Where more than backends differs, or somebody else has changed the table, it
// comes to an Apply. The part must not change afterwards either. Errors: those of
// Apply; a service that Apply does not know.
func (t *Table) Update(ctx context.Context, part []*lb.Profile) (*Result, error) {
	part = keptStandings(part)
	for profile, s := range lb.Services(part) {
		if _, ok := t.placeOf(compile.ChainOf(profile.Name, s.Name)); !ok {
			return nil, fmt.Errorf("service %s of profile %s is to be updated, but was not applied", s.Name, profile.Name)
		}
	}
	for profile, s := range lb.Services(part) {
		at, _ := t.placeOf(compile.ChainOf(profile.Name, s.Name))
		t.updated[at] = s
	}
	if result, err := t.updatePart(ctx, part); err == nil || ctx.Err() != nil || result != nil {
		return result, err
	}
	if t.memory != nil {
		t.memory.touched = true // or it would begin in the same way
	}
	return t.Apply(ctx, t.all(), t.options)
}

// all are the profiles with what Update has changed.
func (t *Table) all() []*lb.Profile {
	if len(t.updated) == 0 {
		return t.profiles
	}
	out := slices.Clone(t.profiles)
	for at, s := range t.updated {
		copiedServices(out, t.profiles, at.profile)[at.service] = *s
	}
	return out
}

func (t *Table) placeOf(chain string) (position, bool) {
	if t.places == nil {
		t.places = map[string]position{}
		n := 0
		for i, p := range t.profiles {
			for j := range p.Services {
				t.places[compile.ChainOf(p.Name, p.Services[j].Name)] = position{i, j, n}
				n++
			}
		}
	}
	at, ok := t.places[chain]
	return at, ok
}

// updatePart is an Update that reads these services alone. An error without a
// result says that everything has to be read.
func (t *Table) updatePart(ctx context.Context, part []*lb.Profile) (*Result, error) {
	o, m := t.options, t.memory
	if m == nil || !m.canLoadPartially(o) {
		return nil, errNotPartial
	}
	services := slices.Clone(m.services)
	changed, ok := t.differing(part, services)
	if !ok {
		return nil, errNotPartial
	}
	if len(changed) == 0 {
		if generation, ok := m.current(t.conn); ok {
			return &Result{Generation: generation}, nil
		}
		return nil, errNotPartial
	}
	w, err := newWriter(ctx, t.conn, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	m.sweeps = t.sweeps()
	w.listenWith(t.watch)
	w.pending, w.quiesced = true, make(chan struct{})
	close(w.quiesced) // or it sweeps nothing
	have, err := m.loadPart(t.conn, o, changed)
	if err != nil {
		return nil, err
	}
	p, result, err := planFor(have, changed, o, func() request {
		return request{t.digest(), services}
	})
	if err != nil {
		return nil, err
	}
	t.hush(w, p)
	cleanup, err := w.commit(have, p, o, result)
	if err != nil {
		return nil, err
	}
	if result.compare(); len(result.Changes) > 0 {
		t.owners = nil // backends may have come
	}
	return t.finish(w, p, o, cleanup, result, nil)
}

// isPending reports whether a cleanup that was given away may still be running.
func (t *Table) isPending() bool {
	t.pending = slices.DeleteFunc(t.pending, func(c *flows.Cleanup) bool {
		done := c.Done()
		if done && t.watch != nil {
			t.watch.Forget(c.Conn)
		}
		return done
	})
	return len(t.pending) > 0
}

// sweeps reports whether what is retired can be swept without waiting.
func (t *Table) sweeps() bool {
	select {
	case <-t.quiesced:
		return !t.isPending()
	default:
		return t.quiesced == nil
	}
}

// listen begins to watch the table. What cleanups change does not count.
func (t *Table) listen() (*wire.Watch, error) {
	w, err := t.conn.Watch(ruleset.Inet, t.name)
	if err == nil {
		for _, c := range t.pending {
			w.Trust(c.Conn)
		}
	}
	return w, err
}

// mostHeard is how many objects of ours a watch hears of.
const mostHeard = 1000

// hush ends the watch ahead of a large commit; follow begins a new one. While anybody
// listens, in any network namespace, the kernel writes a report of each object, and
// keeps all until the end: a page for each of a million slots.
func (t *Table) hush(w *writer, p *plan) {
	if t.watch != nil && w.watch == t.watch && !w.dry && p.objects() > mostHeard {
		_ = t.watch.Close()
		t.watch, w.watch, w.borrowed = nil, nil, false
	}
}

// follow makes the watch go on behind a commit of ours, and reports whether
// anybody else may have changed the table.
func (t *Table) follow(generation uint32) (touched bool) {
	var err error
	if t.watch == nil {
		if t.watch, err = t.listen(); err == nil {
			return t.watch.Generation() != generation
		}
		return true
	}
	_, touched, err = t.watch.Touched(t.conn)
	return touched || err != nil
}

// Intact reports that nobody else has changed the table, or removed it, since the last
// commit of ours. It stays false until an Apply, which repairs. It costs one question
// to the kernel, where others change other tables as well.
func (t *Table) Intact() bool {
	if t.memory == nil {
		return false
	}
	t.isPending()
	_, ok := t.memory.current(t.conn)
	return ok
}

// Touched reports that the table is not Intact, or that routes or interfaces of services
// with mode: dsr or tunnel have changed.
func (t *Table) Touched() (bool, error) {
	if !t.Intact() {
		return true, nil
	}
	return t.linksChanged()
}
