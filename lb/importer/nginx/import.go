// Package nginx turns the stream part of a configuration of nginx into a profile.
package nginx

// Import: files, blocks, and which of them become services.

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"nlb/lb/importer"
	"nlb/lb/importer/words"
)

// Import reads nginx.conf, a file that one includes in stream, or what nginx -T
// prints. The error is lb.Errors.
func Import(file string, data []byte) (*importer.Import, error) {
	draft, err := importer.Begin(file, "nginx", data)
	if err != nil {
		return nil, err
	}
	r := &reader{Draft: draft, zones: map[string]string{}, upstreams: map[string]*upstream{}}
	main, err := r.parse()
	if err != nil {
		return nil, err
	}
	r.main(r.included(main, 0))
	return r.Import()
}

// reader reads a configuration.
type reader struct {
	*importer.Draft
	files     []document // of nginx -T
	upstreams map[string]*upstream
	zones     map[string]string // of limit_conn_zone: the key
}

// document is one of several files in a text.
type document struct {
	name string
	all  []*words.Directive
}

// heading is what nginx -T prints before each file.
var heading = regexp.MustCompile(`^# configuration file (\S+):$`)

// parse reads the files of a text, and returns what the first has.
func (r *reader) parse() ([]*words.Directive, error) {
	var starts []int
	for i, line := range r.Lines {
		if m := heading.FindStringSubmatch(line); m != nil {
			starts = append(starts, i)
			r.files = append(r.files, document{name: m[1]})
		}
	}
	if len(starts) == 0 {
		starts, r.files = []int{0}, []document{{}}
	}
	starts = append(starts, len(r.Lines))
	for i := range r.files {
		syntax := words.Syntax{Comments: "#", Semicolons: true, Braces: true, Single: true, From: starts[i], To: starts[i+1]}
		all, err := words.Parse(&r.Mistakes, syntax)
		if err != nil {
			return nil, err
		}
		r.files[i].all = all
	}
	return r.files[0].all, nil
}

// maxIncludes is how deep files include others.
const maxIncludes = 10

// included are directives with those of the files that they include, where the text
// has them.
func (r *reader) included(all []*words.Directive, depth int) []*words.Directive {
	var out []*words.Directive
	for _, d := range all {
		if d.Name() != "include" {
			out = append(out, d)
			continue
		}
		found := false
		for _, f := range r.files {
			pattern := d.Arg(1)
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(r.files[0].name), pattern)
			}
			if ok, _ := path.Match(pattern, f.name); ok && f.name != "" {
				found = true
				if depth == maxIncludes {
					r.Fail(d.Place(), fmt.Sprintf("files include others more than %d deep", maxIncludes), "")
				} else if r.Spend(1+len(f.all), d.Place()) {
					out = append(out, r.included(f.all, depth+1)...)
				}
			}
		}
		if !found && !strings.ContainsAny(d.Arg(1), "*?[") || !found && r.files[0].name == "" {
			out = append(out, d) // block says it where it matters
		}
	}
	return out
}

// block are the directives of a block, with what it includes. What is not here is
// said.
func (r *reader) block(all []*words.Directive) []*words.Directive {
	var out []*words.Directive
	for _, d := range r.included(all, 0) {
		if d.Name() == "include" {
			r.Lost("what "+d.Arg(1)+" has is not in this text", "nginx -T prints all of the configuration", d.Place())
			continue
		}
		out = append(out, d)
	}
	return out
}

// main reads the first level: of nginx.conf, or of a file that is included in
// stream.
func (r *reader) main(all []*words.Directive) {
	relays := slices.ContainsFunc(all, func(d *words.Directive) bool {
		return d.Name() == "server" && words.Last(d.Block, "proxy_pass") != nil
	})
	if relays {
		r.stream(all)
		return
	}
	stream := false
	for _, d := range all {
		switch d.Name() {
		case "stream":
			stream = true
			r.stream(d.Block)
		case "http", "mail", "server", "upstream":
			what := "HTTP"
			if d.Name() == "mail" {
				what = "mail"
			}
			r.Lost(d.Name()+" { } is about "+what+"; nlb balances connections and reads nothing of them, so it is left out", "what nginx does in stream is translated", d.Place())
		case "include":
			if !strings.Contains(d.Arg(1), "modules") {
				r.Lost("what "+d.Arg(1)+" has is not in this text", "nginx -T prints all of the configuration", d.Place())
			}
		}
	}
	if !stream && len(all) == 0 {
		r.Fail(importer.Place{Line: 1, Column: 1}, "nothing in this text is of nginx", "stream { ... }")
	}
}

// quiet are directives that say nothing of where connections go, of stream and
// its servers, and those that are read, or said elsewhere.
var quiet = importer.Words(`
	access_log error_log log_format open_log_file_cache preread_buffer_size preread_timeout proxy_buffer_size proxy_connect_timeout proxy_socket_keepalive
	proxy_half_close proxy_next_upstream_timeout proxy_next_upstream_tries proxy_requests proxy_responses resolver resolver_timeout tcp_nodelay
	variables_hash_bucket_size variables_hash_max_size server_names_hash_bucket_size map_hash_bucket_size map_hash_max_size limit_conn_log_level
	limit_conn_dry_run proxy_protocol_timeout status_zone server_name ssl_preread set listen proxy_pass proxy_bind proxy_next_upstream allow deny
	limit_conn limit_conn_zone server upstream map geo split_clients proxy_timeout proxy_ssl proxy_protocol health_check match
`)

// stream reads the block of that name. What it says holds for the servers that do
// not say otherwise.
func (r *reader) stream(all []*words.Directive) {
	all = r.block(all)
	for _, d := range all {
		switch d.Name() {
		case "upstream":
			if d.Arg(1) == "" {
				r.Fail(d.Place(), "upstream has no name", "upstream NAME { ... }")
			}
			r.upstreams[d.Arg(1)] = r.upstream(d)
		case "limit_conn_zone":
			name, _, _ := strings.Cut(strings.TrimPrefix(d.Arg(2), "zone="), ":")
			r.zones[name] = d.Arg(1)
		}
	}
	used := map[*upstream]bool{}
	settings := slices.DeleteFunc(slices.Clone(all), func(d *words.Directive) bool { return d.Block != nil })
	for _, d := range all {
		if d.Name() == "server" {
			r.server(d, settings, used)
		} else {
			r.known(d)
		}
	}
	for _, d := range all {
		if u := r.upstreams[d.Arg(1)]; d.Name() == "upstream" && u != nil && u.directive == d && !used[u] {
			r.Note("no server that is translated uses this upstream, so it is not in the profile", "", d.Place())
		}
	}
}

// known says of a directive that it is not translated, where that matters.
func (r *reader) known(d *words.Directive) {
	if name := d.Name(); !quiet[name] && !strings.HasPrefix(name, "ssl_") && !strings.HasPrefix(name, "proxy_ssl_") {
		r.Lost(name+" is not translated", "", d.Place())
	}
}
