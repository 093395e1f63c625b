package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestImportingDocument: docs/importing.md shows what import says to the four
// wrong rules.
func TestImportingDocument(t *testing.T) {
	const file = "../../docs/importing.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rules, said strings.Builder
	for line := range strings.Lines(string(data)) {
		text, quoted := strings.CutPrefix(line, "    ")
		switch {
		case quoted && strings.HasPrefix(text, "iptables -t nat"):
			rules.WriteString(text)
		case quoted && rules.Len() > 0:
			said.WriteString(text)
		}
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("four.sh", []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := newApp(strings.NewReader(""), &stdout, &stderr).run(t.Context(), []string{"import", "iptables", "four.sh"}); code != exitDiffer {
		t.Errorf("exit code %d", code)
	}
	if said.String() != stderr.String() {
		t.Errorf("%s shows\n%s\nand import says\n%s", file, said.String(), stderr.String())
	}
	for _, weight := range []string{"weight: 64", "weight: 48", "weight: 36", "weight: 27"} {
		if !strings.Contains(stdout.String(), weight) {
			t.Errorf("the profile has no %s:\n%s", weight, stdout.String())
		}
	}
}
