package formats

// Parts: what of a text is of a format. Configurations stand in the here-documents
// and the echoes of scripts and in the code of Markdown, and in templates.

import (
	"regexp"
	"slices"
	"strings"

	"nlb/lb/importer"
	"nlb/lb/importer/shell"
)

// configurations are the formats that stand in other texts as a whole; the others
// find their commands themselves.
var configurations = []string{"haproxy", "nginx", "keepalived"}

var (
	document = regexp.MustCompile(`<<-?\s*(["'\\]?)([A-Za-z_]\w*)`)
	quoted   = regexp.MustCompile(`\b(?:echo|printf)\s(?:[^"']*\s)?(["'])\\?$`)
	fence    = regexp.MustCompile("^\\s*(```|~~~)")
)

// part is what of a text is of a format, with blank lines for all else, so that places
// stay. rest is what else there is. ok is false where the text has no such parts.
func part(lines []string, format string) (own, rest []string, ok bool) {
	own = make([]string, len(lines))
	rest = slices.Clone(lines)
	take := func(from, to int, plain bool) {
		if kind, known := recognise(lines[from:to]); !known || kind.format != format {
			return
		}
		ok = true
		for i := from; i < to; i++ {
			own[i], rest[i] = lines[i], ""
			if plain {
				own[i] = strings.ReplaceAll(own[i], `\$`, "$")
			}
		}
	}
	ends, quotes := map[string][]int{}, map[string][]int{} // lines of one word, and those that end a quote
	for i, line := range lines {
		if line != "" && (line[0] == '"' || line[0] == '\'') {
			quotes[line[:1]] = append(quotes[line[:1]], i)
		}
		if word := strings.TrimSpace(line); word != "" && !strings.ContainsAny(word, " \t;{") {
			ends[word] = append(ends[word], i)
		}
	}
	code := -1 // where a block of code begins
	for i := 0; i < len(lines); i++ {
		line := lines[i][:min(len(lines[i]), 1<<12)]
		end, plain := -1, false
		if m := document.FindStringSubmatch(line); m != nil {
			if at, _ := slices.BinarySearch(ends[m[2]], i+1); at < len(ends[m[2]]) {
				end, plain = ends[m[2]][at], m[1] == ""
			}
		} else if m := quoted.FindStringSubmatch(line); m != nil {
			if at, _ := slices.BinarySearch(quotes[m[1]], i+1); at < len(quotes[m[1]]) {
				end, plain = quotes[m[1]][at], m[1] == `"`
			}
		}
		if end > i {
			take(i+1, end, plain)
			if i = end; code >= 0 {
				code = i + 1
			}
			continue
		}
		switch is := fence.MatchString(line); {
		case is && code >= 0:
			take(code, i, false)
			code = -1
		case is:
			code = i + 1
		}
	}
	return own, rest, ok
}

// control is what repeats and leaves out parts of a template.
var control = regexp.MustCompile(`\{%.*?%\}|\{\{-?\s*(range|if|else|end|with|define|template|include|block)\b[^{}]*\}\}`)

// filled is a text in which what a template leaves open is a variable that is not
// known; ok is false where the text is no template. Playbooks have variables of their own.
func filled(lines []string) (out []string, ok bool) {
	open := func(line string) bool { return strings.Contains(line, "{{") || strings.Contains(line, "{%") }
	if !slices.ContainsFunc(lines, open) || shell.Playbook(lines) {
		return lines, false
	}
	for _, line := range lines {
		if open(line) {
			text := shell.Unknowns(control.ReplaceAllStringFunc(line, func(s string) string { return strings.Repeat(" ", len(s)) }))
			ok = ok || text != line
			line = text
		}
		out = append(out, line)
	}
	return out, ok
}

// said are the findings about parts.
func said(m *importer.Import, template, parts bool, rest []string) {
	if template {
		m.Tell(importer.Lost, "this is a template: what it leaves open is not known here, nor what of it is repeated or left out", "import what is made of it")
	}
	if !parts {
		return
	}
	m.Tell(importer.Note, "of this text, the here-documents and the code are read", "")
	if kind, known := recognise(rest); known && kind.format != "" {
		m.Tell(importer.Lost, "this text also has "+kind.name, "nlb import "+kind.format+" reads them")
	}
}
