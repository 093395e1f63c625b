//go:build linux

package lab

// The report for people: at most 100 columns, where names are not longer than
// addresses.

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Style says how a report is written.
type Style struct {
	// Color marks what is well green, and problems red.
	Color bool
}

// Bounds of what is written.
const (
	mostRows     = 16
	mostProblems = 8
)

// Write writes the report for people to read.
func (r *Report) Write(w io.Writer, style Style) error {
	p := &printer{style: style}
	for _, profile := range r.Profiles {
		for i := range profile.Services {
			p.service(profile.Name, &profile.Services[i])
		}
	}
	p.list("note", "36", r.Notes)
	p.list("problem", "31", r.Problems)
	p.verdict(r)
	_, err := w.Write(p.Bytes())
	return err
}

type printer struct {
	bytes.Buffer
	style Style
}

func (p *printer) color(code, s string) string {
	if !p.style.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// mark begins a line that says that something is well, or not.
func (p *printer) mark(problems []string) string {
	if len(problems) == 0 {
		return p.color("32", "ok")
	}
	return p.color("31", "!!")
}

func (p *printer) service(profile string, s *Service) {
	listen := s.Listen
	if len(listen) > 3 {
		listen = append(slices.Clone(listen[:2]), fmt.Sprintf("and %d more", len(listen)-2))
	}
	words := []string{strings.Join(listen, " "), strings.Join(s.Protocol, ","), s.Scheduler, "snat " + s.SNAT}
	if s.Role != "proxy" {
		words = append(words, "role "+s.Role)
	}
	fmt.Fprintf(p, "%s  %s\n", p.color("1", profile+"/"+s.Name), strings.Join(words, "  "))
	for i := range s.Trials {
		p.trial(&s.Trials[i], i > 0)
	}
	for _, l := range s.Limits {
		mark := p.mark(l.Problems)
		if l.Skipped {
			mark = "--"
		}
		p.said(mark, l.What+": "+l.Found)
		p.problems(l.Problems)
	}
	if s.Outage != nil {
		p.outage(s.Outage)
	}
	fmt.Fprintln(p)
}

// trial is one line, and a table unless it is of the kind that adds little to
// what is written already.
func (p *printer) trial(t *Trial, more bool) {
	words := []string{times(t.Connections, "connection", "connections")}
	if t.Clients > 1 {
		words[0] += fmt.Sprintf(" of %d clients", t.Clients)
	}
	switch t.Due {
	case dueRefused:
		words = append(words, fmt.Sprintf("%d refused, since no backend can take them", t.Failures[dueFailure[dueRefused]]))
	case dueSilence:
		words = append(words, fmt.Sprintf("%d unanswered, since no backend can take them", t.Failures[dueFailure[dueSilence]]))
	}
	if t.Kept != nil && t.Kept.Of < t.Answered {
		words = append(words, fmt.Sprintf("%d of %d stayed with one backend", t.Kept.Kept, t.Kept.Of))
	}
	if t.Denied != nil {
		words = append(words, fmt.Sprintf("%d of %d that are denied refused", t.Denied.Refused, t.Denied.Of))
	}
	brief := more && t.From == "host" && len(t.Problems) == 0 && len(t.Backends) > 0
	if brief {
		words = append(words, "as due")
	}
	p.said(p.mark(t.Problems), t.title()+": "+strings.Join(words, ", "))
	if !brief {
		p.backends(t.Backends)
	}
	p.problems(t.Problems)
}

func (p *printer) backends(all []Backend) {
	if len(all) == 0 {
		return
	}
	rows := [][]string{{"backend", "weight", "got", "due", "saw"}}
	for _, b := range all[:min(len(all), mostRows)] {
		rows = append(rows, []string{b.Name, strconv.Itoa(b.Weight), strconv.Itoa(b.Connections), b.due(), b.saw()})
	}
	width := make([]int, 5)
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], len(cell))
		}
	}
	for i, r := range rows {
		line := fmt.Sprintf("%-*s  %*s  %*s  %-*s  %s", width[0], r[0], width[1], r[1], width[2], r[2], width[3], r[3], r[4])
		if i == 0 {
			line = p.color("2", line)
		}
		fmt.Fprintf(p, "      %s\n", line)
	}
	if more := len(all) - mostRows; more > 0 {
		fmt.Fprintf(p, "      and %d more\n", more)
	}
}

