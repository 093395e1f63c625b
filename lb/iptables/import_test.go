package iptables

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nlb/lb"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files")

// TestGolden: testdata/NAME.rules becomes testdata/NAME.golden.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.rules")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".rules")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := report(t, filepath.Base(file), data)
			golden := strings.TrimSuffix(file, ".rules") + ".golden"
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

// report is the profile and the findings, or the errors, as text.
func report(t *testing.T, file string, data []byte) string {
	m, err := Import(file, data)
	if errs, ok := errors.AsType[lb.Errors](err); ok {
		return errs.Format() + "\n"
	}
	if err != nil {
		t.Fatal(err)
	}
	yaml := m.YAML()
	if _, err := lb.Parse(file, yaml); err != nil {
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
