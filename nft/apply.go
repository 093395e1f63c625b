// Package nft makes the kernel hold profiles as native nftables, and reads them
// back: it reads what the kernel has, plans what differs from the ruleset that
// compile makes, and commits it in one batch.
package nft

// Apply and flush: from what is there to what is wanted, in one batch.

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// Apply makes the kernel hold the profiles. Other profiles stay, unless
// o.Prune. The profiles must be free of conflicts among themselves. Errors:
// those of Load, *ConflictError, *PartialError, *FlowsError (all of it is done but
// the flows), wire.ErrUnknown; after any
// other nothing was changed.
func Apply(ctx context.Context, c *wire.Conn, profiles []*lb.Profile, o Options) (*Result, error) {
	applied, err := readApplied(c, o.Table)
	if err != nil {
		applied = nil // whoever reads it all will say why
	}
	last := decodeRecord(applied)
	asked := sync.OnceValue(func() request { return requestOf(profiles, o) })
	if generation, ok := last.upToDate(c, o, asked); ok {
		return &Result{Generation: generation}, nil
	}
	// What is not needed at once is made meanwhile, here and in planFor: with tens
	// of thousands of services it is a tenth of the time.
	if o.Record {
		go asked()
	}
	w, err := newWriter(ctx, c, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	var result *Result
	err = w.retry(func() error {
		w.startGrace()
		have, part := last.loadChanged(c, applied, profiles, o, asked)
		if have == nil {
			var err error
			if have, err = w.load(); errors.Is(err, ErrLayout) {
				have, err = unknownTable(c, o.Table)
			}
			if err != nil {
				return err
			}
			part = profiles
		}
		p, r, err := planFor(have, part, o, asked)
		if err != nil {
			return err
		}
		result = w.combine(result, r)
		if err := w.carryAffinity(have, p); err != nil {
			return err
		}
		err = w.commit(have, p, o, result)
		if refused, ok := errors.AsType[*wire.Error](err); ok && p.carries && refused.Errno == unix.ENOENT {
			return wire.ErrStale // a client left meanwhile
		}
		return err
	})
	return result, err
}

// commit sends a plan, and settles the connections of backends that it leaves
// behind.
func (w *writer) commit(have *State, p *plan, o Options, result *Result) error {
	// What an earlier plan retired comes first: with the sweep it would be
	// forgotten whose flows they are. Another nlb may be at it.
	var flows error
	if retired := have.retiredNumbers(p.owners); len(retired) > 0 && !o.DryRun && !w.flowsTurn(0) {
		if flows = w.endFlows(retired, o, result); flows != nil {
			p.keepRetired()
		}
	}
	if !p.empty() {
		if err := w.send(p, have.Generation, result); err != nil {
			return err
		}
	}
	c := newCleanup(have, p)
	if len(c.stale)+len(c.down) > 0 && !o.DryRun {
		w.flowsTurn(0)
	}
	// What follows takes its time, and is nobody else's business.
	w.endTurn()
	return cmp.Or(w.settle(c, o, result), flows)
}

// retiredNumbers are those of backends that an earlier plan has retired and
// that nobody has now.
func (s *State) retiredNumbers(owners compile.Owners) map[uint32]bool {
	out := map[uint32]bool{}
	for n := range s.marked() {
		if _, owned := owners.Of(n); !owned {
			out[n] = true
		}
	}
	for _, b := range s.backends {
		delete(out, b.mark&compile.NumberMask)
	}
	return out
}

// marked are the numbers of the backends that the kernel has elements for,
// those included that an earlier plan retired.
func (s *State) marked() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if s.last != nil {
			for _, r := range s.last.retired {
				for i := range r.count {
					if r.gone && !yield((r.first+i)&compile.NumberMask) {
						return
					}
				}
			}
			return
		}
		for _, f := range compile.Families {
			for _, name := range []string{f.Endpoints, f.Addresses} {
				for key := range s.elements(name) {
					if !yield(ruleset.MarkOf(key) & compile.NumberMask) {
						return
					}
				}
			}
		}
	}
}

