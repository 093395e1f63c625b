package shell

// Texts that hold commands: scripts, sessions, and the files of programs that
// run commands.

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"

	"nlb/lb/importer"
)

// fragment is a part of a text that is a script of its own. What is no script
// in its lines is blank in text, so that places stay.
type fragment struct {
	first, lines int // lines of the text, from 0
	text         string
	raw          bool // a line that is for the handler as it is
	line         bool // a line, and those that it goes on in
	starts       []int
	at           *importer.Place // where all of it is; nil: as the text says
}

// slice is the source of a node.
func (f *fragment) slice(n syntax.Node) string {
	from, to := int(n.Pos().Offset()), int(n.End().Offset())
	if from < 0 || to > len(f.text) || from > to {
		return ""
	}
	return f.text[from:to]
}

// place is the line (from 0) and byte of an offset.
func (f *fragment) position(offset int) (line, at int) {
	if f.starts == nil {
		f.starts = []int{0}
		for i := range len(f.text) {
			if f.text[i] == '\n' {
				f.starts = append(f.starts, i+1)
			}
		}
	}
	i, found := slices.BinarySearch(f.starts, offset)
	if !found {
		i--
	}
	return i, offset - f.starts[max(i, 0)]
}

// placeOf is where a node stands, its first line only.
func (r *reader) placeOf(n syntax.Node) importer.Place {
	f := r.frag
	if f.at != nil {
		return *f.at
	}
	line, at := f.position(int(n.Pos().Offset()))
	last, end := f.position(int(n.End().Offset()))
	text := r.lines[f.first+line]
	if last != line || end > len(text) {
		end = len(text)
	}
	p := importer.Place{Line: f.first + line + 1, Column: min(at, len(text)) + 1, Width: max(1, end-at)}
	if len(text) < 1<<14 { // else bytes will do
		p.Column = utf8.RuneCountInString(text[:min(at, len(text))]) + 1
		p.Width = max(1, utf8.RuneCountInString(text[min(at, end):end]))
	}
	return p
}

// linesOf are the lines of a statement, from 0, without what it reads.
func (r *reader) linesOf(s *syntax.Stmt) (first, last int) {
	if r.frag.at != nil {
		return r.frag.first, r.frag.first + 1
	}
	a, _ := r.frag.position(int(s.Pos().Offset()))
	b, _ := r.frag.position(int(s.End().Offset()))
	for _, d := range s.Redirs {
		if d.Hdoc != nil {
			c, _ := r.frag.position(int(d.Hdoc.End().Offset()))
			b = max(b, c)
		}
	}
	return r.frag.first + a, min(r.frag.first+b+1, len(r.lines))
}

// The texts that are told apart, by a line that each has.
var (
	saved      = regexp.MustCompile(`^\s*(\*[a-z]+$|:\S+ |COMMIT$|(\[\d+:\d+\] )?-[A-Za-z-]+ |#|$)`)
	interfaces = regexp.MustCompile(`^\s*iface\s+(\S+)\s+(inet6?|can)\b`)
	unit       = regexp.MustCompile(`^\s*\[(Unit|Service)\]\s*$`)
	fence      = regexp.MustCompile("^\\s*(```|~~~)")
	prompt     = regexp.MustCompile(`^\s*(\[[^][\s]+@[^][]*\]\s?[#$]|\(?[\w.-]+@[\w.-]+:[^#$]{0,200}[#$]|[\w.-]*[$>](\s)|[\w.-]+#(\s))\s*`)
)

// The lines of these texts that are run, by what stands before the command.
var (
	interfaceLine = regexp.MustCompile(`^\s*(pre-up|up|post-up)\s+`)
	unitLine      = regexp.MustCompile(`^\s*(ExecStart|ExecStartPre|ExecStartPost|Environment)\s*=\s*[-@:+!|]*`)
	tunnelLine    = regexp.MustCompile(`^\s*(PreUp|PostUp)\s*=\s*`)
)

// split parts a text into scripts.
func (r *reader) split(file string) []*fragment {
	// has looks for a word first, which is found sooner.
	has := func(word string, re *regexp.Regexp) bool {
		return slices.ContainsFunc(r.lines, func(line string) bool { return strings.Contains(line, word) && re.MatchString(line) })
	}
	switch {
	case !slices.ContainsFunc(r.lines, func(s string) bool { return !saved.MatchString(s) }) && !hashes(r.lines):
		return r.each(func(line string) (string, bool) { return "", false })
	case has("iface", interfaces):
		return r.each(func(line string) (string, bool) {
			if m := interfaces.FindStringSubmatch(line); m != nil {
				return "IFACE=" + m[1], true
			}
			return behind(interfaceLine, line)
		})
	case has("Up", tunnelLine):
		r.vars["i"] = value{known: true, text: strings.TrimSuffix(path.Base(file), ".conf")}
		return r.each(func(line string) (string, bool) {
			return behind(tunnelLine, strings.ReplaceAll(line, "%i", "$i"))
		})
	case has("[", unit):
		return r.each(func(line string) (string, bool) { return behind(unitLine, line) })
	case Playbook(r.lines):
		return r.plays()
	case has("```", fence) || has("~~~", fence):
		return r.fences()
	case has("", prompt) || hashes(r.lines):
		return r.session(hashes(r.lines))
	}
	return []*fragment{{lines: len(r.lines), text: strings.Join(r.lines, "\n")}}
}

