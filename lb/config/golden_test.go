package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"nlb/lb"
)

var update = flag.Bool("update", false, "rewrite the wanted errors in testdata/invalid")

// TestInvalid has one archive for each subject, with NAME.yaml and the errors
// as people read them in NAME.txt.
func TestInvalid(t *testing.T) {
	archives, err := filepath.Glob("testdata/invalid/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	profiles := 0
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, f := range archive.Files {
			want[f.Name] = string(f.Data)
		}
		var files []txtar.File
		for _, f := range archive.Files {
			name, ok := strings.CutSuffix(f.Name, ".yaml")
			if !ok {
				continue
			}
			profiles++
			_, err := Parse(f.Name, f.Data)
			errs, ok := err.(lb.Errors)
			if !ok {
				t.Errorf("%s: %s: accepted\n%s", path, f.Name, f.Data)
				continue
			}
			got := Format(errs) + "\n"
			files = append(files, f, txtar.File{Name: name + ".txt", Data: []byte(got)})
			if diff := cmp.Diff(want[name+".txt"], got); diff != "" && !*update {
				t.Errorf("%s: %s (-want +got)\n%s", path, f.Name, diff)
			}
		}
		if *update && !t.Failed() {
			archive.Files = files
			if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if profiles < 80 {
		t.Errorf("only %d invalid profiles", profiles)
	}
}
