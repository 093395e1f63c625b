package view

// Mistakes in profiles, and findings of an import: each with its line, carets
// under what it is about, and a hint.

import (
	"fmt"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/importer"
)

// PrintErrors prints mistakes.
func (c *Console) PrintErrors(errs lb.Errors) {
	for _, e := range errs {
		fmt.Fprintln(c.Err, config.Painted(e, "error", c.paintPart(text.Red)))
	}
}

// PrintFindings prints what an import found, and returns the number of
// warnings. Notes are left out where the user wants it quiet.
func (c *Console) PrintFindings(m *importer.Import) (warnings int) {
	for i := range m.Findings {
		f, style := &m.Findings[i], text.Cyan
		if f.Level == importer.Lost {
			warnings++
			style = text.Yellow
		} else if c.Quiet {
			continue
		}
		fmt.Fprintln(c.Err, f.Painted(c.paintPart(style)))
	}
	return warnings
}

// paintPart paints the parts of a mistake, its level in this style.
func (c *Console) paintPart(level text.Style) func(config.Part, string) string {
	styles := map[config.Part]text.Style{config.PartPlace: text.Bold, config.PartLevel: level, config.PartMark: text.Red, config.PartHint: text.Cyan}
	return func(p config.Part, s string) string { return c.Err.Paint(styles[p], s) }
}

// Imported is what import prints as JSON.
type Imported struct {
	Profile  string          `json:"profile"` // its name
	Services int             `json:"services"`
	Backends int             `json:"backends"`
	Complete bool            `json:"complete"` // all of the original is in the profile
	YAML     string          `json:"yaml"`     // the profile, with comments
	Findings []ImportFinding `json:"findings"`
}

// ImportFinding is an importer.Finding.
type ImportFinding struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Lines   []int  `json:"lines"`   // all that it is about; none: the whole text
	Level   string `json:"level"`   // note, or warning: a part is not translated
	Finding string `json:"finding"` // what it is
	Hint    string `json:"hint"`    // may be empty
}

// ImportedOf is an import as JSON.
func ImportedOf(m *importer.Import) Imported {
	p := ProfileOf(m.Profile)
	out := Imported{p.Name, p.Services, p.Backends, m.Complete(), string(m.YAML()), []ImportFinding{}}
	for i := range m.Findings {
		f := &m.Findings[i]
		at, lines := f.Pos(), append([]int{}, f.Lines()...)
		out.Findings = append(out.Findings, ImportFinding{at.File, at.Line, at.Column, lines, f.Level.String(), f.Msg, f.Hint})
	}
	return out
}
