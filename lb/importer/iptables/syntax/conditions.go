package syntax

// The conditions of a rule: on addresses, protocols and interfaces, and what -m adds.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/share"
)

// networks are the alternatives of -s or -d; nil is any address.
func (r *reader) networks(name string) []space.Set {
	o := r.base.get(name)
	if o == nil {
		return []space.Set{nil}
	}
	parts := strings.Split(o.value(), ",")
	if len(parts) > 1 && o.not {
		r.fail(o.values[0], "! with a list of addresses", "one address")
		return []space.Set{nil}
	}
	var out []space.Set
	for _, part := range parts {
		set, ok := r.network(o, part)
		if ok && set == nil {
			set = space.Set{} // none
		}
		out = append(out, set)
	}
	return out
}

// network is what a part of an option says; nil and false where that is not known.
func (r *reader) network(o *setting, part string) (space.Set, bool) {
	set, named, err := parseNetwork(part, r.family)
	switch {
	case !r.good(o, err, "an "+r.family.String()+" address or prefix"):
		return nil, false
	case named:
		r.lost(o.values[0], "names of hosts are not resolved: "+part, "write the address")
		return nil, false
	}
	return o.but(set, space.Addresses(r.family)), true
}

// but is a set, or what else there is where the option has !.
func (o *setting) but(set, all space.Set) space.Set {
	if o.not {
		return all.Without(set)
	}
	return set
}

// match adds the conditions of one group.
func (r *reader) match(g *group) {
	switch g.name {
	case "comment":
		if o := g.get("comment"); o != nil && r.rule.Comment == "" {
			r.rule.Comment = o.value()
		}
	case "statistic":
		r.statistic(g)
	case "recent":
		r.recent(g)
	case "limit", "hashlimit", "connlimit":
		r.limit(g)
	case "rpfilter":
		r.add(Fixed{g.get("invert") == nil})
	case "nfacct": // it counts, and always holds
	case "nth":
		r.lost(g.at, "-m nth is not in Linux since 2.6.18",
			"its rules shared one counter, so --every 4 with --packet 0 to 3 gave a quarter each; those of -m statistic do not")
	case "random":
		r.random(g)
	case "mark", "connmark":
		if g.get("mark") == nil {
			r.fail(g.at, "-m "+g.name+" has no --mark", "--mark VALUE[/MASK]")
		}
		fallthrough
	case "tcp", "udp", "udplite", "sctp", "dccp", "multiport", "icmp", "icmp6", "icmpv6", "state", "conntrack", "addrtype", "iprange", "pkttype":
		for _, o := range g.options {
			r.condition(g, o)
		}
	default:
		r.lost(g.at, "-m "+g.name+" is not translated", "")
	}
}

// condition adds that of one option, where each option of a group is one.
func (r *reader) condition(g *group, o *setting) {
	switch o.name {
	case "protocol", "ctproto":
		set, err := ParseProtocol(o.value())
		if r.good(o, err, "tcp, udp, sctp, a number or all") {
			r.add(Within{Of: space.Protocol, Set: o.but(set, space.AllProtocols())})
		}
	case "in-interface", "out-interface":
		r.add(Interface{o.value(), o.name == "out-interface", o.not})
	case "fragment":
		r.add(Fixed{o.not})
	case "destination-port", "destination-ports", "ctorigdstport":
		set, err := parsePorts(o.value())
		if r.good(o, err, "80, http or 8000:8010") {
			r.add(Within{space.Port, o.but(set, space.AllPorts()), o.name == "ctorigdstport"})
		}
	case "syn":
		r.add(Fixed{!o.not})
	case "tcp-flags":
		holds, err := synFits(o.values[0].Text, o.values[1].Text)
		if err != nil {
			r.fail(o.at, err.Error(), "lists of SYN, ACK, FIN, RST, URG, PSH, ALL or NONE")
			return
		}
		r.add(Fixed{holds != o.not})
	case "icmp-type", "icmpv6-type": // no connection that a service of ours takes is ICMP
	case "mark":
		value, mask, _, err := parseMark(o.value())
		if r.good(o, err, "VALUE or VALUE/MASK") {
			r.add(Mark{g.name == "connmark", value, mask, o.not})
		}
	case "src-type", "dst-type":
		r.addressType(o)
	case "limit-iface-in", "limit-iface-out": // which interface an address is on: local is local
	case "src-range", "dst-range":
		r.addressRange(o)
	case "pkt-type":
		r.add(Fixed{(o.value() == "unicast" || o.value() == "host") != o.not})
	default:
		r.tracked(o)
	}
}

