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
	quoted   = regexp.MustCompile(`\b(?:echo|printf)\s(?:[^"']*\s)?(["'])`)
	fence    = regexp.MustCompile("^\\s*(```|~~~)")
)

// closes is where a quote ends; -1: not in this line.
func closes(line, quote string) int {
	for i := range len(line) {
		if line[i] == quote[0] && (quote == "'" || i == 0 || line[i-1] != '\\') {
			return i
		}
	}
	return -1
}

// part is what of a text is of a format, with blank lines for all else, so that places
// stay. rest is what else there is. ok is false where the text has no such parts.
func part(lines []string, format string) (own, rest []string, ok bool) {
	own = make([]string, len(lines))
	rest = slices.Clone(lines)
	take := func(from int, text []string, plain bool) bool {
		if kind, known := recognise(text); !known || kind.format != format {
			return false
		}
		ok = true
		for i, line := range text {
			own[from+i], rest[from+i] = line, ""
			if plain {
				own[from+i] = strings.ReplaceAll(line, `\$`, "$")
			}
		}
		return true
	}
	ends, quotes := map[string][]int{}, map[string][]int{} // lines of one word, and those with a quote
	for i, line := range lines {
		for _, quote := range []string{`"`, "'"} {
			if closes(line, quote) >= 0 {
				quotes[quote] = append(quotes[quote], i)
			}
		}
		if word := strings.TrimSpace(line); word != "" && !strings.ContainsAny(word, " \t;{") {
			ends[word] = append(ends[word], i)
		}
	}
	code := -1 // where a block of code begins
	for i := 0; i < len(lines); i++ {
		line := lines[i][:min(len(lines[i]), 1<<12)]
		end := -1
		if m := document.FindStringSubmatch(line); m != nil {
			if at, _ := slices.BinarySearch(ends[m[2]], i+1); at < len(ends[m[2]]) {
				end = ends[m[2]][at]
				take(i+1, lines[i+1:end], m[1] == "")
			}
		} else if m := quoted.FindStringSubmatchIndex(line); m != nil {
			quote, begin := line[m[2]:m[3]], m[3]
			at, _ := slices.BinarySearch(quotes[quote], i+1)
			if closes(line[begin:], quote) < 0 && at < len(quotes[quote]) {
				text := slices.Clone(lines[i : quotes[quote][at]+1])
				last := len(text) - 1
				text[0] = strings.TrimSuffix(strings.Repeat(" ", begin)+text[0][begin:], `\`)
				text[last] = text[last][:closes(text[last], quote)]
				if take(i, text, quote == `"`) {
					end = i + last
				}
			}
		}
		if end > i {
			if i = end; code >= 0 {
				code = i + 1
			}
			continue
		}
		switch is := fence.MatchString(line); {
		case is && code >= 0:
			take(code, lines[code:i], false)
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
