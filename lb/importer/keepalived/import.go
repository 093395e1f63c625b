// Package keepalived turns the virtual servers of keepalived into a profile.
package keepalived

// Import: blocks, and which of them become services.

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/words"
)

// Import reads keepalived.conf. The error is lb.Errors.
func Import(file string, data []byte) (*importer.Import, error) {
	draft, err := importer.Begin(file, "keepalived", data)
	if err != nil {
		return nil, err
	}
	all, err := words.Parse(&draft.Mistakes, words.Syntax{Comments: "#!", Anywhere: true, Braces: true, To: len(draft.Lines)})
	if err != nil {
		return nil, err
	}
	r := &reader{Draft: draft, values: map[string]string{}, groups: map[string]*words.Directive{}}
	r.main(r.plain(all))
	return r.Import()
}

// reader reads a configuration.
type reader struct {
	*importer.Draft
	values map[string]string // of $NAME=value
	groups map[string]*words.Directive
	// services wait for what VRRP says of all of them.
	services []service
}

// service is what a virtual server becomes.
type service struct {
	lb.Service
	place importer.Place
	note  string
}

// plain are directives with the values of parameters in them, and without those
// that are for some hosts only.
func (r *reader) plain(all []*words.Directive) []*words.Directive {
	var out []*words.Directive
	for _, d := range all {
		name := d.Name()
		key, value, isPair := strings.Cut(name, "=")
		switch {
		case isPair && len(key) > 1 && key[0] == '$':
			if r.values[key[1:]] = value; len(d.Words) > 1 {
				r.Lost("the parameter "+key+" has several words, of which the first is read", "", d.Place())
			}
		case strings.HasPrefix(name, "@"):
			r.Lost("a line for the hosts "+name+" is left out: it is not known which host this is", "take the @ away from lines that hold", d.Place())
		case slices.Contains([]string{"include", "includer", "includem", "includew", "includeb"}, name):
			r.Lost("what "+d.Arg(1)+" has is not in this text", "put it in the place of this line", d.Place())
		default:
			one := &words.Directive{Words: slices.Clone(d.Words)}
			for i := range one.Words {
				one.Words[i].Text = r.filled(one.Words[i])
			}
			if d.Block != nil {
				one.Block = r.plain(d.Block)
			}
			out = append(out, one)
		}
	}
	return out
}

// filled is a word with the values of its parameters.
func (r *reader) filled(w words.Word) string {
	text := w.Text
	if !strings.Contains(text, "$") {
		return text
	}
	if !r.Spend(len(r.values), w.Place) {
		return text
	}
	for _, name := range slices.Sorted(maps.Keys(r.values)) {
		if text == "$"+name {
			return r.values[name]
		}
		if text = strings.ReplaceAll(text, "${"+name+"}", r.values[name]); len(text) > 1<<12 {
			break
		}
	}
	return text
}

// vrrp are blocks that are about addresses that move between hosts.
var vrrp = []string{
	"vrrp_sync_group", "vrrp_script", "vrrp_track_file", "vrrp_track_process", "vrrp_rule", "garp_group", "static_ipaddress", "static_routes", "static_rules",
	"track_file", "track_process", "track_bfd", "bfd_instance", "interface_up_down_delays", "linkbeat_use_polling", "linkbeat_interfaces",
}

// other are blocks and words that say nothing of where connections go.
var other = []string{"global_defs", "SSL", "random_seed", "net_namespace", "net_namespace_ipvs", "instance", "use_pid_dir", "child_wait_time", "namespace_with_ipsets", "process_names"}

func (r *reader) main(all []*words.Directive) {
	for d := range words.All(all, "virtual_server_group") {
		r.groups[d.Arg(1)] = d
	}
	var instances []*words.Directive
	for _, d := range all {
		switch name := d.Name(); {
		case name == "virtual_server":
			r.virtual(d)
		case name == "virtual_server_group", slices.Contains(vrrp, name), slices.Contains(other, name):
		case name == "vrrp_instance":
			instances = append(instances, d)
		default:
			r.Lost(name+" is not translated", "", d.Place())
		}
	}
	pair := r.pair(instances)
	for _, one := range r.services {
		if pair {
			one.Fleet = lb.FleetPair
		}
		r.Add(one.Service, one.place, one.note)
	}
}

// pair reports whether the services are those of a pair: VRRP moves an address of theirs.
func (r *reader) pair(instances []*words.Directive) (pair bool) {
	served := map[string]bool{}
	blocked := ""
	for _, s := range r.services {
		for _, l := range s.Listen {
			served[l.Prefix.Addr().String()] = true
		}
		if slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.SNAT.Mode == lb.Masquerade }) {
			blocked = s.Name
		}
	}
	for _, d := range instances {
		list := addresses(d)
		what := fmt.Sprintf("VRRP (%s) moves %s between hosts", d.Arg(1), cmp.Or(importer.Some(list, 4), "addresses"))
		switch {
		case !slices.ContainsFunc(list, func(a string) bool { return served[a] }):
			r.Note(what+"; no service here has them, and keepalived goes on with that", "", d.Place())
		case blocked != "":
			r.Lost(what+", which is fleet: pair; the profile is not, since service "+blocked+" has snat: masquerade, whose connections end when they move",
				"with snat: none, or an address that moves along, it can be", d.Place())
		default:
			r.Note(what+": fleet: pair. keepalived goes on with that, without its virtual_servers",
				"both hosts need this profile, and conntrackd for connections to go on; nlb render prints configurations of both daemons", d.Place())
			pair = true
		}
	}
	return pair
}

// addresses are those that an instance of VRRP moves.
func addresses(d *words.Directive) []string {
	var list []string
	for b := range words.All(d.Block, "virtual_ipaddress", "virtual_ipaddress_excluded") {
		for _, a := range b.Block {
			text, _, _ := strings.Cut(a.Name(), "/")
			if addr, err := netip.ParseAddr(text); err == nil {
				text = addr.String()
			}
			list = append(list, text)
		}
	}
	return list
}
