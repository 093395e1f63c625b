package space

// Addresses, ports and protocols as sets.

import (
	"encoding/binary"
	"net/netip"

	"nlb/lb"
)

// NumberOf is an address as a number; of IPv4, its 32 bits.
func NumberOf(a netip.Addr) Number {
	if a.Is4() {
		b := a.As4()
		return N(uint64(binary.BigEndian.Uint32(b[:])))
	}
	b := a.As16()
	return Number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// Addr is a number as an address.
func (n Number) Addr(f lb.Family) netip.Addr {
	if f == lb.IPv4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n.Low))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], n.High)
	binary.BigEndian.PutUint64(b[8:], n.Low)
	return netip.AddrFrom16(b)
}

// Prefix is the set of the addresses in a prefix.
func Prefix(p netip.Prefix) Set {
	first := NumberOf(p.Masked().Addr())
	last := first
	host := p.Addr().BitLen() - p.Bits()
	if host >= 64 {
		last.High |= ones(host - 64)
		host = 64
	}
	last.Low |= ones(host)
	return Set{{first, last}}
}

func ones(bits int) uint64 { return 1<<bits - 1 }

// Addresses is the set of all addresses of a family.
func Addresses(f lb.Family) Set {
	if f == lb.IPv4 {
		return Prefix(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	return Prefix(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
}

// Between is the set of the addresses from one to another.
func Between(first, last netip.Addr) Set { return Of(Range{NumberOf(first), NumberOf(last)}) }

// Prefixes are the fewest prefixes that have just these addresses. ok is false
// where they are more than most.
func (s Set) Prefixes(f lb.Family, most int) (out []netip.Prefix, ok bool) {
	width := 32
	if f == lb.IPv6 {
		width = 128
	}
	for _, r := range s {
		for {
			if len(out) == most {
				return nil, false
			}
			// The largest block that begins here and ends within r.
			bits := width
			last := r.First
			for bits > 0 {
				p := netip.PrefixFrom(r.First.Addr(f), bits-1)
				block := Prefix(p)[0]
				if block.First != r.First || block.Last.Compare(r.Last) > 0 {
					break
				}
				bits, last = bits-1, block.Last
			}
			out = append(out, netip.PrefixFrom(r.First.Addr(f), bits))
			if last == r.Last {
				break
			}
			r.First = last.next()
		}
	}
	return out, true
}

// AllPorts is the set of all ports.
func AllPorts() Set { return One(0, 65535) }

// Ports is the set of these ports.
func Ports(ranges ...lb.PortRange) Set {
	out := make([]Range, len(ranges))
	for i, r := range ranges {
		out[i] = Range{N(uint64(r.First)), N(uint64(r.Last))}
	}
	return Of(out...)
}

// PortRanges is the set as ranges of ports, for a listen: port 0 belongs to all
// ports only.
func (s Set) PortRanges() []lb.PortRange {
	if s.Equal(AllPorts()) {
		return []lb.PortRange{lb.AllPorts}
	}
	var out []lb.PortRange
	for _, r := range s.And(One(1, 65535)) {
		out = append(out, lb.PortRange{First: uint16(r.First.Low), Last: uint16(r.Last.Low)})
	}
	return out
}

// Own is the set for the dimension Local: of addresses of this host, or of all others.
func Own(own bool) Set {
	if own {
		return One(1, 1)
	}
	return One(0, 0)
}

// AllProtocols is the set of all numbers of protocols.
func AllProtocols() Set { return One(0, 255) }

// Protocols is the set of one protocol.
func Protocols(number uint8) Set { return One(uint64(number), uint64(number)) }
