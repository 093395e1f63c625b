package main

// Where a command writes: results to stdout, all else to stderr.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"

	"golang.org/x/term"

	"nlb/lb"
	"nlb/lb/config"
)

// width is how many columns the tables use where there is no terminal to ask.
const width = 100

// console is what a command reads from and writes to.
type console struct {
	in  io.Reader
	out *sink
	err *sink
	// json asks for a value on stdout in place of text.
	json bool
	// quiet leaves out the lines of success, and remarks.
	quiet bool
	// width is the number of columns of stdout.
	width int
}

// sink is a stream that remembers its first error.
type sink struct {
	w        io.Writer
	terminal bool
	color    bool
	err      error
}

func newSink(w io.Writer) *sink {
	t := isTerminal(w)
	return &sink{w: w, terminal: t, color: t}
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.err = cmp.Or(s.err, err)
	return n, err
}

// newConsole is one for these streams, which are files or stand-ins for them.
func newConsole(in io.Reader, out, err io.Writer) *console {
	c := &console{in: in, out: newSink(out), err: newSink(err), width: width}
	// https://no-color.org
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		c.plain()
	}
	if f, ok := out.(*os.File); ok && c.out.terminal {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			c.width = w
		}
	}
	return c
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// plain turns colors off.
func (c *console) plain() { c.out.color, c.err.color = false, false }

// result prints a line of success, or the value where JSON is asked for.
func (c *console) result(value any, format string, args ...any) error {
	switch {
	case c.json:
		return c.value(value)
	case !c.quiet:
		fmt.Fprintf(c.out, format+"\n", args...)
	}
	return nil
}

// value prints a value as JSON.
func (c *console) value(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil && c.out.err == nil {
		return err
	}
	return nil // the stream's own error is found at the end
}

// remark prints what is good to know.
func (c *console) remark(format string, args ...any) {
	if !c.quiet {
		c.complain(format, args...)
	}
}

// complain prints what went wrong.
func (c *console) complain(format string, args ...any) {
	fmt.Fprintf(c.err, program+": "+format+"\n", args...)
}

// style is a color, or a weight (ECMA-48, 8.3.117).
type style string

const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

func (s *sink) paint(st style, text string) string {
	if !s.color || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

func (c *console) onOut(st style, text string) string { return c.out.paint(st, text) }
func (c *console) onErr(st style, text string) string { return c.err.paint(st, text) }

// snippets prints mistakes, each with its line and the caret under it.
func (c *console) snippets(errs lb.Errors) {
	for _, e := range errs {
		text := config.FormatError(e)
		if c.err.color {
			text = colored(text)
		}
		fmt.Fprintln(c.err, text)
	}
}

var (
	snippetTitle = regexp.MustCompile(`^(.*?:\d+:\d+:) error: `)
	snippetCaret = regexp.MustCompile(`(?m)^( +\| *)(\^.*)$`)
	snippetHint  = regexp.MustCompile(`(?m)^( *)hint: `)
)

// colored puts colors into what lb.Error.Format wrote.
func colored(text string) string {
	text = snippetTitle.ReplaceAllString(text, "\x1b[1m$1\x1b[0m \x1b[31merror:\x1b[0m ")
	text = snippetCaret.ReplaceAllString(text, "$1\x1b[31m$2\x1b[0m")
	return snippetHint.ReplaceAllString(text, "$1\x1b[36mhint:\x1b[0m ")
}

// count is a number and a noun: 1 service, 2 services.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
