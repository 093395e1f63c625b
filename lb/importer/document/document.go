// Package document reads JSON and YAML that is to be imported, and keeps the
// places of everything in it.
package document

// Trees of values.

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"nlb/lb/importer"
)

// Kind says what a value is.
type Kind uint8

// The kinds.
const (
	Scalar Kind = iota
	List
	Mapping
)

// String is a kind as people say it.
func (k Kind) String() string {
	return [...]string{"a single value", "a list", "a mapping"}[k]
}

// Node is a value.
type Node struct {
	Kind  Kind
	Place importer.Place
	// Text is a scalar's, without quotes. Null: it is the word for nothing,
	// or is not there.
	Text string
	Null bool
	// Items are those of a list.
	Items []*Node
	// Entries are those of a mapping, in their order; of equal keys, the last.
	Entries []Entry
}

// Entry is a key with its value.
type Entry struct {
	Key   string
	At    importer.Place
	Value *Node
}

// Get is the value of a key; nil where there is none.
func (n *Node) Get(key string) *Node {
	for _, e := range n.Entries {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

const (
	maxDepth  = 30
	maxValues = 1_000_000
)

// Read begins the import of a text that is one document. twice: of two equal keys
// the last counts; else they are an error. The error is lb.Errors.
func Read(file, format string, data []byte, twice bool) (*importer.Draft, *Node, error) {
	draft, err := importer.Begin(file, format, data)
	if err != nil {
		return nil, nil, err
	}
	r := &reader{draft, twice}
	root := r.document(strings.Join(r.Lines, "\n") + "\n")
	return draft, root, r.Err()
}

// document reads a text. Where it has mistakes, what is returned is of no use.
func (r *reader) document(text string) *Node {
	if strings.Count(text, "\n")+strings.Count(text, ",")+strings.Count(text, "[")+strings.Count(text, "{")+
		strings.Count(text, "- ")+strings.Count(text, ": ") > maxValues {
		return r.fail(1, 1, "the text has too many values", fmt.Sprintf("at most %d", maxValues))
	}
	loader, err := yaml.NewLoader(strings.NewReader(text), yaml.WithPlugin(limits{}))
	if err != nil {
		return r.syntax(err)
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case err == io.EOF || err == nil && len(doc.Content) == 0:
		return r.fail(1, 1, "the text is empty", "JSON or YAML")
	case err != nil:
		return r.syntax(err)
	}
	switch err := loader.Load(&second); {
	case err == nil:
		return r.fail(second.Line, second.Column, "a second document begins here", "one")
	case err != io.EOF:
		return r.syntax(err)
	}
	return r.node(doc.Content[0])
}

type limits struct{}

var errDepth = fmt.Errorf("nested more than %d deep", maxDepth)

// CheckDepth bounds how deep values nest.
func (limits) CheckDepth(depth int, _ *yaml.DepthContext) error {
	if depth > maxDepth {
		return errDepth
	}
	return nil
}

// CheckAlias allows all, since reader.node allows none.
func (limits) CheckAlias(int, int) error { return nil }

type reader struct {
	*importer.Draft
	twice bool
}

// fail adds a mistake, and returns a value in place of the one that is wrong.
func (r *reader) fail(line, column int, msg, want string) *Node {
	r.Fail(r.place(line, column, 1), msg, want)
	return &Node{}
}

// syntax is fail for an error of the YAML package.
func (r *reader) syntax(err error) *Node {
	if le, ok := errors.AsType[*yaml.LoadError](err); ok {
		return r.fail(le.Mark.Line, le.Mark.Column, "neither JSON nor YAML: "+le.Message, "")
	}
	return r.fail(1, 1, "neither JSON nor YAML: "+err.Error(), "")
}

// place is a place that is in the text: the YAML package has some behind it.
func (r *reader) place(line, column, width int) importer.Place {
	line = min(max(1, line), max(1, len(r.Lines)))
	length := 0
	if line <= len(r.Lines) {
		length = len([]rune(r.Lines[line-1]))
	}
	return importer.Place{Line: line, Column: min(max(1, column), length+1), Width: max(1, width)}
}

// node turns the YAML package's tree into ours.
func (r *reader) node(n *yaml.Node) *Node {
	width := len([]rune(n.Value))
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		width += 2
	}
	out := &Node{Place: r.place(n.Line, n.Column, width)}
	switch n.Kind {
	case yaml.ScalarNode:
		out.Text = n.Value
		out.Null = n.Tag == "!!null"
	case yaml.SequenceNode:
		out.Kind = List
		for _, item := range n.Content {
			out.Items = append(out.Items, r.node(item))
		}
	case yaml.MappingNode:
		out.Kind = Mapping
		there := map[string]int{}
		for pair := range slices.Chunk(n.Content, 2) {
			key := r.node(pair[0])
			one := Entry{key.Text, key.Place, r.node(pair[1])}
			i, again := there[one.Key]
			switch {
			case key.Kind != Scalar:
				r.Fail(key.Place, "a key is "+key.Kind.String(), "a word")
			case again && !r.twice:
				r.Fail(key.Place, fmt.Sprintf("key %q is here twice", one.Key), "each key once")
			case again:
				out.Entries[i] = one
			default:
				there[one.Key] = len(out.Entries)
				out.Entries = append(out.Entries, one)
			}
		}
	default:
		return r.fail(n.Line, n.Column, "& and * are not read", "the values themselves")
	}
	return out
}
