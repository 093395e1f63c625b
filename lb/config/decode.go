package config

// The walk from the tree to the values: what is the same for every key.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

const (
	// maxErrors is how many mistakes of a file are told.
	maxErrors = 100
	// maxNoted is how many are kept until they are sorted.
	maxNoted = 10 * maxErrors
)

// decoder collects the mistakes of one file.
type decoder struct {
	file  string
	errs  lb.Errors
	noted map[mistake]bool
	more  int // not kept

	members []backendDraft // room for those of one service after the other
}

// mistake is what makes two errors the same: an alias brings one twice.
type mistake struct {
	line, column int32
	msg          string
}

// fail notes that something is wrong with n.
func (d *decoder) fail(n *node, msg, want, hint string) {
	m := mistake{n.line, n.column, msg}
	if d.noted[m] {
		return
	}
	if len(d.errs) == maxNoted {
		d.more++
		return
	}
	if d.noted == nil {
		d.noted = map[mistake]bool{}
	}
	d.noted[m] = true
	e := &lb.Error{Pos: d.pos(n), Msg: msg, Want: want, Hint: hint}
	if n.kind == scalar && !n.quoted && !n.marked {
		e.Width = utf8.RuneCountInString(n.text)
	}
	d.errs = append(d.errs, e)
}

// refuse notes what a parser of text says about n.
func (d *decoder) refuse(n *node, p *problem) {
	d.fail(n, p.Msg, p.Want, p.Hint)
}

// breaks notes the rule that the value of a key breaks.
func (d *decoder) breaks(k *lb.Key, n *node, p *problem) {
	d.fail(n, p.Msg, cmp.Or(p.Want, k.Values), p.Hint)
}

// problem is what is wrong with a text, or with the value that it stands for.
type problem = lb.Problem

func (d *decoder) pos(n *node) lb.Pos {
	return lb.Pos{File: d.file, Line: int(n.line), Column: int(n.column)}
}

// errors are the mistakes in the order of the file, with their lines.
func (d *decoder) errors(text string) lb.Errors {
	errs := d.errs
	slices.SortStableFunc(errs, byPlace)
	more := d.more
	if len(errs) > maxErrors {
		more += len(errs) - maxErrors
	}
	if more > 0 {
		last := errs[min(maxErrors, len(errs)-1)]
		errs = append(errs[:min(maxErrors, len(errs))], &lb.Error{Pos: last.Pos, Msg: fmt.Sprintf("%d more errors", more)})
	}
	quote(errs, text)
	return errs
}

func byPlace(a, b *lb.Error) int {
	return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
}

// table has the keys of one kind of mapping, which are values of T in the end.
type table[T any] struct {
	// of begins the paths of the keys; what the mapping is called in messages.
	of, what string
	keys     []key[T]
}

// key is one key of a mapping: what is said about it, and how it is read.
type key[T any] struct {
	word string // as it stands in the file
	lb.Key
	read func(d *decoder, k *lb.Key, v *node, into *T)
}

// given says which keys of a table a mapping has, by their numbers.
type given uint64

// read reads a mapping. It notes unknown and repeated keys, and values that
// are missing, and returns the keys that are there at all.
func (t *table[T]) read(d *decoder, n *node, into *T) given {
	var there given
	var seen [64]*node
	for i := 0; i+1 < len(n.kids); i += 2 {
		name, value := &n.kids[i], &n.kids[i+1]
		at := t.find(name)
		if at < 0 {
			if meant := t.unknown(d, name); meant != "" {
				there |= t.bit(meant) // so that it is not said to be missing too
			}
			continue
		}
		k := &t.keys[at]
		if first := seen[at]; first != nil {
			d.fail(name, fmt.Sprintf("key %q is here twice, first in line %d", name.text, first.line), "each key once", "")
			continue
		}
		seen[at] = name
		there |= 1 << at
		if value.null() {
			d.fail(name, k.Word()+" has no value", k.Values, "")
			continue
		}
		k.read(d, &k.Key, value, into)
	}
	return there
}

func (t *table[T]) bit(word string) given {
	return 1 << slices.IndexFunc(t.keys, func(k key[T]) bool { return k.word == word })
}

// need notes a key that a mapping must have, and has not.
func (t *table[T]) need(d *decoder, n *node, there given, word, values string) {
	if there&t.bit(word) == 0 {
		hint := ""
		if word == "services" || word == "backends" {
			hint = "the list may be empty: " + word + ": []"
		}
		what := t.what
		if s, ok := strings.CutPrefix(what, "a "); ok {
			what = "the " + s
		}
		d.fail(n, what+" has no "+word, fmt.Sprintf("the key %s (%s)", word, values), hint)
	}
}

// find is the number of a key, -1 where there is none.
func (t *table[T]) find(name *node) int {
	if name.kind != scalar {
		return -1
	}
	for i := range t.keys {
		if k := &t.keys[i]; k.word == name.text {
			return i
		}
	}
	return -1
}

// otherWords say what is meant by words that other balancers have.
var otherWords = map[string]string{"backup": "say priority: 2"}

// unknown notes a key that is not of the table, and returns the one that was
// probably meant.
func (t *table[T]) unknown(d *decoder, name *node) (meant string) {
	if name.kind != scalar {
		d.fail(name, "a key is "+name.kind.String(), "a word", "")
		return ""
	}
	if name.text == "<<" {
		d.fail(name, "merge keys (<<) are not supported", "the keys themselves", "what all services share can stand in defaults:")
		return ""
	}
	var names []string
	for i := range t.keys {
		names = append(names, t.keys[i].word)
	}
	msg := fmt.Sprintf("unknown key %s in %s", safe.Show(name.text), t.what)
	if near := lb.Nearest(name.text, names); near != "" {
		d.fail(name, msg, "", "did you mean "+near+"?")
		return near
	}
	hint := otherWords[name.text]
	if owner, ok := keyOwner[name.text]; ok {
		hint = name.text + " is a key of " + owner
	}
	d.fail(name, msg, safe.OneOf(names), hint)
	return ""
}
