package ruleset

// Families: what differs between IPv4 and IPv6, and the statements that depend
// on it.

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// Family is an IP version.
type Family struct {
	Digit        string // 4 or 6
	Word         string // ip or ip6, for statements
	NFProto      byte
	Addr         Datatype
	saddr, daddr uint32 // offsets in the header
	ctDst        expr.CtKey
	// nft's numbers for the header and its field saddr (nftables,
	// include/proto.h).
	protoDesc, saddrField uint32
}

// The families.
var (
	IPv4 = &Family{
		Digit: "4", Word: "ip", NFProto: unix.NFPROTO_IPV4, Addr: IPv4Addr,
		saddr: 12, daddr: 16, ctDst: expr.CtKeyDSTIP, protoDesc: 12, saddrField: 11,
	}
	IPv6 = &Family{
		Digit: "6", Word: "ip6", NFProto: unix.NFPROTO_IPV6, Addr: IPv6Addr,
		saddr: 8, daddr: 24, ctDst: expr.CtKeyDSTIP6, protoDesc: 13, saddrField: 8,
	}
)

// Families are both.
var Families = []*Family{IPv4, IPv6}

// FamilyOf is the family of an address.
func FamilyOf(a netip.Addr) *Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Suffixed takes a suffix and a family's digit off a name.
func Suffixed(name, suffix string) (stem string, f *Family, ok bool) {
	for _, f := range Families {
		if stem, ok := strings.CutSuffix(name, suffix+f.Digit); ok {
			return stem, f, true
		}
	}
	return "", nil, false
}

// Match matches packets of the family.
func (f *Family) Match() Statement { return NewStatement("meta nfproto ipv"+f.Digit, f.isFamily()...) }

// isFamily is Match as expressions. nft writes it before whatever reads the
// header.
func (f *Family) isFamily() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		compare(expr.CmpOpEq, []byte{f.NFProto}),
	}
}

// Field is a part of a packet that can be looked up or hashed.
type Field struct {
	text string
	size int // bytes
	load func(register uint32) expr.Any
}

func payload(text string, base expr.PayloadBase, offset uint32, size int) Field {
	return Field{text, size, func(register uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: uint32(size)}
	}}
}

// The fields of a packet.
var (
	SourcePort      = payload("th sport", expr.PayloadBaseTransportHeader, 0, 2)
	DestinationPort = payload("th dport", expr.PayloadBaseTransportHeader, 2, 2)
	L4Protocol      = Field{"meta l4proto", 1, func(register uint32) expr.Any {
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}
	}}
	InputInterface = Field{"iifname", Ifname.Size, func(register uint32) expr.Any {
		return &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}
	}}
)

// Source is the source address.
func (f *Family) Source() Field {
	return payload(f.Word+" saddr", expr.PayloadBaseNetworkHeader, f.saddr, f.Addr.Size)
}

// Destination is the destination address.
func (f *Family) Destination() Field {
	return payload(f.Word+" daddr", expr.PayloadBaseNetworkHeader, f.daddr, f.Addr.Size)
}

// concat loads fields beside each other, from register 1 on.
func concat(fields ...Field) (text string, exprs []expr.Any) {
	at := uint32(reg32)
	texts := make([]string, len(fields))
	for i, f := range fields {
		texts[i], exprs = f.text, append(exprs, f.load(at))
		at += uint32((f.size + 3) / 4)
	}
	return strings.Join(texts, " . "), exprs
}

// Vmap does what a map of verdicts has for some fields of the packet.
func (f *Family) Vmap(name string, fields ...Field) Statement {
	text, exprs := concat(fields...)
	exprs = append(f.isFamily(), exprs...)
	return NewStatement(text+" vmap @"+name, append(exprs, verdictOf(name))...)
}

// In matches where some fields of the packet, one of which is an address, are in a set.
func (f *Family) In(set string, fields ...Field) Statement {
	text, exprs := concat(fields...)
	exprs = append(f.isFamily(), exprs...)
	return NewStatement(text+" @"+set, append(exprs, &expr.Lookup{SourceRegister: reg32, SetName: set})...)
}

// OwnVmap is vmap for packets to this host's own addresses, of any family.
func OwnVmap(name string, fields ...Field) Statement {
	text, exprs := concat(fields...)
	exprs = append(fibLocal(expr.CmpOpEq), exprs...)
	return NewStatement("fib daddr type local "+text+" vmap @"+name, append(exprs, verdictOf(name))...)
}

func verdictOf(name string) *expr.Lookup {
	return &expr.Lookup{SourceRegister: reg32, SetName: name, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true}
}

