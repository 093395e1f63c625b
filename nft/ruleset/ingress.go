package ruleset

// Ingress: statements of a table of family netdev, which see each packet of a device
// before anything else does. Nothing is known there of connections; what they remember
// is in the mark of the packet.

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

var (
	loadPacketMark = &expr.Meta{Key: expr.MetaKeyMARK, Register: reg}
	setPacketMark  = &expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true}
)

// isFrame matches frames of the family: a packet has no other family there. nft writes
// it before whatever reads the header.
func (f *Family) isFrame() []expr.Any {
	ether := []byte{0x08, 0x00} // ETH_P_IP
	if f == IPv6 {
		ether = []byte{0x86, 0xdd} // ETH_P_IPV6
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg}, compare(expr.CmpOpEq, ether)}
}

// FrameVmap does what a map of verdicts has for some fields of the packet, one of which
// is an address.
func (f *Family) FrameVmap(name string, fields ...Field) Statement {
	text, exprs := concat(fields...)
	return NewStatement(text+" vmap @"+name, append(append(f.isFrame(), exprs...), verdictOf(name))...)
}

// Cause is what is in an ICMP error: the packet that caused it, which came from where
// the error goes.
type Cause struct {
	Protocol, Source, SourcePort, Destination, DestinationPort Field
}

// Cause are the fields of the packet in an ICMP error, if that has no options and
// extensions.
func (f *Family) Cause() Cause {
	const icmp = 8 // ICMP's header
	header, protocol := uint32(20), uint32(9)
	if f == IPv6 {
		header, protocol = 40, 6
	}
	raw := func(offset uint32, size int) Field {
		offset += icmp
		return payload(fmt.Sprintf("@th,%d,%d", 8*offset, 8*size), expr.PayloadBaseTransportHeader, offset, size)
	}
	return Cause{
		Protocol: raw(protocol, 1), Source: raw(f.saddr, f.Addr.Size), Destination: raw(f.daddr, f.Addr.Size),
		SourcePort: raw(header, 2), DestinationPort: raw(header+2, 2),
	}
}

// ErrorVmaps do with ICMP errors what a map of verdicts has for some fields of the
// packet, one of which is an address: a statement for each kind of error.
func (f *Family) ErrorVmaps(name string, fields ...Field) []Statement {
	text, exprs := concat(fields...)
	one := func(word string, protocol, kind byte, op expr.CmpOp) Statement {
		all := append(f.isFrame(),
			loadL4, compare(expr.CmpOpEq, []byte{protocol}),
			&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Len: 1}, compare(op, []byte{kind}))
		return NewStatement(word+" "+text+" vmap @"+name, append(append(all, exprs...), verdictOf(name))...)
	}
	if f == IPv6 { // RFC 4443: the errors are those below 128
		return []Statement{one("icmpv6 type < echo-request", unix.IPPROTO_ICMPV6, 128, expr.CmpOpLt)}
	}
	return []Statement{
		one("icmp type destination-unreachable", unix.IPPROTO_ICMP, 3, expr.CmpOpEq),
		one("icmp type time-exceeded", unix.IPPROTO_ICMP, 11, expr.CmpOpEq),
		one("icmp type parameter-problem", unix.IPPROTO_ICMP, 12, expr.CmpOpEq),
	}
}

// FlowHash is the Jenkins hash of some fields of the packet, as the key of a map. With
// Modulus it is scaled to that, else it has 32 bits.
type FlowHash struct {
	// Family is that of the fields, where one is of the header; nil: none is.
	Family  *Family
	Fields  []Field
	Seed    uint32
	Modulus uint32
}

// load puts the hash into the register.
func (h FlowHash) load() (text string, exprs []byte) {
	modulus := h.Modulus
	if modulus == 0 {
		modulus = 1<<32 - 1
	}
	text, load, hash := jhash(h.Fields, h.Seed, modulus, 0)
	text = fmt.Sprintf("%s mod %d seed 0x%x", text, modulus, h.Seed)
	if h.Family != nil {
		load = append(h.Family.isFrame(), load...)
	}
	return text, append(encodeExprs(load...), hash...)
}

