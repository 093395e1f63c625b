package ruleset

// Statements: the parts of rules. Each function gives the nft text and the
// netlink expressions of one statement, made from the same arguments. Register
// 1 is where values pass through (16 bytes); the 32-bit registers from reg32
// on are its quarters, as nft itself lays them out.

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	reg   = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00
)

// Statement is a part of a rule in both its forms.
type Statement struct {
	Text   string
	Exprs  []byte // encoded NFTA_LIST_ELEM attributes
	Object Object // that it refers to; nil for nearly all
}

// NewStatement is a statement of this text and these expressions.
func NewStatement(text string, exprs ...expr.Any) Statement {
	return Statement{Text: text, Exprs: encodeExprs(exprs...)}
}

// encodeExprs gives the NFTA_RULE_EXPRESSIONS list of the expressions. The
// library fails only on values that no statement here makes.
func encodeExprs(exprs ...expr.Any) []byte {
	var out []byte
	for _, e := range exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			panic(fmt.Sprintf("ruleset: encode %T: %v", e, err))
		}
		out = append(out, listElem(b)...)
	}
	return out
}

func listElem(b []byte) []byte {
	out, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b}})
	if err != nil {
		panic(fmt.Sprintf("ruleset: encode a list: %v", err))
	}
	return out
}

// Verdicts.

// Goto goes to a chain.
func Goto(chain string) Statement {
	return NewStatement("goto "+chain, &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

// Jump goes to a chain, and comes back at its end.
func Jump(chain string) Statement {
	return NewStatement("jump "+chain, &expr.Verdict{Kind: expr.VerdictJump, Chain: chain})
}

// Accept ends the way through the chains of this hook and priority.
func Accept() Statement { return NewStatement("accept", &expr.Verdict{Kind: expr.VerdictAccept}) }

// Continue goes on with the next rule.
func Continue() Statement {
	return NewStatement("continue", &expr.Verdict{Kind: expr.VerdictContinue})
}

// Drop drops the packet.
func Drop() Statement { return NewStatement("drop", &expr.Verdict{Kind: expr.VerdictDrop}) }

// Return goes back behind the last jump.
func Return() Statement { return NewStatement("return", &expr.Verdict{Kind: expr.VerdictReturn}) }

// RejectTCP answers with a reset.
func RejectTCP() Statement {
	return NewStatement("reject with tcp reset", &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
}

// RejectPort answers that the port is unreachable.
func RejectPort() Statement {
	return NewStatement("reject with icmpx port-unreachable",
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
}

// Expressions that several statements share.
var (
	loadMark       = &expr.Ct{Key: expr.CtKeyMARK, Register: reg}
	loadL4         = &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}
	setMark        = &expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true}
	encodedSetMark = encodeExprs(setMark)
)

// lookupMark replaces the value in the register by what a map has for it.
func lookupMark(name string) *expr.Lookup {
	return &expr.Lookup{SourceRegister: reg, SetName: name, DestRegister: reg, IsDestRegSet: true}
}

func masked(mask uint32) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: []byte(MarkBytes(mask)), Xor: make([]byte, 4)}
}

// compare is the comparison of a register with bytes.
func compare(op expr.CmpOp, b []byte) *expr.Cmp { return &expr.Cmp{Op: op, Register: reg, Data: b} }

// The connection mark.

// SetMark puts a number into the connection mark.
func SetMark(v uint32) Statement {
	return NewStatement(fmt.Sprintf("ct mark set 0x%08x", v), &expr.Immediate{Register: reg, Data: []byte(MarkBytes(v))}, setMark)
}

// SetMarkNumgen puts a number from offset to offset+modulus-1 into the
// connection mark, in turn or at random.
func SetMarkNumgen(random bool, modulus, offset uint32) Statement {
	word, number := numgen(random, modulus, offset)
	s := NewStatement(fmt.Sprintf("ct mark set numgen %s mod %d offset %d", word, modulus, offset), number)
	s.Exprs = append(s.Exprs, encodedSetMark...)
	return s
}

// numgen puts a number into the register, in turn or at random, as the word says.
func numgen(random bool, modulus, offset uint32) (word string, e *expr.Numgen) {
	e = &expr.Numgen{Register: reg, Modulus: modulus, Type: unix.NFT_NG_INCREMENTAL, Offset: offset}
	if random {
		e.Type = unix.NFT_NG_RANDOM
		return "random", e
	}
	return "inc", e
}

// SetMarkHash is SetMarkNumgen by the Jenkins hash of some fields of the
// packet.
func SetMarkHash(fields []Field, seed, modulus, offset uint32) Statement {
	text, exprs, hash := jhash(fields, seed, modulus, offset)
	s := NewStatement(fmt.Sprintf("ct mark set %s mod %d seed 0x%x offset %d", text, modulus, seed, offset), exprs...)
	s.Exprs = append(append(s.Exprs, hash...), encodedSetMark...)
	return s
}

