package lb

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFormat(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    Error
		want string
	}{
		{
			"all",
			Error{Pos{"web.yaml", 12, 15}, "weight 3000 is out of range", "      weight: 3000", 0, "0 to 1000", "weights are relative"},
			"web.yaml:12:15: error: weight 3000 is out of range\n   12 |       weight: 3000\n      |               want 0 to 1000\n   hint: weights are relative",
		},
		{
			"caret",
			Error{Pos{"web.yaml", 12, 15}, "m", "      weight: 3000", 4, "0 to 1000", ""},
			"web.yaml:12:15: error: m\n   12 |       weight: 3000\n      |               ^^^^ want 0 to 1000",
		},
		{"least", Error{Pos: Pos{"a", 1, 1}, Msg: "m"}, "a:1:1: error: m"},
		{"no line", Error{Pos: Pos{"a", 1, 1}, Msg: "m", Want: "w", Hint: "h"}, "a:1:1: error: m\n   want w\n   hint: h"},
		{"no width, no want", Error{Pos: Pos{"a", 1, 1}, Msg: "m", Line: "x"}, "a:1:1: error: m\n   1 | x"},
		{"tab", Error{Pos{"a", 1, 3}, "m", "\tab\tc", 3, "", ""}, "a:1:3: error: m\n   1 |     ab    c\n     |      ^^^^^^"},
		{"end of line", Error{Pos{"a", 1, 3}, "m", "ab", 1, "", ""}, "a:1:3: error: m\n   1 | ab\n     |   ^"},
		{"beyond the end", Error{Pos{"a", 1, 9}, "m", "ab", 9, "", ""}, "a:1:9: error: m\n   1 | ab\n     |   ^"},
		{"file name", Error{Pos: Pos{"a\x1b[31m\n", 1, 1}, Msg: "m"}, "a\\x1b[31m\\n:1:1: error: m"},
	} {
		if diff := cmp.Diff(tt.want, tt.e.Format()); diff != "" {
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
		if got := show(s); got != want {
			t.Errorf("show(%q) = %s, want %s", s, got, want)
		}
	}
}
