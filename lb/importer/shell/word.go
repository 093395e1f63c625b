package shell

// Words: what a shell makes of variables, quotes and the rest.

import (
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"nlb/lb/importer"
)

// value is that of a variable; the zero value is not known.
type value struct {
	known bool
	text  string
	list  []Word // of an array
}

func (v value) equal(o value) bool {
	return v.known == o.known && v.text == o.text && texts(v.list) == texts(o.list)
}

// assign sets a variable.
func (r *reader) assign(a *syntax.Assign) {
	switch {
	case a.Name == nil || a.Naked:
	case a.Index != nil:
		r.vars[a.Name.Value] = value{}
	case a.Array != nil:
		v := value{known: true}
		if a.Append {
			v = r.vars[a.Name.Value]
		}
		for _, e := range a.Array.Elems {
			if e.Index != nil || e.Value == nil {
				v.known = false
				continue
			}
			v.list = append(slices.Clip(v.list), r.fields([]*syntax.Word{e.Value})...)
		}
		r.vars[a.Name.Value] = v
	default:
		v := value{known: true}
		if a.Value != nil {
			w := r.literal(a.Value)
			v = value{known: w.Unknown == "", text: w.Text}
		}
		if a.Append {
			old := r.vars[a.Name.Value]
			v = value{known: v.known && old.known && old.list == nil, text: old.text + v.text}
		}
		if len(v.text) > maxWord {
			v = value{}
		}
		r.vars[a.Name.Value] = v
	}
}

// maxWord bounds words: variables can double each other.
const maxWord = 1 << 20

// builder makes the fields of words.
type builder struct {
	r       *reader
	out     []Word
	cur     strings.Builder
	open    bool // there is a field, though it may be empty
	bare    bool
	unknown string
	place   importer.Place
}

// fields are words after expansion and splitting.
func (r *reader) fields(words []*syntax.Word) []Word {
	b := &builder{r: r, bare: true, out: make([]Word, 0, len(words))}
	for _, w := range words {
		b.place = r.placeOf(w)
		for _, p := range w.Parts {
			b.part(p, false)
		}
		b.close()
	}
	return b.out
}

// literal is a word that is not split, as in an assignment.
func (r *reader) literal(w *syntax.Word) Word {
	b := &builder{r: r, place: r.placeOf(w)}
	for _, p := range w.Parts {
		if lit, ok := p.(*syntax.Lit); ok {
			b.add(unescape(lit.Value, ""))
		} else {
			b.part(p, true)
		}
	}
	return Word{Text: b.cur.String(), Place: b.place, Unknown: b.unknown}
}

func (b *builder) add(s string) {
	if b.cur.Len()+len(s) > maxWord {
		b.unknown = "so long a word"
		return
	}
	b.r.budget -= len(s) / 64
	b.cur.WriteString(s)
	b.open = true
}

// close ends a field.
func (b *builder) close() {
	if b.open {
		b.out = append(b.out, Word{b.cur.String(), b.place, b.bare, b.unknown})
	}
	b.cur.Reset()
	b.open, b.bare, b.unknown = false, true, ""
}

// split adds what a variable has: outside quotes, in several fields.
func (b *builder) split(s string, quoted bool) {
	if quoted {
		b.add(s)
		return
	}
	for i, f := range strings.FieldsFunc(s, blank) {
		if i > 0 || blank(rune(s[0])) {
			b.close()
		}
		b.add(f)
	}
	if s != "" && blank(rune(s[len(s)-1])) {
		b.close()
	}
}

func blank(c rune) bool { return c == ' ' || c == '\t' || c == '\n' }

func (b *builder) words(list []Word, quoted bool) {
	for i, w := range list {
		if i > 0 {
			b.close()
		}
		b.place = w.Place
		b.split(w.Text, quoted)
		if quoted {
			b.open, b.bare = true, b.bare && w.Bare
		}
		b.unknown = w.Unknown
	}
}

// guess adds a part whose value is not known, as it is written.
func (b *builder) guess(n syntax.Node) {
	text := b.r.frag.slice(n)
	b.add(text)
	if b.unknown == "" {
		b.unknown = importer.Shorten(text)
	}
}

