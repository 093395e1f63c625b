//go:build linux

package main

// nlb apply: make the kernel match.

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/nft"
)

// appliedValue is what apply prints as JSON.
type appliedValue struct {
	Table      string           `json:"table"`
	Generation uint32           `json:"generation"`
	Applied    bool             `json:"applied"` // false: a dry run
	Profiles   []profileValue   `json:"profiles"`
	Changes    []changeValue    `json:"changes"`
	Parameters []parameterValue `json:"parameters"` // that were, or would be, set
	Repaired   bool             `json:"repaired"`   // something that others had changed
	Batches    int              `json:"batches"`    // 0: nothing had to be sent
	Ended      int              `json:"ended"`      // flows of removed backends
}

type profileValue struct {
	Name     string `json:"name"`
	Services int    `json:"services"`
	Backends int    `json:"backends"`
}

// changeValue is an lb.Change.
type changeValue struct {
	Op      string `json:"op"`      // + ~ -
	Service string `json:"service"` // profile/service
	Backend string `json:"backend"` // empty: the service itself
	Detail  string `json:"detail"`
}

func apply(ctx context.Context, j *job) error {
	sources, err := j.sources(ctx)
	if err != nil {
		return failed(err, unchanged, "")
	}
	profiles := profilesOf(sources)
	o := nft.Options{Table: j.table, Prune: j.flag("prune"), Cut: j.flag("cut"), DryRun: j.flag("dry-run")}
	o.Digest, o.Build = digest(sources, o.Prune), fmt.Sprint(build())
	a, err := balance(ctx, profiles, o)
	if a != nil {
		j.parametersSet(a.Parameters, o.DryRun)
		if a.Left != "" {
			j.remark("%s; nlb doctor says what for", a.Left)
		}
	}
	switch {
	case err != nil && o.DryRun:
		return failed(explain(err, sources...), unchanged, "")
	case err != nil:
		return aftermath(err, sources...)
	}
	if a.Repaired {
		j.remark("repaired what something else had changed in table inet %s", j.table)
	}
	if a.Batches > 1 {
		j.remark("the socket cannot take a batch of this size (net.core.wmem_max), so it went in %d; what makes a service reachable came last", a.Batches)
	}
	if gone := pruned(a.Changes, profiles); len(gone) > 0 {
		j.remark("%s %s", doing(o.DryRun, "would prune", "pruned"), strings.Join(gone, ", "))
	}
	j.flowsEnded(a.Ended)
	value := appliedValue{
		Table: j.table, Generation: a.Generation, Applied: !o.DryRun, Profiles: profileValues(profiles),
		Parameters: a.Parameters, Repaired: a.Repaired, Batches: a.Batches, Ended: a.Ended,
	}
	if j.json { // there may be tens of thousands
		value.Changes = changeValues(a.Changes)
	}
	what := fmt.Sprintf("%s: %s (%s)", called(profiles), size(profiles...), signs(a.Changes))
	switch {
	case !o.DryRun:
		return j.result(value, "applied %s, generation %d", what, a.Generation)
	case a.Batches == 0:
		return j.result(value, "would apply %s; nothing was changed", what)
	}
	return j.result(value, "would apply %s; checked by the kernel, nothing was changed", what)
}

// digest stands for everything that an apply is asked for.
func digest(sources []source, prune bool) string {
	h := sha256.New()
	fmt.Fprintln(h, prune, build()) // another version may make another ruleset of it
	for _, s := range sources {
		fmt.Fprintln(h, s.profile.Name, len(s.text))
		h.Write(s.text)
	}
	return string(h.Sum(nil))
}

// parametersSet says which kernel parameters were set, or would be.
func (j *job) parametersSet(parameters []parameterValue, dryRun bool) {
	switch {
	case len(parameters) == 0:
	case dryRun:
		j.remark("would set %s", assignments(parameters, "is"))
	default:
		j.remark("set %s; nlb flush --sysctl puts %s back", assignments(parameters, "was"), them(len(parameters)))
	}
}

// flowsEnded says that flows of removed backends were ended.
func (j *job) flowsEnded(n int) {
	if n > 0 {
		j.remark("ended %s of removed backends", count(n, "flow"))
	}
}

func doing(dryRun bool, would, did string) string {
	if dryRun {
		return would
	}
	return did
}

// most is how many profiles are called by their names.
const most = 5

// called are the names of profiles, or their number.
func called(profiles []*lb.Profile) string {
	if len(profiles) > most {
		return count(len(profiles), "profile")
	}
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

// signs counts changes: +2 ~1 -0.
func signs(changes []lb.Change) string {
	if len(changes) == 0 {
		return "no change"
	}
	n := map[lb.Op]int{}
	for _, c := range changes {
		n[c.Op]++
	}
	return fmt.Sprintf("+%d ~%d -%d", n[lb.Added], n[lb.Changed], n[lb.Removed])
}

// pruned are the names of profiles that changes remove and that are not among
// those applied.
func pruned(changes []lb.Change, profiles []*lb.Profile) []string {
	var out []string
	for _, c := range changes {
		name, _, _ := strings.Cut(c.Service, "/")
		stays := slices.ContainsFunc(profiles, func(p *lb.Profile) bool { return p.Name == name })
		if !stays && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func profileValues(profiles []*lb.Profile) []profileValue {
	out := []profileValue{}
	for _, p := range profiles {
		services, backends := totals(p)
		out = append(out, profileValue{p.Name, services, backends})
	}
	return out
}

func changeValues(changes []lb.Change) []changeValue {
	out := make([]changeValue, 0, len(changes))
	for _, c := range changes {
		out = append(out, changeValue{string(c.Op), c.Service, c.Backend, c.Detail})
	}
	return out
}