// loadSource puts the source address into a register, masked to a number of
// bits.
func (f *Family) loadSource(at uint32, bits int) []expr.Any {
	size := uint32(f.Addr.Size)
	out := []expr.Any{f.Source().load(at)}
	if bits < int(size)*8 {
		out = append(out, &expr.Bitwise{
			SourceRegister: at, DestRegister: at, Len: size, Mask: f.netmask(bits), Xor: make([]byte, size),
		})
	}
	return out
}

// sourceText is what loadSource is in a script.
func (f *Family) sourceText(bits int) string {
	text := f.Word + " saddr"
	if bits < f.Addr.Size*8 {
		text += " & " + AddrText(string(f.netmask(bits)))
	}
	return text
}

func (f *Family) netmask(bits int) []byte {
	mask := make([]byte, f.Addr.Size)
	for i := range bits {
		mask[i/8] |= 1 << (7 - i%8)
	}
	return mask
}

// SourceIn matches where the source address is in a set, or is not.
func (f *Family) SourceIn(set string, not bool) Statement {
	return in(f.Word+" saddr", set, not, append(f.isFamily(), f.Source().load(reg))...)
}

// markAndSource loads the connection mark and the source's network.
func (f *Family) markAndSource(bits int) (text string, exprs []expr.Any) {
	return "ct mark . " + f.sourceText(bits), append(append(f.isFamily(), loadMark), f.loadSource(reg32+1, bits)...)
}

// RateBySource matches where the connections with this mark and of the source's
// network are within a rate, or above it. The set remembers each network for the
// timeout.
func (f *Family) RateBySource(set string, bits int, r Rate, above bool, timeout time.Duration) Statement {
	key, exprs := f.markAndSource(bits)
	return intoWith("update", set, key, timeout, exprs, " "+r.text(above), []expr.Any{r.expr(above)})
}

// CountBySource matches where more than n connections with this mark and of the
// source's network live.
func (f *Family) CountBySource(set string, bits int, n uint32) Statement {
	key, exprs := f.markAndSource(bits)
	text, count := countOver(n)
	return intoWith("add", set, key, 0, exprs, " "+text, []expr.Any{count})
}

// Clients is a map from the source's network to a connection mark.
type Clients struct {
	Map  string
	Bits int // of the network
	// Key comes behind the network in the keys of the map; 0: nothing does. It is no
	// mark of a connection.
	Key uint32
}

// clientKey loads what is looked up in a map of clients: the network, and a field behind it.
func (f *Family) clientKey(c Clients, text string, field expr.Any) (key string, exprs []expr.Any) {
	key, exprs = f.sourceText(c.Bits), f.loadSource(reg, c.Bits)
	if c.Key != 0 {
		key, exprs = key+" . "+text, append(exprs, field)
	}
	return key, exprs
}

// behind is the register of what comes behind an address.
func (f *Family) behind() uint32 { return uint32(reg32 + f.Addr.Size/4) }

// SetMarkBySource puts what a map has for the source's network into the
// connection mark. Where it has nothing, a key is left there: nft 1.0.6 has no
// constants in what it looks up.
func (f *Family) SetMarkBySource(c Clients) Statement {
	key, exprs := f.clientKey(c, "ct mark", &expr.Ct{Key: expr.CtKeyMARK, Register: f.behind()})
	s := NewStatement(fmt.Sprintf("ct mark set %s map @%s", key, c.Map), append(exprs, lookupMark(c.Map), setMark)...)
	if c.Key != 0 {
		first := SetMark(c.Key)
		s.Text, s.Exprs = first.Text+" "+s.Text, slices.Concat(first.Exprs, s.Exprs)
	}
	return s
}

// UpdateSource makes a map remember the connection mark for the source's
// network.
func (f *Family) UpdateSource(c Clients, timeout time.Duration) Statement {
	return f.into("update", c, " timeout "+durationText(timeout), timeout)
}

// UpdateOpenSource makes a map remember the connection mark for the source's network
// for as long as this connection, or one that did the same, is open. Its elements
// count connections and match whatever the number is: also a lookup asks them.
func (f *Family) UpdateOpenSource(c Clients) Statement {
	const most uint32 = 1<<32 - 1
	return f.into("update", c, fmt.Sprintf(" ct count %d", most), 0, &expr.Connlimit{Count: most})
}

// DeleteSource makes a map forget the source's network.
func (f *Family) DeleteSource(c Clients) Statement { return f.into("delete", c, "", 0) }

func (f *Family) into(word string, c Clients, with string, timeout time.Duration, inner ...expr.Any) Statement {
	data := *loadMark
	data.Register = unix.NFT_REG_2
	key, exprs := f.clientKey(c, fmt.Sprintf("0x%08x", c.Key), &expr.Immediate{Register: f.behind(), Data: []byte(MarkBytes(c.Key))})
	exprs = append(exprs, &data, &expr.Dynset{
		SrcRegKey: reg, SrcRegData: unix.NFT_REG_2, SetName: c.Map, Operation: dynsets[word], Timeout: timeout, Exprs: inner,
	})
	return NewStatement(fmt.Sprintf("%s @%s { %s%s : ct mark }", word, c.Map, key, with), exprs...)
}

