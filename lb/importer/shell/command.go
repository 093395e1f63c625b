package shell

// Commands: what stands in front of them, their options, and what they read.

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"nlb/lb/importer"
)

// tests are commands whose answer is up to the machine.
var tests = []string{"[", "test", "grep", "egrep", "pgrep", "which", "command", "type", "id", "ping", "systemctl", "lsmod", "cmp", "diff", "let", "read", "getopts"}

func (r *reader) call(c *syntax.CallExpr, s *syntax.Stmt) Outcome { return r.fed(c, s, nil) }

// fed runs a command that may read what a pipe brings.
func (r *reader) fed(c *syntax.CallExpr, s *syntax.Stmt, in *Input) Outcome {
	if len(c.Args) == 0 {
		for _, a := range c.Assigns {
			r.assign(a)
		}
		return Succeeds
	}
	if own := r.input(s); own != nil {
		in = own
	}
	used := r.used
	r.used = false
	words := r.fields(c.Args)
	place := r.placeOf(c)
	if r.used && r.place.Line != 0 {
		place = r.place
	}
	r.used = used
	first, last := r.linesOf(s)
	return r.command(words, in, place, first, last)
}

// command runs words.
func (r *reader) command(words []Word, in *Input, place importer.Place, first, last int) Outcome {
	where := r.where
	defer func() { r.where = where }()
	words = r.plain(words)
	if len(words) == 0 {
		return Succeeds
	}
	w := words[0]
	if f := r.funcs[w.Text]; f != nil && w.Unknown == "" {
		return r.enter(w.Text, f, words[1:], place)
	}
	switch name := path.Base(w.Text); name {
	case "exit", "return":
		r.ended = true
		return Succeeds
	case "true", ":":
		return Succeeds
	case "false":
		return Fails
	case "eval":
		return r.nested(words[1:])
	case "sh", "bash", "dash", "ash", "su":
		if i := slices.IndexFunc(words, func(w Word) bool { return strings.HasPrefix(w.Text, "-") && strings.HasSuffix(w.Text, "c") }); i >= 0 && i+1 < len(words) {
			return r.nested(words[i+1 : i+2])
		}
	case "set":
		if len(words) > 1 && words[1].Text == "--" {
			r.args = slices.Clip(words[2:])
		}
	case "shift":
		if len(r.args) > 0 {
			r.args = r.args[1:]
		}
	case "unset", "read":
		for _, v := range words[1:] {
			r.vars[v.Text] = value{known: name == "unset"}
		}
	case ".", "source":
		r.draft.Note("what this reads is not in this text", "", place)
	case "cat", "tee":
		r.keep(words, in)
	}
	if in == nil {
		in = r.named(words)
	}
	o := r.run(&Command{words, place, r.may, r.where, in}, first, last)
	if o == likely && slices.Contains(tests, path.Base(w.Text)) {
		return Unsure
	}
	return o
}

// named is the text of a file that a restore reads, where this text has it.
func (r *reader) named(words []Word) *Input {
	if !strings.HasSuffix(path.Base(words[0].Text), "restore") {
		return nil
	}
	return r.load(words[1:]...)
}

// load is the text of the first file that this text has, which counts as read then.
func (r *reader) load(names ...Word) *Input {
	for _, w := range names {
		if in := r.files[w.Text]; in != nil {
			r.files[w.Text] = nil
			return in
		}
	}
	return nil
}

// valued are options of the commands that run others, which have a value.
var valued = map[string]string{
	"sudo": "ugpCDhRTrt", "doas": "uC", "nice": "n", "env": "uSC", "timeout": "ks", "nsenter": "tSG", "docker": "euw", "podman": "euw", "lxc": "",
	"kubectl": "cn", "ssh": "bcDEeFIiJLlmOopQRSWwB", "ip": "n",
}

// plain takes off what runs the command: sudo, a container, another host.
func (r *reader) plain(words []Word) []Word {
	for len(words) > 0 {
		name := path.Base(words[0].Text)
		take := 0 // words after the options
		switch name {
		case "sudo", "doas", "command", "exec", "nohup", "time", "nice", "busybox", "chroot":
			if name == "chroot" {
				take = 1
			}
		case "timeout":
			take = 1
		case "env":
		case "nsenter":
			r.where = "a namespace"
		case "ip":
			i := slices.IndexFunc(words, func(w Word) bool { return w.Text == "exec" })
			if i < 2 || words[i-1].Text != "netns" && words[i-1].Text != "vrf" || i+1 >= len(words) {
				return words
			}
			r.where = "namespace " + words[i+1].Text
			words = words[i+2:]
			continue
		case "docker", "podman", "lxc", "kubectl", "incus":
			i := slices.IndexFunc(words, func(w Word) bool { return w.Text == "exec" })
			if i < 1 {
				return words
			}
			words = append([]Word{words[0]}, words[i+1:]...)
			take = 1
		case "ssh":
			take = 1
		default:
			return words
		}
		rest := options(words[1:], valued[name])
		if take > 0 && len(rest) > 0 {
			if name != "timeout" && name != "chroot" {
				r.where = name + " " + rest[0].Text
			}
			rest = options(rest[1:], valued[name])
		}
		for name == "env" && len(rest) > 0 && strings.Contains(rest[0].Text, "=") {
			rest = rest[1:]
		}
		if name == "ssh" {
			if len(rest) > 0 {
				r.nested(rest)
			}
			return nil
		}
		words = rest
	}
	return words
}

// options are words without the options at their beginning; -- ends these.
func options(words []Word, valued string) []Word {
	for len(words) > 0 {
		o := words[0].Text
		switch {
		case o == "--":
			return words[1:]
		case len(o) < 2 || o[0] != '-':
			return words
		case o[1] != '-' && strings.IndexByte(valued, o[len(o)-1]) >= 0 && len(words) > 1:
			words = words[1:]
		}
		words = words[1:]
	}
	return nil
}

