package config

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var plainSamples = []string{
	"profile: a\nservices:\n  - name: web\n    listen: 203.0.113.10:80\n    backends:\n      - 10.0.0.11:8080\n      - address: 10.0.0.12:8080\n        weight: 3\n",
	"---\n# first\na: 1 # one\nb:\n- x\n-   y: 1\n    z: \"q # r\" # s\nc: [a, 'b', \"c\"]\n\nd: {a: 1, b: 10.0.0.1:80}\n",
	"- a\n-\n  - b\n  # c\n  - 'x y'\n- c: d e\n",
	"a: b\r\nc:\r\n  d: e  \r\n",
	"a: :80\nb: /x\nc: 10.0.0.1:80,443\n",
	"- {a: b, c: \"d:1\", e: [{f: 1.2.3.4, g: 1}, {f: h, }, ], i: [], j: {k: {}}} # l\n",
	"a:\n  b: c\n d: e\n",
	"a: b\n  c\n",
	"a: b#c\n",
	"a: \"b\"#c\n",
	"a: [b,c ]\nd: { }\ne: []\nf: [ a ]\n",
	"a: [b, ]\n",
	"a: {b: c }\n",
	"a: 'b''c'\n",
	"a:\n- b\nc: d\n",
	"- a: b\n  c:\n  - d\n  e: f\n- g\n",
	"a: b\n---\nc: d\n",
	"a: b\n...\n",
	"a: é # é\nb: c # é\n",
	"a: x: y\n", "a: x:\n", "a: [x:y, z]\n", "a: [x:, y]\n",
	"a:\n\n\n  b:\n    - c\n\n    - d\n#\n",
	"a-b.c_d: 010\n",
	"a: b #c\n  #d\n",
	"a: -\n", "- - a\n", "a: - b\n", "- a: b: c\n",
	"a : b\n", "a:  b\n", "a: \"\"\n", "a: ''\n", "a: \"x\" y\n",
}

// FuzzPlain compares the two readers: what the plain one accepts, the YAML
// package reads as the same tree.
func FuzzPlain(f *testing.F) {
	for _, s := range plainSamples {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { samePlain(t, s) })
}

// samePlain reports whether a text is plain, and fails where the YAML package
// refuses it or reads it as something else.
func samePlain(t *testing.T, s string) bool {
	text, bad := readable("f", []byte(s))
	if bad != nil {
		return false
	}
	got, ok := readPlain(text)
	if !ok {
		return false
	}
	want, bad := readYAML("f", text)
	if bad != nil {
		t.Fatalf("the YAML package refuses what was accepted: %v\n%q", bad, text)
	}
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("trees differ (-yaml +plain)\n%s\n%q", cmp.Diff(want, got, cmp.AllowUnexported(node{})), text)
	}
	return true
}

// TestPlainAccepts keeps the fast path from declining what it is there for.
func TestPlainAccepts(t *testing.T) {
	for i, s := range plainSamples[:6] {
		if _, ok := readPlain(s); !ok {
			t.Errorf("sample %d is declined\n%s", i, s)
		}
	}
}

// TestPlainDepth: what the YAML package refuses as too deep is declined.
func TestPlainDepth(t *testing.T) {
	for _, open := range []string{"a:\n", "-\n", "- a:\n"} {
		var b strings.Builder
		for i := range maxDepth + 2 {
			b.WriteString(strings.Repeat("    ", i) + open)
		}
		b.WriteString(strings.Repeat("    ", maxDepth+2) + "- b\n")
		if _, ok := readPlain(b.String()); ok {
			t.Errorf("%q: accepted", open)
		}
		if _, err := readYAML("f", b.String()); err == nil {
			t.Errorf("%q: accepted by the YAML package", open)
		}
	}
}

// TestPlainSoup compares the two readers over random lines of what YAML is made
// of, right and wrong, which a fuzzer that thinks in bytes rarely finds.
func TestPlainSoup(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	accepted, soups := 0, 5_000
	if *full {
		soups = 50_000
	}
	for range soups {
		var b strings.Builder
		b.WriteString(pick("", "", "", "---\n", "# x\n", "\n"))
		for range 1 + r.IntN(5) {
			b.WriteString(pick("", "", "", "  ", "  ", "    ", " ", "   "))
			b.WriteString(pick("", "", "- ", "- ", "-   ", "-", "- - "))
			b.WriteString(pick("a:", "b-c: ", "a: ", "a:  ", "", "", "010: ", "a.b: ", "\"a\": ", "a :", "? ", "null: "))
			b.WriteString(pick("", "", "", "x", "x y", "10.0.0.1:80", ":80", "/a", "'q'", "'q''q'", `"q # r"`, `"q\n"`, "[a, b]", "[a,b ]", "[ 'a', \"b\"]",
				"[]", "{}", "{ }", "{a: b}", "{a: b, c: 'd'}", "[a, b", "[a, ]", "{a}", "{a:b}", "[a: b]", "|", ">", "&a", "&a x", "*a", "!t x", "@", "x: y", "x:",
				"é", "null", "~", "x#y", "-", "-x", "...", "---", "x, y", "[x]y", "'x'y", "[x:y, z/*]", "[x:]",
				"[{a: b}, [c], ]", "{a: {b: [c]}, d: [], }", "[{a: b}: c]", "[[a]b]", "{a: [b}", "[,]", "{a: ,}", "[{a: b},{}]", "{[a]: b}", "{a: 'b',c: {d: e }}"))
			b.WriteString(pick("", "", "", " # c", " #", "#", "  ", " é"))
			b.WriteString(pick("\n", "\n", "\n", "\r\n", "\n\n", "\n  # c\n", "\n# c\n", ""))
		}
		if samePlain(t, b.String()) {
			accepted++
		}
	}
	if accepted < soups/50 {
		t.Errorf("only %d texts were accepted", accepted)
	}
	t.Logf("%d of %d texts were accepted", accepted, soups)
}
