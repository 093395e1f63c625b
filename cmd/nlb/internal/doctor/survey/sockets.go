//go:build linux

package survey

// Sockets of this host that wait for clients, from sock_diag(7).

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/doctor"
	"nlb/lb"
	"nlb/nft/wire"
)

// sockets lists TCP sockets that listen, and UDP sockets that are not connected.
func (s *survey) sockets() {
	const listen, closed = 1 << 10, 1 << 7 // bits of states, as tcp_states.h numbers them
	for _, k := range []struct {
		protocol lb.Protocol
		states   uint32
	}{{lb.TCP, listen}, {lb.UDP, closed}} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			// struct inet_diag_req_v2: family, protocol, ext, pad, states, id
			ask := make([]byte, 56)
			ask[0], ask[1] = family, uint8(k.protocol)
			binary.NativeEndian.PutUint32(ask[4:], k.states)
			r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
			r.AddRawData(ask)
			found, err := r.Execute(unix.NETLINK_SOCK_DIAG, 0)
			if err != nil {
				s.unseen("the sockets of this host", err, "socket", "nat", "chained")
				return
			}
			for _, b := range found {
				if socket, ok := decodeSocket(k.protocol, b); ok {
					s.host.Sockets = append(s.host.Sockets, socket)
				}
			}
		}
	}
}

// decodeSocket reads a struct inet_diag_msg: family, state, timer, retrans, an id of
// ports (big-endian), addresses, link and cookie, five numbers; attributes follow.
func decodeSocket(protocol lb.Protocol, b []byte) (doctor.Socket, bool) {
	const port, peer, source, attributes, onlyV6 = 4, 6, 8, 72, 11 // INET_DIAG_SKV6ONLY
	if len(b) < attributes || binary.BigEndian.Uint16(b[peer:]) != 0 {
		return doctor.Socket{}, false
	}
	size := 4
	if b[0] == unix.AF_INET6 {
		size = 16
	}
	a, _ := netip.AddrFromSlice(b[source : source+size])
	only := wire.Attr(b[attributes:], onlyV6)
	return doctor.Socket{
		Protocol: protocol, At: netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[port:])),
		Both: a.Is6() && a.IsUnspecified() && (len(only) == 0 || only[0] == 0),
	}, true
}
