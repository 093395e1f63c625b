package text

// Roff: a man page as groff reads it (groff_man(7)).

import (
	"fmt"
	"strings"
)

// Page is a man page as it is written. The zero Page is empty.
type Page struct{ strings.Builder }

// Item is a word and what it is.
func (p *Page) Item(word, what string) {
	p.Macro("TP")
	p.WriteString("\\fB" + roff(word) + "\\fR\n")
	p.Text(what)
}

// Paragraphs writes paragraphs, which blank lines part.
func (p *Page) Paragraphs(text string) {
	for i, s := range strings.Split(text, "\n\n") {
		if i > 0 {
			p.Macro("PP")
		}
		p.Text(s)
	}
}

// Lines keeps the line breaks of a text, but for those behind full lines.
func (p *Page) Lines(text string) {
	const full = 80
	last := full
	for s := range strings.SplitSeq(text, "\n") {
		if last < full {
			p.Macro("br")
		}
		last = len(s)
		p.Text(s)
	}
}

// Verbatim writes an example.
func (p *Page) Verbatim(text string) {
	p.WriteString(".PP\n.RS 4\n.nf\n")
	for line := range strings.Lines(text) {
		p.Text(strings.TrimSuffix(line, "\n"))
	}
	p.WriteString(".fi\n.RE\n")
}

// Text writes one line.
func (p *Page) Text(s string) {
	if s = roff(s); strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = "\\&" + s
	}
	p.WriteString(s + "\n")
}

// Macro writes a request with arguments.
func (p *Page) Macro(name string, args ...string) {
	p.WriteString("." + name)
	for _, a := range args {
		fmt.Fprintf(p, " \"%s\"", strings.ReplaceAll(roff(a), `"`, `\(dq`))
	}
	p.WriteString("\n")
}

// roff writes text so that groff prints what stands there.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
}
