package importer

// Values that several programs write alike.

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
)

// HostPort parts HOST, HOST:PORT and [HOST]:PORT. Several colons without brackets are
// those of a host. ok is false for a [ without ].
func HostPort(text string) (host, port string, ok bool) {
	switch {
	case strings.HasPrefix(text, "["):
		end := strings.LastIndexByte(text, ']')
		if end < 0 || end+1 < len(text) && text[end+1] != ':' {
			return "", "", false
		}
		return text[1:end], strings.TrimPrefix(text[end+1:], ":"), true
	case strings.Count(text, ":") == 1:
		host, port, _ = strings.Cut(text, ":")
		return host, port, true
	}
	return text, "", true
}

// Words are the words of a text, as a set.
func Words(text string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(text) {
		out[w] = true
	}
	return out
}

// Addr reads an address, without a zone.
func Addr(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a, err == nil && a.Zone() == ""
}

// Prefix reads an address, or a prefix of a network.
func Prefix(text string) (netip.Prefix, bool) {
	if a, ok := Addr(text); ok {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err == nil
}

// Prefixes puts prefixes in order in place, each once.
func Prefixes(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

// MaskBits is the length of a prefix that has this mask.
func MaskBits(mask netip.Addr) (int, bool) {
	n := 0
	for _, b := range mask.AsSlice() {
		if n += bits.LeadingZeros8(^b); b != 0xff {
			break
		}
	}
	p, err := mask.Prefix(n)
	return n, err == nil && p.Addr() == mask
}

// PortRange reads FIRST, or FIRST and LAST with what is between. Port 0 is none.
func PortRange(text, between string) (lb.PortRange, bool) {
	first, last, isRange := strings.Cut(text, between)
	if !isRange {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	return lb.PortRange{First: uint16(a), Last: uint16(b)}, err == nil && err2 == nil && 0 < a && a <= b
}

// Ports are those of a listen for one port; 0: for all.
func Ports(port uint16) []lb.PortRange {
	if port == 0 {
		return []lb.PortRange{lb.AllPorts}
	}
	return []lb.PortRange{{First: port, Last: port}}
}

// LogLevel reads a level of syslog, by its number or name (syslog(3)).
func LogLevel(text string) (level lb.LogLevel, err error) {
	word := strings.ToLower(text)
	if n, err := strconv.ParseUint(word, 10, 8); err == nil && n <= 7 {
		return lb.LogLevel(n), nil
	}
	if other := map[string]string{"panic": "emerg", "error": "err", "warning": "warn"}[word]; other != "" {
		word = other
	}
	if lb.Read(&level, word) != nil {
		return 0, fmt.Errorf("%q is not a log level", text)
	}
	return level, nil
}

// LogPrefix is text as the prefix of a log.
func LogPrefix(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, text)
	return text[:min(len(text), lb.MaxLogPrefix)]
}
