// Package importertest tests what reads another program's configuration.
package importertest

// Golden files, and fuzzing, for all of them.

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/importer"
)

var update = flag.Bool("update", false, "write golden files")

// Importer reads a file of this name.
type Importer func(file string, data []byte) (*importer.Import, error)

// Golden compares what becomes of each testdata/NAME.ext with
// testdata/NAME.golden. With -update it writes that.
func Golden(t *testing.T, ext string, read Importer) {
	for _, file := range inputs(t, ext) {
		name := strings.TrimSuffix(file, "."+ext)
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := report(t, filepath.Base(file), data, read)
			golden := name + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Fuzz begins with the files of Golden: no text does harm, and a profile that
// comes of it is valid.
func Fuzz(f *testing.F, ext string, read Importer) {
	for _, file := range inputs(f, ext) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { report(t, "fuzz", data, read) })
}

func inputs(t testing.TB, ext string) []string {
	files, err := filepath.Glob("testdata/*." + ext)
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	return files
}

// report is the profile and the findings, or the errors, as text.
func report(t *testing.T, file string, data []byte, read Importer) string {
	m, err := read(file, data)
	if errs, ok := errors.AsType[lb.Errors](err); ok {
		return config.Format(errs) + "\n"
	}
	if err != nil {
		t.Fatal(err)
	}
	yaml := m.YAML()
	if _, err := config.Parse(file, yaml); err != nil {
		t.Errorf("the profile is refused: %v\n%s", err, yaml)
	}
	var b strings.Builder
	b.Write(yaml)
	if m.Complete() {
		b.WriteString("-- complete --\n")
	} else {
		b.WriteString("-- partial --\n")
	}
	for _, f := range m.Findings {
		b.WriteString(f.Format() + "\n")
	}
	return b.String()
}