// SetPacketMark puts a hash into the mark of the packet.
func (h FlowHash) SetPacketMark() Statement {
	text, exprs := h.load()
	return Statement{Text: "meta mark set " + text, Exprs: append(exprs, encodeExprs(setPacketMark)...)}
}

// SetPacketMarkBy puts what a map has for a hash into the mark of the packet.
func (h FlowHash) SetPacketMarkBy(name string) Statement {
	text, exprs := h.load()
	return Statement{Text: fmt.Sprintf("meta mark set %s map @%s", text, name), Exprs: append(exprs, encodeExprs(lookupMark(name), setPacketMark)...)}
}

// Learn makes a map remember the mark of the packet for a hash. What it has already
// stays, and its time begins anew.
func (h FlowHash) Learn(name string, timeout time.Duration) Statement {
	return h.into("update", name, timeout)
}

// Unlearn makes a map forget a hash.
func (h FlowHash) Unlearn(name string) Statement { return h.into("delete", name, 0) }

func (h FlowHash) into(word, name string, timeout time.Duration) Statement {
	text, exprs := h.load()
	if timeout > 0 {
		text += " timeout " + durationText(timeout)
	}
	data := *loadPacketMark
	data.Register = unix.NFT_REG_2
	return Statement{
		Text: fmt.Sprintf("%s @%s { %s : meta mark }", word, name, text),
		Exprs: append(exprs, encodeExprs(&data, &expr.Dynset{
			SrcRegKey: reg, SrcRegData: unix.NFT_REG_2, SetName: name, Operation: dynsets[word], Timeout: timeout,
		})...),
	}
}

// SetPacketMarkByMap replaces the mark of the packet by what a map has for it.
func SetPacketMarkByMap(name string) Statement {
	return NewStatement("meta mark set meta mark map @"+name, loadPacketMark, lookupMark(name), setPacketMark)
}

// SetPacketMarkByProtocol replaces the mark of the packet by what a map has for it and
// the transport protocol.
func SetPacketMarkByProtocol(name string) Statement {
	protocol := *loadL4
	protocol.Register = reg32 + 1
	mark := *loadPacketMark
	mark.Register = reg32
	return NewStatement("meta mark set meta mark . meta l4proto map @"+name, &mark, &protocol,
		&expr.Lookup{SourceRegister: reg32, SetName: name, DestRegister: reg, IsDestRegSet: true}, setPacketMark)
}

// Forward sends the packet to the neighbour that a map has for its mark, through the
// device that another one has for it, and takes one off its TTL. The kernel finds out
// the neighbour's MAC address.
func (f *Family) Forward(neighbours, devices string) Statement {
	mark := *loadPacketMark
	mark.Register = unix.NFT_REG_2
	s := NewStatement(fmt.Sprintf("fwd %s to meta mark map @%s device meta mark map @%s", f.Word, neighbours, devices),
		loadPacketMark, lookupMark(devices), &mark,
		&expr.Lookup{SourceRegister: unix.NFT_REG_2, SetName: neighbours, DestRegister: unix.NFT_REG_2, IsDestRegSet: true})
	// An expression that the library does not know (linux/netfilter/nf_tables.h, enum
	// nft_fwd_attributes).
	const device, address, family = 1, 2, 3
	s.Exprs = append(s.Exprs, rawExpr("fwd", func(e *wire.Encoder) {
		e.Uint32(device, reg)
		e.Uint32(address, unix.NFT_REG_2)
		e.Uint32(family, uint32(f.NFProto))
	})...)
	return s
}

// IsLaterFragment matches fragments but the first: they have no ports. IsFirstFragment
// matches the first of several.
func (f *Family) IsLaterFragment() Statement {
	if f == IPv6 {
		return f.fragment("frag frag-off != 0", fragmentHeader(reg, 2, 2), []byte{0xff, 0xf8}, expr.CmpOpNeq, []byte{0, 0})
	}
	return f.fragment("ip frag-off & 0x1fff != 0", fragmentOffset(reg), []byte{0x1f, 0xff}, expr.CmpOpNeq, []byte{0, 0})
}

