// Package conntrack talks to the kernel's connection tracking: it lists
// connections by their mark, changes and deletes them, hears of those that were
// refused, and reads its counters (ctnetlink,
// linux/netfilter/nfnetlink_conntrack.h). It knows marks, not profiles.
package conntrack

// Connections: listing, changing, deleting.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

const (
	msgNew    = unix.NFNL_SUBSYS_CTNETLINK << 8   // IPCTNL_MSG_CT_NEW
	msgGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	attrTupleOriginal = 1
	attrTupleReply    = 2
	attrStatus        = 3
	attrProtoinfo     = 4
	attrTimeout       = 7
	attrMark          = 8
	attrID            = 12
	attrZone          = 18
	attrMarkMask      = 21
	attrFilter        = 25
	attrStatusMask    = 26

	attrFilterOriginal = 1      // CTA_FILTER_ORIG_FLAGS
	filterProtocol     = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM (nf_conntrack_netlink.c)

	attrTupleIP    = 1
	attrTupleProto = 2
	attrTupleZone  = 3
	attrIPv4Source = 1
	attrIPv6Source = 3
	attrProtoNum   = 1 // then the source's and the destination's port

	attrProtoinfoTCP = 1
	attrTCPState     = 1

	statusSeenReply = 1 << 1 // IPS_SEEN_REPLY (nf_conntrack_common.h)

	// States of TCP connections (nf_conntrack_tcp.h). Until a client has completed its
	// handshake it is one of the first two.
	tcpSYNSent     = 1
	tcpSYNReceived = 2
	tcpEstablished = 3

	// TCP connections in these states have ended (nf_conntrack_tcp.h).
	tcpTimeWait = 7
	tcpClose    = 8
)

// Filter selects connections.
type Filter struct {
	// Mark is what the bits of Mask of the connection mark have to be.
	Mark, Mask uint32
	// Protocol is the transport protocol by its number in the IP header; 0:
	// any.
	Protocol uint8
	// Unanswered leaves out what packets were seen of in both directions.
	Unanswered bool
}

// Flow is a connection.
type Flow struct {
	Mark     uint32
	Protocol uint8
	// Ended says that a TCP connection has ended and is only remembered
	// (TIME_WAIT, CLOSE).
	Ended bool
	// HalfOpen says that the client of a TCP connection has not completed the handshake.
	HalfOpen bool
	// Answered says that packets were seen in both directions.
	Answered bool
	// Left is how many seconds an established TCP connection may still be without a
	// packet until the kernel forgets it; 0: it is none.
	Left uint32
	// Zone is the conntrack zone of the original direction; Zoned says that one
	// direction at least is not in the default zone.
	Zone  uint16
	Zoned bool

	family   uint8
	original []byte // CTA_TUPLE_ORIG
	reply    []byte // CTA_TUPLE_REPLY
	key      []byte // the attributes that a request about it needs
}

// List calls each with every connection of the filter. What Flow refers to is
// valid during the call only; Clone keeps it. Older kernels do not filter by
// protocol (Linux 5.8) or by status (Linux 5.18); List does it for them.
func List(c *wire.Conn, f Filter, each func(*Flow)) error {
	// The kernel has one table for all namespaces, and visits each of its buckets:
	// 13 ms where there are 262,144.
	if n, err := Count(c); err != nil || n == 0 {
		return err
	}
	var filter wire.Encoder
	filter.Uint32(attrMark, f.Mark)
	filter.Uint32(attrMarkMask, f.Mask)
	if f.Unanswered {
		filter.Uint32(attrStatus, 0)
		filter.Uint32(attrStatusMask, statusSeenReply)
	}
	if f.Protocol == 0 {
		return list(c, unix.AF_UNSPEC, filter.Bytes(), f, each)
	}
	tuple := filter.Nest(attrTupleOriginal)
	proto := filter.Nest(attrTupleProto)
	filter.Data(attrProtoNum, string([]byte{f.Protocol}))
	filter.Unnest(proto)
	filter.Unnest(tuple)
	by := filter.Nest(attrFilter)
	filter.Data(attrFilterOriginal, string(binary.NativeEndian.AppendUint32(nil, filterProtocol)))
	filter.Unnest(by)
	// A filter by tuple is for one family.
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := list(c, family, filter.Bytes(), f, each); err != nil {
			return err
		}
	}
	return nil
}

