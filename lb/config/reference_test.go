package config

// The profile reference, docs/profile.md, and the parser say the same.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
)

const profileReference = "../../docs/profile.md"

// referenceBlock is where a table stands: the name of the mapping, the table.
var referenceBlock = regexp.MustCompile(`(?s)<!-- reference: ([a-z-]+) -->\n(.*?)<!-- end -->\n`)

// TestProfileReference: docs/profile.md has every key, its values, its default
// and its meaning, and no other; and says something about each of its own.
// -update writes the tables.
func TestProfileReference(t *testing.T) {
	data, err := os.ReadFile(profileReference)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	tables := map[string]string{}
	var order []string
	for _, k := range Reference() {
		of, _, inside := strings.Cut(k.Path, ".")
		if !inside {
			of = "file"
		}
		if tables[of] == "" {
			order = append(order, of)
			tables[of] = "| key | values | default | meaning |\n| --- | --- | --- | --- |\n"
		}
		tables[of] += referenceRow(k)
		if !regexp.MustCompile("(?m)^###+ .*`" + regexp.QuoteMeta(k.Word()) + "`").MatchString(text) {
			t.Errorf("%s: no heading is about `%s`", profileReference, k.Path)
		}
	}
	var there []string
	got := referenceBlock.ReplaceAllStringFunc(text, func(block string) string {
		parts := referenceBlock.FindStringSubmatch(block)
		there = append(there, parts[1])
		if d := cmp.Diff(tables[parts[1]], parts[2]); d != "" && !*update {
			t.Errorf("%s: the table of %s differs from config.Reference (-parser +reference); go test ./lb/config -run ProfileReference -update\n%s",
				profileReference, parts[1], d)
		}
		return fmt.Sprintf("<!-- reference: %s -->\n%s<!-- end -->\n", parts[1], tables[parts[1]])
	})
	if !slices.Equal(there, order) {
		t.Errorf("%s has the tables %v, want %v", profileReference, there, order)
	}
	if *update && got != text && !t.Failed() {
		if err := os.WriteFile(profileReference, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func referenceRow(k lb.Key) string {
	escape := strings.NewReplacer("|", `\|`, "*", `\*`).Replace
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", k.Word(), escape(k.Values), escape(k.Default), escape(k.Meaning))
}

// TestExamplesInDocuments: every profile in the documents is valid.
func TestExamplesInDocuments(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```\n")
	for file, least := range map[string]int{profileReference: 8, "../../README.md": 1} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := block.FindAllStringSubmatchIndex(string(data), -1)
		if len(blocks) < least {
			t.Errorf("%s has %d profiles, want %d", file, len(blocks), least)
		}
		for _, at := range blocks {
			line := 1 + strings.Count(string(data[:at[2]]), "\n")
			if _, err := Parse("example.yaml", data[at[2]:at[3]]); err != nil {
				t.Errorf("%s:%d:\n%s", file, line, Format(err.(lb.Errors)))
			}
		}
	}
}

// TestLinks: what the documents refer to is there.
func TestLinks(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)`)
	for _, file := range append(files, "../../README.md") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}
