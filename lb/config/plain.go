package config

// Plain YAML: the part of it that nearly all profiles are written in, read in
// a tenth of the time. Block mappings and lists; values and keys of one
// line; [lists] and {mappings} within a line; comments. Whatever else
// it meets, or may be wrong, it leaves to the YAML package (yaml.go). What it
// accepts is the same tree there; a fuzz test compares.

import (
	"strings"

	"nlb/lb/internal/safe"
)

// readPlain reads a document. ok is false where it is more than plain, or
// wrong.
func readPlain(text string) (root *node, ok bool) {
	if strings.IndexByte(text, '\t') >= 0 {
		return nil, false
	}
	r := plainReader{rest: text}
	r.advance()
	if r.content == "---" && r.indent == 0 {
		r.advance()
	}
	if r.done {
		return nil, false
	}
	n, ok := r.block(0)
	return &n, ok && r.done
}

// plainReader stands at a line that has something.
type plainReader struct {
	rest string // the lines after this one
	line int32  // number of this one
	// indent is the column of content, from 0; content goes from there to the
	// end of the line, without spaces at its end.
	indent  int
	content string
	done    bool // there are no more lines

	open  []node // values whose list or mapping is not complete
	arena []node // where complete ones go
}

// advance goes to the next line that is neither empty nor a comment.
func (r *plainReader) advance() {
	for r.rest != "" {
		line := r.rest
		if i := strings.IndexByte(line, '\n'); i >= 0 {
			line, r.rest = line[:i], line[i+1:]
		} else {
			r.rest = ""
		}
		r.line++
		r.indent = 0
		for r.indent < len(line) && line[r.indent] == ' ' {
			r.indent++
		}
		r.content = strings.TrimRight(line[r.indent:], " \r")
		if r.content != "" && r.content[0] != '#' {
			return
		}
	}
	r.content, r.done = "", true
}

// node is one that begins at a byte of this line's content.
func (r *plainReader) node(k kind, at int) node {
	return node{kind: k, line: r.line, column: int32(r.indent + at + 1)}
}

// close makes the values that were opened since mark the content of n.
func (r *plainReader) close(n node, mark int) node {
	kids := r.open[mark:]
	if len(r.arena)+len(kids) > cap(r.arena) {
		r.arena = make([]node, 0, max(1024, len(kids)))
	}
	from := len(r.arena)
	r.arena = append(r.arena, kids...)
	if len(kids) > 0 {
		n.kids = r.arena[from:len(r.arena):len(r.arena)]
	}
	r.open = r.open[:mark]
	return n
}

// block reads the list or mapping that begins in this line.
func (r *plainReader) block(depth int) (node, bool) {
	switch {
	case depth > 20:
		return node{}, false
	case dash(r.content):
		return r.list(depth)
	}
	return r.mapping(depth)
}

func dash(s string) bool { return s == "-" || strings.HasPrefix(s, "- ") }

func (r *plainReader) list(depth int) (node, bool) {
	indent, mark := r.indent, len(r.open)
	n := r.node(list, 0)
	for !r.done && r.indent == indent && dash(r.content) {
		at := 1 + spaces(r.content[1:])
		s := r.content[at:]
		var item node
		var ok bool
		switch {
		case s == "" || s[0] == '#':
			if r.advance(); r.done || r.indent <= indent {
				return n, false
			}
			item, ok = r.block(depth + 1)
		case keyLength(s) > 0:
			r.indent, r.content = indent+at, s
			item, ok = r.mapping(depth + 1)
		default:
			item, ok = r.value(at)
		}
		if !ok {
			return n, false
		}
		r.open = append(r.open, item)
	}
	return r.close(n, mark), r.done || r.indent <= indent
}

func (r *plainReader) mapping(depth int) (node, bool) {
	indent, mark := r.indent, len(r.open)
	n := r.node(mapping, 0)
	for !r.done && r.indent == indent {
		length := keyLength(r.content)
		if length == 0 {
			// A line of the list around this mapping, or nothing that we know.
			return n, false
		}
		key := r.node(scalar, 0)
		key.text = r.content[:length]
		r.open = append(r.open, key)
		at := length + 1 + spaces(r.content[length+1:])
		var value node
		var ok bool
		if s := r.content[at:]; s != "" && s[0] != '#' {
			value, ok = r.value(at)
		} else {
			r.advance()
			switch {
			case r.done, r.indent < indent:
			case r.indent > indent:
				value, ok = r.block(depth + 1)
			case dash(r.content):
				value, ok = r.list(depth + 1)
			}
		}
		if !ok || !r.done && r.indent > indent {
			return n, false
		}
		r.open = append(r.open, value)
	}
	return r.close(n, mark), true
}

