package syntax

// Rules: from the words of a command to conditions and a target.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/shell"
)

// setting is an option with its values.
type setting struct {
	name   string
	not    bool
	at     word
	values []word
}

// value is the first value, of an option that has any.
func (o *setting) value() string { return o.values[0].Text }

// group is a match or a target with its options.
type group struct {
	name    string
	at      word
	module  shell.Options // nil: unknown
	options []*setting
}

// get returns the last option of this name; nil where there is none.
func (g *group) get(name string) *setting {
	for _, o := range slices.Backward(g.options) {
		if o.name == name {
			return o
		}
	}
	return nil
}

// reader reads one rule.
type reader struct {
	family  lb.Family
	base    group
	matches []*group
	target  *group
	isGoto  bool
	proto   string
	rule    *Rule
	errs    []Issue // the hint is what is wanted
	// guessed: a word has a part that is not known, so nothing can be wrong.
	guessed bool
}

func (r *reader) fail(at word, msg, want string) {
	r.errs = append(r.errs, Issue{Place: at.Place, Msg: msg, Hint: want})
}

// good reports whether a value could be read; where not, that is said.
func (r *reader) good(o *setting, err error, want string) bool {
	if err != nil {
		r.fail(o.values[0], err.Error(), want)
	}
	return err == nil
}

// LeftOut is how issues end because of which a rule is left out.
const LeftOut = ", so this rule is left out"

// lost notes a part of the rule that is not understood; the rule is left out.
func (r *reader) lost(at word, msg, hint string) {
	r.rule.Issues = append(r.rule.Issues, Issue{importer.Lost, at.Place, msg + LeftOut, hint})
	r.rule.Skip = true
}

func (r *reader) issue(level importer.Level, at word, msg, hint string) {
	r.rule.Issues = append(r.rule.Issues, Issue{level, at.Place, msg, hint})
}

// maxWords bounds the words of a rule; iptables-restore takes 255.
const maxWords = 1024

// ReadRule reads the words of a rule, without the command. It is several rules
// where -s or -d have lists, as iptables makes them. The hint of a mistake is what
// is wanted.
func ReadRule(words []word, f lb.Family, at importer.Place) (rules []*Rule, mistakes []Issue) {
	at.Width = 0 // all of it
	r := &reader{family: f, rule: &Rule{Place: at, Text: textOf(words)}}
	r.base.module = base
	if len(words) > maxWords {
		r.fail(words[maxWords], "a rule has too many words", fmt.Sprintf("at most %d", maxWords))
		words = words[:maxWords]
	}
	r.group(words)
	rules = r.build()
	if r.guessed {
		return rules, nil
	}
	return rules, r.errs
}

