package nft

// The statements that rules are made of. Each function gives the nft text and
// the netlink expressions of one statement, from the same arguments. Register
// 1 is where values pass through (16 bytes); the 32-bit registers from reg32
// on are its quarters, as nft itself lays them out.

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nlb/lb"
)

const (
	reg   = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00
)

// encodeExprs gives the NFTA_RULE_EXPRESSIONS list of the expressions. The
// library fails only on values that no statement here makes.
func encodeExprs(exprs ...expr.Any) []byte {
	var out []byte
	for _, e := range exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			panic(fmt.Sprintf("nft: encode %T: %v", e, err))
		}
		out = append(out, listElem(b)...)
	}
	return out
}

func listElem(b []byte) []byte {
	out, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b}})
	if err != nil {
		panic(fmt.Sprintf("nft: encode a list: %v", err))
	}
	return out
}

// drawNumgen puts a slot into the connection mark, in turn or at random.
func drawNumgen(random bool, slots, offset uint32) statement {
	word, typ := "inc", uint32(unix.NFT_NG_INCREMENTAL)
	if random {
		word, typ = "random", unix.NFT_NG_RANDOM
	}
	s := newStatement(fmt.Sprintf("ct mark set numgen %s mod %d offset %d", word, slots, offset),
		&expr.Numgen{Register: reg, Modulus: slots, Type: typ, Offset: offset})
	s.exprs = append(s.exprs, encodedSetMark...)
	return s
}

var (
	setMark        = &expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true}
	encodedSetMark = encodeExprs(setMark)
)

// drawHash puts a slot into the connection mark, by the hash of some fields.
func (f *family) drawHash(by []lb.HashField, seed, slots, offset uint32) statement {
	var texts []string
	var exprs []expr.Any
	const from = reg32 + 4 // register 2: the first one is for the result
	at, length := uint32(from), uint32(0)
	for _, field := range by {
		text, size := "", 4
		payload := &expr.Payload{DestRegister: at}
		switch field {
		case lb.SourceAddress:
			text, size = f.word+" saddr", f.addr.size
			payload.Base, payload.Offset, payload.Len = expr.PayloadBaseNetworkHeader, f.saddr, uint32(size)
		case lb.DestinationAddress:
			text, size = f.word+" daddr", f.addr.size
			payload.Base, payload.Offset, payload.Len = expr.PayloadBaseNetworkHeader, f.daddr, uint32(size)
		case lb.SourcePort:
			text = "th sport"
			payload.Base, payload.Offset, payload.Len = expr.PayloadBaseTransportHeader, 0, 2
		case lb.DestinationPort:
			text = "th dport"
			payload.Base, payload.Offset, payload.Len = expr.PayloadBaseTransportHeader, 2, 2
		case lb.ByProtocol:
			text = "meta l4proto"
			exprs = append(exprs, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: at})
			length = 1
		}
		if payload.Len > 0 {
			exprs = append(exprs, payload)
			length = payload.Len
		}
		texts = append(texts, text)
		at += uint32(size / 4)
	}
	s := newStatement("", exprs...)
	if len(by) > 1 {
		length = 4 * (at - from) // fields of a concatenation are padded
	}
	// The kernel takes a seed of its own where it gets none, and the library
	// sends none for 0.
	h := &expr.Hash{
		SourceRegister: from, DestRegister: reg, Length: length,
		Modulus: slots, Seed: seed, Offset: offset, Type: expr.HashTypeJenkins,
	}
	if seed == 0 {
		h.Seed = 1
	}
	hash := encodeExprs(h)
	if seed == 0 {
		hash = zeroSeed(hash)
	}
	s.exprs = append(append(s.exprs, hash...), encodedSetMark...)
	s.text = fmt.Sprintf("ct mark set jhash %s mod %d seed 0x%x offset %d", strings.Join(texts, " . "), slots, seed, offset)
	return s
}

