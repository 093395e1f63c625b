package main

// nlb import: what runs today becomes a profile.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

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

// imported is what import prints as JSON.
type imported struct {
	Profile  string         `json:"profile"` // its name
	Services int            `json:"services"`
	Backends int            `json:"backends"`
	Complete bool           `json:"complete"` // all of the original is in the profile
	YAML     string         `json:"yaml"`     // the profile, with comments
	Findings []findingValue `json:"findings"`
}

// findingValue is a importer.Finding.
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
	file := stdin
	if len(j.args) > 1 {
		file = j.args[1]
	}
	data, err := j.read(ctx, file)
	if err != nil {
		return err
	}
	m, err := read(title(file), data)
	if errs, ok := errors.AsType[lb.Errors](err); ok {
		return &invalidError{errs}
	}
	if err != nil {
		return err
	}
	if j.json {
		err = j.value(importedOf(m))
	} else {
		_, err = bytes.NewReader(m.YAML()).WriteTo(j.out)
	}
	if err != nil && j.out.err == nil {
		return err
	}
	j.say(m)
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

func importedOf(m *importer.Import) imported {
	services, backends := totals(m.Profile)
	out := imported{m.Profile.Name, services, backends, m.Complete(), string(m.YAML()), []findingValue{}}
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

// say prints what there is to say, each with its line, and the sum of it.
// Notes are remarks.
func (j *job) say(m *importer.Import) {
	lost := 0
	for i := range m.Findings {
		f := &m.Findings[i]
		if f.Level == importer.Lost {
			lost++
		} else if j.quiet {
			continue
		}
		fmt.Fprintln(j.err, j.painted(f))
	}
	state := "complete"
	if lost > 0 {
		state = "partial, " + count(lost, "warning")
	}
	j.remark("%s: %s", size(m.Profile), state)
}

// painted is a finding, with colors where stderr has them.
func (j *job) painted(f *importer.Finding) string {
	text := f.Format()
	if !j.err.color {
		return text
	}
	st := cyan
	if f.Level == importer.Lost {
		st = yellow
	}
	place := f.Pos().String() + ": "
	level := f.Level.String() + ":"
	if rest, ok := strings.CutPrefix(text, place+level); ok {
		text = j.onErr(bold, strings.TrimSuffix(place, " ")) + " " + j.onErr(st, level) + rest
	}
	return colored(text)
}
