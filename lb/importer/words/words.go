// Package words reads configurations that are made of words: directives with
// arguments, one a line or up to a semicolon, with blocks in braces. It keeps the
// place of each word.
package words

// Directives.

import (
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"nlb/lb/importer"
)

// Word is a word, without its quotes.
type Word struct {
	Text  string
	Place importer.Place
}

// Directive is a name with its arguments, and what its block has.
type Directive struct {
	Words []Word // at least one, the name
	// Block is nil where there are no braces.
	Block []*Directive
}

// Name is the first word.
func (d *Directive) Name() string { return d.Words[0].Text }

// Args are the words behind the name.
func (d *Directive) Args() []Word { return d.Words[1:] }

// Arg is the text of an argument, counted from 1; empty where there are fewer, or d is nil.
func (d *Directive) Arg(i int) string {
	if d != nil && i < len(d.Words) {
		return d.Words[i].Text
	}
	return ""
}

// Text is the directive in one line.
func (d *Directive) Text() string {
	return importer.Shorten(strings.Join(Texts(d.Words), " "))
}

// Texts are words without their places.
func Texts(ws []Word) []string {
	out := make([]string, len(ws))
	for i, w := range ws {
		out[i] = w.Text
	}
	return out
}

// Place is that of the name, without a width: the directive goes on behind it.
func (d *Directive) Place() importer.Place {
	at := d.Words[0].Place
	at.Width = 0
	return at
}

// All are the directives that have one of the names.
func All(all []*Directive, names ...string) iter.Seq[*Directive] {
	return func(yield func(*Directive) bool) {
		for _, d := range all {
			if slices.Contains(names, d.Name()) && !yield(d) {
				return
			}
		}
	}
}

// Last is the last directive that has one of the names; nil where there is none.
func Last(all []*Directive, names ...string) *Directive {
	for _, d := range slices.Backward(all) {
		if slices.Contains(names, d.Name()) {
			return d
		}
	}
	return nil
}

// Syntax is how a program writes its directives.
type Syntax struct {
	// Comments are the characters that begin a comment, Anywhere or where a word
	// could begin.
	Comments string
	Anywhere bool
	// From and To are the lines that are read, from 0; To is behind them.
	From, To int
	// Semicolons end directives; otherwise lines do.
	Semicolons bool
	// Braces make blocks.
	Braces bool
	// Single quotes are quotes, as double ones always are.
	Single bool
	// Escapes: a backslash takes the meaning of the character behind it, also
	// outside of double quotes.
	Escapes bool
}

// maxDepth bounds how deep blocks nest.
const maxDepth = 30

// Parse reads lines of the text of m. The error is lb.Errors.
func Parse(m *importer.Mistakes, s Syntax) ([]*Directive, error) {
	p := &parser{Syntax: s, Mistakes: m, blocks: []*Directive{{}}}
	for p.line = s.From; p.line < s.To; p.line++ {
		p.rest, p.column = p.Lines[p.line], 1
		p.words()
		if !s.Semicolons {
			p.end()
		}
	}
	if len(p.open) > 0 {
		p.Fail(p.open[0].Place, "this directive does not end", "; at its end")
	}
	if top := p.blocks[len(p.blocks)-1]; len(p.blocks) > 1 {
		p.Fail(top.Words[0].Place, "the block of "+top.Name()+" does not end", "}")
	}
	return p.blocks[0].Block, p.Err()
}

// parser reads word by word.
type parser struct {
	Syntax
	*importer.Mistakes
	line   int // from 0
	rest   string
	column int
	open   []Word       // of the directive that is being read
	last   *Directive   // the one before, which may get a block
	blocks []*Directive // those that are open; the first stands for the text
}

func (p *parser) here(width int) importer.Place {
	return importer.Place{Line: p.line + 1, Column: p.column, Width: width}
}

// skip passes over n bytes.
func (p *parser) skip(n int) {
	p.column += utf8.RuneCountInString(p.rest[:n])
	p.rest = p.rest[n:]
}

// words reads the rest of a line.
func (p *parser) words() {
	for {
		p.skip(len(p.rest) - len(strings.TrimLeft(p.rest, " \t")))
		switch {
		case p.rest == "" || strings.IndexByte(p.Comments, p.rest[0]) >= 0:
			return
		case p.Semicolons && p.rest[0] == ';':
			p.end()
			p.skip(1)
		case p.Braces && p.rest[0] == '{':
			p.begin()
			p.skip(1)
		case p.Braces && p.rest[0] == '}':
			p.close()
			p.skip(1)
		default:
			p.word()
		}
	}
}

