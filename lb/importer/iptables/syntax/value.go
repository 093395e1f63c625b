package syntax

// Values of options: addresses, ports, marks, rates.

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
)

// parseNetwork reads an address with or without a prefix length or netmask. A
// name of a host is not an error, but not an address either: named.
func parseNetwork(s string, f lb.Family) (set space.Set, named bool, err error) {
	host, mask, masked := strings.Cut(s, "/")
	if dots := strings.Count(host, "."); f == lb.IPv4 && dots < 3 && strings.Trim(host, "0123456789.") == "" && (masked || dots > 0) {
		host += strings.Repeat(".0", 3-dots) // 10/8, as iptables has it
	}
	if hostName(host) {
		return nil, true, nil
	}
	a, err := parseAddr(host, s, f)
	if err != nil {
		return nil, false, err
	}
	bits := a.BitLen()
	if n, ok := parseUint(mask, uint64(bits)); ok {
		bits = int(n)
	} else if m, err := netip.ParseAddr(mask); err == nil && m.BitLen() == bits {
		if bits, ok = importer.MaskBits(m); !ok {
			return nil, false, fmt.Errorf("%s is not a mask that a prefix has", mask)
		}
	} else if masked {
		return nil, false, fmt.Errorf("%q is neither a prefix length nor a mask", mask)
	}
	return space.Prefix(netip.PrefixFrom(a, bits)), false, nil
}

// hostName reports whether a text can be the name of a host, which no address can.
var hostName = regexp.MustCompile(`^[\w.-]*[A-Za-z_][\w.-]*$`).MatchString

func parseUint(s string, most uint64) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= most
}

// services are names of ports that people write (services(5)).
var services = map[string]uint16{
	"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "tftp": 69, "http": 80, "www": 80,
	"kerberos": 88, "pop3": 110, "sunrpc": 111, "ntp": 123, "imap2": 143, "imap": 143, "snmp": 161, "ldap": 389,
	"https": 443, "submissions": 465, "submission": 587, "syslog": 514, "ldaps": 636, "domain-s": 853, "imaps": 993,
	"pop3s": 995, "ms-sql-s": 1433, "radius": 1812, "mqtt": 1883, "nfs": 2049, "mysql": 3306, "ms-wbt-server": 3389,
	"sip": 5060, "sip-tls": 5061, "xmpp-client": 5222, "postgresql": 5432, "amqp": 5672, "redis": 6379, "http-alt": 8080, "webcache": 8080,
}

func parsePort(s string) (uint16, error) {
	if n, ok := parseUint(s, 65535); ok {
		return uint16(n), nil
	}
	if n, ok := services[s]; ok {
		return n, nil
	}
	return 0, fmt.Errorf("%q is not a port", s)
}

// parsePorts reads 80, 1024:2048, :1024, 80: and lists of them.
func parsePorts(s string) (space.Set, error) {
	var ranges []lb.PortRange
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, ":")
		if !isRange {
			last = first
		} else {
			first, last = cmp.Or(first, "0"), cmp.Or(last, "65535")
		}
		r, err := portRange(first, last, part)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, r)
	}
	return space.Ports(ranges...), nil
}

// portRange is the ports from one to another, which messages name by their text.
func portRange(first, last, text string) (r lb.PortRange, err error) {
	if r.First, err = parsePort(first); err == nil {
		r.Last, err = parsePort(last)
	}
	if err == nil && r.First > r.Last {
		err = fmt.Errorf("ports %s end before they begin", text)
	}
	return r, err
}

// protocols are the names in protocols(5) that rules have.
var protocols = map[string]uint8{
	"icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ipv6-esp": 50,
	"ah": 51, "ipv6-ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "eigrp": 88, "ospf": 89, "ipip": 94, "pim": 103, "vrrp": 112, "l2tp": 115,
	"sctp": 132, "udplite": 136,
}

