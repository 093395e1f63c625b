package wire

// The real transport: a netlink socket.

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// Room for the errors of a batch; one takes about 100 bytes.
	receiveBuffer = 1 << 20
	// What the kernel takes off the send buffer (netlink_sendmsg).
	sendOverhead = 32
	// The kernel has its answer ready when Send returns; nobody should wait for
	// ever for one that is lost.
	patience = 10 * time.Second
)

type socket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	room int
}

// Dial opens a conversation in the network namespace of the calling thread.
func Dial() (*Conn, error) {
	t, err := Open()
	if err != nil {
		return nil, err
	}
	return NewConn(t), nil
}

// Open opens a netfilter socket in the network namespace of the calling thread.
func Open() (Transport, error) {
	s, err := open(0, 0)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func open(port, groups uint32) (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{PID: port, Groups: groups})
	if err != nil {
		return nil, fmt.Errorf("netfilter socket: %w", errno(err))
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// The explanations of an error are welcome, a copy of the refused message is
	// not. Kernels that lack an option do without.
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)
	_ = conn.SetOption(netlink.CapAcknowledge, true)
	_ = conn.SetReadBuffer(receiveBuffer)
	return &socket{conn: conn, raw: raw}, nil
}

func (s *socket) Close() error { return s.conn.Close() }

func (s *socket) Port() uint32 { return s.conn.PID() }

func (s *socket) Another(port, groups uint32) (Transport, error) {
	t, err := open(port, groups)
	if err != nil {
		return nil, err
	}
	if s.namespace() != t.namespace() {
		return nil, errors.Join(errors.New("this thread is in another network namespace by now"), t.Close())
	}
	return t, nil
}

// Filter is SO_ATTACH_FILTER.
func (s *socket) Filter(program []bpf.RawInstruction) error { return errno(s.conn.SetBPF(program)) }

// namespace identifies the network namespace of the socket; 0 where the kernel
// is older than Linux 5.14, which cannot tell.
func (s *socket) namespace() uint64 {
	var id uint64
	_ = s.raw.Control(func(fd uintptr) { id, _ = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE) })
	return id
}

func (s *socket) Reserve(n int) (int, error) {
	if n <= s.room {
		return s.room, nil
	}
	// Beyond net.core.wmem_max with CAP_NET_ADMIN in the initial user
	// namespace, up to it elsewhere; the kernel doubles what it is given.
	if err := s.conn.SetWriteBuffer(n/2 + sendOverhead); err != nil {
		return 0, errno(err)
	}
	size, err := s.conn.WriteBuffer()
	if err != nil {
		return 0, errno(err)
	}
	s.room = size - sendOverhead
	return s.room, nil
}

func (s *socket) Send(b []byte) error {
	var err error
	ctrl := s.raw.Write(func(fd uintptr) bool {
		for {
			err = unix.Send(int(fd), b, 0)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	return errors.Join(ctrl, err)
}

// Receive passes over what other programs send to the socket.
func (s *socket) Receive(b []byte) (int, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, errno(err)
	}
	for {
		var n int
		var from unix.Sockaddr
		var err error
		ctrl := s.raw.Read(func(fd uintptr) bool {
			for {
				n, from, err = unix.Recvfrom(int(fd), b, unix.MSG_TRUNC)
				if err != unix.EINTR {
					return err != unix.EAGAIN
				}
			}
		})
		sender, _ := from.(*unix.SockaddrNetlink)
		switch {
		case ctrl != nil:
			return 0, ctrl
		case err != nil:
			return 0, err
		case sender == nil || sender.Pid != kernelPort:
			continue
		case n > len(b):
			return 0, fmt.Errorf("a datagram of %d bytes: %w", n, unix.EMSGSIZE)
		}
		return n, nil
	}
}

const kernelPort = 0

// errno takes the library's wrapping off.
func errno(err error) error {
	if e, ok := errors.AsType[*netlink.OpError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		err = e.Err
	}
	return err
}
