package wire

// Reading what the kernel sends: netlink messages (RFC 3549; linux/netlink.h).

import (
	"encoding/binary"
	"errors"
	"iter"

	"golang.org/x/sys/unix"
)

// errMalformed: a datagram is not a row of whole messages. What it says cannot
// be relied on: a message less may be an error less, or an object less.
var errMalformed = errors.New("netlink: a datagram that is no row of whole messages")

// MsgType is the type of a netlink message for one of nf_tables.
func MsgType(m uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | m }

// Named are the attributes that select a table of nf_tables, and an object of it.
func Named(names ...string) []byte {
	var e Encoder
	for i, n := range names {
		e.Text(uint16(i+1), n)
	}
	return e.Bytes()
}

type message struct {
	typ, flags uint16
	seq, port  uint32
	body       []byte
}

// messages yields the messages of a datagram, and last an error where it does
// not end with a whole one.
func messages(b []byte) iter.Seq2[message, error] {
	return func(yield func(message, error) bool) {
		if len(b) == 0 {
			yield(message{}, errMalformed)
		}
		for len(b) > 0 {
			n := 0
			if len(b) >= msgHeader {
				n = int(binary.NativeEndian.Uint32(b))
			}
			if n < msgHeader || n > len(b) {
				yield(message{}, errMalformed)
				return
			}
			m := message{
				typ:   binary.NativeEndian.Uint16(b[4:]),
				flags: binary.NativeEndian.Uint16(b[6:]),
				seq:   binary.NativeEndian.Uint32(b[8:]),
				port:  binary.NativeEndian.Uint32(b[12:]),
				body:  b[msgHeader:n],
			}
			if !yield(m, nil) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// errnoOf reads the error of an NLMSG_ERROR or NLMSG_DONE message; 0 is
// success. One that is cut short is no success.
func errnoOf(body []byte) unix.Errno {
	if len(body) < 4 {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
}

// explanation reads the kernel's own words from an NLMSG_ERROR message, and
// the place in the refused message that they are about, 0 where it names none.
// They follow the errno and the header of the refused message (NETLINK_CAP_ACK
// cuts the rest).
func explanation(m message) (words string, at int) {
	const attrs = 4 + msgHeader
	if m.flags&unix.NLM_F_ACK_TLVS == 0 || len(m.body) < attrs {
		return "", 0
	}
	if v := Attr(m.body[attrs:], unix.NLMSGERR_ATTR_OFFS); len(v) == 4 {
		at = int(binary.NativeEndian.Uint32(v))
	}
	return Text(Attr(m.body[attrs:], unix.NLMSGERR_ATTR_MSG)), at
}
