package syntax

// The options of iptables: which modules have which, and how many values each
// takes (iptables-extensions(8), 1.8).

import (
	"strings"
)

// spec is a match, a target, or what every rule has.
type spec struct {
	name string
	// options are names with the number of values that follow, "name" for one,
	// "name/0" and "name/2" for others. Names that mean the same are joined by
	// '=', the one that we use first.
	options string
	// open: there are options that we do not know.
	open bool
}

// module is a spec with its options by their names.
type module struct {
	spec
	exact map[string]named
}

// base are the options of every rule.
var base = *(&spec{name: "", options: "source=src destination=dst protocol=proto in-interface out-interface " +
	"jump goto match fragment/0 set-counters/2 ipv4/0 ipv6/0 table wait/? wait-interval numeric/0 verbose/0 modprobe line-numbers/0"}).module()

var short = map[byte]string{
	's': "source", 'd': "destination", 'p': "protocol", 'i': "in-interface", 'o': "out-interface", 'j': "jump",
	'g': "goto", 'm': "match", 'f': "fragment", 'c': "set-counters", '4': "ipv4", '6': "ipv6", 't': "table",
	'w': "wait", 'W': "wait-interval", 'n': "numeric", 'v': "verbose",
}

const portOptions = "source-port=sport destination-port=dport "

var matches = byName(
	spec{"tcp", portOptions + "tcp-flags/2 syn/0 tcp-option", false},
	spec{"udp", portOptions, false},
	spec{"udplite", portOptions, false},
	spec{"sctp", portOptions + "chunk-types/2", false},
	spec{"dccp", portOptions + "dccp-types dccp-option", false},
	spec{"icmp", "icmp-type", false},
	spec{"icmp6", "icmpv6-type", false},
	spec{"multiport", "source-ports=sports destination-ports=dports ports", false},
	spec{"comment", "comment", false},
	spec{"state", "state", false},
	spec{"conntrack", "ctstate ctproto ctorigsrc ctorigdst ctreplsrc ctrepldst ctorigsrcport ctorigdstport " +
		"ctreplsrcport ctrepldstport ctstatus ctexpire ctdir", false},
	spec{"statistic", "mode every packet probability", false},
	spec{"nth", "every counter start packet", false},
	spec{"random", "average", false},
	spec{"mark", "mark", false},
	spec{"connmark", "mark", false},
	spec{"addrtype", "src-type dst-type limit-iface-in/0 limit-iface-out/0", false},
	spec{"iprange", "src-range dst-range", false},
	spec{"limit", "limit limit-burst", false},
	spec{"hashlimit", "hashlimit-upto=hashlimit hashlimit-above hashlimit-burst hashlimit-mode hashlimit-srcmask hashlimit-dstmask " +
		"hashlimit-name hashlimit-htable-size hashlimit-htable-max hashlimit-htable-expire hashlimit-htable-gcinterval " +
		"hashlimit-rate-match/0 hashlimit-rate-interval", false},
	spec{"connlimit", "connlimit-upto connlimit-above connlimit-mask connlimit-saddr/0 connlimit-daddr/0", false},
	spec{"recent", "set/0 rcheck/0 update/0 remove/0 seconds reap/0 hitcount rttl/0 name mask rsource/0 rdest/0", false},
	spec{"pkttype", "pkt-type", false},
	spec{"physdev", "physdev-in physdev-out physdev-is-in/0 physdev-is-out/0 physdev-is-bridged/0", false},
	spec{"set", "match-set/2 return-nomatch/0 update-counters/0 update-subcounters/0 packets-eq packets-lt packets-gt bytes-eq bytes-lt bytes-gt", false},
	spec{"rpfilter", "loose/0 validmark/0 accept-local/0 invert/0", false},
	spec{"owner", "uid-owner gid-owner socket-exists/0 suppl-groups/0", false},
	spec{"socket", "transparent/0 nowildcard/0 restore-skmark/0", false},
	spec{"quota", "quota", false},
	spec{"nfacct", "nfacct-name", false},
)

var natFlags = "random/0 persistent/0 random-fully/0"

var markOptions = "set-mark set-xmark and-mark or-mark xor-mark "

var targets = byName(
	spec{"ACCEPT", "", false}, spec{"DROP", "", false}, spec{"RETURN", "", false}, spec{"QUEUE", "", false},
	spec{"REJECT", "reject-with", false},
	spec{"DNAT", "to-destination " + natFlags, false},
	spec{"REDIRECT", "to-ports " + natFlags, false},
	spec{"SNAT", "to-source " + natFlags, false},
	spec{"MASQUERADE", "to-ports " + natFlags, false},
	spec{"NETMAP", "to", false},
	spec{"MARK", markOptions, false},
	spec{"CONNMARK", markOptions + "save-mark/0 restore-mark/0 mask nfmask ctmask", false},
	spec{"LOG", "log-prefix log-level log-tcp-sequence/0 log-tcp-options/0 log-ip-options/0 log-uid/0 log-macdecode/0", false},
	spec{"NFLOG", "nflog-group nflog-prefix nflog-range nflog-size nflog-threshold", false},
	spec{"TCPMSS", "set-mss clamp-mss-to-pmtu/0", false},
	spec{"CT", "notrack/0 helper ctevents expevents zone zone-orig zone-reply timeout", false},
	spec{"NOTRACK", "", false},
	spec{"CHECKSUM", "checksum-fill/0", false},
	spec{"TRACE", "", false},
	spec{"TPROXY", "on-port on-ip tproxy-mark", false},
)

func byName(specs ...spec) map[string]*module {
	out := map[string]*module{}
	for i := range specs {
		out[specs[i].name] = specs[i].module()
	}
	out["icmpv6"] = out["icmp6"]
	return out
}

// named is an option by one of its names.
type named struct {
	option string
	values int
}

// find returns the option of this name, or the only one that begins so, as
// getopt_long does, and how many values it takes; -1 is one that may be
// missing.
func (m *module) find(name string) (option string, values int, ok bool) {
	if o, ok := m.exact[name]; ok {
		return o.option, o.values, true
	}
	near := map[named]bool{}
	for spelling, o := range m.exact {
		if strings.HasPrefix(spelling, name) {
			near[o] = true
		}
	}
	if len(near) != 1 {
		return "", 0, false
	}
	for o := range near {
		option, values = o.option, o.values
	}
	return option, values, true
}

// module reads the options of a spec.
func (s *spec) module() *module {
	m := &module{*s, map[string]named{}}
	for o := range strings.FieldsSeq(s.options) {
		names, number, has := strings.Cut(o, "/")
		spellings := strings.Split(names, "=")
		one := named{spellings[0], 1}
		if has {
			one.values = map[string]int{"0": 0, "2": 2, "?": -1}[number]
		}
		for _, s := range spellings {
			if _, ok := m.exact[s]; !ok {
				m.exact[s] = one
			}
		}
	}
	return m
}
