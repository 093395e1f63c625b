// Package view is how results look: the values that commands print as JSON, and
// the text for people that is made of them.
package view

// The console: results go to stdout, all else to stderr.

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// defaultWidth is how many columns a text has where there is no terminal to ask.
const defaultWidth = 100

// Console is what a command reads from and writes to.
type Console struct {
	In       io.Reader
	Out, Err *Stream
	// JSON asks for a value on stdout in place of text.
	JSON bool
	// Quiet leaves out the lines of success, and notes.
	Quiet bool
	// Width is the number of columns of stdout.
	Width int

	program string
}

// Stream is an output that remembers its first error.
type Stream struct {
	text.Painter
	// W is where it goes.
	W io.Writer
	// Terminal says that it is a terminal.
	Terminal bool
	// Failed is the first error of a write.
	Failed error
}

func newStream(w io.Writer) *Stream {
	f, ok := w.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	return &Stream{W: w, Terminal: terminal, Painter: text.Painter{Color: terminal}}
}

// Write writes, and remembers an error.
func (s *Stream) Write(b []byte) (int, error) {
	n, err := s.W.Write(b)
	s.Failed = cmp.Or(s.Failed, err)
	return n, err
}

// NewConsole is one for these streams, which are files or stand-ins for them.
// The program's name begins each line of Notef and Errorf.
func NewConsole(program string, in io.Reader, out, err io.Writer) *Console {
	c := &Console{program: program, In: in, Out: newStream(out), Err: newStream(err), Width: defaultWidth}
	// https://no-color.org
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		c.Plain()
	}
	if f, ok := out.(*os.File); ok && c.Out.Terminal {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			c.Width = w
		}
	}
	return c
}

// Plain turns colors off.
func (c *Console) Plain() { c.Out.Color, c.Err.Color = false, false }

// Result prints a line of success, or the value where JSON is asked for.
func (c *Console) Result(value any, format string, args ...any) error {
	switch {
	case c.JSON:
		return c.Value(value)
	case !c.Quiet:
		fmt.Fprintf(c.Out, format+"\n", args...)
	}
	return nil
}

// Value prints a value as JSON. Where the stream fails, it remembers that
// itself.
func (c *Console) Value(v any) error {
	if a, ok := v.(lb.JSONAppender); ok {
		return c.appended(a)
	}
	e := json.NewEncoder(c.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil && c.Out.Failed == nil {
		return err
	}
	return nil
}

// appended is Value of what appends itself.
func (c *Console) appended(a lb.JSONAppender) error {
	text, err := a.AppendJSON(nil)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	out.Grow(2 * len(text))
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return err
	}
	_, _ = c.Out.Write(append(out.Bytes(), '\n')) // it remembers its error
	return nil
}

// PrintTable prints rows, the first of which has titles in this style.
func (c *Console) PrintTable(indent string, titles text.Style, columns []text.Column, rows [][]string) {
	for i, line := range text.Align(columns, rows) {
		if i == 0 {
			line = c.Out.Paint(titles, line)
		}
		fmt.Fprintln(c.Out, indent+line)
	}
}

// Notef prints what is good to know; nothing where the user wants it quiet.
func (c *Console) Notef(format string, args ...any) {
	if !c.Quiet {
		c.Errorf(format, args...)
	}
}

// Errorf prints what the user must know.
func (c *Console) Errorf(format string, args ...any) {
	fmt.Fprintf(c.Err, c.program+": "+format+"\n", args...)
}

// Progress says what comes next, in one line of the terminal that the next call
// replaces; "" clears it.
func (c *Console) Progress(what string) {
	if c.Quiet || !c.Err.Terminal {
		return
	}
	if what != "" {
		what = c.Err.Paint(text.Dim, what+" ...")
	}
	fmt.Fprintf(c.Err, "\r\x1b[K%s", what)
}
