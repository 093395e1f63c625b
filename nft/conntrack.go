package nft

// Conntrack: the connections that the kernel tracks for our backends, found by
// their mark (linux/netfilter/nfnetlink_conntrack.h).

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig = 1
	ctaStatus    = 3
	ctaProtoinfo = 4
	ctaMark      = 8
	ctaID        = 12
	ctaZone      = 18
	ctaMarkMask  = 21
	ctaFilter    = 25

	ctaFilterOrig  = 1      // CTA_FILTER_ORIG_FLAGS
	filterProtoNum = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM (nf_conntrack_netlink.c)

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3
	ctaIPv4Src    = 1
	ctaIPv6Src    = 3
	ctaProtoNum   = 1

	ctaProtoinfoTCP      = 1
	ctaProtoinfoTCPState = 1

	statusSeenReply = 1 << 1 // IPS_SEEN_REPLY (nf_conntrack_common.h)

	// Connections in these states are over (nf_conntrack_tcp.h).
	tcpTimeWait = 7
	tcpClose    = 8
)

// Live counts the connections of each backend that conntrack holds. TCP
// connections that have ended and are only remembered (TIME_WAIT, CLOSE) do
// not count. It is one dump, which the kernel filters by mark.
type Live map[uint32]int

// CountLive asks the kernel for the live connections of all backends.
func CountLive(c *wire.Conn) (Live, error) {
	live := Live{}
	err := tracked(c, func(f flow) {
		if !f.over {
			live[f.mark&indexMask]++
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read conntrack: %w", err)
	}
	return live, nil
}

// flow is a connection that conntrack holds for one of our backends.
type flow struct {
	mark     uint32
	protocol lb.Protocol
	over     bool // ended, and only remembered
	answered bool
	family   uint8
	zoned    bool   // it is not in the zone that packets are in by default
	tuple    []byte // CTA_TUPLE_ORIG
	key      []byte // the attributes that a request to delete it needs
}

// tracked yields the connections with a mark of ours; the key and the tuple of
// a flow are valid during the call only.
func tracked(c *wire.Conn, each func(flow)) error {
	var filter wire.Encoder
	filter.Uint32(ctaMark, oursMark)
	filter.Uint32(ctaMarkMask, oursMask)
	return dumpFlows(c, unix.AF_UNSPEC, filter.Bytes(), each)
}

// trackedUDP is tracked for UDP alone: there may be a million others. Kernels
// before Linux 5.8 do not know this filter and yield them, too.
func trackedUDP(c *wire.Conn, each func(flow)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var filter wire.Encoder
		filter.Uint32(ctaMark, oursMark)
		filter.Uint32(ctaMarkMask, oursMask)
		tuple := filter.Begin(ctaTupleOrig)
		proto := filter.Begin(ctaTupleProto)
		filter.Data(ctaProtoNum, string(rune(lb.UDP)))
		filter.End(proto)
		filter.End(tuple)
		by := filter.Begin(ctaFilter)
		filter.Data(ctaFilterOrig, string(binary.NativeEndian.AppendUint32(nil, filterProtoNum)))
		filter.End(by)
		err := dumpFlows(c, family, filter.Bytes(), func(f flow) {
			if f.protocol == lb.UDP {
				each(f)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func dumpFlows(c *wire.Conn, family uint8, filter []byte, each func(flow)) error {
	var key wire.Encoder
	return c.Dump(ctGet, family, filter, func(b []byte) error {
		f := flow{family: unix.AF_INET6}
		key.Reset()
		for t, v := range wire.Attrs(b) {
			switch t {
			case ctaTupleOrig:
				if wire.Attr(wire.Attr(v, ctaTupleIP), ctaIPv4Src) != nil {
					f.family = unix.AF_INET
				}
				if n := wire.Attr(wire.Attr(v, ctaTupleProto), ctaProtoNum); len(n) == 1 {
					f.protocol = lb.Protocol(n[0])
				}
				f.tuple = v
				f.zoned = f.zoned || wire.Attr(v, ctaTupleZone) != nil
				key.Data(t|unix.NLA_F_NESTED, string(v))
			case ctaZone:
				f.zoned = true
				key.Data(t, string(v))
			case ctaID:
				key.Data(t, string(v))
			case ctaMark:
				f.mark = wire.Uint32(v)
			case ctaStatus:
				f.answered = wire.Uint32(v)&statusSeenReply != 0
			case ctaProtoinfo:
				state := wire.Attr(wire.Attr(v, ctaProtoinfoTCP), ctaProtoinfoTCPState)
				f.over = len(state) == 1 && (state[0] == tcpTimeWait || state[0] == tcpClose)
			}
		}
		// A kernel that does not know the filter returns everything.
		if f.mark&oursMask == oursMark {
			f.key = key.Bytes()
			each(f)
		}
		return nil
	})
}

// Stats are the figures of a backend.
type Stats struct {
	// Connections counts new connections since the backend came.
	Connections uint64
	// Live is what conntrack holds now.
	Live int
}

// Stats returns the figures of a backend in the state.
func (s *State) Stats(profile, service string, address lb.Endpoint, live Live) Stats {
	b := s.backends[backendKey{chainOf(profile, service), address}]
	return Stats{Connections: b.connections, Live: live[b.mark&indexMask]}
}
