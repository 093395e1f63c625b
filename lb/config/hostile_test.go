package config

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"nlb/lb"
)

var full = flag.Bool("full", false, "the tests at their full size, as CI runs them")

// hostile are files that cost a careless reader minutes, gigabytes or its
// stack.
func hostile() map[string]string {
	size := MaxFile / 256
	switch {
	case *full:
		size = MaxFile - 100
	case testing.Short():
		size = MaxFile / 2048
	}
	fill := func(unit string) string { return strings.Repeat(unit, size/len(unit)) }
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 12; i++ {
		alias := fmt.Sprintf("*a%d", i-1)
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.Join([]string{alias, alias, alias, alias, alias, alias, alias, alias, alias}, ", "))
	}
	backends := "services:\n- name: a\n  listen: 10.0.0.1:80\n  backends: &b\n"
	for i := range 900 {
		backends += fmt.Sprintf("  - 10.%d.%d.1:80\n", i/250, i%250)
	}
	for i := range 1200 {
		backends += fmt.Sprintf("- {name: s%d, listen: 10.0.0.2:%d, backends: *b}\n", i, i+1)
	}
	manyServices := func(format string) string {
		var b strings.Builder
		b.WriteString("services:\n")
		for i := 0; b.Len() < size-100; i++ {
			b.WriteString(strings.ReplaceAll(format, "#", fmt.Sprint(i)))
		}
		return b.String()
	}
	return map[string]string{
		"too large":         strings.Repeat("a", MaxFile+1),
		"brackets":          fill("["),
		"braces":            fill("{"),
		"dashes":            fill("- "),
		"questions":         fill("? "),
		"anchors":           fill("&a "),
		"tags":              fill("!a "),
		"stars":             fill("*a "),
		"texts":             fill("\"\" "),
		"lists":             fill("[] "),
		"texts below":       strings.Repeat("\"\" ", min(size/3, 490_000)),
		"lists below":       strings.Repeat("[] ", min(size/3, 990_000)),
		"tags below":        strings.Repeat("!a ", min(size/3, 990_000)),
		"commas":            "[" + fill("a,") + "]",
		"few commas":        "[" + strings.Repeat("a,", min(size/2, 900_000)) + "]",
		"pairs":             "{" + strings.Repeat("a: b,\n", min(size/6, 300_000)) + "}",
		"keys":              fill("a: b\n"),
		"list of keys":      fill("- a: b\n"),
		"empty values":      fill("a:\n"),
		"unknown keys":      "{" + strings.Repeat("aa,", min(size/3, 450_000)) + "}",
		"same key":          fill("services: []\n"),
		"comments":          fill("# c\n"),
		"comments and keys": fill("# c\n\na: b\n"),
		"spaces":            fill(" "),
		"line breaks":       fill("\n"),
		"one word":          fill("a"),
		"one text":          `a: "` + fill("b") + `"`,
		"open text":         `a: "` + fill("b\n"),
		"escapes":           `a: "` + fill(`\n`) + `"`,
		"folded":            "a: >\n" + fill("  b\n"),
		"plain lines":       "a: b\n" + fill("  b\n"),
		"deep":              deep(5000),
		"alias bomb":        bomb,
		"aliased backends":  backends,
		"bad services":      manyServices("- {}\n"),
		"bad listens":       "services:\n- listen:\n" + fill("  - x\n"),
		"same listen":       manyServices("- name: s#\n  listen: 10.0.0.1:80\n  backends: []\n"),
		"wide listens":      manyServices("- name: s#\n  listen: 10.0.0.1:*\n  backends: []\n"),
		"same backend":      "services:\n- name: a\n  listen: 10.0.0.1:80\n  backends:\n" + fill("  - 10.0.0.1:81\n"),
		"same name":         manyServices("- name: s\n  listen: 10.0.0.1:80\n  backends: []\n"),
		"long line":         "services: [" + strings.Repeat("{name: x, listen: y}, ", min(size/22, 100_000)) + "]",
		"long flow list":    "services:\n- listen: [" + fill("x, ") + "]",
		"many ports":        "services:\n- name: a\n  listen: 10.0.0.1:" + fill("1,") + "2\n  backends: []\n",
	}
}

// deep is a mapping in a mapping in a mapping.
func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i))
		b.WriteString("a:\n")
	}
	return b.String()
}

func TestHostile(t *testing.T) {
	for name, text := range hostile() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := Parse("hostile.yaml", []byte(text))
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			first := "accepted"
			if err != nil {
				errs := err.(lb.Errors)
				first = errs[0].Msg
				if len(errs) > maxErrors+1 {
					t.Errorf("%d errors", len(errs))
				}
				for _, e := range errs {
					if s := FormatError(e); len(s) > 2000 {
						t.Fatalf("an error is %d bytes long: %s", len(s), s[:2000])
					}
				}
			}
			t.Logf("%v, formatted %v, %d MB allocated: %s", took.Round(time.Millisecond), time.Since(start).Round(time.Millisecond),
				(after.TotalAlloc-before.TotalAlloc)>>20, first)
		})
	}
}

// BenchmarkHostile reads the same files; one that costs the square of its size
// takes minutes with -full.
func BenchmarkHostile(b *testing.B) {
	for name, text := range hostile() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_, _ = Parse("hostile.yaml", []byte(text))
			}
		})
	}
}
