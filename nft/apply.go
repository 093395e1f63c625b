package nft

// Apply and flush: from what is there to what is wanted, in one batch.

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

// A writer that changes the ruleset between our reading and our writing makes
// us begin again, this often.
const applyTries = 60

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
	// Digest stands for all that is applied, options included: an apply whose
	// digest is that of the last one sends nothing, and reads nothing back where
	// nobody has changed the ruleset since. At most 64 bytes; empty: unknown.
	Digest string
	// Params are kernel parameters with the values that were found before they
	// were changed; kept in the table until it is flushed. Those that the table
	// knows already stay as they are.
	Params []Param
}

// Param is a kernel parameter and its value.
type Param struct{ Name, Value string }

// Result says what was done.
type Result struct {
	// Changes are the differences between what was there and what is wanted;
	// empty where nothing was sent for them.
	Changes []lb.Change
	// Repaired says that objects were sent which only somebody else can have
	// changed.
	Repaired bool
	// Batches and Messages count what was sent; 0 where there was nothing to
	// do. More than one batch means that the socket could not take it whole.
	Batches, Messages int
	// Ended counts the connections of removed backends that were ended.
	Ended int
	// Generation is the ruleset's, afterwards.
	Generation uint32
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
type FlowsError struct{ Err error }

func (e *FlowsError) Error() string {
	return fmt.Sprintf("flows of removed backends were not ended: %v", e.Err)
}

func (e *FlowsError) Unwrap() error { return e.Err }

// Apply makes the kernel hold the profiles. Other profiles stay, unless
// o.Prune. The profiles must be free of conflicts among themselves. Errors:
// those of Load, *ConflictError, *PartialError, *FlowsError (all of it is done but
// the flows), wire.ErrUnknown; after any
// other nothing was changed.
func Apply(ctx context.Context, c *wire.Conn, profiles []*lb.Profile, o Options) (*Result, error) {
	if generation, ok, err := upToDate(c, o); err == nil && ok {
		return &Result{Generation: generation}, nil
	}
	var result *Result
	err := again(ctx, func() error {
		have, err := Load(c, o.Table)
		if err != nil {
			return err
		}
		result, err = apply(c, have, profiles, o)
		return err
	})
	return result, err
}

// again repeats what failed because the ruleset changed meanwhile.
func again(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		stale := errors.Is(err, wire.ErrStale) || errors.Is(err, wire.ErrInterrupted)
		if partial := (*PartialError)(nil); !stale || try == applyTries || errors.As(err, &partial) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(time.Duration(try) * time.Millisecond)):
		}
	}
}

func apply(c *wire.Conn, have *State, profiles []*lb.Profile, o Options) (*Result, error) {
	p, result, err := planFor(have, profiles, o)
	if err != nil {
		return nil, err
	}
	return result, have.commit(c, p, o, result)
}

// commit sends a plan, and ends the flows of backends that it leaves behind.
func (s *State) commit(c *wire.Conn, p *plan, o Options, result *Result) error {
	if len(p.ops) > 0 {
		if err := send(c, p, s.Generation, o.DryRun, result); err != nil {
			return err
		}
	}
	if o.DryRun || !s.anyGone(p.alive) {
		return nil
	}
	var err error
	if result.Ended, err = endFlows(c, p.alive, o.Cut); err != nil {
		return &FlowsError{err}
	}
	return nil
}

// anyGone reports whether the kernel holds a backend that is not alive, one
// that an earlier plan retired included.
func (s *State) anyGone(alive map[uint32]bool) bool {
	for _, f := range families {
		for _, name := range []string{f.endpoints, f.addresses} {
			for key := range s.elements(name) {
				if !alive[markOf(key)&indexMask] {
					return true
				}
			}
		}
	}
	return false
}

