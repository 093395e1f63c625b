package ipvs

// Import: from commands to a profile.

import (
	"path"
	"strings"

	"nlb/lb/importer"
)

// Import reads what `ipvsadm -S -n` prints, or commands of ipvsadm. Marks of
// services are looked up in rules of iptables that set them, where the text has
// those, too (iptables-save -t mangle). The error is lb.Errors.
func Import(file string, data []byte) (*importer.Import, error) {
	lines, err := importer.Lines(file, data)
	if err != nil {
		return nil, err
	}
	t := &table{file: file, lines: lines, draft: importer.New(file, "ipvs", lines)}
	var m marks
	var other []importer.Place
	ran := false
	for i, line := range lines {
		ws := words(line, i+1)
		if len(ws) == 0 || strings.HasPrefix(ws[0].text, "#") {
			continue
		}
		place := ws[0].place
		place.Width = 0
		for len(ws) > 0 && (ws[0].text == "sudo" || ws[0].text == "$") {
			ws = ws[1:]
		}
		program := len(ws) > 0 && path.Base(ws[0].text) == "ipvsadm"
		if program {
			ws = ws[1:]
		}
		switch {
		case m.line(t, ws, place):
		case !program && (len(ws) == 0 || ws[0].text[0] != '-'):
			other = append(other, place)
		default:
			ran = true
			c, errs := parse(ws, place)
			for _, e := range errs {
				t.fail(importer.Place{Line: e.Pos.Line, Column: e.Pos.Column, Width: e.Width}, e.Msg, e.Want)
			}
			if len(errs) == 0 {
				t.do(c)
			}
		}
	}
	if len(other) > 0 && !ran && len(m.rules) == 0 && len(t.errs) == 0 {
		t.fail(other[0], "nothing in this text is of ipvsadm", "what ipvsadm -S -n prints, or its commands")
	}
	if len(t.errs) > 0 {
		importer.SortErrors(t.errs)
		return nil, t.errs
	}
	if len(other) > 0 {
		t.draft.Note("not ipvsadm, so not read", "", other...)
	}
	for _, v := range t.services {
		t.translate(v, &m)
	}
	m.rest(t)
	if len(t.services) == 0 {
		t.draft.Note("there are no services of IPVS here", "")
	}
	return t.draft.Finish(), nil
}
