package nft

// Drift: every difference that it can tell is made on a table, and told.

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
)

// TestDrift makes each difference alone. A case of report.go that none of these
// meets is named at the end.
func TestDrift(t *testing.T) {
	profile := func() *lb.Profile {
		s := service("s", "203.0.113.1", backend("10.0.0.1:80", 1), backend("10.0.0.2:80", 1))
		s.Affinity = &lb.Affinity{Timeout: 600e9, Bits: 32, Bits6: 128}
		return &lb.Profile{Name: "p", Services: []lb.Service{s}}
	}
	told := ""
	for _, tt := range []struct {
		name   string
		change func(o *objects)
		want   string // one of what is told
	}{
		{"a rule of somebody", func(o *objects) { o.chains["postrouting"].rules[0].fingerprint = "" }, "chain postrouting: a rule is not of nlb"},
		{"a rule twice", func(o *objects) {
			c := o.chains["postrouting"]
			again := c.rules[0]
			again.handle = 1 << 40
			c.rules = append(c.rules, again)
		}, "chain postrouting: a rule is not as nlb made it"},
		{"no rules", func(o *objects) { o.chains["postrouting"].rules = nil }, "chain postrouting: 5 rules are missing"},
		{"no chain", func(o *objects) { delete(o.chains, "output") }, "chain output: it is missing"},
		{"a chain of somebody", func(o *objects) { o.chains["evil"] = &haveChain{} }, "chain evil: it is not of nlb"},
		{"no map", func(o *objects) { delete(o.maps, compile.StickySet) }, "map sticky: it is missing"},
		{"a map of somebody", func(o *objects) { o.maps["mine"] = &haveMap{elements: map[string]ruleset.Element{}} }, "map mine: it is not of nlb"},
		{"another comment", func(o *objects) {
			for id, e := range o.maps["endpoints4"].elements {
				e.Extra = &ruleset.Extra{Comment: "mine"}
				o.maps["endpoints4"].elements[id] = e
			}
		}, "map endpoints4: 2 elements are changed"},
		{"no elements", func(o *objects) { clear(o.maps[compile.StickySet].elements) }, "map sticky: 2 elements are missing"},
		{"an element of somebody", func(o *objects) {
			for _, e := range o.maps["services4"].elements {
				e.Key, e.Data = "\xc0\x00\x02\x01"+e.Key[4:], "elsewhere"
				o.maps["services4"].elements[e.Key] = e
				break
			}
		}, "element services4 { 192.0.2.1 . tcp . 80 }: it is not of nlb"},
		{"nothing leads to a service", func(o *objects) { clear(o.maps["services4"].elements) }, "chain p/s: nothing leads to it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := emptyObjects()
			applyTo(t, o, profile())
			if drift := newState("nlb", o).Drift(); len(drift) > 0 {
				t.Fatalf("before the change: %+v", drift)
			}
			tt.change(o)
			var all []string
			for _, d := range newState("nlb", o).Drift() {
				all = append(all, d.Object+": "+d.What)
			}
			if !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, tt.want) }) {
				t.Errorf("told %q, want %q", all, tt.want)
			}
			told += strings.Join(all, "\n") + "\n"
		})
	}
	for _, what := range driftCases(t) {
		if !strings.Contains(told, what) {
			t.Errorf("report.go can tell that something is %q, and no case here makes it so", what)
		}
	}
}

// driftCases are the texts of report.go that say what is the matter: those of the
// field What, and those of the table in the method drift.
func driftCases(t *testing.T) (cases []string) {
	file, err := parser.ParseFile(token.NewFileSet(), "report.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	take := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			text, err := strconv.Unquote(l.Value)
			if err != nil {
				t.Fatal(err)
			}
			cases = append(cases, text)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && key.Name == "What" {
				take(n.Value)
			}
		case *ast.CompositeLit: // {t.foreign, "not of nlb"}
			if len(n.Elts) == 2 {
				take(n.Elts[1])
			}
		}
		return true
	})
	if len(cases) < 6 {
		t.Fatalf("only %q were found", cases)
	}
	return cases
}
