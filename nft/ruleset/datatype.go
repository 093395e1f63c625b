package ruleset

// The data types of map keys and values, as nft knows them: the numbers are
// nft's own (nftables, include/datatype.h) and make a listing readable.

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Datatype is one field of a key or a value. In the kernel each field takes a
// multiple of 4 bytes.
type Datatype struct {
	Name string
	id   uint32
	Size int
	// host says that the bytes are in host order; nft prints such a field
	// wrong unless the map says so.
	host bool
	Text func(b string) string
}

var (
	IPv4Addr    = Datatype{Name: "ipv4_addr", id: 7, Size: 4, Text: AddrText}
	IPv6Addr    = Datatype{Name: "ipv6_addr", id: 8, Size: 16, Text: AddrText}
	InetProto   = Datatype{Name: "inet_proto", id: 12, Size: 1, Text: func(b string) string { return protocolName(b[0]) }}
	InetService = Datatype{Name: "inet_service", id: 13, Size: 2, Text: func(b string) string {
		return strconv.Itoa(int(binary.BigEndian.Uint16([]byte(b))))
	}}
	Mark = Datatype{Name: "mark", id: 19, Size: 4, host: true, Text: func(b string) string {
		return fmt.Sprintf("0x%08x", MarkOf(b))
	}}
	// Link is the number of an interface.
	Link   = Datatype{Name: "iface_index", id: 20, Size: 4, host: true, Text: func(b string) string { return strconv.FormatUint(uint64(MarkOf(b)), 10) }}
	Ifname = Datatype{Name: "ifname", id: 41, Size: 16, host: true, Text: func(b string) string {
		return fmt.Sprintf("%q", strings.TrimRight(b, "\x00"))
	}}
	// Integer is what numgen gives.
	Integer = Datatype{Name: "integer", id: 4, Size: 4, host: true, Text: Mark.Text}
	// Number is a number of a packet's header, or of a connection.
	Number = Datatype{Name: "integer", id: 4, Size: 4, Text: func(b string) string {
		return strconv.FormatUint(uint64(binary.BigEndian.Uint32([]byte(b))), 10)
	}}
	// Byte and Short are numbers of that size of a packet.
	Byte  = Datatype{Name: "integer", id: 4, Size: 1, Text: func(b string) string { return strconv.Itoa(int(b[0])) }}
	Short = Datatype{Name: "integer", id: 4, Size: 2, Text: InetService.Text}
	// Verdict is a value that is the name of a chain to go to.
	Verdict = Datatype{Name: "verdict", id: 0xffffff00}
)

// Padded is the size of the field in the kernel, in bytes.
func (d Datatype) Padded() int { return (d.Size + 3) &^ 3 }

// Type is a concatenation of fields. One without fields is that of the values of
// a set, which has none.
type Type []Datatype

// String is the type as nft writes it.
func (t Type) String() string {
	names := make([]string, len(t))
	for i, d := range t {
		names[i] = d.Name
	}
	return strings.Join(names, " . ")
}

// id is nft's number for the concatenation: six bits for each field.
func (t Type) id() uint32 {
	var id uint32
	for _, d := range t {
		id = id<<6 | d.id
	}
	return id
}

// size is in bytes: fields of a concatenation are padded, a single one is not.
func (t Type) size() int {
	if len(t) == 1 {
		return t[0].Size
	}
	n := 0
	for _, d := range t {
		n += d.Padded()
	}
	return n
}

// Text is what nft prints for a value, or for a range of values.
func (t Type) Text(first, last string) string {
	var b strings.Builder
	for i, d := range t {
		if i > 0 {
			b.WriteString(" . ")
		}
		n := min(d.Padded(), len(first))
		one := first[:n]
		b.WriteString(d.rangeText(one, last))
		first = first[n:]
		if last != "" {
			last = last[n:]
		}
	}
	return b.String()
}

func (d Datatype) rangeText(first, last string) string {
	if last == "" || first == last[:len(first)] {
		return d.Text(first[:d.Size])
	}
	last = last[:d.Size]
	if d.id == Ifname.id {
		return fmt.Sprintf("%q", IfnameOf(first, last))
	}
	if p, ok := PrefixOf(first[:d.Size], last); ok && d.id != InetService.id {
		return p.String()
	}
	return d.Text(first[:d.Size]) + "-" + d.Text(last)
}

// PrefixOf returns the prefix that is exactly this range of addresses.
func PrefixOf(first, last string) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice([]byte(first))
	if !ok || len(first) != len(last) {
		return netip.Prefix{}, false
	}
	bits := 0
	for bits < len(first)*8 && bit(first, bits) == bit(last, bits) {
		bits++
	}
	p := netip.PrefixFrom(a, bits)
	return p, p == p.Masked() && LastOf(p) == last
}

func bit(s string, i int) byte { return s[i/8] >> (7 - i%8) & 1 }

// LastOf is the highest address of a prefix.
func LastOf(p netip.Prefix) string {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return string(b)
}

// AddrText is the text of an address, of 4 or 16 bytes.
func AddrText(b string) string {
	a, _ := netip.AddrFromSlice([]byte(b))
	return a.String()
}

// The bytes of the fields.

// AddrBytes are the bytes of an address, 4 or 16.
func AddrBytes(a netip.Addr) string {
	if a.Is4() {
		b := a.As4()
		return string(b[:])
	}
	b := a.As16()
	return string(b[:])
}

// IfnameBytes are the first and the last name of an interface, or of those
// with a prefix: eth*.
func IfnameBytes(name string) (first, last string) {
	fill := "\x00"
	if stem, ok := strings.CutSuffix(name, "*"); ok {
		name, fill = stem, "\xff"
	}
	rest := Ifname.Size - len(name)
	return name + strings.Repeat("\x00", rest), name + strings.Repeat(fill, rest)
}

// IfnameOf reads what IfnameBytes writes.
func IfnameOf(first, last string) string {
	name := strings.TrimRight(first, "\x00")
	if first != last {
		name += "*"
	}
	return name
}

// ProtoBytes are those of a transport protocol, padded.
func ProtoBytes(p byte) string { return string([]byte{p, 0, 0, 0}) }

// protocolName is nft's word for a transport protocol.
func protocolName(p byte) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "ipv6-icmp"
	}
	return strconv.Itoa(int(p))
}

// PortBytes are those of a port, padded.
func PortBytes(p uint16) string { return string([]byte{byte(p >> 8), byte(p), 0, 0}) }

// PortOf reads what PortBytes writes, padded or not.
func PortOf(b string) uint16 { return binary.BigEndian.Uint16([]byte(b[:2])) }

// MarkBytes are those of a mark, in the order of the host.
func MarkBytes(m uint32) string {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], m)
	return string(b[:])
}

// MarkOf reads what MarkBytes writes; 0 where it is too short.
func MarkOf(b string) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32([]byte(b[:4]))
}
