package ruleset

// SYN proxy: statements with which the kernel answers for a server, and begins the
// connection to that by itself (net/netfilter/nf_synproxy_core.c).

import (
	"bytes"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Input is the hook of what is for this host itself.
func Input(priority int32, text string) *Hook {
	return &Hook{Name: "input", Num: unix.NF_INET_LOCAL_IN, Priority: priority, Text: text}
}

// SYNProxy answers a SYN by a cookie, and sends one on when a segment has that cookie; what
// has none is dropped. It stands in input and forward only. Where a client sends
// timestamps, the cookie keeps its window scale, and whether it takes selective
// acknowledgements; else neither side has them.
func SYNProxy(mss uint16, windowScale uint8) Statement {
	return NewStatement(fmt.Sprintf("meta l4proto tcp synproxy mss %d wscale %d timestamp sack-perm", mss, windowScale),
		loadL4, compare(expr.CmpOpEq, []byte{unix.IPPROTO_TCP}),
		&expr.SynProxy{Mss: mss, Wscale: windowScale, MssValueSet: true, WscaleValueSet: true, Timestamp: true, SackPerm: true})
}

// HasEntered matches what came in by an interface: what this host itself sends did not.
func HasEntered() Statement {
	return NewStatement("iif != 0", &expr.Meta{Key: expr.MetaKeyIIF, Register: reg}, compare(expr.CmpOpNeq, make([]byte, 4)))
}

// BlankTimestamp are statements, for output, that take the timestamp out of the ACK with
// which the SYN proxy completes a handshake in a client's name. The kernel shifts its echo
// as it does in what a client sends, but this one is the server's own already. Linux 6.15
// and later refuse such an ACK, and the connection waits a second for the next SYN-ACK.
//
// The option follows two bytes of padding, and nothing follows it: that is how the proxy
// writes it. The checksum is made later.
func BlankTimestamp() []Statement {
	const options, size = 20, 12
	noOperation := bytes.Repeat([]byte{1}, size)
	return []Statement{
		NewStatement("tcp flags ack / fin,syn,rst,ack", flagsAre(expr.CmpOpEq, ack)...),
		NewStatement(fmt.Sprintf("@th,%d,32 0x0101080a", 8*options), tcpField(options, 4), compare(expr.CmpOpEq, []byte{1, 1, 8, 10})),
		NewStatement("ct direction original", &expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, compare(expr.CmpOpEq, []byte{0})),
		IsTranslated(),
		NewStatement("fib saddr type != local",
			&expr.Fib{Register: reg, FlagSADDR: true, ResultADDRTYPE: true}, compare(expr.CmpOpNeq, []byte(MarkBytes(unix.RTN_LOCAL)))),
		NewStatement(fmt.Sprintf("@th,%d,%d set 0x%x", 8*options, 8*size, noOperation),
			&expr.Immediate{Register: reg, Data: noOperation},
			&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: options, Len: size}),
	}
}