// ParseProtocol reads the name of a protocol, its number, or all.
func ParseProtocol(s string) (space.Set, error) {
	if s == "all" || s == "0" {
		return space.AllProtocols(), nil
	}
	if n, ok := protocols[strings.ToLower(s)]; ok {
		return space.Protocols(n), nil
	}
	if n, ok := parseUint(s, 255); ok {
		return space.Protocols(uint8(n)), nil
	}
	return nil, fmt.Errorf("%q is not a protocol", s)
}

// parseMark reads VALUE or VALUE/MASK, in decimal, octal or hexadecimal; the
// mask is all ones where there is none, and has says so.
func parseMark(s string) (value, mask uint32, has bool, err error) {
	v, m, has := strings.Cut(s, "/")
	mask = ^uint32(0)
	if value, err = parseBits(v); err == nil && has {
		mask, err = parseBits(m)
	}
	return value, mask, has, err
}

func parseBits(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil || strings.ContainsAny(s, "_oO") || strings.ContainsAny(s[:min(2, len(s))], "bB") {
		return 0, fmt.Errorf("%q is not a number of 32 bits", s)
	}
	return uint32(n), nil
}

// parseRate reads 5/sec, 10/minute and the like (libxt_limit.c): the unit may
// be cut short, and is a second where there is none.
func parseRate(s string) (lb.Rate, error) {
	number, unit, has := strings.Cut(s, "/")
	n, ok := parseUint(number, 1_000_000)
	if !ok || n == 0 || has && unit == "" {
		return lb.Rate{}, fmt.Errorf("%q is not a rate", s)
	}
	for _, u := range slices.Backward(lb.Units) { // seconds first
		if strings.HasPrefix(u.Long, strings.ToLower(unit)) {
			return lb.Rate{Events: n, Per: u.Duration}, nil
		}
	}
	return lb.Rate{}, fmt.Errorf("%q is not a rate", s)
}

// parseNAT reads what --to-destination and --to-source take:
// ADDRESS[-ADDRESS][:PORT[-PORT[/BASE]]], each part of which may be missing.
func parseNAT(s string, f lb.Family) (r NATRange, named bool, err error) {
	host, ports, ok := importer.HostPort(s)
	host = strings.ReplaceAll(host, "]-[", "-")
	switch {
	case !ok:
		return r, false, fmt.Errorf("%q has [ without ]", s)
	case host == "" && ports == "":
		return r, false, fmt.Errorf("%q has neither an address nor a port", s)
	}
	if hostName(host) {
		return r, true, nil
	}
	if host != "" {
		if r.First, r.Last, err = parseRange(host, f); err != nil {
			return r, false, err
		}
	}
	if ports != "" {
		ports, base, shifted := strings.Cut(ports, "/")
		if r.Ports, err = parseNATPorts(ports); err == nil && shifted {
			r.Base, err = parsePort(base)
		}
	}
	return r, false, err
}

// parseRange reads ADDRESS and ADDRESS-ADDRESS.
func parseRange(s string, f lb.Family) (first, last netip.Addr, err error) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	if first, err = parseAddr(low, low, f); err == nil {
		last, err = parseAddr(high, high, f)
	}
	if err == nil && last.Less(first) {
		err = fmt.Errorf("addresses %s end before they begin", s)
	}
	return first, last, err
}

// parseAddr reads an address, which messages name by the text that it is in.
func parseAddr(s, text string, f lb.Family) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return a, fmt.Errorf("%q is not an address", text)
	case a.Zone() != "" || lb.FamilyOf(a) != f:
		return a, fmt.Errorf("%s is not an %s address", text, f)
	}
	return a, nil
}

func parseNATPorts(s string) (lb.PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if _, err := parsePort(first); err != nil || !isRange { // the name of a service may have a hyphen
		first, last = s, s
	}
	r, err := portRange(first, last, s)
	if err == nil && r.First == 0 {
		err = fmt.Errorf("port 0 in %q", s)
	}
	return r, err
}
