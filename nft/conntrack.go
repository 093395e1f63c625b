package nft

// Conntrack: the connections that the kernel tracks for our backends, found by
// their mark (linux/netfilter/nfnetlink_conntrack.h).

import (
	"fmt"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

const (
	ctGet = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET

	ctaProtoinfo = 4
	ctaMark      = 8
	ctaMarkMask  = 21

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
	var filter wire.Encoder
	filter.Uint32(ctaMark, oursMark)
	filter.Uint32(ctaMarkMask, oursMask)
	live := Live{}
	err := c.Dump(ctGet, unix.AF_UNSPEC, filter.Bytes(), func(b []byte) error {
		var mark uint32
		over := false
		for t, v := range wire.Attrs(b) {
			switch t {
			case ctaMark:
				mark = wire.Uint32(v)
			case ctaProtoinfo:
				state := wire.Attr(wire.Attr(v, ctaProtoinfoTCP), ctaProtoinfoTCPState)
				over = len(state) == 1 && (state[0] == tcpTimeWait || state[0] == tcpClose)
			}
		}
		// Kernels before the filter return everything.
		if mark&oursMask == oursMark && !over {
			live[mark&indexMask]++
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read conntrack: %w", err)
	}
	return live, nil
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