// end ends a directive.
func (p *parser) end() *Directive {
	if len(p.open) == 0 {
		return nil
	}
	d := &Directive{Words: p.open}
	p.open, p.last = nil, d
	top := p.blocks[len(p.blocks)-1]
	top.Block = append(top.Block, d)
	return d
}

// begin opens the block of a directive, which may stand on a line before.
func (p *parser) begin() {
	d := p.end()
	if d == nil {
		d = p.last
	}
	switch {
	case d == nil || d.Block != nil:
		p.Fail(p.here(1), "{ without a name before it", "a directive")
		d = &Directive{Words: []Word{{Text: "{", Place: p.here(1)}}}
	case len(p.blocks) > maxDepth:
		p.Fail(p.here(1), fmt.Sprintf("nested more than %d deep", maxDepth), "")
		return
	}
	d.Block = []*Directive{}
	p.last = nil
	p.blocks = append(p.blocks, d)
}

// close ends a block.
func (p *parser) close() {
	p.end()
	if p.last = nil; len(p.blocks) == 1 {
		p.Fail(p.here(1), "} without {", "")
		return
	}
	p.blocks = p.blocks[:len(p.blocks)-1]
}

// word reads a word, of parts with and without quotes.
func (p *parser) word() {
	w := Word{Place: p.here(0)}
	var b strings.Builder
	for p.rest != "" {
		c := p.rest[0]
		switch {
		case c == '"' || c == '\'' && p.Single:
			p.quoted(&b, c)
			continue
		case c == '\\' && p.Escapes && len(p.rest) > 1:
			p.escape(&b)
			continue
		case strings.HasPrefix(p.rest, "${"):
			if end := strings.IndexByte(p.rest, '}'); end > 0 {
				b.WriteString(p.rest[:end+1])
				p.skip(end + 1)
				continue
			}
		case c == ' ' || c == '\t' || p.Semicolons && c == ';' || p.Braces && (c == '{' || c == '}'),
			p.Anywhere && strings.IndexByte(p.Comments, c) >= 0:
			p.add(w, b.String())
			return
		}
		_, size := utf8.DecodeRuneInString(p.rest)
		b.WriteString(p.rest[:size])
		p.skip(size)
	}
	p.add(w, b.String())
}

func (p *parser) add(w Word, text string) {
	w.Text, w.Place.Width = text, p.column-w.Place.Column
	if w.Place.Line != p.line+1 { // it went over lines
		w.Place.Width = 1
	}
	p.open = append(p.open, w)
}

// quoted reads up to the closing quote. Where semicolons end directives, it may
// be on a later line.
func (p *parser) quoted(b *strings.Builder, quote byte) {
	at := p.here(1)
	p.skip(1)
	for {
		switch {
		case p.rest == "" && p.Semicolons && p.line+1 < p.To:
			p.line++
			p.rest, p.column = p.Lines[p.line], 1
			b.WriteByte('\n')
		case p.rest == "":
			p.Fail(at, "this quote does not end", string(quote))
			return
		case p.rest[0] == quote:
			p.skip(1)
			return
		case p.rest[0] == '\\' && quote == '"' && len(p.rest) > 1, p.rest[0] == '\\' && p.Semicolons && len(p.rest) > 1 && p.rest[1] == quote:
			p.escape(b)
		default:
			_, size := utf8.DecodeRuneInString(p.rest)
			b.WriteString(p.rest[:size])
			p.skip(size)
		}
	}
}

// escape reads a backslash and what it stands for.
func (p *parser) escape(b *strings.Builder) {
	_, size := utf8.DecodeRuneInString(p.rest[1:])
	c := p.rest[1 : 1+size]
	switch c {
	case "n":
		c = "\n"
	case "r":
		c = "\r"
	case "t":
		c = "\t"
	case "x":
		if one, err := hex.DecodeString(p.rest[2:min(len(p.rest), 4)]); err == nil && len(one) == 1 {
			b.Write(one)
			p.skip(4)
			return
		}
		c = `\x`
	case "\"", "'", "\\", " ", "#":
	default:
		c = p.rest[:1+size] // of a regular expression: both stay
	}
	b.WriteString(c)
	p.skip(1 + size)
}
