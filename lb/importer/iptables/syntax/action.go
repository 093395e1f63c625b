package syntax

// The action of a rule: what -j makes of its options.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
)

// passing are targets that do nothing to where a connection goes.
var passing = map[string]bool{
	"TCPMSS": true, "CHECKSUM": true, "TOS": true, "DSCP": true, "TTL": true, "HL": true, "CLASSIFY": true, "TRACE": true,
	"SECMARK": true, "CONNSECMARK": true, "RATEEST": true, "IDLETIMER": true, "AUDIT": true, "LED": true, "ECN": true,
	"TCPOPTSTRIP": true, "SET": true, "NFLOG": true, "ULOG": true,
}

func (r *reader) readTarget() {
	g := r.target
	if g == nil {
		r.rule.Target = Pass{}
		return
	}
	if r.isGoto {
		r.rule.Target = Jump{g.name, true}
		return
	}
	switch g.name {
	case "ACCEPT":
		r.rule.Target = Accept{}
	case "DROP", "REJECT":
		r.rule.Target = Drop{}
	case "RETURN":
		r.rule.Target = Return{}
	case "DNAT":
		r.dnat(g)
	case "REDIRECT":
		r.redirect(g)
	case "SNAT":
		r.snat(g)
	case "MASQUERADE":
		r.rule.Target = Masquerade{g.random()}
		if o := g.get("to-ports"); o != nil {
			r.issue(importer.Note, o.at, "the ports of MASQUERADE are not in the profile", "")
		}
	case "MARK", "CONNMARK":
		r.setMark(g)
	case "LOG":
		r.log(g)
	case "NOTRACK":
		r.rule.Target = Untrack{}
	case "CT":
		r.rule.Target = Pass{"CT"}
		if g.get("notrack") != nil {
			r.rule.Target = Untrack{}
		}
	default:
		switch {
		case passing[g.name]:
			r.rule.Target = Pass{g.name}
		case g.module != nil:
			r.rule.Target = Pass{g.name}
			r.lost(g.at, "-j "+g.name+" is not translated", "")
		default: // a chain, or nothing that we know
			r.rule.Target = Jump{g.name, false}
		}
	}
}

// natFlags notes flags of NAT that a profile does not have.
func (r *reader) natFlags(g *group) {
	for _, name := range []string{"random", "random-fully"} {
		if o := g.get(name); o != nil && !r.rule.randomPorts() {
			r.issue(importer.Note, o.at, "--"+name+" is not in the profile: it is about ports, and does not choose backends", "")
		}
	}
}

func (r *reader) dnat(g *group) {
	target := DNAT{Persistent: g.get("persistent") != nil, Random: g.random()}
	n := 0
	for _, o := range g.options {
		if o.name != "to-destination" {
			continue
		}
		n++
		to, ok := r.natRange(o)
		switch {
		case !ok:
		case to.wide() || target.Random && int(to.Ports.Last)-int(to.Ports.First) >= maxRange:
			r.lost(o.values[0], fmt.Sprintf("a range of more than %d addresses or ports is not translated", maxRange), "")
		default:
			target.To = append(target.To, to)
			if to.Ports.First != 0 && !r.hasPorts() {
				r.issue(importer.Note, o.values[0], "iptables refuses a port here without -p tcp, udp, sctp or dccp", "")
			}
		}
		if n == 2 {
			r.issue(importer.Note, o.at, "no kernel since 2.6.11 takes several --to-destination: iptables refuses this rule today",
				"the profile balances over them as older kernels did")
		}
	}
	if n == 0 {
		r.fail(g.at, "DNAT has no --to-destination", "--to-destination ADDRESS[:PORT]")
	}
	r.rule.Target = target
	r.natFlags(g)
}

// natRange is what NAT chooses from; false where that is not known.
func (r *reader) natRange(o *setting) (NATRange, bool) {
	to, named, err := parseNAT(o.value(), r.family)
	switch {
	case err != nil:
		r.fail(o.values[0], err.Error(), "ADDRESS[-ADDRESS][:PORT[-PORT]]")
	case named:
		r.lost(o.values[0], "names of hosts are not resolved: "+o.value(), "write the address")
	}
	return to, err == nil && !named
}

// random reports whether NAT chooses ports at random.
func (g *group) random() bool { return g.get("random") != nil || g.get("random-fully") != nil }

// randomPorts reports whether DNAT chooses a port at random.
func (r *Rule) randomPorts() bool {
	d, ok := r.Target.(DNAT)
	return ok && d.Random && slices.ContainsFunc(d.To, func(n NATRange) bool { return n.Ports.First != n.Ports.Last })
}

// maxRange is how many addresses a range of DNAT may have.
const maxRange = 256

// wide reports whether a range has more addresses.
func (r NATRange) wide() bool {
	return r.First.IsValid() && space.Between(r.First, r.Last).Size() > maxRange
}

// hasPorts reports whether the rule is for a protocol with ports.
func (r *reader) hasPorts() bool {
	switch r.proto {
	case "tcp", "udp", "sctp", "dccp", "udplite", "33", "136":
		return true
	}
	return false
}

func (r *reader) redirect(g *group) {
	var to NATRange
	target := DNAT{Host: true, Random: g.random()}
	if o := g.get("to-ports"); o != nil {
		ports, err := parseNATPorts(o.value())
		switch {
		case err != nil:
			r.fail(o.values[0], err.Error(), "PORT or PORT-PORT")
		case target.Random && int(ports.Last)-int(ports.First) >= maxRange:
			r.lost(o.values[0], fmt.Sprintf("a range of more than %d addresses or ports is not translated", maxRange), "")
		}
		to.Ports = ports
	}
	target.To = []NATRange{to}
	r.rule.Target = target
	r.natFlags(g)
}

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
	r.rule.Target = SNAT{to, g.random()}
}

func (r *reader) setMark(g *group) {
	connection := g.name == "CONNMARK"
	bits := func(name string, other uint32) (uint32, bool) {
		o := g.get(name)
		if o == nil {
			return other, true
		}
		n, err := parseBits(o.value())
		if err != nil {
			r.fail(o.values[0], err.Error(), "a number of 32 bits")
		}
		return n, err == nil
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
		level, err := parseLevel(o.value())
		if err != nil {
			r.fail(o.values[0], err.Error(), "emerg to debug, or 0 to 7")
		}
		target.Level = level
	}
	r.rule.Target = target
	for _, name := range []string{"log-tcp-sequence", "log-tcp-options", "log-ip-options", "log-uid", "log-macdecode"} {
		if o := g.get(name); o != nil {
			r.issue(importer.Note, o.at, "--"+name+" is not in the profile", "")
		}
	}
}