// Option is an option by the first of its names.
type Option struct {
	Name string
	// Values is how many words follow it; -1: one that may be missing.
	Values int
}

// Options are those of a command by all of their names.
type Options map[string]Option

// OptionsOf reads names of options with the number of values that follow: NAME for one,
// NAME/0, NAME/2, and NAME/? for one that may be missing. Names that mean the same are
// joined by '='.
func OptionsOf(text string) Options {
	out := Options{}
	for o := range strings.FieldsSeq(text) {
		names, number, has := strings.Cut(o, "/")
		spellings := strings.Split(names, "=")
		one := Option{spellings[0], 1}
		if has {
			one.Values = map[string]int{"0": 0, "2": 2, "?": -1}[number]
		}
		for _, s := range spellings {
			out[s] = one
		}
	}
	return out
}

// Find returns the option of this name, or the only one that begins so.
func (all Options) Find(name string) (o Option, ok bool) {
	if o, ok = all[name]; ok {
		return o, true
	}
	for spelling, other := range all {
		if strings.HasPrefix(spelling, name) {
			if ok && o != other {
				return Option{}, false
			}
			o, ok = other, true
		}
	}
	return o, ok
}

// nested runs a script that is an argument.
func (r *reader) nested(words []Word) Outcome {
	if len(words) == 0 {
		return Succeeds
	}
	text := strings.TrimSpace(texts(words))
	file, err := parse(text)
	if err != nil || slices.ContainsFunc(words, func(w Word) bool { return w.Unknown != "" && balancing.MatchString(text) }) {
		return Unsure
	}
	f := &fragment{text: text, first: words[0].Place.Line - 1, lines: 1, at: &words[0].Place}
	o := Unsure
	r.in(f, func() { o = r.stmts(file.Stmts) })
	return o
}

// input is what redirections bring to a command.
func (r *reader) input(s *syntax.Stmt) *Input {
	var in *Input
	for _, d := range s.Redirs {
		switch d.Op {
		case syntax.Hdoc, syntax.DashHdoc:
			in = r.document(d)
		case syntax.WordHdoc:
			if w := r.literal(d.Word); w.Unknown == "" {
				in = &Input{Lines: strings.Split(w.Text, "\n"), First: w.Place.Line - 1}
			}
		case syntax.RdrIn:
			if file := r.load(r.literal(d.Word)); file != nil {
				in = file
			}
		}
	}
	if call, ok := s.Cmd.(*syntax.CallExpr); ok && len(call.Args) > 0 {
		name, made := path.Base(call.Args[0].Lit()), in
		for _, d := range s.Redirs {
			if d.Op != syntax.RdrOut && d.Op != syntax.RdrClob && d.Op != syntax.AppOut {
				continue
			}
			if name == "echo" || name == "printf" {
				made = r.output(&syntax.Stmt{Cmd: call})
			}
			if made != nil && slices.Contains([]string{"cat", "tee", "echo", "printf"}, name) {
				file := r.literal(d.Word).Text
				r.files[file] = made.behind(r.files[file], d.Op == syntax.AppOut)
				r.budget -= len(r.files[file].Lines) / 16
			}
		}
	}
	return in
}

// behind is what is in a file that has had old.
func (in *Input) behind(old *Input, appended bool) *Input {
	if !appended || old == nil || in.First < old.First+len(old.Lines) {
		return in
	}
	lines := slices.Concat(old.Lines, make([]string, in.First-old.First-len(old.Lines)), in.Lines)
	return &Input{Lines: lines, First: old.First, Dollar: old.Dollar || in.Dollar}
}

// keep notes what tee writes.
func (r *reader) keep(words []Word, in *Input) {
	if in == nil || path.Base(words[0].Text) != "tee" {
		return
	}
	for _, w := range options(words[1:], "") {
		r.files[w.Text] = in
	}
}

// document is the text of a here-document.
func (r *reader) document(d *syntax.Redirect) *Input {
	in := &Input{}
	if d.Hdoc == nil {
		return in
	}
	in.First = r.placeOf(d.Hdoc).Line - 1
	quoted := slices.ContainsFunc(d.Word.Parts, func(p syntax.WordPart) bool { _, ok := p.(*syntax.Lit); return !ok })
	b := &builder{r: r}
	for _, p := range d.Hdoc.Parts {
		if lit, ok := p.(*syntax.Lit); ok && quoted {
			b.add(lit.Value)
		} else {
			b.part(p, true)
		}
	}
	in.Dollar = !quoted && b.unknown != ""
	in.Lines = strings.Split(strings.TrimSuffix(b.cur.String(), "\n"), "\n")
	return in
}

// output is what the first command of a pipe prints; nil where it is not
// known.
func (r *reader) output(s *syntax.Stmt) *Input {
	c, ok := s.Cmd.(*syntax.CallExpr)
	if !ok || len(c.Args) == 0 {
		return nil
	}
	switch c.Args[0].Lit() {
	case "cat":
		if in := r.input(s); in != nil {
			return in
		}
		return r.load(r.fields(c.Args[1:])...)
	case "echo", "printf":
		words := options(r.fields(c.Args[1:]), "")
		if len(words) == 0 || slices.ContainsFunc(words, func(w Word) bool { return w.Unknown != "" }) {
			return nil
		}
		text := strings.ReplaceAll(strings.TrimSpace(texts(words)), `\n`, "\n")
		return &Input{Lines: strings.Split(text, "\n"), First: words[0].Place.Line - 1}
	}
	return nil
}
