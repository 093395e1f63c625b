// Package formats is all that can be imported: which format a text is of, and who
// reads it.
package formats

// Formats by their names, and kinds: what a text is, by a line that no other text has.

import (
	"regexp"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/haproxy"
	"nlb/lb/importer/iptables"
	"nlb/lb/importer/iptlb"
	"nlb/lb/importer/ipvs"
	"nlb/lb/importer/keepalived"
	"nlb/lb/importer/nftables"
	"nlb/lb/importer/nftlb"
	"nlb/lb/importer/nginx"
)

// all are the formats, and what reads them.
var all = []struct {
	name string
	read func(file string, data []byte) (*importer.Import, error)
}{
	{"iptables", iptables.Import},
	{"ipvs", ipvs.Import},
	{"nft", nftables.Import},
	{"haproxy", haproxy.Import},
	{"nginx", nginx.Import},
	{"keepalived", keepalived.Import},
	{"iptlb", iptlb.Import},
	{"nftlb", nftlb.Import},
}

// Names are the names of the formats.
func Names() []string {
	var out []string
	for _, f := range all {
		out = append(out, f.name)
	}
	return out
}

// Read imports a text of a format, one of Names; where that is empty, it is
// found out. file is the text's name for messages. The error is lb.Errors: a
// text that the format's own program would refuse, or one of another kind, which
// is one error that says so.
func Read(format, file string, data []byte) (*importer.Import, error) {
	lines, err := importer.Lines(file, data)
	if err != nil {
		return nil, err
	}
	lines, template := filled(lines)
	kind, known := recognise(lines)
	refuse := func(msg, hint string) error {
		e := importer.Mistake(file, lines, importer.Place{Line: 1, Column: 1}, msg, "")
		e.Hint = hint
		return lb.Errors{e}
	}
	other := func() error {
		if kind.format != "" {
			return refuse("this is "+kind.name, "nlb import "+kind.format+" reads it")
		}
		return refuse("this is "+kind.name+", which is not imported", kind.hint)
	}
	if format == "" {
		switch format = kind.format; {
		case !known:
			return nil, refuse("it is not known what this text is", "nlb import FORMAT FILE says it: "+strings.Join(Names(), ", "))
		case format == "":
			return nil, other()
		}
	}
	i := slices.Index(Names(), format)
	var rest []string
	parts := false
	if slices.Contains(configurations, format) {
		var own []string
		if own, rest, parts = part(lines, format); parts {
			lines = own
		}
	}
	if template || parts {
		data = []byte(strings.Join(lines, "\n"))
	}
	m, err := all[i].read(file, data)
	if err == nil {
		said(m, template, parts, rest)
	}
	if known && kind.format != format && (err != nil || len(m.Profile.Services) == 0) {
		return nil, other()
	}
	return m, err
}

// kind is a kind of text.
type kind struct {
	// name is what people call it.
	name string
	// format is what nlb import calls it; empty: nothing reads it.
	format string
	// hint says what to import instead.
	hint string
	// words: such a line has one of them, which is found sooner than line matches.
	words []string
	line  *regexp.Regexp
}

const saves = "iptables-save prints what can be imported"

// kinds are sorted: a text is the first that it can be.
var kinds = []kind{
	{"a configuration of keepalived", "keepalived", "", []string{"virtual_server", "vrrp_instance", "real_server"}, regexp.MustCompile(`^\s*(virtual_server(_group)?|vrrp_instance|real_server)\s[^:=]*$`)},
	{"a configuration of nginx", "nginx", "", []string{"{", "proxy_pass"}, regexp.MustCompile(`^\s*(upstream\s+\S+|stream|http|server)\s*\{|^\s*proxy_pass\s+\S+;`)},
	{"a configuration of HAProxy", "haproxy", "", []string{"frontend", "backend", "listen"}, regexp.MustCompile(`^(frontend|backend|listen)\s+[^\s{;]+(\s+\S+:\d+|\s+from\s+\S+)?\s*(#.*)?$`)},
	{"a profile of nlb", "", "nlb check reads it", []string{"profile:"}, regexp.MustCompile(`^profile:\s`)},
	{"`ipvsadm -Ln`", "ipvs", "", []string{"IP Virtual Server", "RemoteAddress:"}, regexp.MustCompile(`^IP Virtual Server version|RemoteAddress:Port`)},
	{"commands of ipvsadm", "ipvs", "", []string{"-A -", "ipvsadm"}, regexp.MustCompile(`^\s*-A\s+-[tuf]\s|(^|[^\w.-])ipvsadm(\s+(-[AaEeDdC]|--add)|["']?\s*$)`)},
	{"rules or commands of iptables", "iptables", "", []string{"*", "tables", "-A"}, regexp.MustCompile(`^\*(nat|mangle|raw|filter)\s*$|(^|[^\w.-])ip6?tables(-nft|-legacy)?(\s.*(-A|-I|-D|--append|--insert)\s|["']?\s*$)|^\s*-A\s+[A-Z_]+\s|^\s*(- +)?(ansible\.builtin\.)?iptables:\s*(\{|$)`)},
	{"`iptables -L`", "", saves, []string{"Chain", "target"}, regexp.MustCompile(`^Chain \S+ \((policy|\d+ references)|^target +prot opt +(in +out +)?source`)},
	{"`nft -j list ruleset`", "nft", "", []string{"nftables"}, regexp.MustCompile(`^\s*\{?\s*"nftables"\s*:`)},
	{"`nft list ruleset`", "", "nft -j list ruleset prints what can be imported; of rules that iptables-nft has made, iptables-save", []string{"table"}, regexp.MustCompile(`^\s*table (ip|ip6|inet|arp|bridge|netdev) \S+ \{`)},
	{"the JSON of nftlb", "nftlb", "", []string{"farm"}, regexp.MustCompile(`"?farms"?\s*:`)},
	{"the state of IPTLB", "iptlb", "", []string{"rulesBackend", "destination"}, regexp.MustCompile(`"?rulesBackend"?\s*:|^\s*"?destination"?\s*:\s*(\[|$)`)},
	{"a zone of firewalld", "", saves, []string{"<"}, regexp.MustCompile(`<(forward-port|zone)\b`)},
	{"a firewall of OpenWrt", "", saves, []string{"config", "firewall"}, regexp.MustCompile(`^\s*config (redirect|zone|forwarding)\b|^firewall\.@?\w+`)},
}

// recognise says what a text is; false where it is nothing that is known.
func recognise(lines []string) (kind, bool) {
	for _, k := range kinds {
		for _, line := range lines {
			line = line[:min(len(line), 1<<12)]
			if slices.ContainsFunc(k.words, func(w string) bool { return strings.Contains(line, w) }) && k.line.MatchString(line) {
				return k, true
			}
		}
	}
	return kind{}, false
}