// planFor plans an apply. asked is all that is applied; nil: it is not recorded. The
// profiles may be a part of it, where the state is.
func planFor(have *State, profiles []*lb.Profile, o Options, asked func() request) (*plan, *Result, error) {
	inScope := o.scope(profiles)
	scope, others := have.split(inScope)
	if len(others) > 0 {
		if errs := lb.Conflicts(slices.Concat(others, profiles)); len(errs) > 0 {
			return nil, nil, &ConflictError{errs}
		}
	}
	changes := sync.OnceValue(func() []lb.Change { return lb.Compare(scope, profiles) })
	go changes()
	p := have.planTo(profiles, others, inScope, o, asked)
	result := &Result{Changes: changes(), Generation: have.Generation}
	result.Replaced = have.objects.unknown
	// Of another layout, nlb itself makes other objects.
	ours := have.objects.exists && have.objects.layout == compile.LayoutVersion
	result.Repaired = len(result.Changes) == 0 && !p.empty() && ours && !have.untouched()
	return p, result, nil
}

// scope tells the profiles that an apply is about.
func (o Options) scope(profiles []*lb.Profile) func(profile string) bool {
	applied := map[string]bool{}
	for _, p := range profiles {
		applied[p.Name] = true
	}
	return func(profile string) bool { return o.Prune || applied[profile] }
}

// split parts the profiles that a plan is about from the others.
func (s *State) split(inScope func(profile string) bool) (scope, others []*lb.Profile) {
	for _, p := range s.Profiles {
		if inScope(p.Name) {
			scope = append(scope, p)
		} else {
			others = append(others, p)
		}
	}
	return scope, others
}

// planTo plans to hold these profiles in place of those in scope, beside the
// others.
func (s *State) planTo(profiles, others []*lb.Profile, inScope func(profile string) bool, o Options, asked func() request) *plan {
	n := s.numbers(o.Keep, profiles, others)
	record := record{whole: len(others) == 0 && (s.last == nil || s.last.whole)}
	renumbered := s.renumbered(others, n)
	inPlan := func(profile string) bool { return inScope(profile) || renumbered[profile] }
	for _, p := range others {
		if renumbered[p.Name] {
			profiles = append(slices.Clip(profiles), p)
		}
	}
	others = slices.DeleteFunc(slices.Clone(others), func(p *lb.Profile) bool { return renumbered[p.Name] })
	want := compile.Beside(o.Table, profiles, others, n, func(object string) bool {
		return s.objects.maps[object] != nil || s.objects.chains[object] != nil || object == compile.ParamsSet && len(o.Params)+len(s.params) > 0
	})
	addParams(want, s, append(s.params, o.Params...))
	all := slices.Concat(profiles, others)
	servers := sync.OnceValue(func() servers { return serversOf(all, n) })
	successors := s.successors(profiles, n, servers)
	s.carryCounters(want, successors)
	p := diff(s, want, inPlan)
	p.markLayout(s)
	p.owners, p.profiles, p.servers, p.successors = n.Owners, all, servers, successors
	for _, m := range want.Maps {
		if m.OfChain != "" && len(successors) > 0 {
			p.affinities = append(p.affinities, m)
		}
	}
	record.slots = s.slotsEnd(want)
	if o.Record && asked != nil {
		request := asked()
		record.digest, record.services = request.digest, request.services
	}
	p.remember(s, record)
	return p
}

// renumbered are the profiles with a backend whose number another profile's
// backend has from now on.
func (s *State) renumbered(profiles []*lb.Profile, n *compile.Numbers) map[string]bool {
	out := map[string]bool{}
	for _, p := range profiles {
		for i := range p.Services {
			chain := compile.ChainOf(p.Name, p.Services[i].Name)
			for _, b := range p.Services[i].Backends {
				if s.backends[compile.BackendKey{Chain: chain, Address: b.Address}].mark&compile.NumberMask != n.Backend(chain, b.Address) {
					out[p.Name] = true
				}
			}
		}
	}
	return out
}

// Diff says what Apply would do.
func Diff(c *wire.Conn, profiles []*lb.Profile, o Options) (*Result, error) {
	have, err := Load(c, o.Table)
	if errors.Is(err, ErrLayout) {
		have, err = unknownTable(c, o.Table)
	}
	if err != nil {
		return nil, err
	}
	_, result, err := planFor(have, profiles, o, nil)
	return result, err
}

