//go:build linux

package main

// Sockets: TCP and UDP by the net package, SCTP by one-to-one sockets
// (RFC 6458, section 4), which net handles once they are there.

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// limit bounds an exchange: LIMIT of the environment, or 15 seconds, for an
// emulated machine whose processor others want as well is slow.
var limit = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("LIMIT")); err == nil {
		return d
	}
	return 15 * time.Second
}()

func listen(name, at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	go accept(name, l)
	u, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	go answer(name, u)
	s, err := listenSCTP(at)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return err
	}
	go accept(name, s)
	return nil
}

func accept(name string, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		go func() {
			defer c.Close()
			for r := bufio.NewReader(c); ; {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
				fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
			}
		}()
	}
}

func answer(name string, c net.PacketConn) {
	for buf := make([]byte, 2048); ; {
		_, from, err := c.ReadFrom(buf)
		if err == nil {
			_, _ = c.WriteTo(fmt.Appendf(nil, "%s %s\n", name, from), from)
		}
	}
}

// dial connects. UDP does so from a port that the caller chose, where it did:
// one that chance repeats is no new flow to conntrack, and meets the backend
// that it met before.
func dial(network, to string, from int) (net.Conn, error) {
	d := net.Dialer{Timeout: limit}
	switch network {
	case "sctp":
		return dialSCTP(to)
	case "udp":
		d.LocalAddr = &net.UDPAddr{Port: from}
	}
	return d.Dial(network, to)
}

func exchange(c net.Conn, r *bufio.Reader, say string) string {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return word(err)
	}
	if _, err := fmt.Fprintln(c, say); err != nil {
		return word(err)
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return word(err)
	}
	return strings.TrimSpace(line)
}

func listenSCTP(at string) (net.Listener, error) {
	return onSCTP(at, func(fd int, a unix.Sockaddr) error {
		if err := unix.Bind(fd, a); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("listen", unix.Listen(fd, 128))
	}, net.FileListener)
}

func dialSCTP(to string) (net.Conn, error) {
	return onSCTP(to, func(fd int, a unix.Sockaddr) error {
		// SO_SNDTIMEO bounds connect; see socket(7).
		t := unix.NsecToTimeval(limit.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &t); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		err := unix.Connect(fd, a)
		if errors.Is(err, unix.EINPROGRESS) {
			err = unix.ETIMEDOUT
		}
		return os.NewSyscallError("connect", err)
	}, net.FileConn)
}

// onSCTP makes a socket, has it prepared, and hands it to the net package.
func onSCTP[T any](at string, prepare func(fd int, a unix.Sockaddr) error, wrap func(*os.File) (T, error)) (T, error) {
	var none T
	ap, err := netip.ParseAddrPort(at)
	if err != nil {
		return none, err
	}
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()})
	if ap.Addr().Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return none, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close() // the net package has a duplicate
	if err := prepare(fd, address); err != nil {
		return none, err
	}
	return wrap(f)
}
