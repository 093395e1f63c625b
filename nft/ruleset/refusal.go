package ruleset

// Refusals: statements about the reset with which a server answers a SYN.

import (
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	ctStatusDying = 1 << 9 // IPS_DYING (linux/netfilter/nf_conntrack_common.h)

	// The TCP header (RFC 9293, 3.1).
	tcpSequence, tcpAckNumber, tcpFlags = 4, 8, 13
	fin, syn, rst, ack                  = 1, 2, 4, 16
)

func tcpField(offset, size uint32) *expr.Payload {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: size}
}

// flagsAre compares the flags of a TCP segment. ECE, CWR, PSH and URG do not matter.
func flagsAre(op expr.CmpOp, flags byte) []expr.Any {
	return []expr.Any{
		loadL4, compare(expr.CmpOpEq, []byte{unix.IPPROTO_TCP}),
		tcpField(tcpFlags, 1),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{fin | syn | rst | ack}, Xor: []byte{0}},
		compare(op, []byte{flags}),
	}
}

// HasSYN matches the first segment of either side.
func HasSYN() Statement {
	return NewStatement("tcp flags syn", loadL4, compare(expr.CmpOpEq, []byte{unix.IPPROTO_TCP}), tcpField(tcpFlags, 1),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{syn}, Xor: []byte{0}}, compare(expr.CmpOpNeq, []byte{0}))
}

// IsRefusal matches what a closed port answers to a SYN: a reset with ACK and the
// sequence number 0. One that answers a segment with ACK has no ACK (RFC 9293,
// 3.10.7.1).
func IsRefusal() Statement {
	return NewStatement("tcp flags rst,ack / fin,syn,rst,ack tcp sequence 0",
		append(flagsAre(expr.CmpOpEq, rst|ack), tcpField(tcpSequence, 4), compare(expr.CmpOpEq, make([]byte, 4)))...)
}

// EndsAttempt matches an answer that ends a connection before there was any other.
// Conntrack forgets such a connection as it sees the answer; of any other it waits
// for the end (nf_conntrack_proto_tcp.c, nf_conntrack_tcp_packet).
func EndsAttempt() Statement {
	return NewStatement("ct direction reply ct status dying",
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, compare(expr.CmpOpEq, []byte{1}),
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, masked(ctStatusDying), compare(expr.CmpOpNeq, make([]byte, 4)))
}

// CameFromSource matches packets that came in where the way to their source goes
// out.
func CameFromSource() Statement {
	return NewStatement("fib saddr . iif oif != 0",
		&expr.Fib{Register: reg, FlagSADDR: true, FlagIIF: true, ResultOIF: true}, compare(expr.CmpOpNeq, make([]byte, 4)))
}

// IsOfInputLink matches packets for an address that the interface has by which they
// came in.
func IsOfInputLink() Statement {
	return NewStatement("fib daddr . iif type local",
		&expr.Fib{Register: reg, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true}, compare(expr.CmpOpEq, []byte(MarkBytes(unix.RTN_LOCAL))))
}

// RateByAck matches while the segments with this acknowledgement number stay
// below a rate. The set remembers each of them for the timeout. Where it is full
// nothing matches.
func RateByAck(set string, r Rate, timeout time.Duration) Statement {
	load := []expr.Any{loadL4, compare(expr.CmpOpEq, []byte{unix.IPPROTO_TCP}), tcpField(tcpAckNumber, 4)}
	return intoWith("update", set, "tcp ackseq", timeout, load, " "+r.text(false), []expr.Any{r.expr(false)})
}

// NotAsked matches TCP segments, known as such, whose acknowledgement number is not in a set.
// A server that does not know their connection answers with a reset of this sequence number
// (RFC 9293, 3.10.7.1), and the client sends the same number again.
func NotAsked(set string) Statement {
	return in("tcp ackseq", set, true, tcpField(tcpAckNumber, 4))
}

// AskedInVain matches such a reset, and notes its number in the set for a time. One that is
// there already, or finds the set full, does not match.
func AskedInVain(set string, timeout time.Duration) []Statement {
	return append([]Statement{NewStatement("tcp flags rst / fin,syn,rst,ack", flagsAre(expr.CmpOpEq, rst)...)}, notesSequence(set, timeout)...)
}

// ComesFirst matches a TCP segment, and notes its sequence number in the set for a time.
// One that is there already, or finds the set full, does not match.
func ComesFirst(set string, timeout time.Duration) []Statement {
	return append([]Statement{IsL4(unix.IPPROTO_TCP)}, notesSequence(set, timeout)...)
}

func notesSequence(set string, timeout time.Duration) []Statement {
	number := tcpField(tcpSequence, 4)
	return []Statement{in("tcp sequence", set, true, number), into("add", set, "tcp sequence", timeout, number)}
}

// AckUdata is nft's description of `typeof tcp ackseq`.
func AckUdata() string { return numberUdata(tcpAck) }

// SequenceUdata is that of `typeof tcp sequence`.
func SequenceUdata() string { return numberUdata(tcpSeq) }

// numberUdata describes a field that is a plain number: it says the length, too, in bits.
func numberUdata(field uint32) string {
	data := udataNumber(0, tcpHeader) + udataNumber(1, field) + udataNumber(4, 32)
	return Udata(keyTypeof, udataNumber(exprID, payloadExpr)+Udata(exprData, data))
}