// DNAT translates the destination of a transport protocol's packets to the
// address and port that a map has for some bits of the connection mark. nft
// translates ports only behind a match of the protocol.
func (f *Family) DNAT(protocol byte, name string, mask uint32) Statement {
	text, mark := markBits(mask)
	exprs := append([]expr.Any{loadL4, compare(expr.CmpOpEq, []byte{protocol})}, mark...)
	return NewStatement(fmt.Sprintf("meta l4proto %s dnat %s to %s map @%s", protocolName(protocol), f.Word, text, name),
		append(exprs, lookupMark(name),
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.NFProto), RegAddrMin: reg, RegProtoMin: f.behind()})...)
}

// DNATAddress is DNAT for an address alone; the port stays.
func (f *Family) DNATAddress(name string, mask uint32) Statement {
	text, exprs := markBits(mask)
	return NewStatement(fmt.Sprintf("dnat %s to %s map @%s", f.Word, text, name),
		append(exprs, lookupMark(name), &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.NFProto), RegAddrMin: reg})...)
}

// Redirect makes the destination this host itself, at the port that a map has for some
// bits of the connection mark: the address of the interface where the packet entered,
// or a loopback address (net/netfilter/nf_nat_redirect.c).
func Redirect(protocol byte, name string, mask uint32) Statement {
	text, mark := markBits(mask)
	exprs := append([]expr.Any{loadL4, compare(expr.CmpOpEq, []byte{protocol})}, mark...)
	return NewStatement(fmt.Sprintf("meta l4proto %s redirect to :%s map @%s", protocolName(protocol), text, name),
		append(exprs, lookupMark(name), &expr.Redir{RegisterProtoMin: reg})...)
}

// SNATVIP makes the source the address that the client connected to; random: with a port
// at random.
func (f *Family) SNATVIP(random bool) Statement {
	return NewStatement(fmt.Sprintf("snat %[1]s to ct original %[1]s daddr", f.Word)+randomly(random),
		&expr.Ct{Key: f.ctDst, Register: reg, Direction: 0},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.NFProto), RegAddrMin: reg, FullyRandom: random})
}

// SNATRandom makes the source one of the addresses that a map has for the
// numbers from offset to offset+modulus-1; random: with a port at random.
func (f *Family) SNATRandom(modulus, offset uint32, name string, random bool) Statement {
	return NewStatement(fmt.Sprintf("snat %s to numgen random mod %d offset %d map @%s", f.Word, modulus, offset, name)+randomly(random),
		&expr.Numgen{Register: reg, Modulus: modulus, Type: unix.NFT_NG_RANDOM, Offset: offset},
		lookupMark(name),
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.NFProto), RegAddrMin: reg, FullyRandom: random})
}

// ZoneOf puts UDP packets whose addresses and ports are in a set into a
// conntrack zone, in the original direction only.
func (f *Family) ZoneOf(set string, zone uint16) Statement {
	text, exprs := concat(f.Source(), SourcePort, f.Destination(), DestinationPort)
	exprs = slices.Concat([]expr.Any{loadL4, compare(expr.CmpOpEq, []byte{unix.IPPROTO_UDP})}, f.isFamily(), exprs, []expr.Any{
		&expr.Lookup{SourceRegister: reg32, SetName: set},
		&expr.Immediate{Register: reg, Data: binary.NativeEndian.AppendUint16(nil, zone)},
	})
	s := NewStatement(fmt.Sprintf("meta l4proto udp %s @%s ct original zone set %d", text, set, zone), exprs...)
	// The library cannot encode it for one direction.
	s.Exprs = append(s.Exprs, rawExpr("ct", func(e *wire.Encoder) {
		const ctDirection, original = 3, "\x00" // NFTA_CT_DIRECTION
		e.Uint32(unix.NFTA_CT_KEY, unix.NFT_CT_ZONE)
		e.Data(ctDirection, original)
		e.Uint32(unix.NFTA_CT_SREG, reg)
	})...)
	return s
}

// rawExpr is an expression that the library cannot encode.
func rawExpr(name string, data func(e *wire.Encoder)) []byte {
	var e wire.Encoder
	item := e.Nest(unix.NFTA_LIST_ELEM)
	e.Text(unix.NFTA_EXPR_NAME, name)
	at := e.Nest(unix.NFTA_EXPR_DATA)
	data(&e)
	e.Unnest(at)
	e.Unnest(item)
	return e.Bytes()
}
