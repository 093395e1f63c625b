package syntax

// The options of iptables: which modules have which, and how many values each
// takes (iptables-extensions(8), 1.8).

import (
	"slices"
	"strings"
)

// module is a match, a target, or what every rule has.
type module struct {
	name string
	// options are names with the number of values that follow, "name" for one,
	// "name/0" and "name/2" for others. Names that mean the same are joined by
	// '=', the one that we use first.
	options string
	// open: there are options that we do not know.
	open bool
}

// base are the options of every rule.
var base = module{name: "", options: "source=src destination=dst protocol=proto in-interface out-interface " +
	"jump goto match fragment/0 set-counters/2 ipv4/0 ipv6/0 table wait/? wait-interval numeric/0 verbose/0 modprobe line-numbers/0"}

var short = map[byte]string{
	's': "source", 'd': "destination", 'p': "protocol", 'i': "in-interface", 'o': "out-interface", 'j': "jump",
	'g': "goto", 'm': "match", 'f': "fragment", 'c': "set-counters", '4': "ipv4", '6': "ipv6", 't': "table",
	'w': "wait", 'W': "wait-interval", 'n': "numeric", 'v': "verbose",
}

const portOptions = "source-port=sport destination-port=dport "

var matches = byName(
	module{"tcp", portOptions + "tcp-flags/2 syn/0 tcp-option", false},
	module{"udp", portOptions, false},
	module{"udplite", portOptions, false},
	module{"sctp", portOptions + "chunk-types/2", false},
	module{"dccp", portOptions + "dccp-types dccp-option", false},
	module{"icmp", "icmp-type", false},
	module{"icmp6", "icmpv6-type", false},
	module{"multiport", "source-ports=sports destination-ports=dports ports", false},
	module{"comment", "comment", false},
	module{"state", "state", false},
	module{"conntrack", "ctstate ctproto ctorigsrc ctorigdst ctreplsrc ctrepldst ctorigsrcport ctorigdstport " +
		"ctreplsrcport ctrepldstport ctstatus ctexpire ctdir", false},
	module{"statistic", "mode every packet probability", false},
	module{"nth", "every counter start packet", false},
	module{"random", "average", false},
	module{"mark", "mark", false},
	module{"connmark", "mark", false},
	module{"addrtype", "src-type dst-type limit-iface-in/0 limit-iface-out/0", false},
	module{"iprange", "src-range dst-range", false},
	module{"limit", "limit limit-burst", false},
	module{"hashlimit", "hashlimit-upto=hashlimit hashlimit-above hashlimit-burst hashlimit-mode hashlimit-srcmask hashlimit-dstmask " +
		"hashlimit-name hashlimit-htable-size hashlimit-htable-max hashlimit-htable-expire hashlimit-htable-gcinterval " +
		"hashlimit-rate-match/0 hashlimit-rate-interval", false},
	module{"connlimit", "connlimit-upto connlimit-above connlimit-mask connlimit-saddr/0 connlimit-daddr/0", false},
	module{"recent", "set/0 rcheck/0 update/0 remove/0 seconds reap/0 hitcount rttl/0 name mask rsource/0 rdest/0", false},
	module{"pkttype", "pkt-type", false},
	module{"physdev", "physdev-in physdev-out physdev-is-in/0 physdev-is-out/0 physdev-is-bridged/0", false},
	module{"set", "match-set/2 return-nomatch/0 update-counters/0 update-subcounters/0 packets-eq packets-lt packets-gt bytes-eq bytes-lt bytes-gt", false},
	module{"rpfilter", "loose/0 validmark/0 accept-local/0 invert/0", false},
	module{"owner", "uid-owner gid-owner socket-exists/0 suppl-groups/0", false},
	module{"socket", "transparent/0 nowildcard/0 restore-skmark/0", false},
	module{"quota", "quota", false},
	module{"nfacct", "nfacct-name", false},
)

var natFlags = "random/0 persistent/0 random-fully/0"

var markOptions = "set-mark set-xmark and-mark or-mark xor-mark "

var targets = byName(
	module{"ACCEPT", "", false}, module{"DROP", "", false}, module{"RETURN", "", false}, module{"QUEUE", "", false},
	module{"REJECT", "reject-with", false},
	module{"DNAT", "to-destination " + natFlags, false},
	module{"REDIRECT", "to-ports " + natFlags, false},
	module{"SNAT", "to-source " + natFlags, false},
	module{"MASQUERADE", "to-ports " + natFlags, false},
	module{"NETMAP", "to", false},
	module{"MARK", markOptions, false},
	module{"CONNMARK", markOptions + "save-mark/0 restore-mark/0 mask nfmask ctmask", false},
	module{"LOG", "log-prefix log-level log-tcp-sequence/0 log-tcp-options/0 log-ip-options/0 log-uid/0 log-macdecode/0", false},
	module{"NFLOG", "nflog-group nflog-prefix nflog-range nflog-size nflog-threshold", false},
	module{"TCPMSS", "set-mss clamp-mss-to-pmtu/0", false},
	module{"CT", "notrack/0 helper ctevents expevents zone zone-orig zone-reply timeout", false},
	module{"NOTRACK", "", false},
	module{"CHECKSUM", "checksum-fill/0", false},
	module{"TRACE", "", false},
	module{"TPROXY", "on-port on-ip tproxy-mark", false},
)

func byName(modules ...module) map[string]*module {
	out := map[string]*module{}
	for i := range modules {
		out[modules[i].name] = &modules[i]
	}
	out["icmpv6"] = out["icmp6"]
	return out
}

// find returns the option of this name, or the only one that begins so, as
// getopt_long does, and how many values it takes; -1 is one that may be
// missing.
func (m *module) find(name string) (option string, values int, ok bool) {
	var near []string
	count := map[string]int{}
	for o := range strings.FieldsSeq(m.options) {
		names, number, has := strings.Cut(o, "/")
		spellings := strings.Split(names, "=")
		option := spellings[0]
		count[option] = 1
		if has {
			count[option] = map[string]int{"0": 0, "2": 2, "?": -1}[number]
		}
		if slices.Contains(spellings, name) {
			return option, count[option], true
		}
		if slices.ContainsFunc(spellings, func(s string) bool { return strings.HasPrefix(s, name) }) {
			near = append(near, option)
		}
	}
	if len(near) == 1 {
		return near[0], count[near[0]], true
	}
	return "", 0, false
}
