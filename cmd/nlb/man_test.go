//go:build linux

package main

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"nlb/cmd/nlb/internal/manual"
	"nlb/lb/config"
)

// TestManual: the page has every command, flag and key, and groff has nothing
// to say against it.
func TestManual(t *testing.T) {
	var out, stderr bytes.Buffer
	if code := newApp(strings.NewReader(""), &out, &stderr).run(t.Context(), []string{manCommand}); code != exitDone || stderr.Len() > 0 {
		t.Fatalf("exit code %d, stderr %q", code, stderr.String())
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip("SKIPPED, NOT PROVED: groff is not installed")
	}
	groff := exec.CommandContext(t.Context(), "groff", "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=200n", "-rHY=0")
	groff.Stdin = &out
	groff.Stderr = &stderr
	text, err := groff.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("groff: %v\n%s", err, stderr.String())
	}
	page := strings.Join(strings.Fields(string(text)), " ")
	var want []string
	for _, c := range commands(&app{}) {
		want = append(want, strings.TrimSpace("nlb "+c.Name+" "+c.ArgsUsage), manual.Sentence(c.Usage))
		for _, name := range flagNames(c.Flags) {
			want = append(want, "--"+name)
		}
	}
	for _, k := range config.Reference() {
		want = append(want, k.Path[strings.LastIndexByte(k.Path, '.')+1:], k.Values, manual.Sentence(k.Meaning))
	}
	for _, w := range want {
		if !strings.Contains(page, w) {
			t.Errorf("%q is not in the page", w)
		}
	}
	// What is not for users is not there.
	if m := regexp.MustCompile(`__complete|nlb man\b`).FindString(page); m != "" {
		t.Errorf("the page has %q", m)
	}
}
