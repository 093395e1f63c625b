// Package nft makes the kernel hold profiles as native nftables, and reads them
// back: it reads what the kernel has, plans what differs from the ruleset that
// compile makes, and commits it in one batch.
package nft

// Apply: how to apply, what came of it, and the plan from what is there to what is
// wanted.

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/direct"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
)

// Options say how to apply.
type Options struct {
	// Table is the name of the table, of family inet.
	Table string
	// Prune also removes the profiles that are not applied.
	Prune bool
	// Cut also ends the live TCP and SCTP connections of backends that were
	// removed. UDP flows always end.
	Cut bool
	// DryRun lets the kernel check the batch and changes nothing.
	DryRun bool
	// Record keeps in the table what was applied. An apply of the same sends
	// nothing, and reads nothing back where nobody has changed the ruleset since;
	// one that changes a few backends reads only those.
	Record bool
	// Build stands for the nlb that applies: what another one has applied is read
	// back as a whole.
	Build string
	// Keep are the bits of the connection mark that nlb leaves to others, who
	// route by them; see compile.KeepableBits.
	Keep uint32
	// Probes has the table tell the checks that this host makes of its servers from
	// other traffic, from then on; see compile.ProbePriority.
	Probes bool
	// Counted leaves limits that are dear to count (compile.Countable) to whoever
	// applies, who says with Table.Saturate which backends are full.
	Counted bool
	// MostChanges is how many changes Result names, about; 0: all.
	MostChanges int
	asIs        bool // each limit is left to whoever counts it now, kernel or agent
	// Settle is how long answers of removed backends that are under way may take;
	// 0: 250 ms. It is waited for where connections move or end. For tests.
	Settle time.Duration
	// Links reads the interfaces and routes that services with mode: dsr need; nil where
	// none has one. It gives nil for profiles without them.
	Links func(profiles []*lb.Profile) (*direct.Links, error)
	// links are those of the profiles that are applied.
	links *direct.Links
	// Offload says what of the wishes of profiles to be offloaded holds on this host,
	// where the table has something now; nil: what holds now. It is asked in every
	// apply of profiles that have such wishes, once or twice.
	Offload func(profiles []*lb.Profile, now compile.Offload) compile.Offload
	// Params are kernel parameters with the values that were found before they
	// were changed; kept in the table until it is flushed. Those that the table
	// knows already stay as they are.
	Params []Param
}

// Result says what was done.
type Result struct {
	// Changes are the differences between what was there and what is wanted;
	// empty where nothing was sent for them.
	Changes []lb.Change
	// More is how many services differ behind those that Changes names; see
	// Options.MostChanges.
	More int
	// Repaired says that objects were sent which only somebody else can have
	// changed.
	Repaired bool
	// Replaced says that the table had a layout of a later nlb, which cannot be
	// read, and was replaced whole, other profiles included.
	Replaced bool
	// Batches and Messages count what was committed, or by a dry run written; 0
	// where there was nothing to do. A destination that passes to another chain or
	// map takes up to three batches. Those that move flows are not counted.
	Batches, Messages int
	// Split says that the socket could not take a batch whole.
	Split bool
	// Ended counts the connections of removed backends that were ended, and the
	// unanswered ones of drained backends.
	Ended int
	// Open counts the connections that a flush leaves open. For their sake an
	// empty table stays.
	Open int
	// Generation is the ruleset's, afterwards.
	Generation uint32
	// Cleanup is what is left to do about connections; nil: nothing, or it was
	// done. Only a Table gives one away. Whoever gets it has to run it, once, on
	// any goroutine; the Table goes on meanwhile.
	Cleanup *flows.Cleanup
	find    func() // Changes, More and Repaired, once; nil: they are known
}

// compare makes known what an apply changes. Nothing of the apply depends on it.
func (r *Result) compare() {
	if r.find != nil {
		r.find()
	}
}

// ConflictError says that a service of another profile, in the kernel, claims
// what a new one listens on. Nothing was changed.
type ConflictError struct{ Errors lb.Errors }

func (e *ConflictError) Error() string { return e.Errors.Error() }

// PartialError says that some of several batches were committed before one
// failed. What makes a service reachable comes last.
type PartialError struct {
	Done, All int
	Err       error
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("%d of about %d batches were committed, then: %v", e.Done, e.All, e.Err)
}

func (e *PartialError) Unwrap() error { return e.Err }

// FlowsError says that all was committed, but flows of removed backends could
// not be ended. The next apply tries again.
type FlowsError = flows.Error

