package main

// nlb import: what runs today becomes a profile.

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables"
	"nlb/lb/importer/iptlb"
	"nlb/lb/importer/ipvs"
	"nlb/lb/importer/nftlb"
)

// formats are what can be imported.
var formats = []struct {
	name string
	read func(file string, data []byte) (*importer.Import, error)
}{
	{"iptables", iptables.Import},
	{"ipvs", ipvs.Import},
	{"iptlb", iptlb.Import},
	{"nftlb", nftlb.Import},
}

func formatNames() []string {
	var out []string
	for _, f := range formats {
		out = append(out, f.name)
	}
	return out
}

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
	if len(j.args) == 0 {
		err := usagef("missing FORMAT")
		err.hint = "want " + strings.Join(formatNames(), ", ")
		return err
	}
	read, err := formatOf(j.args[0])
	if err != nil {
		return err
	}
	file := source.Stdin
	if len(j.args) > 1 {
		file = j.args[1]
	}
	data, err := source.ReadFile(ctx, j.In, file)
	if err != nil {
		return err
	}
	m, err := read(source.Title(file), data)
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

// formatOf finds how to read a format.
func formatOf(name string) (func(string, []byte) (*importer.Import, error), error) {
	for _, f := range formats {
		if f.name == name {
			return f.read, nil
		}
	}
	err := usagef("unknown format %q", name)
	err.hint = "want " + strings.Join(formatNames(), ", ")
	if best := near(name, formatNames()); best != "" {
		err.hint = "did you mean nlb import " + best + "?"
	}
	return nil, err
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
