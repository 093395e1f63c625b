// Package plan says how backends of services with health fail in a rehearsal, and
// what the settings promise then. It is arithmetic, and knows no kernel.
package plan

// Plans as they are written.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"nlb/lb"
)

// Ways in which a backend fails. Back ends each of them.
const (
	Refuse = "refuse" // its ports are closed
	Silent = "silent" // whatever comes for it is dropped
	Slow   = "slow"   // it answers when the check has given up
	Flap   = "flap"   // it refuses and comes back, an interval each
	Back   = "back"
)

// Ways are the words of a plan.
var Ways = []string{Refuse, Silent, Slow, Flap, Back}

// Verbs say of a backend how it fails.
var Verbs = map[string]string{Refuse: "refuses", Silent: "falls silent", Slow: "answers slowly", Flap: "flaps"}

// mostNames is how many names a hint has.
const mostNames = 8

// latest is when a step may be at the latest.
const latest = 10 * time.Minute

// Step is a line of a plan: from a moment of the plan on, a backend fails in a way.
type Step struct {
	Profile, Service, Backend string
	Way                       string
	At                        time.Duration
}

// Error says what is wrong with a step of a plan, and what would be right.
type Error struct{ Message, Hint string }

func (e *Error) Error() string { return e.Message }

func wrong(hint, format string, args ...any) error {
	return &Error{fmt.Sprintf(format, args...), hint}
}

// Read reads steps such as web/b2=silent@2s, for the services of some profiles,
// and sorts them by time. A profile in front of the service tells two of one name
// apart. Errors are *Error.
func Read(texts []string, profiles []*lb.Profile) ([]Step, error) {
	var plan []Step
	for _, text := range texts {
		s, err := readStep(text, profiles)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(plan, func(o Step) bool { return o.Of(s) && o.At == s.At }) {
			return nil, wrong("say another time", "--fail %s: it has something to do at %v already", text, s.At)
		}
		plan = append(plan, s)
	}
	slices.SortStableFunc(plan, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	for i, s := range plan {
		if s.Way == Back && !slices.ContainsFunc(plan[:i], s.Of) {
			return nil, wrong("let it fail before", "--fail: %s/%s comes back without having failed", s.Service, s.Backend)
		}
	}
	return plan, nil
}

// Of reports whether two steps are of one backend.
func (s Step) Of(o Step) bool {
	return s.Profile == o.Profile && s.Service == o.Service && s.Backend == o.Backend
}

func readStep(text string, profiles []*lb.Profile) (Step, error) {
	const form = "SERVICE/BACKEND=WAY@TIME, such as web/b2=silent@2s"
	cut := strings.LastIndexByte(text, '=')
	if cut < 0 {
		return Step{}, wrong("want "+form, "--fail %q has no =", text)
	}
	who, what := text[:cut], text[cut+1:]
	way, at, timed := strings.Cut(what, "@")
	if !slices.Contains(Ways, way) {
		return Step{}, wrong("want "+strings.Join(Ways, ", "), "--fail %s: unknown way %q to fail", text, way)
	}
	step := Step{Way: way}
	if timed {
		d, err := time.ParseDuration(at)
		if err != nil || d < 0 || d > latest {
			return Step{}, wrong("want 0s to "+latest.String(), "--fail %s: %q is no time of a plan", text, at)
		}
		step.At = d
	}
	words := strings.SplitN(who, "/", 3)
	if len(words) < 2 {
		return Step{}, wrong("want "+form, "--fail %q names no backend", text)
	}
	step.Backend = words[len(words)-1]
	service := strings.Join(words[:len(words)-1], "/")
	p, v, err := findService(text, service, profiles)
	if err != nil {
		return Step{}, err
	}
	var names []string
	for i := range v.Backends {
		b := &v.Backends[i]
		if b.Name == step.Backend || b.Address.String() == step.Backend {
			step.Profile, step.Service, step.Backend = p.Name, v.Name, b.Name
			return step, nil
		}
		names = append(names, b.Name)
	}
	return Step{}, wrong("it has "+strings.Join(names[:min(len(names), mostNames)], ", "), "--fail %s: service %s has no backend %s", text, v.Name, step.Backend)
}

// findService finds a service by its name, or its profile's and its own.
func findService(text, name string, profiles []*lb.Profile) (*lb.Profile, *lb.Service, error) {
	var in *lb.Profile
	var found *lb.Service
	var names []string
	for p, v := range lb.Services(profiles) {
		if name != v.Name && name != p.Name+"/"+v.Name {
			names = append(names, v.Name)
			continue
		}
		if found != nil {
			return nil, nil, wrong("say "+in.Name+"/"+name+" or "+p.Name+"/"+name, "--fail %s: there are two services %s", text, name)
		}
		in, found = p, v
	}
	switch {
	case found == nil:
		hint := "there are " + strings.Join(names[:min(len(names), mostNames)], ", ")
		if best := lb.Nearest(name, names); best != "" {
			hint = "did you mean " + best + "?"
		}
		return nil, nil, wrong(hint, "--fail %s: there is no service %s", text, name)
	case len(found.Health) == 0:
		return nil, nil, wrong("say health: tcp, for example", "--fail %s: service %s has no health, so nobody takes its backends out", text, name)
	}
	return in, found, nil
}
