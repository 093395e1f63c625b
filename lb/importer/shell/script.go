// Package shell reads scripts, and other texts that hold commands, and says
// which commands run. It runs nothing: the syntax is mvdan.cc/sh's, and what a
// shell would have to ask a machine for stays unknown.
package shell

// Scripts: statement by statement, as a shell runs them.

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"nlb/lb/importer"
)

// Word is one argument of a command.
type Word struct {
	Text  string
	Place importer.Place
	// Bare: nothing of it stood in quotes.
	Bare bool
	// Unknown is the part of it whose value only a machine would know, such as
	// $VIP; empty where all is known.
	Unknown string
}

// Command is a command that runs.
type Command struct {
	Words []Word // the first is the program
	Place importer.Place
	// May says why it is not sure that the command runs, as a warning; empty:
	// it does.
	May string
	// Where is the host, container or namespace that it runs in; empty: here.
	Where string
	// Input is what it reads; nil: not known, or nothing.
	Input *Input
}

// Input is text that a command reads.
type Input struct {
	Lines []string
	First int // the line of the text, from 0, that the first is on
	// Dollar: a '$' in it is a variable whose value is not known.
	Dollar bool
}

// Outcome is what a command answers a shell.
type Outcome uint8

// The outcomes.
const (
	Succeeds Outcome = iota
	Fails
	Unsure
	// likely is that of other commands: a && takes it that they succeed, an if
	// does not.
	likely
)

// Handler takes what is read. Both functions report whether it is theirs.
type Handler interface {
	// Command takes a command that runs, in the order in which they do.
	Command(c *Command) (o Outcome, ours bool)
	// Line takes a line (from 0) that is no command.
	Line(line int) bool
}

// function is a function of the script.
type function struct {
	body   *syntax.Stmt
	frag   *fragment
	called bool
}

// reader reads one text.
type reader struct {
	lines []string
	draft *importer.Draft
	h     Handler
	vars  map[string]value
	funcs map[string]*function
	args  []Word // $1 and so on; nil: not known
	frag  *fragment
	may   string
	where string
	// place is where the function was called that runs; used: the command has
	// arguments from there.
	place importer.Place
	used  bool
	files map[string]*Input
	// ran are functions that may run and have been read.
	ran map[string]bool
	// read are the lines that commands stand on which the handler took, other
	// those that it did not.
	read, other map[int]bool
	budget      int
	depth       int
	ended       bool // the script, or the function
	over        bool // the budget
}

// Bounds of what is followed: statements that run, and how deep they nest.
const (
	maxSteps = 500_000
	maxDepth = 1000
)

// Read reads a text. file is its name. It reports whether the draft has a warning of
// lines that were not read, and look as if they send connections somewhere.
func Read(file string, lines []string, draft *importer.Draft, h Handler) bool {
	r := &reader{
		lines: lines, draft: draft, h: h, vars: map[string]value{}, funcs: map[string]*function{}, files: map[string]*Input{},
		ran: map[string]bool{}, read: map[int]bool{}, other: map[int]bool{}, budget: maxSteps,
	}
	for _, f := range r.split(file) {
		r.ended = false
		r.fragment(f)
	}
	r.rest()
	return r.unread()
}

// fragment reads a part of the text that is a script of its own. One that is
// not is read line by line.
func (r *reader) fragment(f *fragment) {
	if f.raw {
		if !r.h.Line(f.first) {
			r.other[f.first] = true
		}
		return
	}
	file, err := parse(f.text)
	if err == nil {
		r.in(f, func() { r.stmts(file.Stmts) })
		return
	}
	if f.line || f.lines == 1 {
		for i := range f.lines {
			r.other[f.first+i] = true
		}
		return
	}
	r.draft.Note("this is not a shell script as a whole, so it is read line by line: "+reason(err), "", importer.Place{Line: f.first + 1, Column: 1})
	may := r.may
	if structured.MatchString(f.text) {
		r.may = "this text is not understood as a whole, so it is not known whether this command runs; it is taken to"
	}
	for _, line := range r.byLine(f) {
		r.fragment(line)
	}
	r.may = may
}

// structured finds what decides whether commands run.
var structured = regexp.MustCompile(`(?m)^\s*(if|for|while|until|case|function)\s|^\s*[\w-]+\s*\(\)|^\s*[{}]\s*$`)

// in runs f within a fragment.
func (r *reader) in(f *fragment, run func()) {
	old := r.frag
	r.frag = f
	run()
	r.frag = old
}

var errDeep = errors.New("it is nested too deeply")

