// Package haproxy turns configurations of HAProxy into a profile: what has mode
// tcp.
package haproxy

// Import: sections, and which of them become services.

import (
	"fmt"
	"slices"

	"nlb/lb/importer"
	"nlb/lb/importer/words"
)

// Import reads haproxy.cfg. The error is lb.Errors.
func Import(file string, data []byte) (*importer.Import, error) {
	draft, err := importer.Begin(file, "haproxy", data)
	if err != nil {
		return nil, err
	}
	all, err := words.Parse(&draft.Mistakes, words.Syntax{Comments: "#", Anywhere: true, Single: true, Escapes: true, To: len(draft.Lines)})
	if err != nil {
		return nil, err
	}
	r := &reader{Draft: draft, backends: map[string]*proxy{}, used: map[*proxy]bool{}}
	r.sections(all)
	for _, p := range r.proxies {
		if p.kind == "backend" || p.kind == "listen" {
			r.backends[p.name] = p
		}
	}
	for _, p := range r.proxies {
		if p.kind != "backend" {
			r.front(p)
		}
	}
	for _, p := range r.proxies {
		if p.kind == "backend" && !r.used[p] && p.mode() == "tcp" {
			r.Note("no frontend of mode tcp in this text uses this backend, so it is not in the profile", "", p.at)
		}
	}
	return r.Import()
}

// reader reads a configuration.
type reader struct {
	*importer.Draft
	proxies  []*proxy // frontend, backend and listen, in order
	backends map[string]*proxy
	used     map[*proxy]bool // backends that a service has
}

// others are sections that say nothing of where connections go.
var others = []string{
	"global", "peers", "resolvers", "userlist", "mailers", "cache", "program", "http-errors", "ring", "log-forward", "fcgi-app",
	"crt-store", "traces", "log-profile", "acme", "healthcheck", "crt-list",
}

// heads begin the sections that may say from.
var heads = []string{"defaults", "frontend", "backend", "listen"}

// sections parts the directives. Those of the defaults that hold for a section
// stand before its own.
func (r *reader) sections(all []*words.Directive) {
	named := map[string][]*words.Directive{}
	var latest []*words.Directive // of the defaults
	var into func(d *words.Directive)
	for _, d := range all {
		kind, name, at := d.Name(), d.Arg(1), d.Place()
		from := latest
		behind := len(d.Words) // the words that say from
		i := slices.IndexFunc(d.Words, func(w words.Word) bool { return w.Text == "from" })
		if i > 0 && i+1 < len(d.Words) && slices.Contains(heads, kind) {
			behind = i
			known, ok := named[d.Arg(i+1)]
			if from = known; !ok {
				r.Fail(d.Words[i+1].Place, fmt.Sprintf("there are no defaults %q before", d.Arg(i+1)), "a section defaults of this name")
			}
			if i == 1 {
				name = ""
			}
		}
		switch {
		case kind == "defaults":
			lines := []*words.Directive{}
			if behind < len(d.Words) {
				lines = slices.Clone(from)
			}
			into = func(d *words.Directive) {
				lines = append(lines, d)
				latest = lines
				if name != "" {
					named[name] = lines
				}
			}
			latest = lines
			named[name] = lines
		case kind == "frontend" || kind == "backend" || kind == "listen":
			if name == "" {
				r.Fail(at, kind+" has no name", kind+" NAME")
			}
			if !r.Spend(len(from), at) {
				return
			}
			p := &proxy{reader: r, kind: kind, name: name, at: at, lines: slices.Clone(from)}
			r.proxies = append(r.proxies, p)
			into = func(d *words.Directive) { p.lines = append(p.lines, d) }
			if kind != "backend" && behind > 2 { // listen NAME ADDRESS:PORT, before HAProxy 1.5
				bind := *d
				bind.Words = append([]words.Word{{Text: "bind", Place: d.Words[2].Place}}, d.Words[2:behind]...)
				p.lines = append(p.lines, &bind)
			}
		case slices.Contains(others, kind):
			into = func(*words.Directive) {}
		case len(kind) > 0 && kind[0] == '.': // .if, .else, .endif
			r.Lost("it is not known which of the lines between .if and .endif hold; all are read", "", at)
		case into == nil:
			r.Fail(d.Words[0].Place, fmt.Sprintf("%q stands in no section", d.Text()), "global, defaults, frontend, backend or listen before it")
			into = func(*words.Directive) {}
		default:
			into(d)
		}
	}
}
