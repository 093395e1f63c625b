//go:build linux

package main

// nlb apply: make the kernel match; nlb diff: what apply would do; and nlb render:
// the same ruleset as an nft script.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/daemons"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/nft"
)

// appliedValue is what apply prints as JSON.
type appliedValue struct {
	Table      string           `json:"table"`
	Generation uint32           `json:"generation"`
	Applied    bool             `json:"applied"` // false: a dry run
	Profiles   []view.Profile   `json:"profiles"`
	Changes    []view.Change    `json:"changes"`
	Parameters []view.Parameter `json:"parameters"` // that were, or would be, set
	Repaired   bool             `json:"repaired"`   // something that others had changed
	Replaced   bool             `json:"replaced"`   // a table that could not be read
	Batches    int              `json:"batches"`    // 0: nothing had to be sent
	Ended      int              `json:"ended"`      // flows of removed backends
	Held       view.Held        `json:"held"`
	Unchecked  bool             `json:"unchecked"` // there are checks that nobody makes
}

func apply(ctx context.Context, j *job) error {
	sources, profiles, err := j.resolved(ctx, source.Names{Held: engine.Held(j.table)})
	if err != nil {
		return withOutcome(err, unchanged)
	}
	if err := agent.MayApply(ctx, j.socket(), j.table, profiles, j.flag("prune"), j.Notef); err != nil {
		return withOutcome(err, unchanged)
	}
	e, err := engine.Open(j.table)
	if err != nil {
		return withOutcome(err, unchanged)
	}
	defer e.Close()
	o := engine.Options{Prune: j.flag("prune"), Cut: j.flag("cut"), DryRun: j.flag("dry-run"), ForgetHealth: j.flag("forget-health"), Begin: j.begin}
	result, err := e.Apply(ctx, profiles, o)
	if result != nil {
		j.NoteParameters(view.Parameters(result.Parameters), o.DryRun)
		if result.Left != nil {
			j.Notef("%v; nlb doctor says what for", result.Left)
		}
	}
	if err != nil {
		return withConflicts(err, sources)
	}
	if result.Repaired {
		j.Notef("repaired what something else had changed in table inet %s", j.table)
	}
	if result.Replaced {
		j.Notef("table inet %s was made by a later nlb, so it %s replaced whole", j.table, map[bool]string{true: "would be", false: "was"}[o.DryRun])
	}
	if result.Split {
		j.Notef("the socket cannot take a batch of this size (net.core.wmem_max), so it went in %d; what makes a service reachable came last", result.Batches)
	}
	j.NotePruned(result.Changes, profiles, o.DryRun)
	j.NoteEnded(result.Ended)
	for _, note := range result.Offloading.Notes() {
		j.Notef("%s", note)
	}
	// No agent keeps them, or it would have been refused.
	held, unchecked := view.Held(result.Health), lb.CheckRate(profiles) > 0
	j.NoteHealth(held, unchecked, "--forget-health", o.DryRun)
	j.NoteUnfollowed(profiles)
	j.NoteUnannounced(profiles)
	j.NoteFleet(profiles)
	value := appliedValue{
		Table: j.table, Generation: result.Generation, Applied: !o.DryRun, Profiles: view.Profiles(profiles),
		Parameters: view.Parameters(result.Parameters), Repaired: result.Repaired, Replaced: result.Replaced, Batches: result.Batches, Ended: result.Ended,
		Held: held, Unchecked: unchecked,
	}
	if j.JSON { // there may be tens of thousands
		value.Changes = view.Changes(result.Changes)
	}
	what := fmt.Sprintf("%s: %s (%s)", view.Names(profiles), view.Size(profiles...), view.ChangeCounts(result.Changes))
	switch {
	case !o.DryRun:
		return j.Result(value, "applied %s, generation %d", what, result.Generation)
	case result.Batches == 0:
		return j.Result(value, "would apply %s; nothing was changed", what)
	}
	return j.Result(value, "would apply %s; checked by the kernel, nothing was changed", what)
}

