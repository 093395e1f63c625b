package wire

// Reading what the kernel sends: netlink messages (RFC 3549; linux/netlink.h).

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

type message struct {
	typ, flags uint16
	seq        uint32
	body       []byte
}

// messages yields the messages of a datagram. It ends early where a length is
// impossible.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= msgHeader {
			n := int(binary.NativeEndian.Uint32(b))
			if n < msgHeader || n > len(b) {
				return
			}
			m := message{
				typ:   binary.NativeEndian.Uint16(b[4:]),
				flags: binary.NativeEndian.Uint16(b[6:]),
				seq:   binary.NativeEndian.Uint32(b[8:]),
				body:  b[msgHeader:n],
			}
			if !yield(m) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// errnoOf reads the error of an NLMSG_ERROR or NLMSG_DONE message; 0 is success.
func errnoOf(body []byte) unix.Errno {
	if len(body) < 4 {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
}

// detail reads the kernel's explanation from an NLMSG_ERROR message: after the
// errno and the header of the refused message (NETLINK_CAP_ACK cuts the rest).
func detail(m message) string {
	const attrs = 4 + msgHeader
	if m.flags&unix.NLM_F_ACK_TLVS == 0 || len(m.body) < attrs {
		return ""
	}
	return Text(Attr(m.body[attrs:], unix.NLMSGERR_ATTR_MSG))
}