// request is what an apply is asked for, as a record has it.
type request struct {
	digest   string        // of the options and the names of the profiles
	services []fingerprint // in the order of the profiles
}

func requestOf(profiles []*lb.Profile, o Options) request {
	var services []*lb.Service
	var salts []string
	for p, s := range lb.Services(profiles) {
		if s == &p.Services[0] {
			salts = append(salts, saltOf(o, p.Name))
		} else {
			salts = append(salts, salts[len(salts)-1])
		}
		services = append(services, s)
	}
	r := request{services: make([]fingerprint, len(services))}
	// In two halves: of tens of thousands it is what the second processor is for.
	var half sync.WaitGroup
	for _, part := range [][2]int{{0, len(services) / 2}, {len(services) / 2, len(services)}} {
		half.Go(func() {
			for i := part[0]; i < part[1]; i++ {
				r.services[i].frame, r.services[i].backends = lb.Fingerprint(salts[i], services[i])
			}
		})
	}
	half.Wait()
	r.digest = digestOf(profiles, o)
	return r
}

// buildOf stands for what makes the rules.
func buildOf(o Options) string {
	return o.Build + compile.RulesVersion(o.Keep) + strconv.Itoa(compile.LayoutVersion)
}

// saltOf is what the fingerprints of a profile's services begin with.
func saltOf(o Options, profile string) string {
	counted := ""
	if o.Counted {
		counted = "\x00counted"
	}
	return buildOf(o) + counted + "\x00" + profile + "\n"
}

// digestOf is the digest of what is applied beside the services' fingerprints.
func digestOf(profiles []*lb.Profile, o Options) string {
	h := sha256.New()
	fmt.Fprintln(h, o.Prune, o.Probes, buildOf(o))
	h.Write([]byte(o.links.Digest(profiles)))
	for _, p := range profiles {
		fmt.Fprintln(h, p.Name, len(p.Services))
	}
	return string(h.Sum(nil))
}

// keptStandings are profiles with the standings of their backends as the table
// keeps them: what it holds is what is compared.
func keptStandings(profiles []*lb.Profile) []*lb.Profile {
	out := profiles
	for i, p := range profiles {
		for j := range p.Services {
			given := p.Services[j].Backends
			backends := given
			for k := range given {
				kept := compile.KeptStanding(given[k].Standing)
				if kept == given[k].Standing {
					continue
				}
				if &backends[0] == &given[0] {
					backends = slices.Clone(given)
				}
				if &out[0] == &profiles[0] {
					out = slices.Clone(profiles)
				}
				backends[k].Standing = kept
				copiedServices(out, profiles, i)[j].Backends = backends
			}
		}
	}
	return out
}

// copiedServices are the services of a profile, which is made a copy of the given one
// unless it is one already.
func copiedServices(profiles, given []*lb.Profile, i int) []lb.Service {
	if profiles[i] == given[i] {
		copied := *given[i]
		copied.Services = slices.Clone(copied.Services)
		profiles[i] = &copied
	}
	return profiles[i].Services
}

// goal is what a table is to hold: these profiles in place of those in scope, beside the
// others.
type goal struct {
	profiles, others []*lb.Profile
	inScope          func(profile string) bool
	Options
	asked func() request // all that is applied; nil: it is not recorded
}

// all are the profiles that the table is to hold.
func (g *goal) all() []*lb.Profile { return slices.Concat(g.profiles, g.others) }

// take puts the others that have these names into scope.
func (g *goal) take(names map[string]bool) {
	inScope := g.inScope
	g.inScope = func(profile string) bool { return inScope(profile) || names[profile] }
	g.profiles, g.others = slices.Clone(g.profiles), slices.Clone(g.others)
	g.others = slices.DeleteFunc(g.others, func(p *lb.Profile) bool {
		if names[p.Name] {
			g.profiles = append(g.profiles, p)
		}
		return names[p.Name]
	})
}