// keyLength is the length of the plain key at the beginning of s, 0 where
// there is none: a word, a colon, and a space or the end.
func keyLength(s string) int {
	i := 0
	for i < len(s) && (alphanumeric(s[i]) || i > 0 && (s[i] == '-' || s[i] == '.')) {
		i++
	}
	if i > 100 || i == len(s) || s[i] != ':' || i+1 < len(s) && s[i+1] != ' ' {
		return 0
	}
	return i
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

func spaces(s string) int {
	i := 0
	for i < len(s) && s[i] == ' ' {
		i++
	}
	return i
}

// value reads a value that fills the line from a byte of its content, and goes
// to the next line, which must not be deeper: the value would go on there.
func (r *plainReader) value(at int) (node, bool) {
	s := r.content[at:]
	var n node
	length, ok := 0, true
	switch s[0] {
	case '"', '\'':
		n, length = r.quoted(at)
	case '[':
		n, length = r.flow(at, list, mostFlows)
	case '{':
		n, length = r.flow(at, mapping, mostFlows)
	default:
		length, ok = plainLength(s)
		n = r.node(scalar, at)
		n.text = strings.TrimRight(s[:length], " ")
	}
	if after := s[length:]; !ok || length == 0 || after != "" && after[0] != '#' && !strings.HasPrefix(after[spaces(after):], "#") ||
		after != "" && after[0] == '#' && s[length-1] != ' ' {
		return n, false
	}
	r.advance()
	return n, true
}

// plainLength is the length of a plain scalar with the spaces behind it. It
// ends at a comment or with the line.
func plainLength(s string) (length int, ok bool) {
	if !alphanumeric(s[0]) && s[0] != '/' && !(s[0] == ':' && len(s) > 1 && alphanumeric(s[1])) {
		return 0, false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~':
			return 0, false
		case c == ':' && (i+1 == len(s) || s[i+1] == ' '):
			return 0, false
		case c == '#' && s[i-1] == ' ':
			return i, true
		}
	}
	return len(s), true
}

// quoted reads a text in quotes, without escapes. length is 0 where it is
// something else.
func (r *plainReader) quoted(at int) (n node, length int) {
	s := r.content[at:]
	end := 1 + strings.IndexByte(s[1:], s[0])
	if end == 0 || s[0] == '\'' && strings.HasPrefix(s[end+1:], "'") {
		return n, 0
	}
	n = r.node(scalar, at)
	n.quoted, n.text = true, s[1:end]
	if !safe.Printable(n.text) || s[0] == '"' && strings.IndexByte(n.text, '\\') >= 0 {
		return n, 0
	}
	return n, end + 1
}

// mostFlows is how many lists and mappings may be in each other within a line.
const mostFlows = 10

// flow reads a list in brackets or a mapping in braces, with words, quoted texts, and
// lists and mappings in it, deep at most. length is 0 where it is something else.
func (r *plainReader) flow(at int, k kind, deep int) (n node, length int) {
	s, mark, closing := r.content, len(r.open), byte(']')
	if k == mapping {
		closing = '}'
	}
	n = r.node(k, at)
	i := at + 1 + spaces(s[at+1:])
	for i < len(s) {
		if s[i] == closing { // behind nothing, or behind a comma
			return r.close(n, mark), i + 1 - at
		}
		if k == mapping {
			length := keyLength(s[i:])
			if length == 0 {
				return n, 0
			}
			key := r.node(scalar, i)
			key.text = s[i : i+length]
			r.open = append(r.open, key)
			i += length + 1 + spaces(s[i+length+1:])
		}
		item, length := r.flowItem(i, deep-1)
		if length == 0 {
			return n, 0
		}
		r.open = append(r.open, item)
		i += length
		i += spaces(s[i:])
		if i < len(s) && s[i] == ',' {
			i++
			i += spaces(s[i:])
		} else if i == len(s) || s[i] != closing {
			return n, 0
		}
	}
	return n, 0
}

// flowItem reads a value within brackets or braces.
func (r *plainReader) flowItem(at, deep int) (n node, length int) {
	s := r.content[at:]
	switch {
	case s == "" || deep == 0:
		return n, 0
	case s[0] == '"' || s[0] == '\'':
		return r.quoted(at)
	case s[0] == '[':
		return r.flow(at, list, deep)
	case s[0] == '{':
		return r.flow(at, mapping, deep)
	}
	for length < len(s) {
		c := s[length]
		inner := length > 0 && (c == '-' || c == '.' || c == '/' || c == '*' ||
			c == ':' && length+1 < len(s) && alphanumeric(s[length+1]))
		if !alphanumeric(c) && !inner {
			break
		}
		length++
	}
	n = r.node(scalar, at)
	n.text = s[:length]
	return n, length
}