// withConflicts is an error of the engine, with the places in the sources where
// it is that they claim what the kernel holds for others.
func withConflicts(err error, sources []source.Source) error {
	conflict, ok := errors.AsType[*nft.ConflictError](err)
	if !ok {
		return err
	}
	source.Quote(conflict.Errors, sources)
	f := failure{err: &takenError{conflict.Errors}}
	if e, ok := errors.AsType[explained](err); ok {
		f.outcome, f.hint = e.Explain()
	}
	return &f
}

// diffValue is what diff prints as JSON.
type diffValue struct {
	Table      string           `json:"table"`
	Generation uint32           `json:"generation"`
	Differs    bool             `json:"differs"`
	Changes    []view.Change    `json:"changes"`
	Parameters []view.Parameter `json:"parameters"` // that apply would set
	Repair     bool             `json:"repair"`     // something else changed what is there
	Held       view.Held        `json:"held"`
	Unchecked  bool             `json:"unchecked"` // there are checks that nobody makes
}

func diff(ctx context.Context, j *job) error {
	sources, profiles, err := j.resolved(ctx, source.Names{Held: engine.Held(j.table)})
	if err != nil {
		return err
	}
	e, err := engine.Open(j.table)
	if err != nil {
		return err
	}
	defer e.Close()
	plan, err := e.Plan(ctx, profiles)
	if err != nil {
		return withConflicts(err, sources)
	}
	value := diffValue{
		Table: j.table, Generation: plan.Generation,
		Changes: view.Changes(plan.Changes), Parameters: view.Parameters(plan.Parameters), Repair: plan.Repaired, Held: view.Held(plan.Health),
		Unchecked: lb.CheckRate(agent.Unkept(ctx, j.socket(), j.table, profiles)) > 0,
	}
	value.Differs = len(value.Changes) > 0 || len(value.Parameters) > 0 || value.Repair
	switch {
	case j.JSON:
		err = j.Value(value)
	case !j.Quiet:
		for _, c := range plan.Changes {
			j.PrintChange(c)
		}
	}
	if value.Repair {
		j.Notef("apply would repair what something else has changed in table inet %s", j.table)
	}
	if len(value.Parameters) > 0 {
		j.Notef("apply would set %s", view.Assignments(value.Parameters, "is"))
	}
	j.NoteHealth(value.Held, value.Unchecked, "nlb apply --forget-health", true)
	switch {
	case plan.Refused != nil:
		return fmt.Errorf("apply would refuse: %w", plan.Refused)
	case err == nil && value.Differs:
		return errDiffer
	}
	return err
}

// renderedValue is what render prints as JSON.
type renderedValue struct {
	Table string `json:"table"`
	// Script is for nft -f, and replaces the table; or it is a daemon's configuration.
	Script string `json:"script"`
}

func render(ctx context.Context, j *job) error {
	if j.text("for") != "" {
		return j.renderFor(ctx)
	}
	if j.given("with") {
		return usagef("--with is for --for")
	}
	_, profiles, err := j.resolved(ctx, source.Names{})
	if err != nil {
		return err
	}
	if j.JSON {
		var script strings.Builder
		if err := engine.WriteScript(&script, j.table, profiles); err != nil {
			return err
		}
		return j.Value(renderedValue{j.table, script.String()})
	}
	w := bufio.NewWriter(j.Out)
	err = engine.WriteScript(w, j.table, profiles)
	_ = w.Flush() // j.Out remembers its error
	return err
}

// renderFor is the configuration of a daemon.
func (j *job) renderFor(ctx context.Context) error {
	sources, err := j.sources(ctx)
	if err != nil {
		return err
	}
	config, notes, err := daemons.Write(j.text("for"), source.Profiles(sources), j.texts("with"))
	if err != nil {
		return usagef("%v", err)
	}
	for _, note := range notes {
		j.Notef("%s", note)
	}
	if j.JSON {
		return j.Value(renderedValue{j.table, config})
	}
	_, _ = io.WriteString(j.Out, config) // j.Out remembers its error
	return nil
}
