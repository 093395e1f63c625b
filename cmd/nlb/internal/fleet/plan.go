package fleet

// Plans: what a push would change, checked as apply checks it.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"nlb/cmd/nlb/internal/source"
	"nlb/lb"
	"nlb/lb/config"
)

// mostSteps is how many profiles one push takes: etcd takes 128 operations at once.
const mostSteps = 50

// Ask is what an admin wants pushed.
type Ask struct {
	// Read gives profiles; nil: there are none. Undo are those that are to be as they
	// were before, and Remove those that are to go.
	Read         func() ([]source.Source, error)
	Undo, Remove []string
	// Canary are the nodes that are to have it first: n1,n2, or how many; empty: all at
	// once.
	Canary  string
	By      string
	Message string
}

// Open is the function Open, and has the profiles read meanwhile. What is wrong with these
// comes before what is wrong with etcd.
func (a *Ask) Open(file string) (*Store, error) {
	if a.Read == nil {
		return Open(file)
	}
	a.Read = sync.OnceValues(a.Read)
	go a.Read()
	s, err := Open(file)
	if err != nil {
		if _, unread := a.Read(); unread != nil {
			err = unread
		}
	}
	return s, err
}

// Step is what becomes of one profile.
type Step struct {
	Profile string
	Next    Pointer
	source  *source.Source // nil: it is to be absent
	had     Entry
}

// Plan is what a push does.
type Plan struct {
	Known *Known
	Steps []*Step // sorted by profile
	// Canary are the nodes that have it first; none: all at once.
	Canary []string
	// Notes are what is to be known of the others.
	Notes []string
}

// RefusedError says why something is not pushed, and what helps.
type RefusedError struct{ Message, Hint string }

func (e *RefusedError) Error() string { return e.Message }

// Explain is that nothing was changed, and the hint.
func (e *RefusedError) Explain() (outcome, hint string) { return "nothing was changed", e.Hint }

// Plan finds out what a push would do. Errors: *RefusedError, *source.InvalidError,
// and those of etcd.
func (s *Store) Plan(ctx context.Context, a Ask) (*Plan, error) {
	known, err := s.Known(ctx)
	var sources []source.Source
	if a.Read != nil {
		var unread error
		if sources, unread = a.Read(); unread != nil {
			return nil, unread
		}
	}
	if err != nil {
		return nil, err
	}
	p := &Plan{Known: known}
	if p.Canary, err = known.canary(a.Canary); err != nil {
		return nil, err
	}
	if len(a.Message) > MaxMessage {
		return nil, &RefusedError{Message: fmt.Sprintf("the message has %d bytes", len(a.Message)), Hint: fmt.Sprintf("want at most %d", MaxMessage)}
	}
	for i := range sources {
		one := &sources[i]
		if len(one.Text) > MaxProfile {
			return nil, &RefusedError{fmt.Sprintf("%s has %d bytes", one.File, len(one.Text)), fmt.Sprintf("a profile of a fleet has at most %d (%d MiB); several profiles can be pushed together", MaxProfile, MaxProfile>>20)}
		}
		p.step(one.Profile.Name, Version{Hash: HashOf(one.Text)}, one, a)
	}
	for _, name := range distinct(a.Remove) {
		if had, ok := known.Pointers[name]; !ok || had.Err == nil && had.Absent {
			return nil, known.missing(name)
		}
		p.step(name, Version{Absent: true}, nil, a)
	}
	for _, name := range distinct(a.Undo) {
		if err := s.undo(ctx, p, name, a); err != nil {
			return nil, err
		}
	}
	if len(p.Steps) > mostSteps {
		return nil, &RefusedError{fmt.Sprintf("%d profiles", len(p.Steps)), fmt.Sprintf("a push takes at most %d; push the others after them", mostSteps)}
	}
	slices.SortFunc(p.Steps, func(a, b *Step) int { return strings.Compare(a.Profile, b.Profile) })
	return p, s.fits(ctx, p)
}

