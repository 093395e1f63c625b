package firewall

// The matches and targets of iptables, as both kinds of it hand them to the
// kernel: structures of linux/netfilter/xt_*.h.

import (
	"encoding/binary"
)

var host = binary.NativeEndian

// xtMatch reads a match. One that is not known here gives a condition that
// cannot be told.
func xtMatch(name string, rev uint32, info []byte) []Condition {
	var c []Condition
	ok := false
	switch {
	case name == "comment":
		return nil
	case name == "tcp" && len(info) >= 12:
		// struct xt_tcp: spts[2], dpts[2], option, flg_mask, flg_cmp, invflags
		c, ok = xtPorts(info, info[11]&1 != 0, info[11]&2 != 0), info[8] == 0 && info[9] == 0
	case name == "udp" && len(info) >= 9:
		// struct xt_udp: spts[2], dpts[2], invflags
		c, ok = xtPorts(info, info[8]&1 != 0, info[8]&2 != 0), true
	case name == "icmp6" && len(info) >= 4:
		// struct ip6t_icmp: type, code[2], invflags
		c, ok = []Condition{{Fields: []Field{{Transport, 0, 1}}, Not: info[3]&1 != 0, Ranges: []Range{single(info[:1])}}}, info[1] == 0 && info[2] == 0xff
	case name == "hl" && len(info) >= 2:
		c, ok = xtHopLimit(info)
	case name == "multiport" && rev == 1 && len(info) >= 48:
		c, ok = xtMultiport(info)
	case name == "addrtype" && rev == 1 && len(info) >= 8:
		c, ok = xtAddrtype(info)
	case name == "conntrack" && rev >= 2 && len(info) >= 154:
		c, ok = xtConntrack(info)
	}
	if !ok {
		c = append(c, unknown)
	}
	return c
}

func xtPorts(info []byte, notSrc, notDst bool) (out []Condition) {
	add := func(at, offset int, not bool) {
		p := Ports{host.Uint16(info[at:]), host.Uint16(info[at+2:])}
		if r, _ := portRange(p); not || p != (Ports{0, 65535}) {
			out = append(out, Condition{Fields: []Field{{Transport, offset, 2}}, Not: not, Ranges: []Range{r}})
		}
	}
	add(0, 0, notSrc)
	add(4, 2, notDst)
	return out
}

// struct ip6t_hl_info: mode (0 is, 1 is not, 2 less, 3 greater), hop_limit
func xtHopLimit(info []byte) ([]Condition, bool) {
	c := Condition{Fields: []Field{{Network, 7, 1}}, Not: info[0] == 1}
	low, high := int(info[1]), int(info[1])
	switch info[0] {
	case 0, 1:
	case 2:
		low, high = 0, high-1
	case 3:
		low, high = low+1, 255
	default:
		return nil, false
	}
	if low <= high { // nothing is less than 0, or greater than 255
		c.Ranges = []Range{{[]byte{byte(low)}, []byte{byte(high)}}}
	}
	return []Condition{c}, true
}

// struct xt_multiport_v1: flags (0 source, 1 destination, 2 either), count,
// ports[15], pflags[15] (1: a range begins), invert
func xtMultiport(info []byte) ([]Condition, bool) {
	if info[0] > 1 || info[1] > 15 {
		return nil, false
	}
	c := Condition{Fields: []Field{{Transport, 2 * int(info[0]), 2}}, Not: info[47] != 0}
	for i := 0; i < int(info[1]); i++ {
		port := func(i int) []byte { return binary.BigEndian.AppendUint16(nil, host.Uint16(info[2+2*i:])) }
		r := single(port(i))
		if info[32+i] != 0 && i+1 < int(info[1]) {
			i++
			r.High = port(i)
		}
		c.Ranges = append(c.Ranges, r)
	}
	return []Condition{c}, true
}