// due is the share, and its bounds where they leave a choice.
func (b *Backend) due() string {
	s := strconv.FormatFloat(math.Round(b.Due*10)/10, 'f', -1, 64)
	if b.Least != b.Most {
		s += fmt.Sprintf(" (%d-%d)", b.Least, b.Most)
	}
	return s
}

func (b *Backend) saw() string {
	switch n := len(b.Sources); {
	case n == 0:
		return "-"
	case n <= 2:
		return strings.Join(b.Sources, " ")
	case strings.HasPrefix(b.SourcesDue, "the client"):
		return fmt.Sprintf("the %d clients", n)
	default:
		return fmt.Sprintf("%d addresses", n)
	}
}

func (p *printer) outage(o *Outage) {
	var words []string
	if o.Live > 0 {
		words = append(words, fmt.Sprintf("%d of its %s ended", o.Ended, times(o.Live, "live connection", "live connections")))
	}
	words = append(words, fmt.Sprintf("%d of %d new ones failed%s", sum(o.Failures), o.Connections, ways(o.Failures)))
	p.said(p.mark(o.Problems), fmt.Sprintf("%s ends: %s; once it is out of the profile, %d of %d fail%s",
		o.Backend, strings.Join(words, ", "), sum(o.AfterFailures), o.AfterConnections, ways(o.AfterFailures)))
	p.problems(o.Problems)
}

func ways(failures map[string]int) string {
	if len(failures) == 0 {
		return ""
	}
	return " (" + strings.Join(slices.Sorted(maps.Keys(failures)), ", ") + ")"
}

func (p *printer) problems(list []string) {
	for _, s := range list[:min(len(list), mostProblems)] {
		p.wrapped("      ", 6, "31", s)
	}
	if more := len(list) - mostProblems; more > 0 {
		fmt.Fprintf(p, "      and %d more\n", more)
	}
}

func (p *printer) list(word, color string, lines []string) {
	for _, s := range lines {
		p.wrapped("  "+p.color(color, word+":")+" ", len(word)+4, "", s)
	}
	if len(lines) > 0 {
		fmt.Fprintln(p)
	}
}

// wrapped writes words after a prefix of this many columns, in lines of at most
// 100. The code colors the words; "" leaves them.
func (p *printer) wrapped(prefix string, columns int, code, s string) {
	const most = 100
	line := ""
	flush := func() {
		if code != "" {
			line = p.color(code, line)
		}
		fmt.Fprintf(p, "%s%s\n", prefix, line)
		prefix, line = strings.Repeat(" ", columns), ""
	}
	for _, word := range strings.Fields(s) {
		switch {
		case line == "":
			line = word
		case columns+len(line)+1+len(word) > most:
			flush()
			line = word
		default:
			line += " " + word
		}
	}
	flush()
}

// said writes a line with a mark in front.
func (p *printer) said(mark, s string) { p.wrapped("  "+mark+"  ", 6, "", s) }

func (p *printer) verdict(r *Report) {
	services := 0
	for _, profile := range r.Profiles {
		services += len(profile.Services)
	}
	what := fmt.Sprintf("%s, %s in %.1f s", times(services, "service", "services"), times(r.Connections, "connection", "connections"), r.Seconds)
	if n := len(r.AllProblems()); n > 0 {
		fmt.Fprintf(p, "%s: %s\n", p.color("31", times(n, "problem", "problems")), what)
		return
	}
	fmt.Fprintf(p, "%s: %s\n", p.color("32", "all as due"), what)
}