func distinct(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// step adds what becomes of a profile, unless it is so already.
func (p *Plan) step(name string, to Version, one *source.Source, a Ask) {
	had := p.Known.Pointers[name]
	top := p.Known.top(name)
	if had.Pointer != nil && had.Same(&to) && len(had.Stage) == 0 && top <= had.Seq {
		p.Notes = append(p.Notes, fmt.Sprintf("%s is so since sequence %d", name, had.Seq))
		return
	}
	to.Seq = top + 1
	next := Pointer{Version: to, Stage: p.Canary, By: a.By, At: time.Now().UTC().Truncate(time.Second), Message: a.Message}
	if had.Pointer != nil {
		next.Previous = had.Settled()
	}
	p.Steps = append(p.Steps, &Step{Profile: name, Next: next, source: one, had: had})
}

// top is the highest sequence of a profile that is known anywhere: etcd may have been
// restored from a backup.
func (k *Known) top(name string) (seq uint64) {
	if e := k.Pointers[name]; e.Pointer != nil {
		seq = e.Seq
	}
	for _, n := range k.Nodes {
		if h := n.Profiles[name]; h != nil {
			seq = max(seq, h.Seq, h.Seen)
		}
	}
	return seq
}

// undo adds the step back.
func (s *Store) undo(ctx context.Context, p *Plan, name string, a Ask) error {
	had, ok := p.Known.Pointers[name]
	if !ok || had.Pointer == nil {
		return p.Known.missing(name)
	}
	if had.Previous == nil {
		return &RefusedError{fmt.Sprintf("nothing was before sequence %d of %s", had.Seq, name), "nlb push --remove " + name + " takes it away"}
	}
	to := *had.Previous
	one, err := s.source(ctx, name, &to)
	if err == nil {
		p.step(name, Version{Hash: to.Hash, Absent: to.Absent}, one, a)
	}
	return err
}

// fits makes sure that nothing is in the way of what is pushed: not in the other profiles
// of the fleet, and not in itself.
func (s *Store) fits(ctx context.Context, p *Plan) error {
	var all []source.Source
	steps := map[string]bool{}
	for _, st := range p.Steps {
		steps[st.Profile] = true
		if st.source != nil {
			all = append(all, *st.source)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Known.Pointers)) {
		e := p.Known.Pointers[name]
		if e.Pointer == nil || steps[name] {
			continue
		}
		one, err := s.source(ctx, name, &e.Version)
		if _, unread := errors.AsType[*ReadError](err); unread {
			return err
		}
		switch {
		case err != nil:
			p.Notes = append(p.Notes, fmt.Sprintf("%s was not looked at for conflicts: %v", name, err))
		case one != nil:
			all = append(all, *one)
		}
	}
	return Conflicts(all)
}

// Changes are those of a plan for nodes that have what was wanted before it. notes name
// the profiles whose changes are not known.
func (s *Store) Changes(ctx context.Context, p *Plan) (changes []lb.Change, notes []string) {
	var have, want []*lb.Profile
	for _, st := range p.Steps {
		if st.had.Pointer != nil {
			one, err := s.source(ctx, st.Profile, &st.had.Version)
			if err != nil {
				notes = append(notes, fmt.Sprintf("the changes of %s are not known: %v", st.Profile, err))
				continue
			}
			if one != nil {
				have = append(have, one.Profile)
			}
		}
		if st.source != nil {
			want = append(want, st.source.Profile)
		}
	}
	return lb.Compare(have, want), notes
}

// source is a version as a source; nil: there is to be none.
func (s *Store) source(ctx context.Context, name string, v *Version) (*source.Source, error) {
	if v.Absent {
		return nil, nil
	}
	text, err := s.Blob(ctx, v)
	if err != nil {
		return nil, err
	}
	return Parse(name, text)
}

// Parse reads the text of a profile, which must have this name. Errors:
// *source.InvalidError.
func Parse(name string, text []byte) (*source.Source, error) {
	file := name + ".yaml"
	p, err := config.Parse(file, text)
	mistakes, ok := errors.AsType[lb.Errors](err)
	if ok {
		return nil, &source.InvalidError{Errors: mistakes}
	}
	if err != nil {
		return nil, err
	}
	one := source.Source{File: file, Text: text, Profile: p}
	if p.Name != name {
		errs := lb.Errors{&lb.Error{Pos: p.Pos, Msg: "the profile is called " + p.Name, Want: name + ", as it was pushed"}}
		source.Quote(errs, []source.Source{one})
		return nil, &source.InvalidError{Errors: errs}
	}
	return &one, nil
}

// Conflicts are those among sources: nil, or a *source.InvalidError.
func Conflicts(all []source.Source) error {
	errs := lb.Conflicts(source.Profiles(all))
	if len(errs) == 0 {
		return nil
	}
	source.Quote(errs, all)
	return &source.InvalidError{Errors: errs}
}

// missing says which profiles there are.
func (k *Known) missing(name string) error {
	var there []string
	for n, e := range k.Pointers {
		if e.Pointer != nil && !e.Absent {
			there = append(there, n)
		}
	}
	return &RefusedError{name + " is no profile of the fleet", hintOf(there, "nothing was pushed yet")}
}

// hintOf is what there is, or what is to be said where that is nothing.
func hintOf(there []string, nothing string) string {
	if len(there) == 0 {
		return nothing
	}
	slices.Sort(there)
	return "there: " + strings.Join(there[:min(len(there), 10)], ", ")
}

// canary are the nodes that a word names: a number of them, or their names.
func (k *Known) canary(word string) ([]string, error) {
	if word == "" {
		return nil, nil
	}
	var fit []string
	for _, n := range slices.Sorted(maps.Keys(k.Nodes)) {
		if k.Alive[n] && !k.Nodes[n].Out {
			fit = append(fit, n)
		}
	}
	there := "there: " + strings.Join(fit, ", ")
	if n, err := strconv.Atoi(word); err == nil {
		if n < 1 || n > len(fit) {
			return nil, &RefusedError{fmt.Sprintf("%d nodes cannot be first: %d are there and not out", n, len(fit)), there}
		}
		return fit[:n], nil
	}
	var out []string
	for _, n := range strings.Split(word, ",") {
		if !k.Alive[n] || k.Nodes[n] == nil {
			return nil, &RefusedError{fmt.Sprintf("%q is no node that is there", n), there}
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