// synFits reports whether a packet that has only the flag SYN has just the
// flags in want, of those in mask.
func synFits(mask, want string) (bool, error) {
	bits := map[string]uint8{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
	var sets [2]uint8
	for i, list := range []string{mask, want} {
		for name := range strings.SplitSeq(list, ",") {
			b, ok := bits[strings.ToUpper(name)]
			if !ok {
				return false, fmt.Errorf("%q is not a flag of TCP", name)
			}
			sets[i] |= b
		}
	}
	return bits["SYN"]&sets[0] == sets[1], nil
}

// tracked adds a condition on what is known of the connection.
func (r *reader) tracked(o *setting) {
	has := func(word string) bool { return slices.Contains(strings.Split(strings.ToUpper(o.value()), ","), word) }
	switch o.name {
	case "state", "ctstate":
		for s := range strings.SplitSeq(strings.ToUpper(o.value()), ",") {
			if !slices.Contains([]string{"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT"}, s) {
				r.fail(o.values[0], fmt.Sprintf("%q is not a state", s), "NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED, SNAT or DNAT")
			}
		}
		r.add(State{has("NEW"), has("DNAT"), has("ESTABLISHED") || has("RELATED"), o.not})
	case "ctorigsrc":
		if set, ok := r.network(o, o.value()); ok {
			r.add(Source{set})
		}
	case "ctorigdst":
		if set, ok := r.network(o, o.value()); ok {
			r.add(Within{space.Destination, set, true})
		}
	case "ctdir":
		r.add(Fixed{has("ORIGINAL") != o.not})
	case "ctstatus":
		r.add(Fixed{has("NONE") != o.not})
	default:
		r.lost(o.at, "--"+o.name+" is not translated", "")
	}
}

func (r *reader) statistic(g *group) {
	switch mode, o := g.get("mode"), g.get("probability"); {
	case mode == nil:
		r.fail(g.at, "-m statistic has no --mode", "--mode nth or --mode random")
	case mode.value() == "nth":
		r.nth(g)
	case mode.value() != "random":
		r.fail(mode.values[0], fmt.Sprintf("%q is not a mode", mode.value()), "nth or random")
	case o == nil:
		r.fail(g.at, "--mode random has no --probability", "--probability P, 0 to 1")
	default:
		p, err := share.Parse(o.value())
		if r.good(o, err, "0 to 1") {
			r.add(Chance{p, o.not})
		}
	}
}

func (r *reader) nth(g *group) {
	every, packet := g.get("every"), g.get("packet")
	if every == nil {
		r.fail(g.at, "--mode nth has no --every", "--every N")
		return
	}
	n, ok := parseUint(every.value(), 1<<31)
	if !ok || n == 0 {
		r.fail(every.values[0], fmt.Sprintf("%q is not a number of packets", every.value()), "1 or more")
		return
	}
	m := &Nth{Every: uint32(n), Not: every.not}
	if packet != nil {
		p, ok := parseUint(packet.value(), n-1)
		if !ok {
			r.fail(packet.values[0], fmt.Sprintf("--packet %s is out of range", packet.value()), fmt.Sprintf("0 to %d", n-1))
			return
		}
		m.Packet = uint32(p)
	}
	r.add(m)
}

// random is -m random, which Linux has no more.
func (r *reader) random(g *group) {
	percent := "50" // its default
	if o := g.get("average"); o != nil {
		percent = o.value()
	}
	n, ok := parseUint(percent, 100)
	if !ok {
		r.fail(g.at, fmt.Sprintf("%q is not an average", percent), "1 to 99, in percent")
		return
	}
	p, _ := share.Parse(fmt.Sprintf("%d.%02d", n/100, n%100))
	r.add(Chance{p, false})
	r.issue(importer.Lost, g.at, "-m random is not in Linux since 2.6.18; it is read as -m statistic --mode random", "")
}

func (r *reader) addressType(o *setting) {
	types := strings.Split(strings.ToUpper(o.value()), ",")
	local, unicast := slices.Contains(types, "LOCAL"), slices.Contains(types, "UNICAST")
	switch {
	case local == unicast: // both, or neither: no connection is to a broadcast
		r.add(Fixed{local != o.not})
	case o.name == "dst-type":
		r.add(ToLocal(local == o.not))
	default:
		r.add(FromLocal{Not: local == o.not})
	}
}

func (r *reader) addressRange(o *setting) {
	first, last, err := parseRange(o.value(), r.family)
	if err != nil {
		r.fail(o.values[0], fmt.Sprintf("%q is not a range of %s addresses", o.value(), r.family), "FIRST-LAST")
		return
	}
	set := o.but(space.Between(first, last), space.Addresses(r.family))
	if o.name == "src-range" {
		r.add(Source{set})
	} else {
		r.add(Within{Of: space.Destination, Set: set})
	}
}

func (r *reader) recent(g *group) {
	m := Recent{List: "DEFAULT", Bits: 32, Bits6: 128}
	for _, o := range g.options {
		switch o.name {
		case "set":
			m.Set, m.Not = true, o.not
		case "rcheck", "update":
			m.Check, m.Not = true, o.not
		case "name":
			m.List = o.value()
		case "seconds":
			n, ok := parseUint(o.value(), 1<<31)
			if !ok || n == 0 {
				r.fail(o.values[0], fmt.Sprintf("%q is not a number of seconds", o.value()), "1 or more")
			}
			m.Seconds = uint32(n)
		case "mask":
			a, err := netip.ParseAddr(o.value())
			bits, ok := importer.MaskBits(a.Unmap())
			if err != nil || !ok || bits == 0 {
				r.fail(o.values[0], fmt.Sprintf("%q is not a mask that a prefix has", o.value()), "a netmask")
				continue
			}
			if a.Is4() {
				m.Bits = bits
			} else {
				m.Bits6 = bits
			}
		case "reap", "rsource":
		default:
			r.lost(o.at, "-m recent --"+o.name+" is not translated", "")
		}
	}
	if m.Set == m.Check && !r.rule.Skip {
		r.lost(g.at, "this -m recent is not translated", "")
	}
	r.add(m)
}

// limit is about conditions that hold until there is too much of something.
func (r *reader) limit(g *group) {
	switch above := g.get(g.name + "-above"); g.name {
	case "limit":
		m := Limit{lb.Rate{Events: 3, Per: time.Hour}} // xt_limit's default
		if o := g.get("limit"); o != nil {
			var err error
			if m.Rate, err = parseRate(o.value()); !r.good(o, err, "a rate such as 5/second") {
				return
			}
			if o.not {
				r.lost(o.at, "! --limit is not translated", "")
			}
		}
		if r.target == nil || r.target.name != "LOG" {
			r.issue(importer.Lost, word{Place: r.rule.Place}, "the limit of this rule is not in the profile", "a service can have limit: with new-per-source or new")
		}
		r.add(m)
	case "connlimit":
		r.add(Fixed{above == nil || above.not})
		hint := ""
		for _, o := range []*setting{above, g.get("connlimit-upto")} {
			if o != nil {
				hint = "a service can have limit: {connections-per-source: " + o.value() + "}"
			}
		}
		r.issue(importer.Lost, g.at, "the limit of connections is not in the profile", hint)
	case "hashlimit":
		r.add(Fixed{above == nil || above.not})
		r.issue(importer.Lost, g.at, "the limit of this rule is not in the profile", "a service can have limit: with new-per-source or new")
	}
}
