package config

// The tree that a file's YAML becomes. There are two ways to it that give the
// same tree: plain.go for what nearly all profiles are, yaml.go for all else.

import "nlb/lb"

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