func (b *builder) part(p syntax.WordPart, quoted bool) {
	switch p := p.(type) {
	case *syntax.Lit:
		if quoted {
			b.add(unescape(p.Value, "$`\"\\"))
		} else {
			b.add(unescape(p.Value, ""))
		}
	case *syntax.SglQuoted:
		b.bare, b.open = false, true
		b.add(p.Value)
	case *syntax.DblQuoted:
		args := len(p.Parts) == 1 && isList(p.Parts[0])
		if !args {
			b.bare, b.open = false, true
		}
		for _, q := range p.Parts {
			b.part(q, true)
		}
	case *syntax.ParamExp:
		b.param(p, quoted)
	case *syntax.CmdSubst:
		if s, ok := b.r.answer(p); ok {
			b.split(s, quoted)
		} else {
			b.guess(p)
		}
	case *syntax.ArithmExp:
		if n, ok := b.r.number(p.X); ok {
			b.add(strconv.Itoa(n))
		} else {
			b.guess(p)
		}
	default:
		b.guess(p)
	}
}

// isList reports whether a part is "$@" or "${LIST[@]}".
func isList(p syntax.WordPart) bool {
	e, ok := p.(*syntax.ParamExp)
	return ok && e.Param != nil && (e.Param.Value == "@" || all(e.Index))
}

func all(x syntax.ArithmExpr) bool {
	w, ok := x.(*syntax.Word)
	return ok && (w.Lit() == "@" || w.Lit() == "*")
}

// param is $NAME and the like.
func (b *builder) param(p *syntax.ParamExp, quoted bool) {
	if p.Param == nil || p.Excl || p.Width || p.IsSet || p.Slice != nil || p.Repl != nil || p.Names != 0 || p.Length || p.Flags != nil {
		b.guess(p)
		return
	}
	name := p.Param.Value
	if name == "@" || name == "*" {
		if b.r.args == nil {
			b.guess(p)
			return
		}
		b.r.used = true
		b.words(b.r.args, quoted)
		return
	}
	v := b.r.value(name)
	switch {
	case p.Index != nil && v.known && all(p.Index):
		b.words(v.list, quoted)
		return
	case p.Index != nil:
		n, ok := b.r.number(p.Index)
		if v = (value{list: v.list, known: v.known}); !ok || n < 0 || n >= len(v.list) {
			v.known = false
		} else {
			v.text = v.list[n].Text
		}
	case v.known && v.list != nil:
		v.text = v.list[0].Text
	}
	if p.Exp != nil {
		b.otherwise(p, v, quoted)
		return
	}
	if !v.known {
		b.guess(p)
		return
	}
	b.split(v.text, quoted)
}

// otherwise is ${NAME:-word}: of a name that is not set here the word, which
// is said.
func (b *builder) otherwise(p *syntax.ParamExp, v value, quoted bool) {
	isDefault := p.Exp.Op == syntax.DefaultUnset || p.Exp.Op == syntax.DefaultUnsetOrNull ||
		p.Exp.Op == syntax.AssignUnset || p.Exp.Op == syntax.AssignUnsetOrNull
	switch {
	case isDefault && v.known && v.text != "":
		b.split(v.text, quoted)
	case isDefault && p.Exp.Word != nil:
		w := b.r.literal(p.Exp.Word)
		if !v.known {
			b.r.draft.Lost("the value of "+importer.Shorten(b.r.frag.slice(p))+" is not known here; the one behind the - is taken", "", b.r.placeOf(p))
		}
		b.split(w.Text, quoted)
		if w.Unknown != "" {
			b.unknown = w.Unknown
		}
		if p.Exp.Op == syntax.AssignUnset || p.Exp.Op == syntax.AssignUnsetOrNull {
			b.r.vars[p.Param.Value] = value{known: w.Unknown == "", text: w.Text}
		}
	default:
		b.guess(p)
	}
}

// value is that of a name or number.
func (r *reader) value(name string) value {
	if n, err := strconv.Atoi(name); err == nil {
		switch {
		case r.args == nil || n == 0:
			return value{}
		case n > len(r.args):
			return value{known: true}
		}
		r.used = true
		w := r.args[n-1]
		return value{known: w.Unknown == "", text: w.Text}
	}
	if name == "#" && r.args != nil {
		return value{known: true, text: strconv.Itoa(len(r.args))}
	}
	return r.vars[name]
}

// unescape takes away backslashes, all or those before some characters.
func unescape(s, before string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (before == "" || strings.IndexByte(before, s[i+1]) >= 0) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
