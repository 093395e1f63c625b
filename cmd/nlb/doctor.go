//go:build linux

package main

// nlb doctor: why it does not work, or why it will.

import (
	"context"
	"fmt"
	"strings"

	"nlb/cmd/nlb/doctor"
	"nlb/cmd/nlb/doctor/survey"
)

// examined is what doctor prints as JSON.
type examined struct {
	Table    string           `json:"table"`
	OK       bool             `json:"ok"` // nothing is to be mended
	Findings []doctor.Finding `json:"findings"`
	Unseen   []string         `json:"unseen"` // what could not be looked at, and why
}

func examine(ctx context.Context, j *job) error {
	ask := doctor.Ask{Table: j.table}
	if len(j.args) > 0 {
		sources, err := j.sources(ctx)
		if err != nil {
			return err
		}
		ask.Profiles, ask.Files = profilesOf(sources), j.args
	}
	host, err := survey.Take(&ask, dial)
	if err != nil {
		return err
	}
	value := examined{Table: j.table, Findings: doctor.Examine(host, ask), Unseen: append([]string{}, host.Unseen...)}
	value.OK = !doctor.Sick(value.Findings)
	if j.json {
		err = j.value(value)
	} else {
		j.diagnosis(value)
	}
	if err == nil && !value.OK {
		return errDiffer
	}
	return err
}

// mostAlike is how many findings of a check and level are printed in full.
const mostAlike = 5

// finding prints one, behind its label.
func (j *job) finding(f doctor.Finding, label, indent string) {
	text := f.Problem
	if f.Subject != "" {
		text = f.Subject + ": " + text
	}
	for i, line := range wrap(strings.Fields(text), " ", j.width-len(indent)) {
		if i > 0 {
			label = indent
		}
		fmt.Fprintln(j.out, label+line)
	}
	for _, line := range wrap(strings.Fields(f.Why), " ", j.width-len(indent)) {
		fmt.Fprintln(j.out, indent+j.onOut(dim, line))
	}
	if f.Mend != "" {
		fmt.Fprintln(j.out, indent+j.onOut(cyan, "mend: ")+f.Mend)
	}
}

// levels are the colors of the levels.
var levels = map[doctor.Level]style{doctor.OK: green, doctor.Warn: yellow, doctor.Fail: red}

// diagnosis prints the findings for a person: the level and the check, what it is, and
// below it why and the command that mends it.
func (j *job) diagnosis(v examined) {
	wide := 0
	for _, f := range v.Findings {
		wide = max(wide, len(f.Check))
	}
	indent := strings.Repeat(" ", len("warn")+len(gap)+wide+len(gap))
	label := func(l doctor.Level, check string) string {
		return j.onOut(levels[l], fmt.Sprintf("%-4s", l)) + gap + fmt.Sprintf("%-*s", wide, check) + gap
	}
	sick, alike := 0, 0
	for i, f := range v.Findings {
		same := i > 0 && v.Findings[i-1].Check == f.Check && v.Findings[i-1].Level == f.Level
		if !same {
			alike = 0
		}
		alike++
		if f.Level != doctor.OK {
			sick++
		} else if j.quiet {
			continue
		}
		if alike <= mostAlike {
			j.finding(f, label(f.Level, f.Check), indent)
		}
		last := i+1 == len(v.Findings) || v.Findings[i+1].Check != f.Check || v.Findings[i+1].Level != f.Level
		if more := alike - mostAlike; last && more > 0 {
			fmt.Fprintf(j.out, "%s%d more; --json has them\n", label(f.Level, f.Check), more)
		}
	}
	for _, what := range v.Unseen {
		j.complain("not seen: %s", what)
	}
	switch {
	case sick > 0:
		fmt.Fprintf(j.out, "%s to mend\n", count(sick, "thing"))
	case !j.quiet:
		fmt.Fprintln(j.out, "nothing to mend")
	}
}
