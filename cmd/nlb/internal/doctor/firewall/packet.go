package firewall

// A packet, as far as it is known, and whether it meets a condition.

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Packet is a packet of a kind: what is not known is zero, and what may be one
// of several values is a span.
type Packet struct {
	// In and Out are the links that it comes and leaves by, with their numbers.
	In, Out           string
	InIndex, OutIndex int
	// V6 is its family.
	V6       bool
	Src, Dst Addrs
	// SrcPort and DstPort are known where they are not zero.
	SrcPort, DstPort Ports
	// Protocol is its transport's number.
	Protocol uint8
	// Established: it is not the first of its connection.
	Established bool
	// Invalid: conntrack knows no connection that it fits.
	Invalid bool
	// Flags are those of TCP; 0: they are not known.
	Flags uint8
	// Translated: the connection's destination was translated.
	Translated bool
	// Solicitation: it asks a neighbour for its address on the link (RFC 4861),
	// in ICMPv6. Such packets have no connection.
	Solicitation bool
	// Local says whether the destination is this host's own address; Maybe: it
	// is not known.
	Local Tri
}

// Addrs is addresses from First to Last.
type Addrs struct{ First, Last netip.Addr }

// AddrsOf are the addresses of a prefix, none where it is not valid.
func AddrsOf(p netip.Prefix) Addrs {
	if !p.IsValid() {
		return Addrs{}
	}
	last := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	l, _ := netip.AddrFromSlice(last)
	return Addrs{p.Masked().Addr(), l}
}

// Ports is ports from First to Last.
type Ports struct{ First, Last uint16 }

// Tri is a truth that may be unknown.
type Tri uint8

// The truths. The zero Tri is Maybe.
const (
	Maybe Tri = iota
	False
	True
)

func (t Tri) not() Tri {
	switch t {
	case True:
		return False
	case False:
		return True
	}
	return Maybe
}

// value is what a field of the packet holds, as a range; ok: it is known.
func (p *Packet) value(f Field) (r Range, ok bool) {
	switch f.Kind {
	case InName, OutName:
		name := p.In
		if f.Kind == OutName {
			name = p.Out
		}
		if name == "" {
			return r, false
		}
		return single(append([]byte(name), make([]byte, max(0, unix.IFNAMSIZ-len(name)))...)), true
	case InIndex:
		return host32(uint32(p.InIndex)), p.InIndex != 0
	case OutIndex:
		return host32(uint32(p.OutIndex)), p.OutIndex != 0
	case NFProto:
		if p.V6 {
			return single([]byte{unix.NFPROTO_IPV6}), true
		}
		return single([]byte{unix.NFPROTO_IPV4}), true
	case EtherType:
		if p.V6 {
			return single([]byte{0x86, 0xdd}), true
		}
		return single([]byte{0x08, 0x00}), true
	case L4Proto:
		return single([]byte{p.Protocol}), p.Protocol != 0
	case Network:
		return p.network(f)
	case SrcAddr:
		return addrRange(p.Src)
	case DstAddr:
		return addrRange(p.Dst)
	case Transport:
		switch {
		case p.Solicitation:
			return single([]byte{135, 0}), f.Offset == 0 && f.Len <= 2 // type and code
		case f.Offset == 13 && f.Len == 1:
			return single([]byte{p.Flags}), p.Flags != 0
		case f.Len != 2:
		case f.Offset == 0:
			return portRange(p.SrcPort)
		case f.Offset == 2:
			return portRange(p.DstPort)
		}
	case State:
		return host32(p.state()), true
	case Status:
		return host32(p.status()), true
	case TypeOfDst, typeOfDstBits:
		typ := uint32(unix.RTN_UNICAST)
		if p.Local == True {
			typ = unix.RTN_LOCAL
		}
		if f.Kind == typeOfDstBits {
			typ = 1 << typ
		}
		return host32(typ), p.Local != Maybe
	}
	return r, false
}

// The header of a network protocol, as far as it is known
// (linux/ip.h, linux/ipv6.h).
func (p *Packet) network(f Field) (Range, bool) {
	src, dst, proto, size := 12, 16, 9, 4
	if p.V6 {
		src, dst, proto, size = 8, 24, 6, 16
	}
	switch {
	case f.Offset == src && f.Len <= size: // the front of an address is a prefix
		return addrRange(p.Src)
	case f.Offset == dst && f.Len <= size:
		return addrRange(p.Dst)
	case p.Solicitation && f.Offset >= proto && f.Offset+f.Len <= proto+2:
		// RFC 4861, 4.3: the hop limit, which follows the protocol, is 255.
		return single([]byte{p.Protocol, 255}[f.Offset-proto:][:f.Len]), p.Protocol != 0
	case f.Offset == proto && f.Len == 1:
		return single([]byte{p.Protocol}), p.Protocol != 0
	}
	return Range{}, false
}