// Flush removes profiles, or the whole table where none is named. The table
// goes with the last profile, unless connections are open and o.Cut is false. The state is what was there; one without the
// table says that there was nothing to do. Errors are those of Apply.
func Flush(ctx context.Context, c *wire.Conn, names []string, o Options) (*State, *Result, error) {
	w, err := newWriter(ctx, c, o)
	if err != nil {
		return nil, nil, err
	}
	defer w.close()
	var first *State
	var result *Result
	err = w.retry(func() error {
		w.startGrace()
		have, err := w.load()
		if len(names) == 0 && errors.Is(err, ErrLayout) {
			have, err = unknownTable(c, o.Table)
		}
		if err != nil {
			return err
		}
		if first == nil || !w.mayHaveCommitted() {
			first = have
		}
		result = w.combine(result, &Result{Generation: have.Generation})
		if !have.objects.exists {
			// Perhaps by a flush of ours whose answer was lost.
			retired := w.endFlows(first.retiredNumbers(compile.Owners{}), o, result)
			return cmp.Or(w.settle(newCleanup(first, gone(o.Table)), o, result), retired)
		}
		inScope := func(profile string) bool { return len(names) == 0 || slices.Contains(names, profile) }
		_, others := have.split(inScope)
		var p *plan
		if len(others) > 0 {
			o.Keep = have.kept
			p = have.planTo(nil, others, inScope, o, nil)
		} else if p, err = w.removal(o, result); err != nil {
			return err
		}
		return w.commit(have, p, o, result)
	})
	return first, result, err
}

// leftover is the comment of the only rule of a table that was flushed while
// connections were open.
const leftover = "open connections go on"

// isLeftover reports whether the table is there for the sake of open connections
// alone.
func (s *State) isLeftover() bool {
	c := s.objects.chains[compile.PreroutingChain]
	return len(s.objects.chains) == 1 && len(s.objects.maps) == 0 && c != nil && len(c.rules) == 1 && c.rules[0].comment == leftover
}

// removal plans to remove the table. Without any chain of type nat the kernel
// would translate no packet any more, of open connections neither, and without
// any rule that asks conntrack it would not track them. So while there are some,
// unless they are to be cut, the table stays with one such chain and rule.
func (w *writer) removal(o Options, result *Result) (*plan, error) {
	p := gone(o.Table)
	p.add(op{verb: remove, table: true})
	if o.Cut {
		return p, nil
	}
	err := conntrack.List(w.conn, ours, func(f *conntrack.Flow) {
		if !f.Ended && f.Answered && lb.Protocol(f.Protocol) != lb.UDP {
			result.Open++
		}
	})
	if err == nil && result.Open > 0 {
		p.add(op{verb: add, table: true})
		c := &ruleset.Chain{Name: compile.PreroutingChain, Hook: ruleset.Prerouting(-100, "dstnat"), Rules: []ruleset.Rule{{
			Statements: []ruleset.Statement{ruleset.IsTranslated(), ruleset.Accept()}, Comment: leftover,
		}}}
		p.add(op{verb: add, chain: c})
		p.add(op{verb: add, chain: c, rule: &c.Rules[0]})
	}
	return p, err
}

// gone is the plan of a table that is not there any more.
func gone(table string) *plan { return &plan{table: table, servers: func() servers { return nil }} }

// unknownTable is the state of a table of a layout that we do not know. It can only
// be replaced or flushed whole; the kernel parameters that it remembers are read.
func unknownTable(c *wire.Conn, table string) (*State, error) {
	generation, err := c.Generation()
	if err != nil {
		return nil, err
	}
	switch _, err := readLayout(c, table); {
	case err == nil:
		return nil, wire.ErrInterrupted // it is another one by now
	case !errors.Is(err, ErrLayout):
		return nil, err
	}
	params, err := readSet(c, table, compile.NewParamsSet())
	if err != nil {
		return nil, err
	}
	have := newState(table, &objects{exists: true, unknown: true})
	have.Generation, have.params = generation, paramsIn(params)
	return have, nil
}

// Exists reports whether the table is there.
func (s *State) Exists() bool { return s.objects.exists }

// NotPermitted reports whether err says that the caller lacks CAP_NET_ADMIN.
func NotPermitted(err error) bool { return errors.Is(err, unix.EPERM) }
