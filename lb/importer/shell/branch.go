package shell

// Branches: what may run, and what runs several times.

import (
	"maps"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"nlb/lb/importer"
)

// condition is what is said of commands that an if or case decides on.
const condition = "this command runs under a condition, which is taken as true"

// under runs f where it is not sure that a script does. What it sets is not
// known after it.
func (r *reader) under(why string, f func()) {
	vars, may, ended := r.vars, r.may, r.ended
	r.vars = maps.Clone(vars)
	if r.may == "" {
		r.may = why
	}
	f()
	for name, v := range r.vars {
		if old, ok := vars[name]; !ok || !old.equal(v) {
			vars[name] = value{}
		}
	}
	r.vars, r.may, r.ended = vars, may, ended
}

// clause is if, elif and else.
func (r *reader) clause(c *syntax.IfClause) {
	o := r.stmts(c.Cond) // an else has no condition, so it succeeds
	then := func() { r.stmts(c.Then) }
	otherwise := func() {
		if c.Else != nil {
			r.clause(c.Else)
		}
	}
	switch o {
	case Succeeds:
		then()
		r.under(condition, otherwise)
	case Fails:
		otherwise()
		r.under(condition, then)
	default:
		r.under(condition, then)
		r.under(condition, otherwise)
	}
}

// binary is && and ||, and pipes.
func (r *reader) binary(c *syntax.BinaryCmd) Outcome {
	if c.Op == syntax.Pipe || c.Op == syntax.PipeAll {
		in := r.output(c.X)
		if in == nil {
			r.stmt(c.X)
		}
		if call, ok := c.Y.Cmd.(*syntax.CallExpr); ok {
			return r.fed(call, c.Y, in)
		}
		return r.stmt(c.Y)
	}
	first := r.stmt(c.X)
	switch {
	case r.ended:
	case (first == Succeeds || first == likely) && c.Op == syntax.AndStmt, first == Fails && c.Op == syntax.OrStmt:
		return r.stmt(c.Y)
	default:
		r.under(condition, func() { r.stmt(c.Y) })
	}
	return first
}

// loop is for: over words that are known it is unrolled.
func (r *reader) loop(c *syntax.ForClause) {
	words, ok := c.Loop.(*syntax.WordIter)
	if !ok {
		if count, ok := c.Loop.(*syntax.CStyleLoop); !ok || !r.counted(count, c.Do) {
			r.under("this command is in a loop, which is taken to run once", func() { r.stmts(c.Do) })
		}
		return
	}
	name := words.Name.Value
	items := r.fields(braced(words.Items))
	if !words.InPos.IsValid() {
		items = r.args
	}
	if i := slices.IndexFunc(items, func(w Word) bool { return w.Unknown != "" }); i >= 0 || !words.InPos.IsValid() && r.args == nil {
		what := "$@"
		if i >= 0 {
			what = items[i].Unknown
		}
		r.vars[name] = value{}
		r.under("this command is in a loop over "+what+", which is not known here; it is taken to run once", func() { r.stmts(c.Do) })
		return
	}
	r.budget -= len(items)
	for _, w := range items {
		if r.ended || r.over {
			return
		}
		r.vars[name] = value{known: true, text: w.Text}
		r.stmts(c.Do)
	}
}

// counted unrolls for ((i = 1; i <= 4; i++)). It is false where the loop, or its
// next turn, is up to what is not known here.
func (r *reader) counted(c *syntax.CStyleLoop, do []*syntax.Stmt) bool {
	r.number(c.Init)
	for {
		more, ok := r.number(c.Cond)
		if !ok || more == 0 || r.ended || r.over {
			return ok
		}
		r.budget--
		r.stmts(do)
		if _, ok := r.number(c.Post); !ok {
			return false
		}
	}
}

// enter runs a function.
func (r *reader) enter(name string, f *function, args []Word, place importer.Place) Outcome {
	f.called = true
	if r.may != "" {
		key := name + "\x00" + texts(args)
		if r.ran[key] {
			return Unsure
		}
		r.ran[key] = true
	}
	may, old, oldPlace := r.may, r.args, r.place
	if may == condition {
		r.may = "function " + name + " runs under a condition, which is taken as true"
	}
	r.args, r.place = args, place
	if r.args == nil {
		r.args = []Word{}
	}
	var o Outcome
	r.in(f.frag, func() { o = r.stmt(f.body) })
	r.args, r.place, r.may, r.ended = old, oldPlace, may, false
	return o
}

func texts(words []Word) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(w.Text + " ")
	}
	return b.String()
}

// rest reads functions that nothing calls, and files that nothing loads.
func (r *reader) rest() {
	for _, name := range slices.Sorted(maps.Keys(r.funcs)) {
		f := r.funcs[name]
		if f.called {
			continue
		}
		r.ended, r.args = false, nil
		r.in(f.frag, func() {
			r.under("function "+name+" is not called in this text; it is taken to run", func() { f.called = true; r.stmt(f.body) })
		})
	}
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		in := r.files[name]
		if in == nil || !slices.ContainsFunc(in.Lines, func(s string) bool { return strings.HasPrefix(strings.TrimSpace(s), "*") }) {
			continue
		}
		at := importer.Place{Line: in.First + 1, Column: 1}
		r.run(&Command{
			Words: []Word{{Text: "iptables-restore", Place: at, Bare: true}}, Place: at, Input: in,
			May: "this is written to " + name + ", which nothing here loads; it is taken to be loaded",
		}, in.First, in.First+len(in.Lines))
	}
}
