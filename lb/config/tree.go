package config

// The text of a file: how large it may be, and which characters it may have; and
// the tree that its YAML becomes. There are two ways to the tree that give the
// same: plain.go for what nearly all profiles are, yaml.go for all else.

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"nlb/lb"
)

// MaxFile is the size of the largest profile, in bytes. 64,000 services with
// three backends each take 9 MB.
const MaxFile = 16 << 20

const bom = "\uFEFF"

// withoutBOM is the text without the mark that some editors put before it.
func withoutBOM(text string) string { return strings.TrimPrefix(text, bom) }

// readable returns the text of a file, and why it is not one. What it accepts
// is UTF-8 with \n or \r\n at the end of lines, and has no other control
// characters but tabs, so that all who count lines count the same.
func readable(file string, data []byte) (string, *lb.Error) {
	text := ""
	refuse := func(line, column int, msg, want, hint string) (string, *lb.Error) {
		return text, &lb.Error{Pos: lb.Pos{File: file, Line: line, Column: column}, Msg: msg, Want: want, Hint: hint}
	}
	if len(data) > MaxFile {
		return refuse(1, 1, "the file is too long", fmt.Sprintf("at most %d MiB", MaxFile>>20), "several profiles can be applied together")
	}
	text = string(data)
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		return refuse(1, 1, "the file is in UTF-16", "UTF-8", "")
	}
	text = withoutBOM(text)
	line, start := 1, 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c < 0x7f {
			i++
			continue
		}
		size, what := 1, ""
		switch {
		case c == '\n':
			line++
			start = i + 1
		case c == '\t', c == '\r' && strings.HasPrefix(text[i+1:], "\n"):
		case c == '\r':
			what = "a carriage return within a line"
		case c == 0:
			what = "a NUL byte: this is not a text file"
		case c < utf8.RuneSelf:
			what = fmt.Sprintf("the control character \\x%02x", c)
		default:
			var r rune
			r, size = utf8.DecodeRuneInString(text[i:])
			switch {
			case r == utf8.RuneError && size == 1:
				what = fmt.Sprintf("the byte \\x%02x, which is not UTF-8", c)
			case r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffe || r == 0xffff:
				what = fmt.Sprintf("the control character %U", r)
			}
		}
		if what != "" {
			return refuse(line, utf8.RuneCountInString(text[start:i])+1, what, "plain text in UTF-8", "")
		}
		i += size
	}
	return text, nil
}

type kind uint8

const (
	scalar kind = iota
	list
	mapping
)

func (k kind) String() string { return [...]string{"a single value", "a list", "a mapping"}[k] }

// node is a value in a file.
type node struct {
	kind kind
	// quoted: a scalar in quotes, or in a block of lines. It is never null.
	quoted bool
	// marked: *name or &name stands at this place, not the value itself.
	marked bool
	// line and column of the first character, both from 1; of a mapping, that
	// of its first key.
	line, column int32
	// text is a scalar's, without quotes and escapes, and otherwise as it
	// stands in the file: 010 is 010.
	text string
	// kids are the items of a list, or key, value, key, value of a mapping.
	kids []node
}

// null reports whether n is the empty value of YAML.
func (n *node) null() bool {
	if n.kind != scalar || n.quoted {
		return false
	}
	switch n.text {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// items are the items of a list; of anything else, itself.
func (n *node) items() []*node {
	if n.kind != list {
		return []*node{n}
	}
	out := make([]*node, len(n.kids))
	for i := range n.kids {
		out[i] = &n.kids[i]
	}
	return out
}

// readTree reads the YAML; nil where there is none.
func readTree(file, text string) (*node, *lb.Error) {
	if root, ok := readPlain(text); ok {
		return root, nil
	}
	return readYAML(file, text)
}
