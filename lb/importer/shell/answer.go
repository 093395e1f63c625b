package shell

// Answers: what a shell calculates, and what the few commands print that need
// no machine.

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// answer is what a command prints, of the few that need no machine.
func (r *reader) answer(c *syntax.CmdSubst) (string, bool) {
	if len(c.Stmts) != 1 {
		return "", false
	}
	call, ok := c.Stmts[0].Cmd.(*syntax.CallExpr)
	if !ok {
		return "", false
	}
	words := r.fields(call.Args)
	if len(words) == 0 || slices.ContainsFunc(words, func(w Word) bool { return w.Unknown != "" }) {
		return "", false
	}
	last := words[len(words)-1].Text
	switch words[0].Text {
	case "which", "command", "type":
		return last, len(words) > 1
	case "echo":
		var parts []string
		for _, w := range words[1:] {
			parts = append(parts, w.Text)
		}
		return strings.Join(parts, " "), true
	case "seq":
		return sequence(words[1:])
	}
	return "", false
}

// maxSequence bounds seq.
const maxSequence = 70_000

// sequence is what seq prints: LAST, FIRST LAST or FIRST STEP LAST.
func sequence(words []Word) (string, bool) {
	n := []int{1, 1, 1}
	if len(words) == 0 || len(words) > 3 {
		return "", false
	}
	for i, w := range words {
		v, err := strconv.Atoi(w.Text)
		if err != nil {
			return "", false
		}
		switch {
		case i == len(words)-1:
			n[2] = v
		default:
			n[i] = v
		}
	}
	if n[1] == 0 || (n[2]-n[0])/n[1] > maxSequence {
		return "", false
	}
	var out []string
	for v := n[0]; n[1] > 0 && v <= n[2] || n[1] < 0 && v >= n[2]; v += n[1] {
		out = append(out, strconv.Itoa(v))
	}
	return strings.Join(out, " "), true
}

// number calculates.
func (r *reader) number(x syntax.ArithmExpr) (int, bool) {
	switch x := x.(type) {
	case *syntax.ParenArithm:
		return r.number(x.X)
	case *syntax.Word:
		w := r.literal(x)
		if v := r.vars[w.Text]; v.known && w.Unknown == "" {
			w.Text = v.text
		}
		n, err := strconv.ParseInt(w.Text, 10, 32)
		return int(n), err == nil && w.Unknown == ""
	case *syntax.BinaryArithm:
		a, ok := r.number(x.X)
		b, ok2 := r.number(x.Y)
		n := int64(a)
		switch x.Op {
		case syntax.Add:
			n += int64(b)
		case syntax.Sub:
			n -= int64(b)
		case syntax.Mul:
			n *= int64(b)
		default:
			return 0, false
		}
		return int(n), ok && ok2 && int64(int32(n)) == n
	}
	return 0, false
}

var braces = regexp.MustCompile(`^\{(-?\d{1,6})\.\.(-?\d{1,6})\}$`)

// braced is a list of words with {1..4} written out.
func braced(words []*syntax.Word) []*syntax.Word {
	var out []*syntax.Word
	for _, w := range words {
		m := braces.FindStringSubmatch(w.Lit())
		if m == nil {
			out = append(out, w)
			continue
		}
		a, _ := strconv.Atoi(m[1])
		b, _ := strconv.Atoi(m[2])
		step := 1
		if b < a {
			step = -1
		}
		for n := 0; n <= maxSequence && n <= (b-a)*step; n++ {
			pos := w.Pos()
			out = append(out, &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{ValuePos: pos, ValueEnd: w.End(), Value: strconv.Itoa(a + n*step)}}})
		}
	}
	return out
}