func goTo(chain string) statement {
	return newStatement("goto "+chain, &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

func jumpTo(chain string) statement {
	return newStatement("jump "+chain, &expr.Verdict{Kind: expr.VerdictJump, Chain: chain})
}

func dropIt() statement {
	return newStatement("drop", &expr.Verdict{Kind: expr.VerdictDrop})
}

var (
	loadMark = &expr.Ct{Key: expr.CtKeyMARK, Register: reg}
	loadL4   = &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}
)

func lookupMark(name string) *expr.Lookup {
	return &expr.Lookup{SourceRegister: reg, SetName: name, DestRegister: reg, IsDestRegSet: true}
}

// setMarkTo puts a number into the connection mark.
func setMarkTo(v uint32) statement {
	return newStatement(fmt.Sprintf("ct mark set 0x%08x", v), &expr.Immediate{Register: reg, Data: []byte(markBytes(v))}, setMark)
}

// callBackend runs the statements of the backend in the mark, where it has any.
func callBackend() statement {
	return newStatement("ct mark vmap @"+backendsMap, loadMark,
		&expr.Lookup{SourceRegister: reg, SetName: backendsMap, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true})
}

// slotToBackend replaces the slot in the connection mark by its backend's mark.
func slotToBackend() statement {
	return newStatement("ct mark set ct mark map @"+slotsMap, loadMark, lookupMark(slotsMap), setMark)
}

// dnat sends a connection of one protocol to the backend in its mark: address
// and port. nft translates ports only behind a match of the protocol.
func (f *family) dnat(p lb.Protocol) statement {
	return newStatement(fmt.Sprintf("meta l4proto %s dnat %s to ct mark map @%s", p, f.word, f.endpoints),
		loadL4, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{byte(p)}},
		loadMark, lookupMark(f.endpoints),
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: reg, RegProtoMin: uint32(reg32 + f.addr.size/4)})
}

// dnatAddress sends the connection to the backend in its mark: address alone.
func (f *family) dnatAddress() statement {
	return newStatement(fmt.Sprintf("dnat %s to ct mark map @%s", f.word, f.addresses),
		loadMark, lookupMark(f.addresses),
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: reg})
}

func isTCP() statement {
	return newStatement("meta l4proto tcp", loadL4, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}})
}

func rejectTCP() statement {
	return newStatement("reject with tcp reset", &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
}

func rejectPort() statement {
	return newStatement("reject with icmpx port-unreachable",
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
}

// isTranslated matches connections whose destination was translated.
func isTranslated() statement {
	return newStatement("ct status dnat", &expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
		masked(reg, ctStatusDNAT), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)})
}

// ctStatusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const ctStatusDNAT = 1 << 5

func masked(reg, mask uint32) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: []byte(markBytes(mask)), Xor: make([]byte, 4)}
}

// hasMode matches connections of backends with a mode of SNAT.
func hasMode(mode lb.SNATMode) statement {
	want := modeMark(mode)
	return newStatement(fmt.Sprintf("ct mark & 0x%08x == 0x%08x", modeMask, want),
		loadMark, masked(reg, modeMask), &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte(markBytes(want))})
}

func masquerade() statement { return newStatement("masquerade", &expr.Masq{}) }

// snatVIP makes the source the address that the client connected to.
func (f *family) snatVIP() statement {
	return newStatement(fmt.Sprintf("snat %[1]s to ct original %[1]s daddr", f.word),
		&expr.Ct{Key: f.ctDst, Register: reg, Direction: 0},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto), RegAddrMin: reg})
}

// lookupPool goes to the chain of the backend's SNAT addresses.
func lookupPool() statement {
	return newStatement("ct mark vmap @"+poolsMap, loadMark,
		&expr.Lookup{SourceRegister: reg, SetName: poolsMap, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true})
}

// snatToAny makes the source one of a block of addresses, at random: in turn, it
// would keep step with the backends, and each would see few of the addresses.
func (f *family) snatToAny(b block) statement {
	return newStatement(fmt.Sprintf("snat %s to numgen random mod %d offset %d map @%s", f.word, b.slots, b.base, f.sources),
		&expr.Numgen{Register: reg, Modulus: b.slots, Type: unix.NFT_NG_RANDOM, Offset: b.base},
		lookupMark(f.sources),
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto), RegAddrMin: reg})
}

// zeroSeed sets the seed of an encoded hash expression to 0.
func zeroSeed(b []byte) []byte {
	seed := []byte{8, 0, unix.NFTA_HASH_SEED, 0, 0, 0, 0, 1}
	binary.NativeEndian.PutUint16(seed, 8)
	binary.NativeEndian.PutUint16(seed[2:], unix.NFTA_HASH_SEED)
	at := strings.Index(string(b), string(seed))
	b[at+7] = 0
	return b
}
