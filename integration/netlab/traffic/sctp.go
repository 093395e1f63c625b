//go:build linux

package traffic

// SCTP by one-to-one sockets (RFC 6458, section 4), which the net package
// handles like those of TCP once they are there.

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func listenSCTP(at netip.AddrPort) (net.Listener, error) {
	f, err := bound(at, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, err
	}
	defer f.Close() // FileListener has a duplicate
	if err := unix.Listen(int(f.Fd()), 128); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return net.FileListener(f)
}

func dialSCTP(ctx context.Context, from, to netip.AddrPort, deadline time.Time) (net.Conn, error) {
	f, err := bound(from, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, err
	}
	defer f.Close() // FileConn has a duplicate
	defer context.AfterFunc(ctx, func() { f.SetDeadline(time.Now()) })()
	if err := f.SetDeadline(deadline); err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	started, result := false, error(nil)
	err = raw.Write(func(fd uintptr) bool {
		if !started {
			started = true
			result = unix.Connect(int(fd), sockaddr(to))
			return result != unix.EINPROGRESS
		}
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if result = err; err == nil && errno != 0 {
			result = unix.Errno(errno)
		}
		return true
	})
	if err == nil {
		err = os.NewSyscallError("connect", result)
	}
	if err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// bound is a bound socket of a protocol that does not block.
func bound(at netip.AddrPort, protocol int) (*os.File, error) {
	f, err := socket(at, protocol)
	if err != nil {
		return nil, err
	}
	err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(int(f.Fd()), sockaddr(at)))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// socket is one of a protocol and of the family of an address, that does not block.
func socket(at netip.AddrPort, protocol int) (*os.File, error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return os.NewFile(uintptr(fd), at.String()), nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// Supported reports whether this kernel has a protocol.
func Supported(network string) bool {
	if network != "sctp" {
		return true
	}
	f, err := bound(netip.AddrPortFrom(netip.IPv4Unspecified(), 0), unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
