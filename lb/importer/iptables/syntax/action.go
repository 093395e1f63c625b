package syntax

// The action of a rule: what -j makes of its options.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/lb/importer"
)

// simple are targets without options that matter, passing those that do nothing to where
// a connection goes.
var (
	simple = map[string]Target{
		"ACCEPT": Accept{}, "DROP": Drop{}, "REJECT": Drop{}, "RETURN": Return{}, "NOTRACK": Untrack{},
	}
	passing = importer.Words("TCPMSS CHECKSUM TOS DSCP TTL HL CLASSIFY TRACE SECMARK CONNSECMARK RATEEST IDLETIMER AUDIT LED ECN TCPOPTSTRIP SET NFLOG ULOG")
)

func (r *reader) readTarget() {
	g := r.target
	switch {
	case g == nil:
		r.rule.Target = Pass{}
		return
	case r.isGoto:
		r.rule.Target = Jump{g.name, true}
		return
	case simple[g.name] != nil:
		r.rule.Target = simple[g.name]
		return
	case passing[g.name]:
		r.rule.Target = Pass{g.name}
		return
	}
	switch g.name {
	case "DNAT", "REDIRECT":
		r.dnat(g)
	case "SNAT":
		r.snat(g)
	case "MASQUERADE":
		r.rule.Target = SNAT{Masquerade: true, Random: g.random()}
		r.noted(g, "the ports of MASQUERADE are not in the profile", "to-ports")
	case "MARK", "CONNMARK":
		r.setMark(g)
	case "LOG":
		r.log(g)
	case "CT":
		r.rule.Target = Pass{"CT"}
		if g.get("notrack") != nil {
			r.rule.Target = Untrack{}
		}
	default:
		if r.rule.Target = (Jump{g.name, false}); g.module != nil { // else a chain, or nothing that we know
			r.rule.Target = Pass{g.name}
			r.lost(g.at, "-j "+g.name+" is not translated", "")
		}
	}
}

// withPorts are the protocols that have ports.
var withPorts = importer.Words("tcp udp sctp dccp udplite 33 136")

// noted notes of options that a profile does not have them.
func (r *reader) noted(g *group, msg string, options ...string) {
	for _, name := range options {
		if o := g.get(name); o != nil {
			r.issue(importer.Note, o.at, strings.ReplaceAll(msg, "OPTION", "--"+name), "")
		}
	}
}

// dnat is DNAT and REDIRECT.
func (r *reader) dnat(g *group) {
	target := DNAT{Host: g.name == "REDIRECT", Persistent: g.get("persistent") != nil, Random: g.random()}
	n := 0
	for _, o := range g.options {
		var to NATRange
		ok := true
		switch o.name {
		case "to-destination":
			to, ok = r.natRange(o)
		case "to-ports":
			var err error
			to.Ports, err = parseNATPorts(o.value())
			ok = r.good(o, err, "PORT or PORT-PORT")
		default:
			continue
		}
		switch {
		case !ok:
		case to.Wide(target.Random):
			r.lost(o.values[0], WideRange, "")
		default:
			target.To = append(target.To, to)
			if to.Ports.First != 0 && !target.Host && !withPorts[r.proto] {
				r.issue(importer.Note, o.values[0], "iptables refuses a port here without -p tcp, udp, sctp or dccp", "")
			}
		}
		if n++; n == 2 {
			r.issue(importer.Note, o.at, "no kernel since 2.6.11 takes several --to-destination: iptables refuses this rule today",
				"the profile balances over them as older kernels did")
		}
	}
	switch {
	case n > 0:
	case target.Host: // to the port that the client has sent to
		target.To = []NATRange{{}}
	default:
		r.fail(g.at, "DNAT has no --to-destination", "--to-destination ADDRESS[:PORT]")
	}
	r.rule.Target = target
	if !target.Random || !slices.ContainsFunc(target.To, func(n NATRange) bool { return n.Ports.First != n.Ports.Last }) {
		r.noted(g, "OPTION is not in the profile: it is about ports, and does not choose backends", "random", "random-fully")
	}
}

// natRange is what NAT chooses from; false where that is not known.
func (r *reader) natRange(o *setting) (NATRange, bool) {
	to, named, err := parseNAT(o.value(), r.family)
	if named {
		r.lost(o.values[0], "names of hosts are not resolved: "+o.value(), "write the address")
	}
	return to, r.good(o, err, "ADDRESS[-ADDRESS][:PORT[-PORT]]") && !named
}

// random reports whether NAT chooses ports at random.
func (g *group) random() bool { return g.get("random") != nil || g.get("random-fully") != nil }

func (r *reader) snat(g *group) {
	o := g.get("to-source")
	if o == nil {
		r.fail(g.at, "SNAT has no --to-source", "--to-source ADDRESS[-ADDRESS]")
		r.rule.Target = Pass{"SNAT"}
		return
	}
	to, ok := r.natRange(o)
	if ok && to.Ports.First != 0 {
		r.issue(importer.Note, o.values[0], "the ports of --to-source are not in the profile", "")
	}
	r.rule.Target = SNAT{To: to, Random: g.random()}
}

func (r *reader) setMark(g *group) {
	connection := g.name == "CONNMARK"
	bits := func(name string, other uint32) (uint32, bool) {
		o := g.get(name)
		if o == nil {
			return other, true
		}
		n, err := parseBits(o.value())
		return n, r.good(o, err, "a number of 32 bits")
	}
	for _, o := range g.options {
		switch o.name {
		case "save-mark", "restore-mark":
			mask, _ := bits("mask", ^uint32(0))
			nf, _ := bits("nfmask", mask)
			ct, _ := bits("ctmask", mask)
			if o.name == "save-mark" {
				r.rule.Target = CopyMark{true, ct, nf}
			} else {
				r.rule.Target = CopyMark{false, nf, ct}
			}
			return
		case "set-mark", "set-xmark", "and-mark", "or-mark", "xor-mark":
			value, mask, masked, err := parseMark(o.value())
			if err != nil || masked && strings.Contains("and-mark or-mark xor-mark", o.name) {
				r.fail(o.values[0], fmt.Sprintf("%q is not a mark", o.value()), "VALUE[/MASK]")
			}
			switch o.name {
			case "set-mark":
				mask |= value
			case "and-mark":
				value, mask = 0, ^value
			case "or-mark":
				mask = value
			case "xor-mark":
				mask = 0
			}
			r.rule.Target = SetMark{connection, value, mask}
			return
		}
	}
	r.fail(g.at, g.name+" does not say which mark", "--set-mark VALUE")
	r.rule.Target = Pass{g.name}
}

func (r *reader) log(g *group) {
	target := Log{Level: 4} // warning, as in libxt_LOG.c
	if o := g.get("log-prefix"); o != nil {
		target.Prefix = o.value()
	}
	if o := g.get("log-level"); o != nil {
		var err error
		target.Level, err = importer.LogLevel(o.value())
		r.good(o, err, "emerg to debug, or 0 to 7")
	}
	r.rule.Target = target
	r.noted(g, "OPTION is not in the profile", "log-tcp-sequence", "log-tcp-options", "log-ip-options", "log-uid", "log-macdecode")
}
