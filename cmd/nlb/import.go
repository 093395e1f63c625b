package main

// nlb import: what runs today becomes a profile.

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/formats"
)

// importedValue is what import prints as JSON.
type importedValue struct {
	Profile  string         `json:"profile"` // its name
	Services int            `json:"services"`
	Backends int            `json:"backends"`
	Complete bool           `json:"complete"` // all of the original is in the profile
	YAML     string         `json:"yaml"`     // the profile, with comments
	Findings []findingValue `json:"findings"`
}

// findingValue is an importer.Finding.
type findingValue struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Lines   []int  `json:"lines"`   // all that it is about; none: the whole text
	Level   string `json:"level"`   // note, or warning: a part is not translated
	Finding string `json:"finding"` // what it is
	Hint    string `json:"hint"`    // may be empty
}

func importProfile(ctx context.Context, j *job) error {
	format, file, err := importArgs(j.args)
	if err != nil {
		return err
	}
	data, err := source.ReadFile(ctx, j.In, file)
	if err != nil {
		return err
	}
	m, err := formats.Read(format, source.Title(file), data)
	if errs, ok := errors.AsType[lb.Errors](err); ok {
		return &source.InvalidError{Errors: errs}
	}
	if err != nil {
		return err
	}
	if j.JSON {
		err = j.Value(importedOf(m))
	} else {
		_, err = bytes.NewReader(m.YAML()).WriteTo(j.Out)
	}
	if err != nil && j.Out.Failed == nil {
		return err
	}
	state := "complete"
	if n := j.PrintFindings(m); n > 0 {
		state = "partial, " + text.Count(n, "warning")
	}
	j.Notef("%s: %s", view.Size(m.Profile), state)
	if !m.Complete() {
		return errDiffer
	}
	return nil
}

// importArgs are FORMAT and FILE, each of which may be missing. An empty format
// is to be found out.
func importArgs(args []string) (format, file string, err error) {
	file = source.Stdin
	known := len(args) > 0 && slices.Contains(formats.Names(), args[0])
	switch {
	case len(args) == 0:
	case known && len(args) == 2:
		return args[0], args[1], nil
	case known:
		return args[0], file, nil
	case len(args) == 2 || !strings.ContainsAny(args[0], "./-") && near(args[0], formats.Names()) != "":
		wrong := usagef("unknown format %q", args[0])
		wrong.hint = "want " + strings.Join(formats.Names(), ", ")
		if best := near(args[0], formats.Names()); best != "" {
			wrong.hint = "did you mean nlb import " + best + "?"
		}
		return "", "", wrong
	default:
		file = args[0]
	}
	return "", file, nil
}

func importedOf(m *importer.Import) importedValue {
	p := view.ProfileOf(m.Profile)
	out := importedValue{p.Name, p.Services, p.Backends, m.Complete(), string(m.YAML()), []findingValue{}}
	for i := range m.Findings {
		f := &m.Findings[i]
		at := f.Pos()
		lines := f.Lines()
		if lines == nil {
			lines = []int{}
		}
		out.Findings = append(out.Findings, findingValue{at.File, at.Line, at.Column, lines, f.Level.String(), f.Msg, f.Hint})
	}
	return out
}