// IsFirstFragment is for packets that are no later fragment.
func (f *Family) IsFirstFragment() Statement {
	if f == IPv6 {
		return f.fragment("frag more-fragments 1", fragmentHeader(reg, 3, 1), []byte{1}, expr.CmpOpEq, []byte{1})
	}
	return f.fragment("ip frag-off & 0x2000 != 0", fragmentOffset(reg), []byte{0x20, 0}, expr.CmpOpNeq, []byte{0, 0})
}

func (f *Family) fragment(text string, load expr.Any, mask []byte, op expr.CmpOp, value []byte) Statement {
	return NewStatement(text, append(f.isFrame(), load,
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
		compare(op, value))...)
}

func fragmentOffset(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2}
}

// fragmentHeader loads a part of IPv6's fragment header.
func fragmentHeader(register, offset, size uint32) expr.Any {
	return &expr.Exthdr{DestRegister: register, Type: unix.IPPROTO_FRAGMENT, Offset: offset, Len: size, Op: expr.ExthdrOpIpv6}
}

// Datagram are the fields that the fragments of a datagram share.
func (f *Family) Datagram() []Field {
	id := payload("ip id", expr.PayloadBaseNetworkHeader, 4, 2)
	if f == IPv6 {
		id = Field{"frag id", 4, func(register uint32) expr.Any { return fragmentHeader(register, 4, 4) }}
	}
	return []Field{f.Source(), f.Destination(), id}
}

// What nft keeps of `typeof` in a map's user data, beside what is in encode.go.
const (
	metaExpr, concatExpr = 9, 13 // EXPR_META, EXPR_CONCAT
	verdictExpr          = 1     // EXPR_VERDICT
	metaMark, metaIfname = 3, 6  // NFT_META_MARK, NFT_META_IIFNAME
	daddrField4          = 12    // of ip and ip6
	daddrField6          = 9
)

// FlowUdata is nft's description of `typeof numgen inc mod 2 : meta mark`: nft has no
// other word for a map by the hash of a flow that it would take again.
func FlowUdata() string {
	numgen := udataNumber(exprID, numgenExpr) + Udata(exprData, udataNumber(0, 0)+udataNumber(1, 2)+udataNumber(2, 0))
	return Udata(keyTypeof, numgen) + Udata(dataTypeof, metaUdata(metaMark))
}

// CauseText and CauseUdata are `typeof [iifname .] ip daddr . PROTOCOL . PORT`, where
// the last two are of the packet in an ICMP error.
func (f *Family) CauseText(ifname bool) string {
	c := f.Cause()
	fields := []string{f.Destination().text, c.Protocol.text, c.SourcePort.text}
	if ifname {
		fields = slices.Insert(fields, 0, InputInterface.text)
	}
	return strings.Join(fields, " . ")
}

// CauseUdata is CauseText for the kernel's listing.
func (f *Family) CauseUdata(ifname bool) string {
	raw := func(offset, bits uint32) string {
		return udataNumber(exprID, payloadExpr) +
			Udata(exprData, udataNumber(0, 0)+udataNumber(1, 0)+udataNumber(2, 3)+udataNumber(3, offset)+udataNumber(4, bits))
	}
	field, protocol, port := uint32(daddrField4), uint32(136), uint32(224)
	if f == IPv6 {
		field, protocol, port = daddrField6, 112, 384
	}
	parts := []string{payloadUdata(f.protoDesc, field), raw(protocol, 8), raw(port, 16)}
	if ifname {
		parts = slices.Insert(parts, 0, metaUdata(metaIfname))
	}
	var all string
	for i, p := range parts {
		all += Udata(byte(i), p)
	}
	return Udata(keyTypeof, udataNumber(exprID, concatExpr)+Udata(exprData, all)) +
		Udata(dataTypeof, udataNumber(exprID, verdictExpr)+Udata(exprData, ""))
}

func metaUdata(key uint32) string {
	return udataNumber(exprID, metaExpr) + Udata(exprData, udataNumber(0, key))
}