// behind is a line in which only what is behind a beginning is left.
func behind(re *regexp.Regexp, line string) (string, bool) {
	m := re.FindStringIndex(line)
	if m == nil {
		return "", false
	}
	return strings.Repeat(" ", m[1]) + line[m[1]:], true
}

// command finds what is a command of interest, listed also an item of a list.
var (
	command = regexp.MustCompile(`(^|[^\w.-])(ip6?tables(-nft|-legacy)?(-restore)?|ipvsadm)\s`)
	listed  = regexp.MustCompile(`(^|[^\w.-])(ip6?tables(-nft|-legacy)?(-restore)?|ipvsadm)["']?[\s,]`)
)

// each makes a fragment of each line that is run, with those that it goes on
// in, and offers the others to the handler.
func (r *reader) each(run func(line string) (text string, ok bool)) []*fragment {
	var out []*fragment
	for i := 0; i < len(r.lines); i++ {
		text, ok := run(r.lines[i])
		if !ok {
			if saved.MatchString(r.lines[i]) {
				out = append(out, &fragment{first: i, lines: 1, raw: true})
			}
			continue
		}
		first, parts := i, []string{text}
		for strings.HasSuffix(parts[len(parts)-1], `\`) && i+1 < len(r.lines) {
			i++
			parts = append(parts, r.lines[i])
		}
		out = append(out, &fragment{first: first, lines: len(parts), line: true, text: strings.Join(parts, "\n")})
	}
	return out
}

// language is the beginning of a block of code, which says what it is.
var language = regexp.MustCompile("^\\s*(```|~~~)\\s*\\w")

// undoes reports whether commands only take rules away again.
func undoes(lines []string) bool {
	found := false
	for _, line := range lines {
		if !command.MatchString(line) || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		if !removal.MatchString(line) {
			return false
		}
		found = true
	}
	return found
}

var removal = regexp.MustCompile(`\s(-D|--delete\S*)\s|ipvsadm\s+-d\s`)

// fences are the scripts of a text in Markdown.
func (r *reader) fences() []*fragment {
	var out []*fragment
	begin := -1
	for i := range len(r.lines) + 1 {
		switch end := i == len(r.lines); {
		case !end && !fence.MatchString(r.lines[i]):
		case begin >= 0 && undoes(r.lines[begin:i]):
			r.draft.Lost("this code only takes rules away, so it is not read: a text that explains says how to undo what it did", "", importer.PlaceOf(r.lines, begin))
			begin = -1
		case begin >= 0:
			part := &reader{lines: r.lines[begin:i], vars: r.vars, other: map[int]bool{}}
			for _, f := range part.split("") {
				f.first += begin
				out = append(out, f)
			}
			for line := range part.other {
				r.other[begin+line] = true
			}
			if begin = -1; !end && language.MatchString(r.lines[i]) {
				begin = i + 1 // the block before did not end
			}
		case !end:
			begin = i + 1
		}
	}
	return out
}

// session is what was typed, and printed, at a prompt.
func (r *reader) session(hash bool) []*fragment {
	out := r.each(func(line string) (string, bool) {
		if text, ok := behind(prompt, line); ok {
			return text, true
		}
		if trimmed := strings.TrimLeft(line, " \t"); hash && commented(trimmed) {
			return strings.Replace(line, "#", " ", 1), true
		}
		return line, command.MatchString(line) && !saved.MatchString(line)
	})
	next := 0
	for _, f := range append(out, &fragment{first: len(r.lines)}) {
		for ; next < f.first; next++ {
			r.other[next] = true
		}
		next = f.first + f.lines
	}
	return out
}

// byLine is a fragment line by line.
func (r *reader) byLine(f *fragment) []*fragment {
	part := &reader{lines: strings.Split(f.text, "\n")}
	out := part.each(func(line string) (string, bool) {
		return line, !saved.MatchString(line) && (command.MatchString(line) || assignment.MatchString(line))
	})
	for _, one := range out {
		one.first += f.first
	}
	return out
}

var assignment = regexp.MustCompile(`^\s*(export\s+)?[A-Za-z_]\w*=`)

// commented reports whether a comment holds a command of interest.
func commented(text string) bool {
	return strings.HasPrefix(text, "#") && Commented.MatchString(text)
}

// Commented finds a comment that holds a command.
var Commented = regexp.MustCompile(`^\s*#[#\s]*(sudo\s+)?\S*(ip6?tables(-nft|-legacy)?|ipvsadm)\s+-`)

// hashes reports whether a text shows root's prompt as '#': all its commands
// are behind one.
func hashes(lines []string) bool {
	found := false
	for _, line := range lines {
		line = strings.TrimSpace(line)
		switch {
		case commented(line):
			found = true
		case strings.HasPrefix(line, "#") || line == "":
		case saved.MatchString(line), strings.HasPrefix(line, "$"), command.MatchString(line) && !strings.Contains(line, "# "):
			return false
		}
	}
	return found
}
