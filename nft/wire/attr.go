// Package wire carries netfilter messages: it writes and reads their
// attributes, sends batches, and reads dumps. It knows the framing of
// nfnetlink and nothing of what the messages say.
package wire

// Attributes: a 16-bit length (header included), a 16-bit type, the value,
// padded to 4 bytes (linux/netlink.h, struct nlattr). Numbers of nf_tables and
// ctnetlink are big-endian, headers are in host order.

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

const (
	attrHeader = unix.SizeofNlAttr
	typeMask   = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

// MaxAttr is the largest attribute, header included: its length has 16 bits.
const MaxAttr = 1<<16 - 1

// Encoder appends attributes to a message.
type Encoder struct{ buf []byte }

// Bytes returns what was written.
func (e *Encoder) Bytes() []byte { return e.buf }

// Reset forgets what was written; the memory is used again.
func (e *Encoder) Reset() { e.buf = e.buf[:0] }

// Len is the number of bytes written.
func (e *Encoder) Len() int { return len(e.buf) }

// Raw appends attributes that were encoded before.
func (e *Encoder) Raw(b []byte) { e.buf = append(e.buf, b...) }

func (e *Encoder) header(typ uint16, size int) {
	e.buf = binary.NativeEndian.AppendUint16(e.buf, uint16(attrHeader+size))
	e.buf = binary.NativeEndian.AppendUint16(e.buf, typ)
}

func (e *Encoder) pad() {
	for len(e.buf)%4 != 0 {
		e.buf = append(e.buf, 0)
	}
}

// Uint32 appends a big-endian number.
func (e *Encoder) Uint32(typ uint16, v uint32) {
	e.header(typ, 4)
	e.buf = binary.BigEndian.AppendUint32(e.buf, v)
}

// Uint64 appends a big-endian number.
func (e *Encoder) Uint64(typ uint16, v uint64) {
	e.header(typ, 8)
	e.buf = binary.BigEndian.AppendUint64(e.buf, v)
}

// Text appends a string with its final NUL.
func (e *Encoder) Text(typ uint16, s string) {
	e.header(typ, len(s)+1)
	e.buf = append(e.buf, s...)
	e.buf = append(e.buf, 0)
	e.pad()
}

// Data appends bytes as they are.
func (e *Encoder) Data(typ uint16, b string) {
	e.header(typ, len(b))
	e.buf = append(e.buf, b...)
	e.pad()
}

// Nest opens a nested attribute and returns its place for Unnest.
func (e *Encoder) Nest(typ uint16) int {
	at := len(e.buf)
	e.header(typ|unix.NLA_F_NESTED, 0)
	return at
}

// Unnest closes the nested attribute that Nest opened at this place. What it
// holds must be smaller than MaxAttr.
func (e *Encoder) Unnest(at int) {
	binary.NativeEndian.PutUint16(e.buf[at:], uint16(len(e.buf)-at))
}

// Attrs yields the type and the value of each attribute. It ends early where
// the bytes are not well-formed, so a caller finds an attribute missing. Values
// of a string share its memory.
func Attrs[B ~[]byte | ~string](b B) iter.Seq2[uint16, B] {
	return func(yield func(uint16, B) bool) {
		for len(b) >= attrHeader {
			n := int(uint16At(b, 0))
			if n < attrHeader || n > len(b) {
				return
			}
			if !yield(uint16At(b, 2)&typeMask, b[attrHeader:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// uint16At reads a number in host order.
func uint16At[B ~[]byte | ~string](b B, at int) uint16 {
	return binary.NativeEndian.Uint16([]byte{b[at], b[at+1]})
}

// Attr returns the value of the first attribute of a type, empty where there is
// none.
func Attr[B ~[]byte | ~string](b B, typ uint16) B {
	for t, v := range Attrs(b) {
		if t == typ {
			return v
		}
	}
	var none B
	return none
}

// Uint32 reads a big-endian number; 0 where b is too short.
func Uint32[B ~[]byte | ~string](b B) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32([]byte(b[:4]))
}

// Uint64 reads a big-endian number; 0 where b is too short.
func Uint64[B ~[]byte | ~string](b B) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(b[:8]))
}

// Text reads a string up to its NUL.
func Text[B ~[]byte | ~string](b B) string {
	for i := range len(b) {
		if b[i] == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func align(n int) int { return (n + 3) &^ 3 }
