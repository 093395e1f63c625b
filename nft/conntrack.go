package nft

// Conntrack: the connections that the kernel tracks for our backends, found by
// their mark (linux/netfilter/nfnetlink_conntrack.h).

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig = 1
	ctaProtoinfo = 4
	ctaMark      = 8
	ctaID        = 12
	ctaZone      = 18
	ctaMarkMask  = 21

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaIPv4Src    = 1
	ctaProtoNum   = 1

	ctaProtoinfoTCP      = 1
	ctaProtoinfoTCPState = 1

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
	family   uint8
	key      []byte // the attributes that a request to delete it needs
}

// tracked yields the connections with a mark of ours; the key of a flow is
// valid during the call only.
func tracked(c *wire.Conn, each func(flow)) error {
	var filter wire.Encoder
	filter.Uint32(ctaMark, oursMark)
	filter.Uint32(ctaMarkMask, oursMask)
	var key wire.Encoder
	return c.Dump(ctGet, unix.AF_UNSPEC, filter.Bytes(), func(b []byte) error {
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
				key.Data(t|unix.NLA_F_NESTED, string(v))
			case ctaID, ctaZone:
				key.Data(t, string(v))
			case ctaMark:
				f.mark = wire.Uint32(v)
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

// endFlows makes conntrack forget the connections of backends that are gone:
// UDP, whose next datagram then goes to a backend that is there, and with cut
// TCP and SCTP too. alive has the numbers of the backends that are there.
func endFlows(c *wire.Conn, alive map[uint32]bool, cut bool) (ended int, err error) {
	var stale []flow
	err = tracked(c, func(f flow) {
		if !alive[f.mark&indexMask] && (cut || f.protocol == lb.UDP) {
			f.key = append([]byte{}, f.key...)
			stale = append(stale, f)
		}
	})
	for _, f := range stale {
		if err != nil {
			break
		}
		err = c.Do(ctDelete, f.family, 0, f.key)
		switch {
		case err == nil:
			ended++
		case errors.Is(err, unix.ENOENT):
			err = nil // it ended by itself
		}
	}
	return ended, err
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