// planFor plans an apply.
func planFor(have *State, profiles []*lb.Profile, o Options) (*plan, *Result, error) {
	inScope := o.scope(profiles)
	scope, others := have.split(inScope)
	if errs := lb.Conflicts(slices.Concat(others, profiles)); len(errs) > 0 {
		return nil, nil, &ConflictError{errs}
	}
	p := have.planTo(profiles, others, inScope, o)
	result := &Result{Changes: lb.Compare(scope, profiles), Generation: have.Generation}
	result.Repaired = len(result.Changes) == 0 && len(p.ops) > 0 && have.objects.exists
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
func (s *State) planTo(profiles, others []*lb.Profile, inScope func(profile string) bool, o Options) *plan {
	n := s.numbers()
	want := compile(o.Table, profiles, others, n, func(object string) bool {
		return s.objects.maps[object] != nil || s.objects.chains[object] != nil || object == paramsSet && len(o.Params) > 0
	})
	want.params(s, o.Params)
	p := diff(s, want, inScope)
	p.alive = n.alive(slices.Concat(others, profiles))
	p.remember(s, o.Digest)
	return p
}

// params adds the kernel parameters that the table does not know.
func (r *Ruleset) params(have *State, params []Param) {
	known := map[string]bool{}
	for _, p := range have.Params() {
		known[p.Name] = true
	}
	for _, m := range r.maps {
		if m.name != paramsSet {
			continue
		}
		for _, p := range params {
			if !known[p.Name] {
				m.elements = append(m.elements, p.element())
			}
		}
	}
}

// Diff says what Apply would do.
func Diff(c *wire.Conn, profiles []*lb.Profile, o Options) (*Result, error) {
	have, err := Load(c, o.Table)
	if err != nil {
		return nil, err
	}
	_, result, err := planFor(have, profiles, o)
	return result, err
}

// Flush removes profiles, or the whole table where none is named. The table
// goes with the last profile. The state is what was there; one without the
// table says that there was nothing to do. Errors are those of Apply.
func Flush(ctx context.Context, c *wire.Conn, names []string, o Options) (*State, *Result, error) {
	var have *State
	var result *Result
	err := again(ctx, func() error {
		var err error
		if have, err = loadForFlush(c, o.Table, len(names) == 0); err != nil {
			return err
		}
		result = &Result{Generation: have.Generation}
		if !have.objects.exists {
			return nil
		}
		inScope := func(profile string) bool { return len(names) == 0 || slices.Contains(names, profile) }
		_, others := have.split(inScope)
		p := &plan{table: o.Table, ops: []op{{verb: remove, table: true}}}
		if len(others) > 0 {
			p = have.planTo(nil, others, inScope, o)
		}
		return have.commit(c, p, o, result)
	})
	return have, result, err
}

// loadForFlush also takes a table of another layout, where it goes as a whole.
func loadForFlush(c *wire.Conn, table string, all bool) (*State, error) {
	have, err := Load(c, table)
	if !all || !errors.Is(err, ErrLayout) {
		return have, err
	}
	generation, err := c.Generation()
	if err != nil {
		return nil, err
	}
	have = newState(table, &objects{exists: true})
	have.Generation = generation
	return have, nil
}

// send commits a plan.
func send(c *wire.Conn, p *plan, generation uint32, dryRun bool, result *Result) error {
	// Ask for what the batch will need at most, before it is written: what the
	// socket can take decides how large its messages may be.
	limit, err := c.Limit(p.estimate())
	if err != nil {
		return err
	}
	b := wire.NewBatch(generation)
	p.encode(b, min(maxList, limit/2))
	if limit, err = c.Limit(b.Size()); err != nil {
		return err
	}
	result.Messages = b.Messages()
	if dryRun {
		// A part of a batch cannot be checked alone: it needs what comes before.
		result.Batches = 1
		return c.Check(b)
	}
	all := b.Size()/limit + 1
	for b != nil {
		part := b
		b = nil
		if part.Size() > limit {
			part, b = part.Split(limit)
		}
		part.SetGeneration(generation)
		next, err := c.Commit(part, generation)
		if err == nil && b != nil && next != generation+1 {
			// Somebody else committed right behind us: what we know is old.
			err = wire.ErrStale
			result.Batches++
		}
		if err != nil {
			if result.Batches > 0 {
				err = &PartialError{Done: result.Batches, All: all, Err: err}
			}
			return err
		}
		generation = next
		result.Batches++
	}
	result.Generation = generation
	return nil
}

// estimate is about the number of bytes of the plan's messages.
func (p *plan) estimate() int {
	n := 0
	for _, o := range p.ops {
		n += 512 + 128*len(o.elements)
	}
	return n
}

// element is how the table remembers a parameter.
func (p Param) element() element {
	h := fnv.New32a()
	h.Write([]byte(p.Name))
	return element{key: markBytes(h.Sum32()), extra: &extra{comment: p.Name + " was " + p.Value}}
}

// Params are the kernel parameters that the table remembers, with the values
// that were found, sorted by name.
func (s *State) Params() []Param {
	var out []Param
	for _, e := range s.elements(paramsSet) {
		var p Param
		if n, _ := fmt.Sscanf(e.more().comment, "%s was %s", &p.Name, &p.Value); n == 2 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Exists reports whether the table is there.
func (s *State) Exists() bool { return s.objects.exists }

// NotPermitted reports whether err says that the caller lacks CAP_NET_ADMIN.
func NotPermitted(err error) bool { return errors.Is(err, unix.EPERM) }