// source feeds the parser, and ends it before it has nested too deeply: its
// calls to Read are made as deep in the stack as it is in the text.
type source struct{ *strings.Reader }

func (s source) Read(b []byte) (int, error) {
	var pc [1]uintptr
	if runtime.Callers(8*maxDepth, pc[:]) > 0 {
		return 0, errDeep
	}
	return s.Reader.Read(b[:min(len(b), 1024)])
}

// parse reads the syntax of a script. What the parser does not survive is an
// error of the text.
func parse(text string) (file *syntax.File, err error) {
	defer func() {
		if e := recover(); e != nil {
			file, err = nil, fmt.Errorf("the parser gave up: %v", e)
		}
	}()
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(source{strings.NewReader(text)}, "")
}

func reason(err error) string {
	if pe, ok := errors.AsType[syntax.ParseError](err); ok {
		return importer.Shorten(pe.Text)
	}
	return importer.Shorten(err.Error())
}

func (r *reader) stmts(list []*syntax.Stmt) Outcome {
	o := Succeeds
	for _, s := range list {
		if r.ended || r.over {
			break
		}
		o = r.stmt(s)
	}
	return o
}

// stmt runs a statement.
func (r *reader) stmt(s *syntax.Stmt) Outcome {
	r.budget--
	if r.depth == maxDepth || r.budget < 0 {
		r.over = true
		r.draft.Lost("this script does too much to follow it; what comes after this is not read",
			"iptables-save and ipvsadm -S -n print what scripts have made", r.placeOf(s))
	}
	if r.over {
		return Unsure
	}
	r.depth++
	defer func() { r.depth-- }()
	o := Succeeds
	switch c := s.Cmd.(type) {
	case *syntax.CallExpr:
		o = r.call(c, s)
	case *syntax.BinaryCmd:
		o = r.binary(c)
	case *syntax.Block:
		o = r.stmts(c.Stmts)
	case *syntax.Subshell:
		vars := maps.Clone(r.vars)
		o = r.stmts(c.Stmts)
		r.vars, r.ended = vars, false
	case *syntax.IfClause:
		r.clause(c)
	case *syntax.WhileClause:
		r.stmts(c.Cond)
		r.under("this command is in a loop, which is taken to run once", func() { r.stmts(c.Do) })
	case *syntax.ForClause:
		r.loop(c)
	case *syntax.CaseClause:
		for _, item := range c.Items {
			r.under(condition, func() { r.stmts(item.Stmts) })
		}
	case *syntax.FuncDecl:
		if c.Name != nil {
			r.funcs[c.Name.Value] = &function{body: c.Body, frag: r.frag}
		}
	case *syntax.DeclClause:
		for _, a := range c.Args {
			r.assign(a)
		}
	case *syntax.TimeClause:
		if c.Stmt != nil {
			o = r.stmt(c.Stmt)
		}
	case *syntax.CoprocClause:
		o = r.stmt(c.Stmt)
	case *syntax.TestClause, *syntax.ArithmCmd:
		o = Unsure
	}
	switch {
	case !s.Negated:
		return o
	case o <= Fails:
		return Fails - o
	}
	return Unsure
}

// run gives a command to the handler.
func (r *reader) run(c *Command, first, last int) Outcome {
	o, ours := r.h.Command(c)
	for line := first; line < last; line++ {
		if ours {
			r.read[line] = true
			delete(r.other, line)
		} else if !r.read[line] {
			r.other[line] = true
		}
	}
	if !ours {
		return likely
	}
	return o
}

// balancing finds what a line has that sends connections somewhere.
var balancing = regexp.MustCompile(`ip6?tables.*\s(-A|-I|--append|--insert)\s.*\b(DNAT|REDIRECT)\b`)

// unread says which lines were not read, and reports whether one looks as if it
// balances.
func (r *reader) unread() bool {
	var lost, other []importer.Place
	for i, line := range r.lines {
		text := strings.TrimSpace(line)
		switch {
		case r.read[i] || text == "" || text[0] == '#' && !r.other[i]:
		case len(line) < 1<<16 && balancing.MatchString(line):
			lost = append(lost, importer.PlaceOf(r.lines, i))
		case r.other[i]:
			other = append(other, importer.PlaceOf(r.lines, i))
		}
	}
	if len(lost) > 0 {
		r.draft.Lost("this line is not read, and looks as if it sends connections to a backend", "write it as a command of its own", lost...)
	}
	if len(other) > 0 {
		r.draft.Note("not for this import, so not read", "", other...)
	}
	return len(lost) > 0
}
