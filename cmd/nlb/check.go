package main

// nlb check: validate only.

import (
	"context"
	"errors"
)

// checked is what check prints as JSON.
type checked struct {
	Profiles []checkedProfile `json:"profiles"` // none where there are errors
	Errors   []mistake        `json:"errors"`
}

type checkedProfile struct {
	File     string `json:"file"`
	Name     string `json:"name"`
	Services int    `json:"services"`
	Backends int    `json:"backends"`
}

// mistake is an lb.Error.
type mistake struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Error  string `json:"error"`
	Want   string `json:"want"` // may be empty, as may be Hint
	Hint   string `json:"hint"`
}

func check(ctx context.Context, j *job) error {
	sources, err := j.sources(ctx)
	invalid, isInvalid := errors.AsType[*invalidError](err)
	if err != nil && !(isInvalid && j.json) {
		return err
	}
	if !j.json {
		for _, s := range sources {
			if err := j.result(nil, "%s: valid: profile %s, %s", s.file, s.profile.Name, size(s.profile)); err != nil {
				return err
			}
		}
		return nil
	}
	out := checked{Profiles: []checkedProfile{}, Errors: []mistake{}}
	for _, s := range sources {
		services, backends := totals(s.profile)
		out.Profiles = append(out.Profiles, checkedProfile{s.file, s.profile.Name, services, backends})
	}
	if isInvalid {
		for _, e := range invalid.errs {
			out.Errors = append(out.Errors, mistake{e.Pos.File, e.Pos.Line, e.Pos.Column, e.Msg, e.Want, e.Hint})
		}
	}
	return errors.Join(j.value(out), err)
}
