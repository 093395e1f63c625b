// Package formats is all that can be imported: which format a text is of, and who
// reads it.
package formats

// Formats by their names.

import (
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
