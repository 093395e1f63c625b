package nft

// The data types of map keys and values, as nft knows them: the numbers are
// nft's own (nftables, include/datatype.h) and make a listing readable.

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"nlb/lb"
)

// datatype is one field of a key or a value. In the kernel each field takes a
// multiple of 4 bytes.
type datatype struct {
	name string
	id   uint32
	size int
	// host says that the bytes are in host order; nft prints such a field
	// wrong unless the map says so.
	host bool
	text func(b string) string
}

var (
	ipv4Addr    = datatype{name: "ipv4_addr", id: 7, size: 4, text: addrText}
	ipv6Addr    = datatype{name: "ipv6_addr", id: 8, size: 16, text: addrText}
	inetProto   = datatype{name: "inet_proto", id: 12, size: 1, text: func(b string) string { return lb.Protocol(b[0]).String() }}
	inetService = datatype{name: "inet_service", id: 13, size: 2, text: func(b string) string {
		return strconv.Itoa(int(binary.BigEndian.Uint16([]byte(b))))
	}}
	mark = datatype{name: "mark", id: 19, size: 4, host: true, text: func(b string) string {
		return fmt.Sprintf("0x%08x", markOf(b))
	}}
	ifname = datatype{name: "ifname", id: 41, size: 16, host: true, text: func(b string) string {
		return fmt.Sprintf("%q", strings.TrimRight(b, "\x00"))
	}}
	// integer is what numgen gives.
	integer = datatype{name: "integer", id: 4, size: 4, host: true, text: mark.text}
	// verdict is a value that is the name of a chain to go to.
	verdict = datatype{name: "verdict", id: 0xffffff00}
)

func (d datatype) padded() int { return (d.size + 3) &^ 3 }

// typ is a concatenation of fields; none: there is no value, it is a set.
type typ []datatype

func (t typ) String() string {
	names := make([]string, len(t))
	for i, d := range t {
		names[i] = d.name
	}
	return strings.Join(names, " . ")
}

// id is nft's number for the concatenation: six bits for each field.
func (t typ) id() uint32 {
	var id uint32
	for _, d := range t {
		id = id<<6 | d.id
	}
	return id
}

func (t typ) size() int {
	n := 0
	for _, d := range t {
		n += d.padded()
	}
	return n
}

// text is what nft prints for a value, or for a range of values.
func (t typ) text(first, last string) string {
	var b strings.Builder
	for i, d := range t {
		if i > 0 {
			b.WriteString(" . ")
		}
		n := d.padded()
		one := first[:n]
		b.WriteString(d.rangeText(one, last))
		first = first[n:]
		if last != "" {
			last = last[n:]
		}
	}
	return b.String()
}

func (d datatype) rangeText(first, last string) string {
	if last == "" || first == last[:len(first)] {
		return d.text(first[:d.size])
	}
	last = last[:d.size]
	if d.id == ifname.id {
		return fmt.Sprintf("%q", ifnameOf(first, last))
	}
	if p, ok := prefixOf(first[:d.size], last); ok && d.id != inetService.id {
		return p.String()
	}
	return d.text(first[:d.size]) + "-" + d.text(last)
}

// prefixOf returns the prefix that is exactly this range of addresses.
func prefixOf(first, last string) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice([]byte(first))
	if !ok || len(first) != len(last) {
		return netip.Prefix{}, false
	}
	bits := 0
	for bits < len(first)*8 && bit(first, bits) == bit(last, bits) {
		bits++
	}
	p := netip.PrefixFrom(a, bits)
	return p, p == p.Masked() && lastOf(p) == last
}

func bit(s string, i int) byte { return s[i/8] >> (7 - i%8) & 1 }

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) string {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return string(b)
}

func addrText(b string) string {
	a, _ := netip.AddrFromSlice([]byte(b))
	return a.String()
}

// The bytes of the fields.

func addrBytes(a netip.Addr) string {
	if a.Is4() {
		b := a.As4()
		return string(b[:])
	}
	b := a.As16()
	return string(b[:])
}

// ifnameBytes are the first and the last name of an interface, or of those
// with a prefix: eth*.
func ifnameBytes(name string) (first, last string) {
	fill := "\x00"
	if stem, ok := strings.CutSuffix(name, "*"); ok {
		name, fill = stem, "\xff"
	}
	rest := ifname.size - len(name)
	return name + strings.Repeat("\x00", rest), name + strings.Repeat(fill, rest)
}

// ifnameOf reads what ifnameBytes writes.
func ifnameOf(first, last string) string {
	name := strings.TrimRight(first, "\x00")
	if first != last {
		name += "*"
	}
	return name
}

func protoBytes(p lb.Protocol) string { return string([]byte{byte(p), 0, 0, 0}) }

func portBytes(p uint16) string { return string([]byte{byte(p >> 8), byte(p), 0, 0}) }

func markBytes(m uint32) string {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], m)
	return string(b[:])
}

func markOf(b string) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32([]byte(b[:4]))
}