// struct xt_addrtype_info_v1: source, dest (bits of types), flags
func xtAddrtype(info []byte) ([]Condition, bool) {
	const invertDst, otherFlags = 1 << 1, ^uint32(1<<0 | 1<<1)
	src, dst, flags := host.Uint16(info), host.Uint16(info[2:]), host.Uint32(info[4:])
	if src != 0 || dst == 0 || flags&otherFlags != 0 {
		return nil, false
	}
	return []Condition{anyBit(typeOfDstBits, uint32(dst), flags&invertDst != 0)}, true
}

// anyBit holds where the field has one of the bits.
func anyBit(k Kind, bits uint32, not bool) Condition {
	return Condition{
		Fields: []Field{{Kind: k, Len: 4}}, Mask: host32(bits).Low, Xor: make([]byte, 4),
		Not: !not, Ranges: []Range{host32(0)},
	}
}

// struct xt_conntrack_mtinfo2 and 3: 8 addresses, expires_min, expires_max,
// l4proto, 4 ports, match_flags, invert_flags, state_mask, status_mask
func xtConntrack(info []byte) ([]Condition, bool) {
	const (
		matchAt, invertAt, stateAt, statusAt = 146, 148, 150, 152
		matchState, matchStatus              = 1 << 0, 1 << 6
		// Two states of its own: the connection is translated.
		stateSNAT, stateDNAT = 1 << 6, 1 << 7
	)
	flags, invert := host.Uint16(info[matchAt:]), host.Uint16(info[invertAt:])
	state, status := host.Uint16(info[stateAt:]), host.Uint16(info[statusAt:])
	var out []Condition
	ok := flags&^(matchState|matchStatus) == 0
	if flags&matchState != 0 {
		not := invert&matchState != 0
		plain := state &^ (stateSNAT | stateDNAT)
		switch {
		case state == plain:
			out = append(out, anyBit(State, uint32(plain), not))
		case state == stateDNAT:
			out = append(out, anyBit(Status, statusDNAT, not))
		default:
			ok = false // one of both
		}
	}
	if flags&matchStatus != 0 {
		out = append(out, anyBit(Status, uint32(status), invert&matchStatus != 0))
	}
	return out, ok
}

// xtTarget is what a target does that is no verdict.
func xtTarget(name string) Action {
	switch name {
	case "DNAT", "SNAT", "REDIRECT", "MASQUERADE", "NETMAP", "TPROXY":
		return Translate
	case "REJECT":
		return Drop
	case "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "DSCP", "TOS", "CLASSIFY", "TRACE", "SET", "CHECKSUM", "TTL", "HL", "AUDIT":
		return Pass
	}
	return Anything
}

// xtMark is what a target does with the connection mark. struct
// xt_connmark_tginfo1: ctmark, ctmask, nfmask, mode; xt_connmark_tginfo2 has a
// direction and a number of bits to shift by before the mode.
func xtMark(name string, rev uint32, info []byte) MarkUse {
	const set, save, restore = 0, 1, 2
	at := 12 // where the mode is
	if rev >= 2 {
		at = 14
	}
	if name != "CONNMARK" || rev == 0 || len(info) <= at {
		return MarkUse{}
	}
	mark, mask := host.Uint32(info), host.Uint32(info[4:])
	switch info[at] {
	case set:
		return MarkUse{Sets: mark | mask}
	case save:
		return MarkUse{Sets: mask}
	case restore:
		return MarkUse{Restores: mask}
	}
	return MarkUse{}
}

// xtUntracks reports whether a target keeps conntrack from packets. struct
// xt_ct_target_info begins with flags; 1 is XT_CT_NOTRACK.
func xtUntracks(name string, info []byte) bool {
	return name == "NOTRACK" || name == "CT" && len(info) >= 2 && host.Uint16(info)&1 != 0
}

// xtVerdict is a verdict of xt_standard_target.
func xtVerdict(v int32) Action {
	switch v {
	case -1: // -NF_DROP - 1
		return Drop
	case -2: // -NF_ACCEPT - 1
		return Accept
	case -5: // XT_RETURN
		return Return
	}
	return Anything
}
