//go:build linux

package listing

// Values: what bytes in a register mean.

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
)

var host = binary.NativeEndian

// kind says what bytes mean.
type kind uint8

const (
	unknown kind = iota
	address
	big // a number as the network has it
	own // a number as the host has it
	name
	family    // NFPROTO_*
	etherType // ETH_P_*
	state     // bits of a connection's state
	status    // bits of a connection's status
	local     // what kind of address
	immediate // bytes that a rule has
)

// operand is what a register holds: an expression, bytes, or what a map gives.
type operand struct {
	expr any
	kind kind
	n    int // bytes
	mask []byte
	data []byte // of immediate
	// key and elements are of a map.
	key      any
	fields   []operand
	elements []element
}

var words = map[kind]map[uint32]string{
	family:    {2: "ipv4", 10: "ipv6"},
	etherType: {0x0800: "ip", 0x86dd: "ip6"},
	local:     {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast"},
}

// Bits of states and statuses (linux/netfilter/nf_conntrack_common.h), as nft names
// them.
var bits = map[kind][]struct {
	bit  uint32
	word string
}{
	state:  {{1, "invalid"}, {2, "established"}, {4, "related"}, {8, "new"}, {64, "untracked"}},
	status: {{1, "expected"}, {2, "seen-reply"}, {4, "assured"}, {8, "confirmed"}, {16, "snat"}, {32, "dnat"}, {512, "dying"}},
}

// number is bytes as a number.
func number(k kind, b []byte) (uint32, bool) {
	switch {
	case len(b) == 1:
		return uint32(b[0]), true
	case len(b) == 2 && (k == own):
		return uint32(host.Uint16(b)), true
	case len(b) == 2:
		return uint32(binary.BigEndian.Uint16(b)), true
	case len(b) == 4 && k == big:
		return binary.BigEndian.Uint32(b), true
	case len(b) == 4:
		return host.Uint32(b), true
	}
	return 0, false
}

// value is bytes as JSON has them; nil where that is not known.
func value(k kind, b []byte) any {
	switch k {
	case address:
		if a, ok := netip.AddrFromSlice(b); ok {
			return a.String()
		}
	case name:
		text, rest, _ := bytes.Cut(b, []byte{0})
		if len(text) == len(b) && len(b) < 16 { // not all of the name is compared
			return string(text) + "*"
		}
		if strings.Trim(string(rest), "\x00") == "" {
			return string(text)
		}
	case big, own:
		if n, ok := number(k, b); ok {
			return n
		}
	case family, etherType, local:
		if n, ok := number(k, b); ok && words[k][n] != "" {
			return words[k][n]
		}
	case state, status:
		if n, ok := number(k, b); ok {
			return flags(k, n)
		}
	}
	return nil
}

// flags are the words of bits.
func flags(k kind, n uint32) any {
	out := []any{}
	for _, b := range bits[k] {
		if n&b.bit != 0 {
			out = append(out, b.word)
			n &^= b.bit
		}
	}
	if n != 0 {
		return nil
	}
	return out
}

// between is a range of values, or the one that it is.
func between(k kind, low, high []byte) any {
	first, last := value(k, low), value(k, high)
	if first == nil || last == nil {
		return nil
	}
	if bytes.Equal(low, high) {
		return first
	}
	return object{"range": []any{first, last}}
}

// keys is the key of an element, for the fields that are looked up; nil where it is not
// known.
func (e *element) keys(fields []operand) any {
	if e.others {
		return nil
	}
	var parts []any
	at := 0
	for _, f := range fields {
		if f.n == 0 || at+f.n > len(e.low) || len(e.high) != len(e.low) {
			return nil
		}
		v := between(f.kind, e.low[at:at+f.n], e.high[at:at+f.n])
		if v == nil {
			return nil
		}
		parts = append(parts, v)
		at += (f.n + 3) &^ 3
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return object{"concat": parts}
}

// mapped is a map with the values that read makes of its data; nil where one of them is
// not known.
func (o *operand) mapped(read func(data []byte) any) any {
	list := []any{}
	for i := range o.elements {
		e := &o.elements[i]
		k, v := e.keys(o.fields), read(e.data)
		if k == nil || v == nil {
			return nil
		}
		list = append(list, []any{k, v})
	}
	return object{"map": object{"key": o.key, "data": object{"set": list}}}
}