// Through puts a map behind a statement that makes the connection mark a number: the mark
// becomes what the map has for that number.
func Through(s Statement, name string) Statement {
	number := s.Exprs[:len(s.Exprs)-len(encodedSetMark)]
	return Statement{Text: s.Text + " map @" + name, Exprs: slices.Concat(number, encodeExprs(lookupMark(name)), encodedSetMark)}
}

// jhash loads the fields, and puts their hash into the register.
func jhash(fields []Field, seed, modulus, offset uint32) (text string, load []expr.Any, hash []byte) {
	var texts []string
	const from = reg32 + 4 // register 2: the first one is for the result
	at, length := uint32(from), uint32(0)
	for _, f := range fields {
		texts, load = append(texts, f.text), append(load, f.load(at))
		at += uint32((f.size + 3) / 4)
		length = uint32(f.size)
	}
	if len(fields) > 1 {
		length = 4 * (at - from) // fields of a concatenation are padded
	}
	// The kernel takes a seed of its own where it gets none, and the library
	// sends none for 0.
	hash = encodeExprs(&expr.Hash{
		SourceRegister: from, DestRegister: reg, Length: length,
		Modulus: modulus, Seed: max(seed, 1), Offset: offset, Type: expr.HashTypeJenkins,
	})
	if seed == 0 {
		hash = zeroSeed(hash)
	}
	return "jhash " + strings.Join(texts, " . "), load, hash
}

// zeroSeed sets the seed of an encoded hash expression from 1 to 0.
func zeroSeed(b []byte) []byte {
	seed := []byte{8, 0, unix.NFTA_HASH_SEED, 0, 0, 0, 0, 1}
	binary.NativeEndian.PutUint16(seed, 8)
	binary.NativeEndian.PutUint16(seed[2:], unix.NFTA_HASH_SEED)
	at := strings.Index(string(b), string(seed))
	b[at+7] = 0
	return b
}

// SetMarkByMap replaces the connection mark by what a map has for it.
func SetMarkByMap(name string) Statement {
	return NewStatement("ct mark set ct mark map @"+name, loadMark, lookupMark(name), setMark)
}

// markBits loads some bits of the connection mark.
func markBits(mask uint32) (text string, exprs []expr.Any) {
	if mask == 1<<32-1 {
		return "ct mark", []expr.Any{loadMark}
	}
	return fmt.Sprintf("ct mark & 0x%08x", mask), []expr.Any{loadMark, masked(mask)}
}

// SetMarkBits keeps some bits of the connection mark, and gives the others a value.
func SetMarkBits(kept, value uint32) Statement {
	return NewStatement(fmt.Sprintf("ct mark set ct mark & 0x%08x | 0x%08x", kept, value),
		loadMark, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: []byte(MarkBytes(kept)), Xor: []byte(MarkBytes(value))}, setMark)
}

// KeepBit sets a bit of the connection mark that is set in the packet's mark. An
// OR of the two is not known to older kernels.
func KeepBit(bit uint32) Statement {
	b := []byte(MarkBytes(bit))
	return NewStatement(fmt.Sprintf("meta mark & 0x%08[1]x == 0x%08[1]x ct mark set ct mark | 0x%08[1]x", bit),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, masked(bit), compare(expr.CmpOpEq, b),
		loadMark, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: []byte(MarkBytes(^bit)), Xor: b}, setMark)
}

// MarkVmap does what a map of verdicts has for some bits of the connection mark.
func MarkVmap(name string, mask uint32) Statement {
	text, exprs := markBits(mask)
	return NewStatement(text+" vmap @"+name,
		append(exprs, &expr.Lookup{SourceRegister: reg, SetName: name, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true})...)
}

// MarkIs matches where some bits of the connection mark have a value.
func MarkIs(mask, value uint32) Statement {
	return NewStatement(fmt.Sprintf("ct mark & 0x%08x == 0x%08x", mask, value),
		loadMark, masked(mask), compare(expr.CmpOpEq, []byte(MarkBytes(value))))
}

// Matches.

// IsMarked matches connections that have a mark.
func IsMarked() Statement {
	return NewStatement("ct mark != 0x00000000", loadMark, compare(expr.CmpOpNeq, make([]byte, 4)))
}

// IsL4 matches packets of a transport protocol.
func IsL4(protocol byte) Statement {
	return NewStatement("meta l4proto "+protocolName(protocol), loadL4, compare(expr.CmpOpEq, []byte{protocol}))
}

// UnlessSYN matches TCP segments that do not begin a connection. ECE and CWR do not
// matter: a SYN that offers ECN has both (RFC 3168, 6.1.1).
func UnlessSYN() Statement {
	return NewStatement("tcp flags != syn / fin,syn,rst,ack", flagsAre(expr.CmpOpNeq, syn)...)
}

