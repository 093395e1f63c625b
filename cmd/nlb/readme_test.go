//go:build linux

package main

// What the README says of the commands is so.

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func readme(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReadmeHasEveryCommand(t *testing.T) {
	text := readme(t)
	for _, c := range commands(&app{}) {
		if !strings.Contains(text, "`nlb "+c.Name) {
			t.Errorf("README.md has no nlb %s", c.Name)
		}
	}
}

// TestReadmeImport: the rules in the README give the warning below them.
func TestReadmeImport(t *testing.T) {
	parts := regexp.MustCompile("(?s)```\n(iptables .*?)```.*?```\n(rules\\.txt:.*?)```").FindStringSubmatch(readme(t))
	if parts == nil {
		t.Fatal("README.md has no rules with a warning below them")
	}
	file := filepath.Join(t.TempDir(), "rules.txt")
	if err := os.WriteFile(file, []byte(parts[1]), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	if code := newApp(nil, &out, &stderr).run(t.Context(), []string{"import", "iptables", file}); code != exitDiffer {
		t.Errorf("exit code %d", code)
	}
	for line := range strings.Lines(strings.TrimPrefix(parts[2], "rules.txt:")) {
		if !strings.Contains(stderr.String(), line) {
			t.Errorf("nlb import does not say\n%sbut\n%s", line, stderr.String())
		}
	}
}

// TestReadmeNewcomer: the profile in the README's five commands is one. integration/qemu
// gives the commands.
func TestReadmeNewcomer(t *testing.T) {
	parts := regexp.MustCompile("(?s)```sh\n.*?<<'END'\n(services:.*?)END\n").FindStringSubmatch(readme(t))
	if parts == nil {
		t.Fatal("README.md has no commands with a profile")
	}
	file := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(file, []byte(parts[1]), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	if code := newApp(nil, &out, &stderr).run(t.Context(), []string{"check", file}); code != exitDone {
		t.Errorf("exit code %d\n%s", code, stderr.String())
	}
}
