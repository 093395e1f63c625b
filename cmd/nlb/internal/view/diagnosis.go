//go:build linux

package view

// The findings of an examination for people: the level and the check, what it
// is, and below it why and the command that mends it.

import (
	"fmt"
	"strings"

	"nlb/cmd/nlb/internal/doctor"
	"nlb/cmd/nlb/internal/text"
)

// maxAlike is how many findings of a check and level are printed in full.
const maxAlike = 5

// levelStyles are the colors of the levels.
var levelStyles = map[doctor.Level]text.Style{doctor.OK: text.Green, doctor.Warn: text.Yellow, doctor.Fail: text.Red}

// PrintDiagnosis prints findings, which are sorted by check and level, and what
// could not be looked at.
func (c *Console) PrintDiagnosis(findings []doctor.Finding, unseen []string) {
	wide := 0
	for _, f := range findings {
		wide = max(wide, len(f.Check))
	}
	indent := strings.Repeat(" ", len("warn")+len(text.Gap)+wide+len(text.Gap))
	label := func(f doctor.Finding) string {
		return c.Out.Paint(levelStyles[f.Level], fmt.Sprintf("%-4s", f.Level)) + text.Gap + fmt.Sprintf("%-*s", wide, f.Check) + text.Gap
	}
	same := func(i, k int) bool {
		return 0 <= k && k < len(findings) && findings[i].Check == findings[k].Check && findings[i].Level == findings[k].Level
	}
	sick, alike := 0, 0
	for i, f := range findings {
		if !same(i, i-1) {
			alike = 0
		}
		alike++
		if f.Level != doctor.OK {
			sick++
		} else if c.Quiet {
			continue
		}
		if alike <= maxAlike {
			c.printFinding(f, label(f), indent)
		}
		if more := alike - maxAlike; more > 0 && !same(i, i+1) {
			fmt.Fprintf(c.Out, "%s%d more; --json has them\n", label(f), more)
		}
	}
	for _, what := range unseen {
		c.Errorf("not seen: %s", what)
	}
	switch {
	case sick > 0:
		fmt.Fprintf(c.Out, "%s to mend\n", text.Count(sick, "thing"))
	case !c.Quiet:
		fmt.Fprintln(c.Out, "nothing to mend")
	}
}

// printFinding prints one, behind its label.
func (c *Console) printFinding(f doctor.Finding, label, indent string) {
	problem := f.Problem
	if f.Subject != "" {
		problem = f.Subject + ": " + problem
	}
	for i, line := range text.Wrap(strings.Fields(problem), " ", c.Width-len(indent)) {
		if i > 0 {
			label = indent
		}
		fmt.Fprintln(c.Out, label+line)
	}
	for _, line := range text.Wrap(strings.Fields(f.Why), " ", c.Width-len(indent)) {
		fmt.Fprintln(c.Out, indent+c.Out.Paint(text.Dim, line))
	}
	if f.Mend != "" {
		fmt.Fprintln(c.Out, indent+c.Out.Paint(text.Cyan, "mend: ")+f.Mend)
	}
}
