package nft

// Families: what differs between IPv4 and IPv6.

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/lb"
)

// family is what differs between the IP versions.
type family struct {
	lb.Family
	digit        string // the end of the names of maps and chains
	word         string // ip or ip6, for statements
	nfproto      byte
	addr         datatype
	saddr, daddr uint32 // offsets in the header
	ctDst        expr.CtKey
	// nft's numbers for the header and its field saddr (nftables,
	// include/proto.h).
	protoDesc, saddrField uint32

	match     statement // packets of this family
	gotoPick  statement
	deliver   string // the chain that translates to the backend in the mark
	services  string // maps, see layout
	endpoints string
	addresses string
	sources   string
	pick      string
}

var families = []*family{
	newFamily(family{
		Family: lb.IPv4, digit: "4", word: "ip", nfproto: unix.NFPROTO_IPV4, addr: ipv4Addr,
		saddr: 12, daddr: 16, ctDst: expr.CtKeyDSTIP, protoDesc: 12, saddrField: 11,
	}),
	newFamily(family{
		Family: lb.IPv6, digit: "6", word: "ip6", nfproto: unix.NFPROTO_IPV6, addr: ipv6Addr,
		saddr: 8, daddr: 24, ctDst: expr.CtKeyDSTIP6, protoDesc: 13, saddrField: 8,
	}),
}

func newFamily(f family) *family {
	f.services, f.endpoints, f.addresses = "services"+f.digit, "endpoints"+f.digit, "addresses"+f.digit
	f.sources, f.pick, f.deliver = "sources"+f.digit, "pick"+f.digit, "deliver"+f.digit
	f.match = newStatement("meta nfproto ipv"+f.digit, f.isFamily()...)
	f.gotoPick = goTo(f.pick)
	return &f
}

func familyOf(f lb.Family) *family {
	if f == lb.IPv6 {
		return families[1]
	}
	return families[0]
}

// isFamily matches packets of an IP version. nft writes it before whatever
// reads the header.
func (f *family) isFamily() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{f.nfproto}},
	}
}

// loadSource puts the source address into a register, masked to a number of
// bits.
func (f *family) loadSource(at uint32, bits int) []expr.Any {
	size := uint32(f.addr.size)
	out := []expr.Any{&expr.Payload{DestRegister: at, Base: expr.PayloadBaseNetworkHeader, Offset: f.saddr, Len: size}}
	if bits < int(size)*8 {
		out = append(out, &expr.Bitwise{
			SourceRegister: at, DestRegister: at, Len: size, Mask: f.netmask(bits), Xor: make([]byte, size),
		})
	}
	return out
}

func (f *family) netmask(bits int) []byte {
	mask := make([]byte, f.addr.size)
	for i := range bits {
		mask[i/8] |= 1 << (7 - i%8)
	}
	return mask
}

// sourceText is what loadSource is in a script.
func (f *family) sourceText(bits int) string {
	text := f.word + " saddr"
	if bits < f.addr.size*8 {
		text += " & " + addrText(string(f.netmask(bits)))
	}
	return text
}
