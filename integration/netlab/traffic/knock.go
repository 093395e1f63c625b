//go:build linux

package traffic

// Knock: connections that clients begin and do not complete.

import (
	"errors"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Knock sends the SYN of a TCP connection, and hears no answer: it neither completes the
// connection nor resets it. The kernel sends the SYN again each second or so, until the
// socket is closed. Host and Source must be said.
func (c Client) Knock(to netip.AddrPort) (io.Closer, error) {
	var f *os.File
	err := c.Host.Do(func() (err error) {
		if f, err = bound(netip.AddrPortFrom(c.Source, c.Host.NextPort()), unix.IPPROTO_TCP); err != nil {
			return err
		}
		fd, drop := int(f.Fd()), []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}} // keep 0 bytes of each packet
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]}); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		if err := unix.Connect(fd, sockaddr(to)); !errors.Is(err, unix.EINPROGRESS) {
			return os.NewSyscallError("connect", err)
		}
		return nil
	})
	if err != nil && f != nil {
		_ = f.Close()
	}
	return f, err
}
