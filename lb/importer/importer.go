// Package importer is what importers have in common: a profile that grows
// service by service, what there is to say about it, and both as text. It
// knows none of the formats.
package importer

// What an import comes to.

import (
	"bytes"
	"strings"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/internal/safe"
)

// Level says what a finding means for the profile.
type Level uint8

// The levels.
const (
	// Note: the profile does what the original did, or better; this is good
	// to know.
	Note Level = iota
	// Lost: a part of the original is not in the profile, or works otherwise.
	Lost
)

// String is the word that a message begins with.
func (l Level) String() string {
	if l == Lost {
		return "warning"
	}
	return "note"
}

// Place is where something stands in the text that is imported. Line and
// Column count from 1; Width is the number of characters, 0 where the whole
// line is meant.
type Place struct{ Line, Column, Width int }

// Finding is something that the reader of a profile has to know.
type Finding struct {
	Level Level
	// Places are sorted, and distinct; there are none where the finding is
	// about all of the text.
	Places []Place
	// Msg says what it is, lowercase, without a full stop; Hint helps
	// further, and may be empty.
	Msg, Hint string
	// file and line are for Format.
	file, line string
}

// Import is a profile that was made of something else.
type Import struct {
	// Profile passes config.Parse once it is written.
	Profile *lb.Profile
	// Findings are in the order of the text.
	Findings []Finding
	// file is what was imported, notes are the comments of the services.
	file  string
	notes [][]string
	// source is what findings call it.
	source string
}

// Complete reports whether all of the original is in the profile.
func (m *Import) Complete() bool { return m.lost() == 0 }

// beginning is how config.Write begins a service, and nothing else.
const beginning = "  - name: "

// YAML is the profile with comments that say where each service comes from.
func (m *Import) YAML() []byte {
	text := config.Write(m.Profile)
	head := []string{"nlb import: made of " + m.file}
	if lost := m.lost(); lost == 1 {
		head = append(head, "a part of it is not here: see the warning")
	} else if lost > 1 {
		head = append(head, "parts of it are not here: see the warnings")
	}
	var b bytes.Buffer
	for _, c := range head {
		b.WriteString("# " + comment(c) + "\n")
	}
	notes := m.notes
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte(beginning)) && len(notes) > 0 {
			for _, c := range notes[0] {
				b.WriteString("  # " + comment(c) + "\n")
			}
			notes = notes[1:]
		}
		b.Write(line)
	}
	return b.Bytes()
}

// Tell adds a finding about all of what was imported.
func (m *Import) Tell(level Level, msg, hint string) {
	m.Findings = append(m.Findings, Finding{Level: level, Msg: safe.Visible(msg), Hint: safe.Visible(hint), file: m.source})
}

func (m *Import) lost() int {
	n := 0
	for _, f := range m.Findings {
		if f.Level == Lost {
			n++
		}
	}
	return n
}

// comment is text that can stand in a line of YAML after a '#'.
func comment(s string) string {
	return strings.TrimRight(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s), " ")
}
