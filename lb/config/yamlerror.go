package config

// What is wrong with the YAML itself, in our words.

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

// complaint is what we say for something that the YAML package says.
type complaint struct {
	theirs          string
	msg, want, hint string
	// context: the place is where the construct begins, not where it breaks.
	context bool
}

const (
	noTags     = "a tag (!) has no meaning in a profile"
	quoteStar  = "a value that begins with & or * needs quotes"
	tabIndents = "a tab is used to indent"
)

// bareAddress finds an IPv6 address with a port that no quotes are around.
var bareAddress = regexp.MustCompile(`(?:^|[^"'])(\[[^\][{}"',]*\]:)`)

var complaints = []complaint{
	{
		theirs: "mapping values are not allowed in this context", msg: "this key does not fit the line above it",
		want: "KEY: VALUE in the column of the other keys",
	},
	{
		theirs: "did not find expected key", msg: "this does not belong to the mapping above it",
		want: "KEY: VALUE in the column of its other keys",
	},
	{
		theirs: "did not find expected '-' indicator", msg: "this does not belong to the list above it",
		want: `"- " in the column of its other items`,
	},
	{
		theirs: "did not find expected <document start>", msg: "this does not belong to the value above it", want: "the end of the file",
		hint: "a profile is one mapping",
	},
	{
		theirs: "block sequence entries are not allowed in this context", msg: `"- " at a place where no list can begin`,
		want: "a list that begins in a line of its own",
	},
	{theirs: "mapping keys are not allowed in this context", msg: `"?" at a place where no key can begin`, want: "KEY: VALUE"},
	{theirs: "could not find expected ':'", msg: "a key without a value", want: "KEY: VALUE", context: true},
	{theirs: "did not find expected ',' or ']'", msg: "the list has no end", want: "a comma or ]", context: true},
	{theirs: "did not find expected ',' or '}'", msg: "the mapping has no end", want: "a comma or }", context: true},
	{theirs: "did not find expected node content", msg: "a value is missing", want: "a value, or the bracket that closes"},
	{theirs: "found unexpected end of stream", msg: "the quoted text has no end", want: "a closing quote", context: true},
	{theirs: "found unexpected document indicator", msg: "the quoted text has no end", want: "a closing quote", context: true},
	{theirs: "found a tab character", msg: tabIndents, want: "spaces"},
	{
		theirs: "did not find expected alphabetic or numeric character", msg: "a name is missing after & or *", want: "a name",
		hint: quoteStar, context: true,
	},
	{theirs: "found a comment without preceding whitespace", msg: "a comment needs a space before it", want: `" #"`},
	{theirs: "found undefined tag handle", msg: noTags, want: "the value without it"},
	{
		theirs: "found unknown escape character", msg: `\ begins an escape in double quotes, and this is none`,
		want: `\\ for \ itself`, hint: "in single quotes it has no meaning",
	},
	{theirs: "did not find expected hexadecimal number", msg: "the escape is not complete", want: "hexadecimal digits"},
	{theirs: "found invalid Unicode character escape code", msg: "the escape is not a character", want: "hexadecimal digits"},
	{theirs: "found incompatible YAML document", msg: "this version of YAML is not supported", want: "a file without %YAML"},
	{theirs: "found unexpected content after document-end marker", msg: "text after the end of the document (...)", want: "nothing"},
}

// syntaxError is what the YAML package says, as one of our errors.
func syntaxError(file, text string, err error) *lb.Error {
	le, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		return &lb.Error{Pos: lb.Pos{File: file, Line: 1, Column: 1}, Msg: "this is not YAML"}
	}
	out := &lb.Error{Msg: "not valid YAML: " + safe.Visible(le.Message)}
	mark := le.Mark
	for _, c := range complaints {
		if strings.HasPrefix(le.Message, c.theirs) {
			out.Msg, out.Want, out.Hint = c.msg, c.want, c.hint
			if c.context && le.ContextMark.Line > 0 {
				mark = le.ContextMark
			}
			break
		}
	}
	if strings.Contains(le.Message, "cannot construct") {
		// !!int before a word, for one. It comes without its place.
		out.Msg, out.Want = noTags, "the value without it"
		mark = yaml.Mark{Line: 1, Column: 1}
		if i := strings.Index(text, " !"); i >= 0 {
			mark.Line += strings.Count(text[:i], "\n")
			mark.Column += utf8.RuneCountInString(text[strings.LastIndexByte(text[:i], '\n')+1 : i+1])
		}
	}
	var line string
	out.Pos, line = inside(file, text, mark)
	at := line[safe.Offset(line, out.Pos.Column-1):]
	switch {
	case le.Message == errDepth.Error():
		out.Msg = "the file is " + le.Message
	case strings.HasPrefix(le.Message, "unknown anchor"):
		out.Msg = "unknown alias " + safe.Show(at[:safe.Offset(at, width(at, 0))])
		out.Want, out.Hint = "one that &name marks above", quoteStar
	case strings.HasPrefix(le.Message, "found character that cannot start any token") && strings.HasPrefix(at, "\t"):
		out.Msg, out.Want = tabIndents, "spaces"
	case strings.HasPrefix(le.Message, "found character that cannot start any token"):
		out.Msg, out.Want = "a value cannot begin with "+safe.Show(at[:safe.Offset(at, 1)]), "quotes around it"
	}
	switch indent, bare := spaces(line), bareAddress.FindStringSubmatchIndex(line); {
	case strings.HasPrefix(line[indent:], "\t"):
		out.Msg, out.Want, out.Hint = tabIndents, "spaces", ""
		out.Pos.Column = indent + 1
	case bare != nil:
		out.Msg, out.Want, out.Hint = "an address in brackets without quotes", `"[2001:db8::1]:80"`, "without quotes, [ begins a list"
		out.Pos.Column = utf8.RuneCountInString(line[:bare[2]]) + 1
	case strings.HasPrefix(le.Message, "mapping values") && strings.Contains(line[:len(line)-len(at)], ": "):
		out.Msg, out.Want, out.Hint = "a second KEY: in one line", "one KEY: VALUE in a line", `a value with ": " in it needs quotes`
	case strings.HasPrefix(le.Message, "mapping values"):
		out.Pos.Column = 1 + spaces(line)
	}
	return out
}

// inside is the place of a mark, which may be behind the last line, and the
// text of its line.
func inside(file, text string, mark yaml.Mark) (lb.Pos, string) {
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	number, column := max(1, mark.Line), max(1, mark.Column)
	if number > len(lines) {
		number, column = len(lines), utf8.RuneCountInString(lines[len(lines)-1])
	}
	line := strings.TrimSuffix(lines[number-1], "\r")
	return lb.Pos{File: file, Line: number, Column: max(1, min(column, utf8.RuneCountInString(line)+1))}, line
}