// The bits of linux/netfilter/nf_conntrack_common.h, NF_CT_STATE_BIT and
// enum ip_conntrack_status.
const (
	stateInvalid     = 1 << 0
	stateEstablished = 1 << 1
	stateNew         = 1 << 3
	stateUntracked   = 1 << 6
	statusSeenReply  = 1 << 1
	statusConfirmed  = 1 << 3
	statusDNAT       = 1 << 5
	statusDstDone    = 1 << 8
)

func (p *Packet) state() uint32 {
	switch {
	case p.Solicitation:
		return stateUntracked
	case p.Invalid:
		return stateInvalid
	case p.Established:
		return stateEstablished
	}
	return stateNew
}

// status has the bits that matter to rules; what depends on the way of the
// packet so far (assured, source translated) is left out.
func (p *Packet) status() uint32 {
	var s uint32
	if p.Translated {
		s |= statusDNAT | statusDstDone
	}
	if p.Established {
		s |= statusSeenReply | statusConfirmed
	}
	return s
}

func host32(v uint32) Range { return single(binary.NativeEndian.AppendUint32(nil, v)) }

func addrRange(a Addrs) (Range, bool) {
	return Range{a.First.AsSlice(), a.Last.AsSlice()}, a.First.IsValid()
}

func portRange(p Ports) (Range, bool) {
	be := func(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
	return Range{be(p.First), be(p.Last)}, p != Ports{}
}

// meets says whether the packet meets a condition.
func (p *Packet) meets(c *Condition) Tri {
	if len(c.Fields) == 0 {
		return Maybe
	}
	in := False
	for _, r := range c.Ranges {
		t := p.within(c, r)
		if t != False {
			in = t
		}
		if t == True {
			break
		}
	}
	if c.Not {
		return in.not()
	}
	return in
}

// within says whether all fields are in their part of a range.
func (p *Packet) within(c *Condition, r Range) Tri {
	out, at := True, 0
	for _, f := range c.Fields {
		n := f.Len
		if len(c.Fields) == 1 {
			n = len(r.Low)
		}
		if at+n > len(r.Low) || at+n > len(r.High) {
			return Maybe
		}
		low, high := r.Low[at:at+n], r.High[at:at+n]
		at += (n + 3) &^ 3
		v, known := p.value(f)
		if !known || len(v.Low) < n {
			out = Maybe
			continue
		}
		switch overlap(c.masked(v, n), low, high) {
		case False:
			return False
		case Maybe:
			out = Maybe
		}
	}
	return out
}

// masked is the front of a value, as a condition looks at it; a span that a
// mask tears apart becomes all values.
func (c *Condition) masked(v Range, n int) Range {
	low, high := bytes.Clone(v.Low[:n]), bytes.Clone(v.High[:n])
	if c.Mask == nil {
		return Range{low, high}
	}
	span := !bytes.Equal(low, high)
	for i := range min(n, len(c.Mask)) {
		low[i] &= c.Mask[i]
		high[i] &= c.Mask[i]
		if i < len(c.Xor) {
			low[i] ^= c.Xor[i]
			high[i] ^= c.Xor[i]
		}
	}
	if span && (!isPrefix(c.Mask) || bytes.Compare(low, high) > 0) {
		return Range{make([]byte, n), bytes.Repeat([]byte{0xff}, n)}
	}
	return Range{low, high}
}

// isPrefix reports whether the ones of a mask come before its zeros.
func isPrefix(mask []byte) bool {
	zeros := false
	for _, b := range mask {
		for bit := 7; bit >= 0; bit-- {
			one := b>>bit&1 == 1
			if one && zeros {
				return false
			}
			zeros = zeros || !one
		}
	}
	return true
}

// overlap says whether a span of values is inside of a range.
func overlap(v Range, low, high []byte) Tri {
	switch {
	case bytes.Compare(v.High, low) < 0, bytes.Compare(v.Low, high) > 0:
		return False
	case bytes.Compare(v.Low, low) >= 0 && bytes.Compare(v.High, high) <= 0:
		return True
	}
	return Maybe
}
