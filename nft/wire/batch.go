package wire

// A batch: BEGIN, messages, END. The kernel takes all of it or nothing
// (linux/netfilter/nfnetlink.h, net/netfilter/nfnetlink.c).

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	msgHeader = unix.SizeofNlMsghdr
	nfHeader  = 4 // struct nfgenmsg: family, version, res_id

	batchGenID = 1 // NFNL_BATCH_GENID
)

// Batch is a sequence of nf_tables messages that is committed as one. Write a
// message between Begin and End.
type Batch struct {
	Encoder
	what  []object // of each message, by sequence number
	begin int
	cuts  []cut
}

// object is what a message is about.
type object struct{ kind, name string }

func (o object) String() string { return strings.TrimSpace(o.kind + " " + o.name) }

// cut is a place where a batch may be split.
type cut struct{ at, seq int }

// NewBatch returns a batch that the kernel refuses with ERESTART unless the
// ruleset still is of this generation, or it is AnyGeneration.
func NewBatch(generation uint32) *Batch {
	b := &Batch{}
	b.Begin(unix.NFNL_MSG_BATCH_BEGIN, unix.AF_UNSPEC, 0, "the batch", "")
	// struct nfgenmsg.res_id of a batch is the subsystem.
	binary.BigEndian.PutUint16(b.buf[msgHeader+2:], unix.NFNL_SUBSYS_NFTABLES)
	b.Uint32(batchGenID, generation)
	b.End()
	return b
}

// Grow makes room for so many more bytes, and messages. What of it is not used costs
// nothing: append would touch it all.
func (b *Batch) Grow(bytes, messages int) {
	b.buf = append(make([]byte, 0, len(b.buf)+bytes), b.buf...)
	b.what = append(make([]object, 0, len(b.what)+messages), b.what...)
	b.cuts = append(make([]cut, 0, len(b.cuts)+messages), b.cuts...)
}

// Begin opens a message. kind and name say which object it is about, for errors.
func (b *Batch) Begin(typ uint16, family uint8, flags uint16, kind, name string) {
	b.begin = len(b.buf)
	b.buf = appendHeader(b.buf, typ, family, flags|unix.NLM_F_REQUEST, uint32(len(b.what)))
	b.what = append(b.what, object{kind, name})
}

// End closes the message.
func (b *Batch) End() {
	binary.NativeEndian.PutUint32(b.buf[b.begin:], uint32(len(b.buf)-b.begin))
}

// Cut says that what follows may go into a later batch than what was written.
func (b *Batch) Cut() {
	if b.Messages() > 0 {
		b.cuts = append(b.cuts, cut{len(b.buf), len(b.what)})
	}
}

// SetGeneration changes the generation that the batch is made for.
func (b *Batch) SetGeneration(generation uint32) {
	binary.BigEndian.PutUint32(b.buf[msgHeader+nfHeader+attrHeader:], generation)
}

// Split returns the batch as parts of at most limit bytes, in order, cut where it
// may be. It fails with *TooBigError where what must stay together is larger.
func (b *Batch) Split(limit int) ([]*Batch, error) {
	if b.Size() <= limit {
		return []*Batch{b}, nil
	}
	first := NewBatch(0)
	start, overhead := cut{len(first.buf), 1}, first.Size()
	var parts []*Batch
	from, to := start, start
	for _, next := range append(b.cuts, cut{len(b.buf), len(b.what)}) {
		if next.at-from.at+overhead > limit && to != from {
			parts = append(parts, b.part(from, to))
			from = to
		}
		if size := next.at - from.at + overhead; size > limit {
			return nil, &TooBigError{Size: size, Limit: limit}
		}
		to = next
	}
	return append(parts, b.part(from, to)), nil
}

// part is a batch of some of the messages, numbered anew.
func (b *Batch) part(first, end cut) *Batch {
	p := NewBatch(0)
	at := len(p.buf)
	p.Grow(end.at-first.at, end.seq-first.seq)
	p.buf = append(p.buf, b.buf[first.at:end.at]...)
	for _, what := range b.what[first.seq:end.seq] {
		binary.NativeEndian.PutUint32(p.buf[at+8:], uint32(len(p.what)))
		p.what = append(p.what, what)
		at += align(int(binary.NativeEndian.Uint32(p.buf[at:])))
	}
	return p
}

// Messages is the number of messages between BEGIN and END.
func (b *Batch) Messages() int { return len(b.what) - 1 }

// Size is the number of bytes that Commit sends.
func (b *Batch) Size() int { return len(b.buf) + msgHeader + nfHeader }

func appendHeader(buf []byte, typ uint16, family uint8, flags uint16, seq uint32) []byte {
	buf = binary.NativeEndian.AppendUint32(buf, msgHeader+nfHeader)
	buf = binary.NativeEndian.AppendUint16(buf, typ)
	buf = binary.NativeEndian.AppendUint16(buf, flags)
	buf = binary.NativeEndian.AppendUint32(buf, seq)
	buf = append(buf, 0, 0, 0, 0) // port id: the kernel knows it
	return append(buf, family, unix.NFNETLINK_V0, 0, 0)
}
