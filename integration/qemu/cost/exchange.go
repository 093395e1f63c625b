//go:build linux

package main

// The exchanges: bare system calls of one thread, on both ends.

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

// Ports of the service and of its servers, for TCP and UDP.
const (
	servicePort = 80
	serverPort  = 8080
)

// perExchange is how many instructions an exchange takes on average. The
// machine's clock advances by a nanosecond with each.
func perExchange(n int, exchange func() error) (float64, error) {
	begin := time.Now()
	for range n {
		if err := exchange(); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(begin)) / float64(n), nil
}

// listeners are the server's sockets.
type listeners struct {
	tcp int
	udp []int // one for each backend, so that answers come from its address
}

func listen(h *netlab.Host) (*listeners, error) {
	l := new(listeners)
	err := h.Do(func() (err error) {
		if l.tcp, err = socket(unix.SOCK_STREAM); err != nil {
			return err
		}
		if err = unix.Bind(l.tcp, &unix.SockaddrInet4{Port: serverPort}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		if err = unix.Listen(l.tcp, 16); err != nil {
			return os.NewSyscallError("listen", err)
		}
		for n := range byte(backends) {
			fd, err := socket(unix.SOCK_DGRAM)
			if err != nil {
				return err
			}
			l.udp = append(l.udp, fd)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 2, 0, 11 + n}, Port: serverPort}); err != nil {
				return os.NewSyscallError("bind", err)
			}
		}
		return nil
	})
	return l, err
}

func (l *listeners) close() {
	unix.Close(l.tcp)
	for _, fd := range l.udp {
		unix.Close(fd)
	}
}

// socket is one that gives up after a second: of the machine's clock, which
// jumps where there is nothing to do.
func socket(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	second := unix.Timeval{Sec: 1}
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &second); err != nil {
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	return fd, nil
}

// connection is a short one: a byte there, a byte back.
func (l *listeners) connection(to unix.SockaddrInet4) error {
	c, err := socket(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	if err := unix.Connect(c, &to); err != nil {
		return os.NewSyscallError("connect", err)
	}
	s, _, err := unix.Accept4(l.tcp, unix.SOCK_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("accept", err)
	}
	defer unix.Close(s)
	var b [1]byte
	for _, step := range []struct {
		do func(int, []byte) (int, error)
		fd int
	}{{unix.Write, c}, {unix.Read, s}, {unix.Write, s}, {unix.Read, c}} {
		if n, err := step.do(step.fd, b[:]); err != nil || n != 1 {
			return fmt.Errorf("a byte did not get through: %d, %w", n, err)
		}
	}
	return nil
}

// flow is a client's UDP socket.
type flow struct{ client, server int }

// dial begins a flow, and finds out which backend has it.
func (l *listeners) dial(to unix.SockaddrInet4) (*flow, error) {
	fd, err := socket(unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &to); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	if _, err := unix.Write(fd, []byte{0}); err != nil {
		return nil, os.NewSyscallError("write", err)
	}
	for _, server := range l.udp {
		if _, _, err := unix.Recvfrom(server, make([]byte, 1), unix.MSG_DONTWAIT); err == nil {
			return &flow{fd, server}, nil
		}
	}
	return nil, errors.New("no backend got the datagram")
}

func (f *flow) close() { unix.Close(f.client) }

func (f *flow) roundTrip() error {
	var b [1]byte
	if _, err := unix.Write(f.client, b[:]); err != nil {
		return os.NewSyscallError("write", err)
	}
	_, from, err := unix.Recvfrom(f.server, b[:], 0)
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	if err := unix.Sendto(f.server, b[:], 0, from); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	_, err = unix.Read(f.client, b[:])
	return os.NewSyscallError("read", err)
}
