package integration

// Segments: packets that no program would send, byte by byte.

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

// Flags of a TCP segment (RFC 9293, 3.1).
const (
	flagSYN = 2
	flagRST = 4
	flagPSH = 8
	flagACK = 16
)

// raw sends an IPv4 packet from a host.
func (b *bed) raw(h *netlab.Host, to netip.Addr, packet []byte) {
	b.T.Helper()
	b.Check(h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		return errors.Join(unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to.As4()}), unix.Close(fd))
	}))
}

// packet is an IPv4 packet.
func packet(from, to netip.Addr, protocol byte, body []byte) []byte {
	h := []byte{0x45, 0, 0, byte(20 + len(body)), 0, 0, 0x40, 0, 64, protocol, 0, 0}
	h = append(append(h, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, body...)
}

// segment is a TCP segment with a window of 512, over IPv4.
func segment(from, to netip.AddrPort, flags byte, seq, ack uint32, data ...byte) []byte {
	be := binary.BigEndian
	h := be.AppendUint16(be.AppendUint16(nil, from.Port()), to.Port())
	h = be.AppendUint32(be.AppendUint32(h, seq), ack)
	h = append(append(h, 5<<4, flags, 2, 0, 0, 0, 0, 0), data...)
	pseudo := append(append(from.Addr().AsSlice(), to.Addr().AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(h)))
	be.PutUint16(h[16:], checksum(append(pseudo, h...)))
	return h
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
