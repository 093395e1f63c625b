//go:build linux

package probe

// The kind icmp: one echo, by a ping socket.
//
// Ping sockets (SOCK_DGRAM with IPPROTO_ICMP, icmp(7)) need no capability, but a
// group of this process within net.ipv4.ping_group_range, which holds for IPv6,
// too. The kernel's default is "1 0", which is nobody; systemd widens it on most
// machines. Raw sockets would need CAP_NET_RAW, and that lets a process listen to
// all that passes.

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// errNoPing says that this process may have no ping sockets, and which kernel
// parameter forbids it, as far as lb.MaxReason has room.
var errNoPing = errors.New("not permitted: ping_group_range")

// echo is the kind icmp.
func echo(ctx context.Context, t Target) Outcome {
	c, err := pingSocket(t)
	if errors.Is(err, errNoPing) {
		return unable("icmp", "%s", err)
	}
	if err != nil {
		return fault(ctx, "icmp", err)
	}
	defer c.Close()
	until(ctx, c)
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if t.At.Addr().Is6() {
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	// The kernel writes identifier and checksum, and passes on only answers to
	// this identifier. That they are the server's, the data tells.
	data := []byte("nlb " + rand.Text())
	packet, err := (&icmp.Message{Type: request, Body: &icmp.Echo{Seq: 1, Data: data}}).Marshal(nil)
	if err != nil {
		return unable("icmp", "%s", err)
	}
	if _, err := c.Write(packet); err != nil {
		return fault(ctx, "icmp", err)
	}
	b := make([]byte, maxDatagram)
	for {
		n, err := c.Read(b)
		if err != nil {
			return fault(ctx, "icmp", err)
		}
		m, err := icmp.ParseMessage(request.Protocol(), b[:n])
		if err != nil || m.Type != reply {
			continue
		}
		if body, ok := m.Body.(*icmp.Echo); ok && bytes.Equal(body.Data, data) {
			return passed("icmp", "answered")
		}
	}
}

// pingSocket is a ping socket that is connected to the target, so that errors of
// the way come back on it.
func pingSocket(t Target) (net.Conn, error) {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if t.At.Addr().Is6() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return nil, errNoPing
	}
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	if err := prepare(fd, t); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(t.At.Addr(), 0))); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return net.FileConn(f)
}
