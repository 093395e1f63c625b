package config

// Any YAML: read by go.yaml.in/yaml, and turned into our tree.

import (
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

const (
	// maxDepth is how deep YAML may nest; a profile needs 7.
	maxDepth = 50
	// maxNodes bounds the values of a file, each alias counted as what it
	// stands for. 64,000 services with three backends each have 640,000.
	maxNodes = 1_000_000
)

// readYAML reads the one document of a file; nil where it is empty.
func readYAML(file, text string) (*node, *lb.Error) {
	place := func(line, column int) lb.Pos { return lb.Pos{File: file, Line: line, Column: column} }
	if tokens(text) > maxNodes {
		return nil, &lb.Error{
			Pos: place(1, 1), Msg: "the file has too many values",
			Want: fmt.Sprintf("at most %d", maxNodes), Hint: "several profiles can be applied together",
		}
	}
	loader, err := yaml.NewLoader(strings.NewReader(text), yaml.WithPlugin(limits{}))
	if err != nil {
		return nil, syntaxError(file, text, err)
	}
	var first, second yaml.Node
	switch err := loader.Load(&first); {
	case err == io.EOF:
		return nil, nil
	case err != nil:
		return nil, syntaxError(file, text, err)
	}
	switch err := loader.Load(&second); {
	case err == nil:
		return nil, &lb.Error{
			Pos: place(second.Line, second.Column), Msg: "a second document begins here",
			Want: "one profile in a file", Hint: "several profiles can be applied together",
		}
	case err != io.EOF:
		return nil, syntaxError(file, text, err)
	}
	c := converter{file: file, done: map[*yaml.Node]subtree{}}
	t, bad := c.convert(first.Content[0])
	if bad != nil {
		return nil, bad
	}
	return &t.node, nil
}

// tokens is about how many tokens a text has. The YAML package builds all of
// its nodes, some 500 bytes each, before we see one.
func tokens(text string) int {
	n := 0
	for i := range len(text) {
		switch text[i] {
		case '\n', ',', '[', '{', '"', '\'', '&', '*', '!':
			n++
		case ' ':
			if i > 0 && (text[i-1] == '-' || text[i-1] == ':' || text[i-1] == '?') {
				n++
			}
		}
	}
	return n
}

// limits are what the YAML package checks while it reads.
type limits struct{}

var errDepth = fmt.Errorf("nested more than %d deep", maxDepth)

func (limits) CheckDepth(depth int, _ *yaml.DepthContext) error {
	if depth > maxDepth {
		return errDepth
	}
	return nil
}

// CheckAlias allows all: it is not asked for trees of nodes, and converter counts.
func (limits) CheckAlias(int, int) error { return nil }

// converter turns the YAML package's tree into ours. An alias shares the
// values of its anchor, so that it costs nothing here; that it would cost who
// walks the tree is what size is for.
type converter struct {
	file string
	done map[*yaml.Node]subtree // what anchors stand for; size 0: begun
}

type subtree struct {
	node node
	size int
}

func (c *converter) fail(n *yaml.Node, msg, want, hint string) *lb.Error {
	return &lb.Error{Pos: lb.Pos{File: c.file, Line: n.Line, Column: n.Column}, Msg: msg, Want: want, Hint: hint}
}

func (c *converter) convert(n *yaml.Node) (subtree, *lb.Error) {
	if n.Kind == yaml.AliasNode {
		t, ok := c.done[n.Alias]
		if ok && t.size == 0 {
			return t, c.fail(n, "*"+safe.Visible(n.Value)+" is a part of what it stands for", "", "")
		}
		t.node.line, t.node.column, t.node.marked = int32(n.Line), int32(n.Column), true
		return t, nil
	}
	if n.Style&yaml.TaggedStyle != 0 || n.Tag == "!" {
		return subtree{}, c.fail(n, noTags, "the value without it", "")
	}
	if n.Anchor != "" {
		c.done[n] = subtree{}
	}
	t := subtree{size: 1, node: node{line: int32(n.Line), column: int32(n.Column), marked: n.Anchor != ""}}
	switch n.Kind {
	case yaml.ScalarNode:
		t.node.text = n.Value
		t.node.quoted = n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	case yaml.SequenceNode:
		t.node.kind = list
	default:
		t.node.kind = mapping
	}
	for _, kid := range n.Content {
		k, err := c.convert(kid)
		if err != nil {
			return t, err
		}
		if t.size += k.size; t.size > maxNodes {
			return t, c.fail(kid, "the file has too many values, counting aliases (*) as what they stand for",
				fmt.Sprintf("at most %d", maxNodes), "")
		}
		if t.node.kids == nil {
			t.node.kids = make([]node, 0, len(n.Content))
		}
		t.node.kids = append(t.node.kids, k.node)
	}
	if n.Anchor != "" {
		c.done[n] = t
	}
	return t, nil
}
