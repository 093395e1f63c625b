//go:build linux

package main

// nlb doctor: why it does not work, or why it will.

import (
	"context"
	"errors"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/doctor"
	"nlb/cmd/nlb/internal/doctor/survey"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/incumbent"
	"nlb/cmd/nlb/internal/source"
	"nlb/lb/importer"
)

// examinedValue is what doctor prints as JSON.
type examinedValue struct {
	Table    string           `json:"table"`
	OK       bool             `json:"ok"` // nothing is to be mended
	Findings []doctor.Finding `json:"findings"`
	Unseen   []string         `json:"unseen"` // what could not be looked at, and why
}

func examine(ctx context.Context, j *job) error {
	ask := doctor.Ask{Table: j.table}
	if len(j.args) > 0 {
		_, profiles, err := j.resolved(ctx, source.Names{Held: engine.Held(j.table), Unresolved: func(names []string) { ask.Unresolved = names }})
		if err != nil {
			return err
		}
		ask.Profiles, ask.Files = profiles, j.args
	}
	host, err := survey.Take(&ask, engine.Dial)
	if err != nil {
		return err
	}
	switch _, s, err := agent.Find(ctx, j.socket(), j.table); {
	case err == nil:
		survey.Agent(host, doctor.Agent{Running: true, Profiles: s.Profiles, AllowExec: s.AllowExec, Groups: s.Groups, Trouble: s.Trouble}, nil)
	case !errors.Is(err, agent.ErrNoAgent):
		survey.Agent(host, doctor.Agent{}, err)
	}
	offloading, wishes, unknown := engine.Wishes(j.table, ask.Profiles, len(ask.Files) == 0)
	if unknown != nil {
		host.Blind["offload"] = true // why that is so is said already
	}
	host.Offload.Bypassed, host.Offload.Left = offloading.Bypassed, offloading.Left
	for _, w := range wishes {
		host.Offload.Services = append(host.Offload.Services, doctor.Offloaded(w))
	}
	value := examinedValue{Table: j.table, Findings: doctor.Examine(host, ask), Unseen: append([]string{}, host.Unseen...)}
	value.OK = !doctor.Sick(value.Findings)
	if j.JSON {
		err = j.Value(value)
	} else {
		j.PrintDiagnosis(value.Findings, value.Unseen)
	}
	if err == nil && !value.OK {
		return errDiffer
	}
	return err
}

// fromHost imports what this machine runs now.
func fromHost(j *job) (*importer.Import, error) { return incumbent.Import(engine.Dial, j.table) }
