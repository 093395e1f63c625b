//go:build linux

package netlabtest

// What is between a test and the kernel.

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/nft/probe"
	"nlb/nft/wire"
)

// Lacking is the transport of a kernel without an expression: it asks for one
// that no kernel has.
type Lacking struct {
	wire.Transport
	Expression string
}

// Send changes the name where it is an NFTA_EXPR_NAME.
func (l *Lacking) Send(b []byte) error {
	attr := func(name string) []byte {
		var e wire.Encoder
		e.Text(unix.NFTA_EXPR_NAME, name)
		return e.Bytes()
	}
	return l.Transport.Send(bytes.ReplaceAll(b, attr(l.Expression), attr(strings.Repeat("?", len(l.Expression)))))
}

// IsBatch reports whether a datagram changes something: a batch begins with
// the message that says so.
func IsBatch(b []byte) bool {
	return len(b) >= unix.SizeofNlMsghdr && binary.NativeEndian.Uint16(b[4:]) == unix.NFNL_MSG_BATCH_BEGIN
}

// objects are the parts of nftables that are no expressions.
var objects = []string{"table inet", "nat chain", "set", "verdict map", "counter of elements", "ranges of concatenations", "intervals", "timeouts"}

// Expressions are the parts of nftables that are expressions.
func Expressions() []probe.Part {
	return slices.DeleteFunc(probe.Parts(), func(p probe.Part) bool { return slices.Contains(objects, p.Name) })
}
