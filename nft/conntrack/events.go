package conntrack

// Events: connections that a server refused, told by the kernel as it happens.
//
// Where the first answer to a SYN is a reset, conntrack forgets the connection
// at once, in state CLOSE and without IPS_SEEN_REPLY (nf_conntrack_proto_tcp.c,
// nf_conntrack_tcp_packet), and tells the group NFNLGRP_CONNTRACK_DESTROY so.
// A client that sends a SYN and a reset looks the same. So this is a reason to
// ask a server, and no verdict on it.

import (
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// ErrLost: the kernel had more to tell than the socket could hold, so some
// refusals were not heard of.
var ErrLost = errors.New("events of conntrack were lost")

const (
	destroyGroup = 1 << (3 - 1) // NFNLGRP_CONNTRACK_DESTROY as a mask (nfnetlink.h)

	netlinkHeader = unix.SizeofNlMsghdr + 4 // with struct nfgenmsg
)

// Events hears of refused connections.
type Events struct {
	events     *wire.Events
	mark, mask uint32
}

// Watch begins to hear of refused TCP connections whose mark is this in the bits
// of the mask, in the network namespace of c. It costs what it tells of: the
// kernel passes over all others. Of connections that were there before, and
// where net.netfilter.nf_conntrack_events is 0, the kernel may not tell; kernels
// before Linux 5.10 tell nothing.
func Watch(c *wire.Conn, mark, mask uint32) (*Events, error) {
	program, err := bpf.Assemble(refused(mark, mask))
	if err != nil {
		return nil, fmt.Errorf("filter events of conntrack: %w", err)
	}
	events, err := c.Listen(destroyGroup, program)
	if err != nil {
		return nil, fmt.Errorf("listen to conntrack: %w", err)
	}
	return &Events{events, mark, mask}, nil
}

// Next waits for refused connections and returns their marks, one for each.
// Errors: ErrLost, after which it goes on; net.ErrClosed after Close, which may be
// called meanwhile.
func (e *Events) Next() ([]uint32, error) {
	var marks []uint32
	for len(marks) == 0 {
		err := e.events.Next(func(typ uint16, attrs []byte) {
			var f Flow
			f.decode(attrs, new(wire.Encoder))
			// What came before the filter was there is unfiltered.
			if typ == msgDelete && f.Ended && !f.Answered && f.Mark&e.mask == e.mark {
				marks = append(marks, f.Mark)
			}
		})
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return nil, ErrLost
		case err != nil:
			return nil, fmt.Errorf("hear of conntrack: %w", err)
		}
	}
	return marks, nil
}

// Close ends it, and a Next that waits.
func (e *Events) Close() error { return e.events.Close() }

// refused takes a message about a connection that was refused, and has such a
// mark. Loads of BPF are big-endian, as the attributes are.
func refused(mark, mask uint32) []bpf.Instruction {
	const (
		attrHeader = unix.SizeofNlAttr
		whole      = 1<<32 - 1
	)
	var program []bpf.Instruction
	// find puts the place of an attribute into X; inside: of one in that at X.
	find := func(attr uint32, inside bool) {
		load, search := bpf.Instruction(bpf.LoadConstant{Dst: bpf.RegA, Val: netlinkHeader}), bpf.ExtNetlinkAttr
		if inside {
			load, search = bpf.TXA{}, bpf.ExtNetlinkAttrNested
		}
		program = append(program, load, bpf.LoadConstant{Dst: bpf.RegX, Val: attr}, bpf.LoadExtension{Num: search},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1}, bpf.RetConstant{Val: 0}, bpf.TAX{})
	}
	// want goes on where some bits of the number at X are a value.
	want := func(size int, bits, value uint32) {
		program = append(program, bpf.LoadIndirect{Off: attrHeader, Size: size}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: bits},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: 1}, bpf.RetConstant{Val: 0})
	}
	find(attrStatus, false)
	want(4, statusSeenReply, 0)
	find(attrMark, false)
	want(4, mask, mark)
	find(attrProtoinfo, false)
	find(attrProtoinfoTCP, true)
	find(attrTCPState, true)
	want(1, 0xff, tcpClose)
	return append(program, bpf.RetConstant{Val: whole})
}
