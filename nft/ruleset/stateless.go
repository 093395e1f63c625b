package ruleset

// Stateless: statements that write into packets, of which conntrack is to know nothing.

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// NoTrack has conntrack leave the packet alone. It has to come ahead of conntrack.
func NoTrack() Statement { return NewStatement("notrack", &expr.Notrack{}) }

// The UDP header (RFC 768), and IPv4's (RFC 791).
const (
	udpPort, udpChecksum = 2, 6
	ipChecksum           = 10
)

// SetUDPPort are statements that change the destination port of a datagram. One without
// a checksum, as IPv4 allows, must not get one: the kernel would make it of nothing.
func SetUDPPort(port uint16) []Statement {
	checksum := &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: udpChecksum, Len: 2}
	value := &expr.Immediate{Register: reg, Data: binary.BigEndian.AppendUint16(nil, port)}
	write := func(kind expr.PayloadCsumType, offset uint32) *expr.Payload {
		return &expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: udpPort, Len: 2,
			CsumType: kind, CsumOffset: offset,
		}
	}
	return []Statement{
		NewStatement(fmt.Sprintf("@th,48,16 0 th dport set %d", port),
			checksum, compare(expr.CmpOpEq, []byte{0, 0}), value, write(expr.CsumTypeNone, 0)),
		NewStatement(fmt.Sprintf("@th,48,16 != 0 udp dport set %d", port),
			checksum, compare(expr.CmpOpNeq, []byte{0, 0}), loadL4, compare(expr.CmpOpEq, []byte{unix.IPPROTO_UDP}), value, write(expr.CsumTypeInet, udpChecksum)),
	}
}

// SetDestination writes the address that a map has for a number below modulus, in turn
// or at random, over the destination. Checksums follow.
func (f *Family) SetDestination(random bool, modulus uint32, name string) Statement {
	word, number := numgen(random, modulus, 0)
	s := NewStatement(fmt.Sprintf("%s daddr set numgen %s mod %d map @%s", f.Word, word, modulus, name), append(f.isFamily(), number, lookupMark(name))...)
	// The library cannot encode it for IPv6, whose header has no checksum: only that of what
	// is inside follows.
	s.Exprs = append(s.Exprs, rawExpr("payload", func(e *wire.Encoder) {
		e.Uint32(unix.NFTA_PAYLOAD_SREG, reg)
		e.Uint32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_NETWORK_HEADER)
		e.Uint32(unix.NFTA_PAYLOAD_OFFSET, f.daddr)
		e.Uint32(unix.NFTA_PAYLOAD_LEN, uint32(f.Addr.Size))
		if f == IPv4 {
			e.Uint32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET)
			e.Uint32(unix.NFTA_PAYLOAD_CSUM_OFFSET, ipChecksum)
		}
		e.Uint32(unix.NFTA_PAYLOAD_CSUM_FLAGS, unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR)
	})...)
	return s
}
