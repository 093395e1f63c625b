// Package wiretest stands in for the kernel where there is none to ask, and for
// other programs that change its ruleset.
package wiretest

// A kernel of messages: it answers a request for objects with those among its
// messages that make such objects, whatever is in them.

import (
	"encoding/binary"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

const (
	msgHeader = unix.SizeofNlMsghdr
	nfHeader  = 4
	port      = 7
)

// Kernel returns a transport to a kernel that holds these messages, in a row as
// in a batch. The first bad length ends them.
func Kernel(messages []byte) wire.Transport { return &kernel{messages: messages} }

type kernel struct {
	messages []byte
	answers  [][]byte
}

// Send answers each request for objects (those of nf_tables, and the
// connections of ctnetlink), and takes everything else for done.
func (k *kernel) Send(b []byte) error {
	for m := range each(b) {
		typ, flags, seq := header(m)
		switch {
		case typ < unix.NLMSG_MIN_TYPE: // the ends of a batch
		case typ == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN:
			var e wire.Encoder
			e.Uint32(unix.NFTA_GEN_ID, 1)
			k.answer(typ-1, 0, seq, append(make([]byte, nfHeader), e.Bytes()...))
		case flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP:
			for object := range k.objects(typ, m) {
				k.answer(typ-1, unix.NLM_F_MULTI, seq, object)
			}
			k.answer(unix.NLMSG_DONE, unix.NLM_F_MULTI, seq, make([]byte, 4))
		case flags&unix.NLM_F_ACK != 0:
			k.answer(unix.NLMSG_ERROR, 0, seq, make([]byte, 4+msgHeader))
		case flags&unix.NLM_F_CREATE == 0:
			for object := range k.objects(typ, m) {
				k.answer(typ-1, 0, seq, object)
				return nil
			}
			notThere := -int32(unix.ENOENT)
			refusal := binary.NativeEndian.AppendUint32(nil, uint32(notThere))
			k.answer(unix.NLMSG_ERROR, 0, seq, append(refusal, make([]byte, msgHeader)...))
		}
	}
	return nil
}

// objects are the bodies of the messages that make what a request is for: in
// all of the kernel, a message to make an object has the number before that of
// the question for it. Elements are those of the set that is asked for.
func (k *kernel) objects(typ uint16, request []byte) func(yield func([]byte) bool) {
	set := func(m []byte) string {
		if typ != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM || len(m) < msgHeader+nfHeader {
			return ""
		}
		return wire.Text(wire.Attr(m[msgHeader+nfHeader:], unix.NFTA_SET_ELEM_LIST_SET))
	}
	return func(yield func([]byte) bool) {
		for m := range each(k.messages) {
			if t, _, _ := header(m); t == typ-1 && set(m) == set(request) && !yield(m[msgHeader:]) {
				return
			}
		}
	}
}

func (k *kernel) answer(typ, flags uint16, seq uint32, body []byte) {
	m := binary.NativeEndian.AppendUint32(nil, uint32(msgHeader+len(body)))
	m = binary.NativeEndian.AppendUint16(m, typ)
	m = binary.NativeEndian.AppendUint16(m, flags)
	m = binary.NativeEndian.AppendUint32(m, seq)
	m = binary.NativeEndian.AppendUint32(m, port)
	k.answers = append(k.answers, append(m, body...))
}

// Receive gives the next answer.
func (k *kernel) Receive(b []byte) (int, error) {
	if len(k.answers) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, k.answers[0])
	k.answers = k.answers[1:]
	return n, nil
}

// Reserve has room for everything.
func (k *kernel) Reserve(n int) (int, error) { return n, nil }

// Port is that of every answer.
func (k *kernel) Port() uint32 { return port }

// Another is a socket of its own to the same kernel.
func (k *kernel) Another(uint32, uint32) (wire.Transport, error) { return Kernel(k.messages), nil }

// Filter does nothing.
func (k *kernel) Filter([]bpf.RawInstruction) error { return nil }

// Close does nothing.
func (k *kernel) Close() error { return nil }

// each yields the messages of a row.
func each(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) >= msgHeader {
			n := int(binary.NativeEndian.Uint32(b))
			if n < msgHeader || n > len(b) || !yield(b[:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

func header(m []byte) (typ, flags uint16, seq uint32) {
	return binary.NativeEndian.Uint16(m[4:]), binary.NativeEndian.Uint16(m[6:]), binary.NativeEndian.Uint32(m[8:])
}