// planFor plans an apply. asked is all that is applied; nil: it is not recorded. The
// profiles may be a part of it, where the state is.
func planFor(have *State, profiles []*lb.Profile, o Options, asked func() request) (*plan, *Result, error) {
	g := goal{profiles: profiles, inScope: o.scope(profiles), Options: o, asked: asked}
	var scope []*lb.Profile
	scope, g.others = have.split(g.inScope)
	if len(g.others) > 0 {
		if errs := lb.Conflicts(slices.Concat(g.others, profiles)); len(errs) > 0 {
			return nil, nil, &ConflictError{errs}
		}
	}
	if err := have.linkWith(&g.Options, profiles, g.others); err != nil {
		return nil, nil, err
	}
	p := have.planTo(g)
	if have.last != nil && p.numbers.KeysClients() {
		return nil, nil, errNotPartial
	}
	result := &Result{Generation: have.Generation, Replaced: have.objects.unknown}
	// Of another layout, nlb itself makes other objects.
	ours := have.objects.exists && have.objects.layout == compile.LayoutVersion
	// A part is only read where nobody has touched the table.
	repairs := have.last == nil && !p.empty() && ours && !have.Untouched() && (o.Counted || !have.countedFor(profiles))
	result.find = sync.OnceFunc(func() {
		result.Changes, result.More = lb.CompareFirst(scope, profiles, cmp.Or(o.MostChanges, math.MaxInt))
		result.Repaired = repairs && len(result.Changes) == 0 && have.stands(profiles)
	})
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

// planTo plans to reach a goal.
func (s *State) planTo(g goal) *plan {
	n := s.numbers(g.Keep, g.profiles, g.others)
	n.Counted = s.counted(g.inScope, g.Options)
	record := record{whole: len(g.others) == 0 && (s.last == nil || s.last.whole)}
	g.take(s.renumbered(g.others, n))
	all := g.all()
	servers := sync.OnceValue(func() flows.Servers {
		out := flows.Servers{}
		out.Add(all, n.Mark)
		return out
	})
	successors := s.successors(g.profiles, n, servers)
	s.renewKeys(g.profiles, n, successors)
	want := s.wanted(&g, n)
	s.carryCounters(want, successors)
	p := diff(s, want, g.inScope)
	p.direct(s, &g, n)
	record.direct = direct.Has(all)
	p.markLayout(s)
	p.owners, p.profiles, p.servers, p.successors = n.Owners, all, servers, successors
	p.numbers, p.affinities = n, clientMaps(want)
	record.slots, p.free = s.slotsEnd(want), append(n.Free(), s.freed()...)
	if g.Record && g.asked != nil {
		request := g.asked()
		record.digest, record.services = request.digest, request.services
	}
	p.remember(s, record)
	if s.last != nil {
		p.fixed = p.leaves(s)
	}
	return p
}

// wanted is the ruleset of a goal.
func (s *State) wanted(g *goal, n *compile.Numbers) *ruleset.Ruleset {
	there := func(object string) bool {
		return s.keeps(object) || object == compile.ParamsSet && len(g.Params)+len(s.params) > 0 || object == compile.ProbesChain && g.Probes
	}
	want := compile.Beside(g.Table, g.profiles, g.others, n, there)
	s.offload(g.all(), g.Options).AddTo(want, g.profiles, g.others, n, there)
	addParams(want, s, append(s.params, g.Params...))
	return want
}

// keeps reports whether the table keeps an object that it has, although no profile may
// need it any more.
func (s *State) keeps(object string) bool {
	if s.objects.maps[object] == nil && s.objects.chains[object] == nil {
		return false
	}
	switch {
	case s.last != nil: // a part of a table does not say who needs what lapses
		return true
	case object == compile.PostroutingChain: // packets may be under way to it until the next plan
		return compile.ChangesSources(s.Profiles)
	}
	return !compile.Lapses(object)
}

// Untouched reports whether nobody has changed the ruleset since the last apply.
func (s *State) Untouched() bool {
	r := decodeRecord(s.elements(compile.RecordSet))
	return r.digest != "" && r.generation == s.Generation
}

// stands reports whether backends have the states and standings that profiles say.
func (s *State) stands(profiles []*lb.Profile) bool {
	for _, was := range s.served(profiles) {
		find := finder(was.now)
		for i := range was.before.Backends {
			h := &was.before.Backends[i]
			if b, ok := find(h.Address); ok && (h.State != b.State || h.Share != b.Share || h.Standing != b.Standing) {
				return false
			}
		}
	}
	return true
}

// counted are the backends whose limits a plan leaves to whoever applies. Other
// profiles stay as they are.
func (s *State) counted(inScope func(profile string) bool, o Options) func(compile.BackendKey) bool {
	return func(key compile.BackendKey) bool {
		profile, _, _ := compile.ServiceOf(key.Chain)
		if o.asIs || !inScope(profile) {
			return s.backends[key].counted
		}
		return o.Counted
	}
}
