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
	given := [][]int{{2}, {0, 2}, {0, 1, 2}} // which of these the words are
	if len(words) == 0 || len(words) > 3 {
		return "", false
	}
	for i, w := range words {
		v, err := strconv.Atoi(w.Text)
		if err != nil {
			return "", false
		}
		n[given[len(words)-1][i]] = v
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
	case *syntax.UnaryArithm:
		n, ok := r.number(x.X)
		switch {
		case x.Op == syntax.Minus:
			return -n, ok
		case x.Op == syntax.Inc && ok:
			n++
		case x.Op == syntax.Dec && ok:
			n--
		default:
			return 0, false
		}
		return n, r.count(x.X, n)
	case *syntax.BinaryArithm:
		b, ok := r.number(x.Y)
		if x.Op == syntax.Assgn {
			return b, ok && r.count(x.X, b)
		}
		a, ok2 := r.number(x.X)
		n, known := calculate(x.Op, int64(a), int64(b))
		if !ok || !ok2 || !known || int64(int32(n)) != n {
			return 0, false
		}
		if x.Op == syntax.AddAssgn || x.Op == syntax.SubAssgn {
			return int(n), r.count(x.X, int(n))
		}
		return int(n), true
	}
	return 0, false
}

// count sets a variable to a number.
func (r *reader) count(x syntax.ArithmExpr, n int) bool {
	w, ok := x.(*syntax.Word)
	if !ok || !syntax.ValidName(w.Lit()) {
		return false
	}
	r.vars[w.Lit()] = value{known: true, text: strconv.Itoa(n)}
	return true
}

func calculate(op syntax.BinAritOperator, a, b int64) (int64, bool) {
	truth := map[bool]int64{true: 1}
	switch op {
	case syntax.Add, syntax.AddAssgn:
		return a + b, true
	case syntax.Sub, syntax.SubAssgn:
		return a - b, true
	case syntax.Mul:
		return a * b, true
	case syntax.Lss:
		return truth[a < b], true
	case syntax.Leq:
		return truth[a <= b], true
	case syntax.Gtr:
		return truth[a > b], true
	case syntax.Geq:
		return truth[a >= b], true
	case syntax.Neq:
		return truth[a != b], true
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
