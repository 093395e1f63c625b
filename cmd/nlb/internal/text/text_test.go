package text

import (
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Count(0, "service"), "0 services"},
		{Count(1, "live connection"), "1 live connection"},
		{Count(2, "live connection"), "2 live connections"},
		{List(nil), ""},
		{List([]string{"a"}), "a"},
		{List([]string{"a", "b"}), "a and b"},
		{List([]string{"a", "b", "c"}), "a, b and c"},
		{Painter{}.Paint(Red, "x"), "x"},
		{Painter{Color: true}.Paint(Red, "x"), "\x1b[31mx\x1b[0m"},
		{Painter{Color: true}.Paint("", "x"), "x"},
		{Painter{Color: true}.Paint(Red, ""), ""},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		words, want string
		width       int
	}{
		{"", "", 10},
		{"a b c", "a b c", 5},
		{"a b c", "a b|c", 4},
		{"a longword c", "a|longword|c", 4},
		{"longword", "longword", 4},
	} {
		if got := strings.Join(Wrap(strings.Fields(c.words), " ", c.width), "|"); got != c.want {
			t.Errorf("%q in %d columns: got %q, want %q", c.words, c.width, got, c.want)
		}
	}
}

func TestAlign(t *testing.T) {
	got := Align(
		[]Column{{}, {Right: true}, {Least: 6}, {}},
		[][]string{{"name", "n", "x", "note"}, {"a", "100", "", ""}, {"b", "5", "y", "z"}},
	)
	want := []string{
		"name    n  x       note",
		"a     100",
		"b       5  y       z",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