// IsSYN matches TCP segments that begin a connection.
func IsSYN() Statement {
	return NewStatement("tcp flags syn / fin,syn,rst,ack", flagsAre(expr.CmpOpEq, syn)...)
}

// HasSocket matches packets that a socket of this host is for, by its address: one that
// is connected, or listens on that address alone.
func HasSocket() Statement {
	return NewStatement("socket wildcard 0", &expr.Socket{Key: expr.SocketKeyWildcard, Register: reg}, compare(expr.CmpOpEq, []byte{0}))
}

// IsTracked matches packets of connections that conntrack has an entry of, and what is
// not to be tracked.
func IsTracked() Statement {
	return NewStatement("ct state ! invalid,new", &expr.Ct{Key: expr.CtKeySTATE, Register: reg}, masked(ctInvalid|ctNew), compare(expr.CmpOpEq, make([]byte, 4)))
}

// IsInvalid matches packets that do not fit what conntrack knows of their connection.
func IsInvalid() Statement {
	return NewStatement("ct state invalid", &expr.Ct{Key: expr.CtKeySTATE, Register: reg}, masked(ctInvalid), compare(expr.CmpOpNeq, make([]byte, 4)))
}

// ctInvalid and ctNew are bits of the state (linux/netfilter/nf_tables.h,
// NF_CT_STATE_BIT).
const ctInvalid, ctNew = 1 << 0, 1 << 3

// SourcePortIs matches where some bits of the source port have a value.
func SourcePortIs(mask, value uint16) Statement {
	bytes := func(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
	return NewStatement(fmt.Sprintf("th sport & %d == %d", mask, value), SourcePort.load(reg),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 2, Mask: bytes(mask), Xor: bytes(0)},
		compare(expr.CmpOpEq, bytes(value)))
}

// IsTranslated matches connections whose destination was translated, IsUntranslated
// the others.
func IsTranslated() Statement   { return translated("ct status dnat", expr.CmpOpNeq) }
func IsUntranslated() Statement { return translated("ct status & dnat == 0", expr.CmpOpEq) }

func translated(text string, op expr.CmpOp) Statement {
	return NewStatement(text, &expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, masked(ctStatusDNAT), compare(op, make([]byte, 4)))
}

// ctStatusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const ctStatusDNAT = 1 << 5

// fibLocal compares the type of the destination address with local.
func fibLocal(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		compare(op, []byte(MarkBytes(unix.RTN_LOCAL))),
	}
}

// IsForeign matches what is not for this host itself.
func IsForeign() Statement {
	return NewStatement("fib daddr type != local", fibLocal(expr.CmpOpNeq)...)
}

// LimitRate matches while events stay below a rate, or with over once they are
// above.
func LimitRate(r Rate, over bool) Statement {
	return NewStatement(r.text(over), r.expr(over))
}

// Rate is a number of events in a unit of time, and how many may come at once.
type Rate struct {
	Text   string // 100/second
	Events uint64
	Per    time.Duration
	Burst  uint32
}

func (r Rate) text(over bool) string {
	word := ""
	if over {
		word = "over "
	}
	return fmt.Sprintf("limit rate %s%s burst %d packets", word, r.Text, r.Burst)
}

func (r Rate) expr(over bool) expr.Any {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: r.Events, Unit: expr.LimitTime(r.Per / time.Second), Burst: r.Burst, Over: over}
}

// CountOver matches where more than n connections live that passed here.
func CountOver(n uint32) Statement {
	return NewStatement(countOver(n))
}

func countOver(n uint32) (text string, e expr.Any) {
	return fmt.Sprintf("ct count over %d", n), &expr.Connlimit{Count: n, Flags: expr.NFT_CONNLIMIT_F_INV}
}

// Log writes a line into the kernel log; level is that of syslog.
func Log(prefix, levelName string, level uint32) Statement {
	text, key := "log", uint32(1<<unix.NFTA_LOG_LEVEL)
	if prefix != "" {
		text += fmt.Sprintf(" prefix \"%s\"", prefix)
		key |= 1 << unix.NFTA_LOG_PREFIX
	}
	text += " level " + levelName
	return NewStatement(text, &expr.Log{Key: key, Level: expr.LogLevel(level), Data: []byte(prefix)})
}

// Masquerade makes the source an address of this host; random: with a port at random.
func Masquerade(random bool) Statement {
	return NewStatement("masquerade"+randomly(random), &expr.Masq{FullyRandom: random})
}

// randomly is how nft writes NF_NAT_RANGE_PROTO_RANDOM_FULLY.
func randomly(random bool) string {
	if random {
		return " fully-random"
	}
	return ""
}

// durationText is a duration as nft writes it, in parts.
func durationText(d time.Duration) string {
	var b strings.Builder
	for _, u := range []struct {
		unit time.Duration
		word string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.word)
			d -= n * u.unit
		}
	}
	return b.String()
}
