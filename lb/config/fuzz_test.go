package config

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"nlb/lb"
	"nlb/lb/internal/safe"
	"nlb/lb/lbtest"
)

// FuzzParse: no panic; what is accepted keeps all promises of the types, and
// can be written; what is refused is refused at a place in the file, in words
// that are safe on a terminal.
func FuzzParse(f *testing.F) {
	for _, s := range plainSamples {
		f.Add([]byte(s))
	}
	archives, err := filepath.Glob("testdata/invalid/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if strings.HasSuffix(file.Name, ".yaml") {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("fuzz.yaml", data)
		if err != nil {
			checkErrors(t, err.(lb.Errors), data)
			return
		}
		checkProfile(t, p)
		text := Write(p)
		again, err := Parse("fuzz.yaml", text)
		if err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, text)
		}
		if diff := cmp.Diff(p, again, lbtest.Same); diff != "" {
			t.Fatalf("written as something else (-want +got)\n%s\n%s", diff, text)
		}
	})
}

func checkErrors(t *testing.T, errs lb.Errors, data []byte) {
	t.Helper()
	if len(errs) == 0 {
		t.Fatal("refused without an error")
	}
	lines := strings.Split(withoutBOM(string(data)), "\n")
	last := &lb.Error{}
	for _, e := range errs {
		if e.Pos.File != "fuzz.yaml" || e.Pos.Line < 1 || e.Pos.Line > len(lines) {
			t.Fatalf("%v: no such place", e)
		}
		line := strings.TrimSuffix(lines[e.Pos.Line-1], "\r")
		n := utf8.RuneCountInString(line)
		if e.Pos.Column < 1 || e.Pos.Column > n+1 {
			t.Fatalf("%v: the line has %d columns", e, n)
		}
		if e.Line != line {
			t.Fatalf("%v: line %q, want %q", e, e.Line, line)
		}
		if e.Width < 0 || e.Width > 1 && e.Pos.Column-1+e.Width > n || line != "" && e.Width == 0 {
			t.Fatalf("%v: %d wide, the line has %d columns", e, e.Width, n)
		}
		if byPlace(last, e) > 0 {
			t.Fatalf("%v comes behind %v", e, last)
		}
		last = e
		for _, s := range []string{e.Msg, e.Want, e.Hint} {
			if s != safe.Visible(s) {
				t.Fatalf("%q cannot be printed", s)
			}
		}
		if e.Msg == "" || strings.HasPrefix(e.Msg, "yaml:") {
			t.Fatalf("what does %q mean", e.Msg)
		}
		for i, s := range strings.Split(FormatError(e), "\n") {
			if s != safe.Visible(s) || i > 3 {
				t.Fatalf("%q cannot be printed", FormatError(e))
			}
		}
	}
}