func list(c *wire.Conn, family uint8, filter []byte, want Filter, each func(*Flow)) error {
	var key wire.Encoder
	var f Flow
	err := c.Dump(msgGet, family, filter, func(b []byte) error {
		key.Reset()
		f = Flow{}
		f.decode(b, &key)
		// A kernel that does not know the filter returns everything.
		if f.Mark&want.Mask == want.Mark && (want.Protocol == 0 || f.Protocol == want.Protocol) && !(want.Unanswered && f.Answered) {
			f.key = key.Bytes()
			each(&f)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read conntrack: %w", err)
	}
	return nil
}

// decode reads the attributes of a connection, and collects in key those that
// a request about it needs.
func (f *Flow) decode(b []byte, key *wire.Encoder) {
	f.family = unix.AF_INET6
	left := uint32(0)
	for t, v := range wire.Attrs(b) {
		switch t {
		case attrTupleOriginal:
			if wire.Attr(wire.Attr(v, attrTupleIP), attrIPv4Source) != nil {
				f.family = unix.AF_INET
			}
			if n := wire.Attr(wire.Attr(v, attrTupleProto), attrProtoNum); len(n) == 1 {
				f.Protocol = n[0]
			}
			f.original = v
			if zone := wire.Attr(v, attrTupleZone); len(zone) == 2 {
				f.Zone, f.Zoned = binary.BigEndian.Uint16(zone), true
			}
			key.Data(t|unix.NLA_F_NESTED, string(v))
		case attrTupleReply:
			f.reply = v
		case attrZone:
			f.Zoned = true
			key.Data(t, string(v))
		case attrID:
			key.Data(t, string(v))
		case attrMark:
			f.Mark = wire.Uint32(v)
		case attrStatus:
			f.Answered = wire.Uint32(v)&statusSeenReply != 0
		case attrProtoinfo:
			state := wire.Attr(wire.Attr(v, attrProtoinfoTCP), attrTCPState)
			f.Ended = len(state) == 1 && (state[0] == tcpTimeWait || state[0] == tcpClose)
			f.HalfOpen = len(state) == 1 && (state[0] == tcpSYNSent || state[0] == tcpSYNReceived)
			if len(state) == 1 && state[0] == tcpEstablished {
				f.Left = 1
			}
		case attrTimeout:
			left = wire.Uint32(v)
		}
	}
	f.Left *= left
}

// Clone is a copy that stays valid.
func (f *Flow) Clone() Flow {
	out := *f
	out.original, out.reply, out.key = slices.Clone(f.original), slices.Clone(f.reply), slices.Clone(f.key)
	return out
}

// IPv4 reports the IP version.
func (f *Flow) IPv4() bool { return f.family == unix.AF_INET }

// Original is where the connection's first packet came from and where it was
// sent to. Both are invalid where the protocol has no ports.
func (f *Flow) Original() (source, destination netip.AddrPort) { return f.ends(f.original) }

// Reply is Original for the answers: the source is who answers, the
// destination whom they are sent to. They differ from Original's where the
// kernel translates.
func (f *Flow) Reply() (source, destination netip.AddrPort) { return f.ends(f.reply) }

// OfItself reports whether who began it is who answers it: a server that got its own
// connection.
func (f *Flow) OfItself() bool {
	address := uint16(attrIPv6Source)
	if f.IPv4() {
		address = attrIPv4Source
	}
	client := wire.Attr(wire.Attr(f.original, attrTupleIP), address)
	return client != nil && bytes.Equal(client, wire.Attr(wire.Attr(f.reply, attrTupleIP), address))
}

func (f *Flow) ends(tuple []byte) (source, destination netip.AddrPort) {
	ip, proto := wire.Attr(tuple, attrTupleIP), wire.Attr(tuple, attrTupleProto)
	first := uint16(attrIPv6Source)
	if f.IPv4() {
		first = attrIPv4Source
	}
	var out [2]netip.AddrPort
	for i := range out {
		addr, ok := netip.AddrFromSlice(wire.Attr(ip, first+uint16(i)))
		port := wire.Attr(proto, attrProtoNum+1+uint16(i))
		if ok && addr.Is4() == f.IPv4() && len(port) == 2 {
			out[i] = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port))
		}
	}
	return out[0], out[1]
}

// Delete makes the kernel forget a connection. Errors: unix.ENOENT where it
// has forgotten it already.
func Delete(c *wire.Conn, f *Flow) error { return c.Do(msgDelete, f.family, 0, f.key) }

// SetMark changes the mark of a connection. Errors are those of Delete.
func SetMark(c *wire.Conn, f *Flow, mark uint32) error {
	var e wire.Encoder
	e.Raw(f.key)
	e.Uint32(attrMark, mark)
	return c.Do(msgNew, f.family, 0, e.Bytes())
}
