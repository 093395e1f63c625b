package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

// smallSocket is a transport to a kernel that accepts every batch of at most
// limit bytes, and keeps what it accepted.
type smallSocket struct {
	limit      int
	generation uint32
	batches    [][]byte
	questions  []uint32
}

const messageHeader = unix.SizeofNlMsghdr

func (s *smallSocket) Send(b []byte) error {
	if binary.NativeEndian.Uint16(b[4:]) != unix.NFNL_MSG_BATCH_BEGIN {
		s.questions = append(s.questions, binary.NativeEndian.Uint32(b[8:]))
		return nil
	}
	if len(b) > s.limit {
		return unix.EMSGSIZE
	}
	s.batches = append(s.batches, slices.Clone(b))
	s.generation++
	return nil
}

// Receive answers a question for the generation.
func (s *smallSocket) Receive(b []byte) (int, error) {
	m := binary.NativeEndian.AppendUint32(nil, messageHeader+4+8)
	m = binary.NativeEndian.AppendUint16(m, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
	m = binary.NativeEndian.AppendUint16(m, 0)
	m = binary.NativeEndian.AppendUint32(m, s.questions[0])
	m = binary.NativeEndian.AppendUint32(m, s.Port())
	m = append(m, 0, 0, 0, 0)
	m = binary.NativeEndian.AppendUint16(m, 8)
	m = binary.NativeEndian.AppendUint16(m, unix.NFTA_GEN_ID)
	m = binary.BigEndian.AppendUint32(m, s.generation)
	s.questions = s.questions[1:]
	return copy(b, m), nil
}

func (s *smallSocket) Reserve(int) (int, error)                    { return s.limit, nil }
func (s *smallSocket) Port() uint32                                { return 7 }
func (s *smallSocket) Another(_, _ uint32) (wire.Transport, error) { return nil, unix.EMFILE }
func (s *smallSocket) Filter([]bpf.RawInstruction) error           { return nil }
func (s *smallSocket) Close() error                                { return nil }

// messagesOf yields the messages of a batch.
func messagesOf(batch []byte) (out [][]byte) {
	for len(batch) > 0 {
		n := int(binary.NativeEndian.Uint32(batch))
		out = append(out, batch[:n])
		batch = batch[min((n+3)&^3, len(batch)):]
	}
	return out
}

// elementsOf yields the map and the keys of a message of elements of this kind.
func elementsOf(m []byte, kind uint16) (name string, keys []string) {
	if binary.NativeEndian.Uint16(m[4:]) != unix.NFNL_SUBSYS_NFTABLES<<8|kind {
		return "", nil
	}
	attrs := m[messageHeader+4:]
	for _, v := range wire.Attrs(wire.Attr(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		keys = append(keys, string(wire.Attr(wire.Attr(v, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)))
	}
	return wire.Text(wire.Attr(attrs, unix.NFTA_SET_ELEM_LIST_SET)), keys
}

func manyServices(n int, name string) *lb.Profile {
	p := &lb.Profile{Name: "many"}
	for i := range n {
		s := service(fmt.Sprintf("s%d", i), fmt.Sprintf("198.18.%d.%d", i/250, i%250))
		for b := range 3 {
			backend := backend(fmt.Sprintf("10.0.%d.%d:80", b, i%250), 1)
			backend.Name = name + backend.Name
			s.Backends = append(s.Backends, backend)
		}
		p.Services = append(p.Services, s)
	}
	return p
}

// A plan that is larger than the socket's room goes in several batches: none is
// too large, what has to stay together does, and together they are the plan.
func TestSmallSocket(t *testing.T) {
	const services = 500
	o := emptyObjects()
	first, second := manyServices(services, ""), manyServices(services, "renamed-")
	for _, to := range []*lb.Profile{first, second} {
		p, _, err := planFor(newState("nlb", o), []*lb.Profile{to}, Options{Table: "nlb", Record: true}, func() request { return requestOf([]*lb.Profile{to}, Options{}) })
		if err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int{1200, 4576, 32_000, 212_960, math.MaxInt32} {
			s := &smallSocket{limit: limit, generation: 1}
			w := &writer{ctx: t.Context(), conn: wire.NewConn(s), table: "nlb", quiesced: make(chan struct{})}
			result := &Result{}
			if err := w.send(p, 1, result); err != nil {
				t.Fatalf("%d bytes: %v", limit, err)
			}
			if result.Split != (len(s.batches) > 1) || result.Batches != len(s.batches) || result.Generation != s.generation {
				t.Errorf("%d bytes: %d batches up to generation %d, but %+v", limit, len(s.batches), s.generation, result)
			}
			if limit < 32_000 && len(s.batches) < 20 || limit == math.MaxInt32 && len(s.batches) != 1 {
				t.Errorf("%d bytes: %d batches", limit, len(s.batches))
			}
			var all []byte
			// What makes the record true comes with the last batch.
			head, heads, lastHead := p.record.headElement().Extra.Udata, 0, 0
			for i, b := range s.batches {
				all = append(all, b...)
				if strings.Contains(string(b), head) {
					heads, lastHead = heads+1, i
				}
				apart := map[string]bool{} // deleted, and not yet there again
				for _, m := range messagesOf(b) {
					name, keys := elementsOf(m, unix.NFT_MSG_DELSETELEM)
					for _, k := range keys {
						apart[name+k] = true
					}
					name, keys = elementsOf(m, unix.NFT_MSG_NEWSETELEM)
					for _, k := range keys {
						delete(apart, name+k)
					}
				}
				if len(apart) > 0 && to == second {
					t.Errorf("%d bytes: %d elements are deleted in one batch and replaced in another", limit, len(apart))
				}
			}
			if heads != 1 || lastHead != len(s.batches)-1 {
				t.Errorf("%d bytes: the head of the record is in %d batches, last in number %d of %d", limit, heads, lastHead+1, len(s.batches))
			}
			if to == first {
				c := wire.NewConn(wiretest.Kernel(all))
				state, err := Load(c, "nlb")
				if err != nil {
					t.Fatal(err)
				}
				if changes := lb.Compare(state.Profiles, []*lb.Profile{first}); len(changes) > 0 {
					t.Errorf("%d bytes: what was sent differs: %v ...", limit, changes[0])
				}
				applied, err := readSet(c, ruleset.Inet, "nlb", compile.NewRecordSet())
				if r := decodeRecord(applied); err != nil || r.generation != s.generation {
					t.Errorf("%d bytes: the record is of generation %d, the table of %d", limit, r.generation, s.generation)
				}
			}
		}
		if err := o.run(p); err != nil {
			t.Fatal(err)
		}
	}
}

// What cannot be sent is refused before anything is sent.
func TestTooSmallSocket(t *testing.T) {
	long := service(strings.Repeat("l", 60), "203.0.113.1", backend("10.0.0.1:80", 1))
	long.Log = &lb.Log{Prefix: strings.Repeat("p", 100), Level: lb.LogInfo}
	p, _, err := planFor(newState("nlb", emptyObjects()), []*lb.Profile{{Name: "p", Services: []lb.Service{long}}}, Options{Table: "nlb"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &smallSocket{limit: 400, generation: 1}
	w := &writer{ctx: t.Context(), conn: wire.NewConn(s), table: "nlb", quiesced: make(chan struct{})}
	err = w.retry(func() error { return w.send(p, 1, &Result{}) })
	var tooBig *wire.TooBigError
	var partial *PartialError
	if !errors.As(err, &tooBig) || errors.As(err, &partial) || tooBig.Size <= tooBig.Limit {
		t.Errorf("%v", err)
	}
	if len(s.batches) > 0 {
		t.Errorf("%d batches were sent before", len(s.batches))
	}
}
