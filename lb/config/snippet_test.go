package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

func TestFormat(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    lb.Error
		want string
	}{
		{
			"all",
			lb.Error{Pos: lb.Pos{File: "web.yaml", Line: 12, Column: 15}, Msg: "weight 3000 is out of range", Line: "      weight: 3000", Width: 0, Want: "0 to 1000", Hint: "weights are relative"},
			"web.yaml:12:15: error: weight 3000 is out of range\n   12 |       weight: 3000\n      |               want 0 to 1000\n   hint: weights are relative",
		},
		{
			"caret",
			lb.Error{Pos: lb.Pos{File: "web.yaml", Line: 12, Column: 15}, Msg: "m", Line: "      weight: 3000", Width: 4, Want: "0 to 1000", Hint: ""},
			"web.yaml:12:15: error: m\n   12 |       weight: 3000\n      |               ^^^^ want 0 to 1000",
		},
		{"least", lb.Error{Pos: lb.Pos{File: "a", Line: 1, Column: 1}, Msg: "m"}, "a:1:1: error: m"},
		{"no line", lb.Error{Pos: lb.Pos{File: "a", Line: 1, Column: 1}, Msg: "m", Want: "w", Hint: "h"}, "a:1:1: error: m\n   want w\n   hint: h"},
		{"no width, no want", lb.Error{Pos: lb.Pos{File: "a", Line: 1, Column: 1}, Msg: "m", Line: "x"}, "a:1:1: error: m\n   1 | x"},
		{"tab", lb.Error{Pos: lb.Pos{File: "a", Line: 1, Column: 3}, Msg: "m", Line: "\tab\tc", Width: 3, Want: "", Hint: ""}, "a:1:3: error: m\n   1 |     ab    c\n     |      ^^^^^^"},
		{"end of line", lb.Error{Pos: lb.Pos{File: "a", Line: 1, Column: 3}, Msg: "m", Line: "ab", Width: 1, Want: "", Hint: ""}, "a:1:3: error: m\n   1 | ab\n     |   ^"},
		{"beyond the end", lb.Error{Pos: lb.Pos{File: "a", Line: 1, Column: 9}, Msg: "m", Line: "ab", Width: 9, Want: "", Hint: ""}, "a:1:9: error: m\n   1 | ab\n     |   ^"},
		{"file name", lb.Error{Pos: lb.Pos{File: "a\x1b[31m\n", Line: 1, Column: 1}, Msg: "m"}, "a\\x1b[31m\\n:1:1: error: m"},
	} {
		if diff := cmp.Diff(tt.want, FormatError(&tt.e)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestWidth(t *testing.T) {
	for _, tt := range []struct {
		line string
		at   int
		want string
	}{
		{"a: b", 0, "a"},
		{"a: b", 3, "b"},
		{"a:", 0, "a"},
		{"a: b # c", 3, "b"},
		{"a: b c ", 3, "b c"},
		{"a: b#c", 3, "b#c"},
		{`a: "b" # c`, 3, `"b"`},
		{`a: "b\"c" d`, 3, `"b\"c"`},
		{`a: 'b''c' d`, 3, `'b''c'`},
		{`a: "b`, 3, `"b`},
		{"a: [b, c] d", 3, "[b, c]"},
		{`a: ["]", c] d`, 3, `["]", c]`},
		{"a: [b, c", 3, "[b, c"},
		{"a: {b: [c]}", 3, "{b: [c]}"},
		{"a: [b, c]", 4, "b"},
		{"a: {b: c}", 4, "b"},
		{"a: {b: c}", 7, "c"},
		{"- a", 0, "-"},
		{"-", 0, "-"},
		{"-a", 0, "-a"},
		{"a: *b # c", 3, "*b"},
		{"a: &b c # d", 3, "&b"},
		{"a: &b", 3, "&b"},
		{"\t\ta: b", 0, "\t\t"},
		{"a: größe", 3, "größe"},
		{"10.0.0.1:80,443", 0, "10.0.0.1:80,443"},
	} {
		if got := width(tt.line, tt.at); got != len([]rune(tt.want)) {
			t.Errorf("width(%q, %d) = %d, want that of %q", tt.line, tt.at, got, tt.want)
		}
	}
	if got := width("a", 1); got != 1 {
		t.Errorf("width at the end is %d, want 1", got)
	}
}

func TestShow(t *testing.T) {
	for s, want := range map[string]string{
		"a": "a", "": `""`, "a b": `"a b"`, "\x1b": `"\x1b"`, "ü": `"ü"`, `"`: `"\""`, "10.0.0.1:80,*": "10.0.0.1:80,*", "\u202e": `"\u202e"`,
		strings.Repeat("x", 65): strings.Repeat("x", 64) + "...",
	} {
		if got := safe.Show(s); got != want {
			t.Errorf("safe.Show(%q) = %s, want %s", s, got, want)
		}
	}
}
