package main

// nlb check: validate only.

import (
	"context"
	"errors"
	"fmt"

	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/view"
)

// checkedValue is what check prints as JSON.
type checkedValue struct {
	Profiles []checkedProfile `json:"profiles"` // none where there are errors
	Errors   []mistakeValue   `json:"errors"`
}

type checkedProfile struct {
	File string `json:"file"`
	view.Profile
	view.Health
}

// mistakeValue is an lb.Error.
type mistakeValue struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Error  string `json:"error"`
	Want   string `json:"want"` // may be empty, as may be Hint
	Hint   string `json:"hint"`
}

func check(ctx context.Context, j *job) error {
	sources, err := j.sources(ctx)
	invalid, isInvalid := errors.AsType[*source.InvalidError](err)
	if err != nil && !(isInvalid && j.JSON) {
		return err
	}
	if !j.JSON {
		for _, s := range sources {
			line := fmt.Sprintf("%s: valid: profile %s, %s", s.File, s.Profile.Name, view.Size(s.Profile))
			if checks := view.HealthOf(s.Profile).String(); checks != "" {
				line += "\n  " + checks
			}
			if err := j.Result(nil, "%s", line); err != nil {
				return err
			}
		}
		j.NoteFleet(source.Profiles(sources))
		return nil
	}
	out := checkedValue{Profiles: []checkedProfile{}, Errors: []mistakeValue{}}
	for _, s := range sources {
		out.Profiles = append(out.Profiles, checkedProfile{s.File, view.ProfileOf(s.Profile), view.HealthOf(s.Profile)})
	}
	if isInvalid {
		for _, e := range invalid.Errors {
			out.Errors = append(out.Errors, mistakeValue{e.Pos.File, e.Pos.Line, e.Pos.Column, e.Msg, e.Want, e.Hint})
		}
	}
	return errors.Join(j.Value(out), err)
}
