package wire

// Whatever bytes come from a socket: no panic, an end, and memory that is
// bounded by what came.

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// said is a transport over which somebody says these datagrams, however often
// something is sent: each has its length in two bytes before it.
type said struct{ rest []byte }

func (s *said) Send([]byte) error { return nil }

func (s *said) Receive(b []byte) (int, error) {
	if len(s.rest) < 2 {
		return 0, os.ErrDeadlineExceeded
	}
	n := min(int(binary.LittleEndian.Uint16(s.rest)), len(s.rest)-2, len(b))
	copy(b, s.rest[2:2+n])
	s.rest = s.rest[2+n:]
	if n == 1 {
		return 0, unix.ENOBUFS
	}
	return n, nil
}

func (s *said) Reserve(n int) (int, error)                { return n, nil }
func (s *said) Port() uint32                              { return 7 }
func (s *said) Another(uint32, uint32) (Transport, error) { return &said{rest: s.rest}, nil }
func (s *said) Filter([]bpf.RawInstruction) error         { return nil }
func (s *said) Close() error                              { return nil }

// saying is what somebody says who says one datagram of these messages.
func saying(messages ...[]byte) []byte {
	var all []byte
	for _, m := range messages {
		all = append(all, m...)
	}
	return append(binary.LittleEndian.AppendUint16(nil, uint16(len(all))), all...)
}

func answer(typ, flags uint16, seq uint32, body ...byte) []byte {
	m := binary.NativeEndian.AppendUint32(nil, uint32(msgHeader+len(body)))
	m = binary.NativeEndian.AppendUint16(m, typ)
	m = binary.NativeEndian.AppendUint16(m, flags)
	m = binary.NativeEndian.AppendUint32(m, seq)
	m = binary.NativeEndian.AppendUint32(m, 7)
	return append(m, body...)
}

// FuzzAnswer: an answer to a request, to a dump, to a batch, or to a watch.
func FuzzAnswer(f *testing.F) {
	const first = 1<<31 + 1 // the sequence number of the first request
	const newGen = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	generation := []byte{0, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 9}
	refused := append([]byte{0xf4, 0xff, 0xff, 0xff}, make([]byte, msgHeader)...)
	explained := append(append([]byte{}, refused...), 8, 0, 1, 0, 'n', 'o', 0, 0, 8, 0, 2, 0, 40, 0, 0, 0)
	done := answer(unix.NLMSG_DONE, unix.NLM_F_MULTI, first, 0, 0, 0, 0)
	f.Add(saying(answer(newGen, 0, first, generation...)))
	f.Add(saying(answer(newGen, unix.NLM_F_MULTI, first, generation...), done))
	f.Add(append(saying(answer(newGen, unix.NLM_F_MULTI|unix.NLM_F_DUMP_INTR, first, generation...)), saying(done)...))
	f.Add(append(saying(answer(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, 1, explained...)), saying(answer(newGen, 0, first, generation...))...))
	f.Add(saying(answer(unix.NLMSG_ERROR, 0, first, refused...)))
	f.Add(saying(answer(unix.NLMSG_ERROR, 0, first-1, refused...))) // of an earlier request, not of the batch
	f.Add(append(saying([]byte{0}), saying(answer(newGen, 0, first, generation...))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := func() *Conn { return NewConn(&said{rest: b}) }
		answer, err := conn().Request(newGen+1, 0, nil)
		if err == nil && len(answer) > len(b) {
			t.Error("an answer of more than was said")
		}
		_ = conn().Do(newGen+1, 0, 0, nil)
		total := 0
		_ = conn().Dump(newGen+1, 0, nil, func(a []byte) error {
			for _, v := range Attrs(a) {
				total += len(v)
				for _, v := range Attrs(string(v)) {
					_, _, _ = Uint32(v), Uint64(v), Text(v)
				}
			}
			return nil
		})
		if total > len(b) {
			t.Error("attributes of more than was said")
		}
		batch := NewBatch(1)
		for range 2 {
			batch.Begin(newGen-15, 1, 0, "something", "")
			batch.Text(1, "nlb")
			at := batch.Nest(2)
			batch.Unnest(at)
			batch.End()
			batch.Cut()
		}
		_, _ = conn().Commit(batch, 9)
		_ = conn().Check(batch)
		if w, err := conn().Watch(1, "nlb"); err == nil {
			_, _, _ = w.Touched(conn())
		}
	})
}
