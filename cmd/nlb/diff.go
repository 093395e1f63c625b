//go:build linux

package main

// nlb diff: what apply would do.

import (
	"context"
	"fmt"

	"nlb/lb"
	"nlb/nft"
)

// diffValue is what diff prints as JSON.
type diffValue struct {
	Table      string           `json:"table"`
	Generation uint32           `json:"generation"`
	Differs    bool             `json:"differs"`
	Changes    []changeValue    `json:"changes"`
	Parameters []parameterValue `json:"parameters"` // that apply would set
	Repair     bool             `json:"repair"`     // something else changed what is there
}

func diff(ctx context.Context, j *job) error {
	sources, err := j.sources(ctx)
	if err != nil {
		return err
	}
	conn, err := dial()
	if err != nil {
		return explain(err)
	}
	defer conn.Close()
	profiles := profilesOf(sources)
	result, err := nft.Diff(conn, profiles, nft.Options{Table: j.table})
	if err != nil {
		return explain(err, sources...)
	}
	// A parameter that cannot be had is an error, but not before the rest was
	// said.
	changes, _, refused := parameters(profiles)
	value := diffValue{
		Table: j.table, Generation: result.Generation,
		Changes: changeValues(result.Changes), Parameters: visible(changes), Repair: result.Repaired,
	}
	value.Differs = len(value.Changes) > 0 || len(value.Parameters) > 0 || value.Repair
	switch {
	case j.json:
		err = j.value(value)
	case !j.quiet:
		for _, c := range result.Changes {
			fmt.Fprintln(j.out, j.onOut(colors[c.Op], c.String()))
		}
	}
	if value.Repair {
		j.remark("apply would repair what something else has changed in table inet %s", j.table)
	}
	if len(value.Parameters) > 0 {
		j.remark("apply would set %s", assignments(value.Parameters, "is"))
	}
	switch {
	case refused != nil:
		return fmt.Errorf("apply would refuse: %w", refused)
	case err == nil && value.Differs:
		return errDiffer
	}
	return err
}

var colors = map[lb.Op]style{lb.Added: green, lb.Changed: yellow, lb.Removed: red}