// textOf is words as one could type them.
func textOf(words []word) string {
	var parts []string
	for _, w := range words {
		text := w.Text
		if text == "" || strings.ContainsAny(text, " \t\"'") {
			text = `"` + strings.ReplaceAll(text, `"`, `\"`) + `"`
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

// group finds out which option belongs to which module.
func (r *reader) group(words []word) {
	not := false
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		switch {
		case w.Text == "!":
			not = true
			continue
		case w.Unknown != "" && !strings.HasPrefix(w.Text, "-"):
			r.unknown(w)
		case len(w.Text) < 2 || w.Text[0] != '-':
			r.fail(w, fmt.Sprintf("%q is no option", w.Text), "options of iptables")
		default:
			words = r.option(w, words, not)
		}
		not = false
	}
	if not {
		r.fail(word{Place: r.rule.Place}, "! has nothing after it", "an option")
	}
}

func (r *reader) unknown(w word) {
	r.guessed = true
	r.lost(w, "the value of "+w.Unknown+" is not known here", "write it out, or set it once in a line before: NAME=value")
}

// option reads one option and returns the words after it.
func (r *reader) option(w word, words []word, not bool) []word {
	name, attached, has := strings.Cut(w.Text, "=")
	long := strings.HasPrefix(name, "--")
	if long {
		name = name[2:]
	} else {
		full, ok := short[w.Text[1]]
		if !ok {
			r.fail(w, fmt.Sprintf("unknown option %s", w.Text), "an option of iptables")
			return words
		}
		attached, has = w.Text[2:], len(w.Text) > 2
		name = full
	}
	g, known := r.owner(name, long, w)
	o, count := &setting{name: known.Name, not: not, at: w}, known.Values
	if g == nil {
		if !r.guessed { // else -p may be what is not known, and the rule is left out
			r.lost(w, "the option --"+name+" is not known", "")
		}
		return loose(words)
	}
	if has && count != 0 {
		v := w
		v.Text = attached
		o.values = append(o.values, v)
	}
	if len(words) > 0 && words[0].Text == "!" && count > 0 && len(o.values) == 0 {
		o.not = true // as in -d ! 10.0.0.1, before iptables 1.4.3
		words = words[1:]
	}
	switch {
	case g.module == nil:
		n := len(words) - len(loose(words))
		o.values = append(o.values, words[:n]...)
		words = words[n:]
	case count < 0:
		if len(words) > 0 && words[0].Text != "" && strings.Trim(words[0].Text, "0123456789.") == "" {
			words = words[1:]
		}
	default:
		n := max(0, count-len(o.values))
		if n > len(words) {
			r.fail(w, fmt.Sprintf("%s needs %d value%s", w.Text, count, map[bool]string{true: "s"}[count > 1]), "a value after it")
			return nil
		}
		o.values = append(o.values, words[:n]...)
		words = words[n:]
	}
	for _, v := range o.values {
		if v.Unknown != "" && o.name != "comment" && o.name != "log-prefix" {
			r.unknown(v)
			return words
		}
	}
	r.take(g, o)
	return words
}

// loose skips the values of an option that is not known.
func loose(words []word) []word {
	for len(words) > 0 && !(words[0].Text == "!" || words[0].Bare && strings.HasPrefix(words[0].Text, "-")) {
		words = words[1:]
	}
	return words
}

// owner finds the group that an option belongs to: what was loaded last has
// precedence. The match of a protocol is loaded when an option asks for it.
func (r *reader) owner(name string, long bool, at word) (*group, shell.Option) {
	general, isGeneral := base.Find(name)
	if isGeneral && (!long || general.Name == name || r.target == nil && len(r.matches) == 0) {
		return &r.base, general
	}
	loaded := slices.Clone(r.matches)
	if r.target != nil {
		loaded = append(loaded, r.target)
	}
	slices.Reverse(loaded)
	for _, g := range loaded {
		if o, ok := g.module.Find(name); ok {
			return g, o
		}
	}
	if m := matches[r.proto]; protocols[r.proto] != 0 || r.proto == "icmp6" {
		if o, ok := m.Find(name); ok {
			g := &group{name: r.proto, at: at, module: m}
			r.matches = append(r.matches, g)
			return g, o
		}
	}
	for _, g := range loaded {
		if g.module == nil {
			return g, shell.Option{Name: name}
		}
	}
	if isGeneral {
		return &r.base, general
	}
	return nil, shell.Option{}
}

// take puts an option where it belongs. Some begin a new group.
func (r *reader) take(g *group, o *setting) {
	switch {
	case g != &r.base:
	case o.name == "match":
		r.matches = append(r.matches, &group{name: o.value(), at: o.values[0], module: matches[o.value()]})
		return
	case o.name == "jump" || o.name == "goto":
		if r.target != nil {
			r.fail(o.at, "a second target", "one -j or -g")
			return
		}
		r.target = &group{name: o.value(), at: o.values[0]}
		if r.isGoto = o.name == "goto"; !r.isGoto {
			r.target.module = targets[o.value()]
		}
		return
	case o.name == "protocol":
		r.proto = strings.ToLower(o.value())
		if n, ok := map[string]string{"6": "tcp", "17": "udp", "132": "sctp", "ipv6-icmp": "icmp6", "icmpv6": "icmp6"}[r.proto]; ok {
			r.proto = n
		}
	}
	g.options = append(g.options, o)
}

// build makes the rules of what was read.
func (r *reader) build() []*Rule {
	sources := r.networks("source")
	destinations := r.networks("destination")
	for _, o := range r.base.options {
		switch o.name {
		case "protocol", "in-interface", "out-interface", "fragment":
			r.condition(&r.base, o)
		}
	}
	for _, g := range r.matches {
		r.match(g)
	}
	r.readTarget()
	var rules []*Rule
	for _, s := range sources {
		for _, d := range destinations {
			one := *r.rule
			var first []Match
			if s != nil {
				first = append(first, Source{s})
			}
			if d != nil {
				first = append(first, Within{Of: space.Destination, Set: d})
			}
			for _, m := range r.rule.Matches {
				if n, ok := m.(*Nth); ok { // each rule counts for itself
					own := *n
					m = &own
				}
				first = append(first, m)
			}
			one.Matches = first
			rules = append(rules, &one)
		}
	}
	return rules
}

func (r *reader) add(m Match) { r.rule.Matches = append(r.rule.Matches, m) }
