package syntax

// The options of iptables: which modules have which, and how many values each
// takes (iptables-extensions(8), 1.8).

import "nlb/lb/importer/shell"

// base are the options of every rule.
var base = shell.OptionsOf("source=src destination=dst protocol=proto in-interface out-interface " +
	"jump goto match fragment/0 set-counters/2 ipv4/0 ipv6/0 table wait/? wait-interval numeric/0 verbose/0 modprobe line-numbers/0")

var short = map[byte]string{
	's': "source", 'd': "destination", 'p': "protocol", 'i': "in-interface", 'o': "out-interface", 'j': "jump",
	'g': "goto", 'm': "match", 'f': "fragment", 'c': "set-counters", '4': "ipv4", '6': "ipv6", 't': "table",
	'w': "wait", 'W': "wait-interval", 'n': "numeric", 'v': "verbose",
}

const portOptions = "source-port=sport destination-port=dport "

// matches and targets are the modules that are known.
var matches = byName(map[string]string{
	"tcp":       portOptions + "tcp-flags/2 syn/0 tcp-option",
	"udp":       portOptions,
	"udplite":   portOptions,
	"sctp":      portOptions + "chunk-types/2",
	"dccp":      portOptions + "dccp-types dccp-option",
	"icmp":      "icmp-type",
	"icmp6":     "icmpv6-type",
	"icmpv6":    "icmpv6-type",
	"multiport": "source-ports=sports destination-ports=dports ports",
	"comment":   "comment",
	"state":     "state",
	"conntrack": "ctstate ctproto ctorigsrc ctorigdst ctreplsrc ctrepldst ctorigsrcport ctorigdstport " +
		"ctreplsrcport ctrepldstport ctstatus ctexpire ctdir",
	"statistic": "mode every packet probability",
	"nth":       "every counter start packet",
	"random":    "average",
	"mark":      "mark",
	"connmark":  "mark",
	"addrtype":  "src-type dst-type limit-iface-in/0 limit-iface-out/0",
	"iprange":   "src-range dst-range",
	"limit":     "limit limit-burst",
	"hashlimit": "hashlimit-upto=hashlimit hashlimit-above hashlimit-burst hashlimit-mode hashlimit-srcmask hashlimit-dstmask " +
		"hashlimit-name hashlimit-htable-size hashlimit-htable-max hashlimit-htable-expire hashlimit-htable-gcinterval " +
		"hashlimit-rate-match/0 hashlimit-rate-interval",
	"connlimit": "connlimit-upto connlimit-above connlimit-mask connlimit-saddr/0 connlimit-daddr/0",
	"recent":    "set/0 rcheck/0 update/0 remove/0 seconds reap/0 hitcount rttl/0 name mask rsource/0 rdest/0",
	"pkttype":   "pkt-type",
	"physdev":   "physdev-in physdev-out physdev-is-in/0 physdev-is-out/0 physdev-is-bridged/0",
	"set":       "match-set/2 return-nomatch/0 update-counters/0 update-subcounters/0 packets-eq packets-lt packets-gt bytes-eq bytes-lt bytes-gt",
	"rpfilter":  "loose/0 validmark/0 accept-local/0 invert/0",
	"owner":     "uid-owner gid-owner socket-exists/0 suppl-groups/0",
	"socket":    "transparent/0 nowildcard/0 restore-skmark/0",
	"quota":     "quota",
	"nfacct":    "nfacct-name",
})

var natFlags = "random/0 persistent/0 random-fully/0"

var markOptions = "set-mark set-xmark and-mark or-mark xor-mark "

var targets = byName(map[string]string{
	"ACCEPT": "", "DROP": "", "RETURN": "", "QUEUE": "", "NOTRACK": "", "TRACE": "",
	"REJECT":     "reject-with",
	"DNAT":       "to-destination " + natFlags,
	"REDIRECT":   "to-ports " + natFlags,
	"SNAT":       "to-source " + natFlags,
	"MASQUERADE": "to-ports " + natFlags,
	"NETMAP":     "to",
	"MARK":       markOptions,
	"CONNMARK":   markOptions + "save-mark/0 restore-mark/0 mask nfmask ctmask",
	"LOG":        "log-prefix log-level log-tcp-sequence/0 log-tcp-options/0 log-ip-options/0 log-uid/0 log-macdecode/0",
	"NFLOG":      "nflog-group nflog-prefix nflog-range nflog-size nflog-threshold",
	"TCPMSS":     "set-mss clamp-mss-to-pmtu/0",
	"CT":         "notrack/0 helper ctevents expevents zone zone-orig zone-reply timeout",
	"CHECKSUM":   "checksum-fill/0",
	"TPROXY":     "on-port on-ip tproxy-mark",
})

func byName(all map[string]string) map[string]shell.Options {
	out := map[string]shell.Options{}
	for name, options := range all {
		out[name] = shell.OptionsOf(options)
	}
	return out
}
