package wire

// Events: what the kernel tells of its own accord, to the sockets of a multicast
// group.

import (
	"errors"
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/net/bpf"
)

// Events hears what a multicast group is told.
type Events struct {
	transport Transport
	buf       []byte
	closed    atomic.Bool
}

// Listen joins multicast groups (a mask), in the conversation's network namespace.
// The kernel passes over the datagrams that the filter does not take: it sees each
// from the netlink header on.
func (c *Conn) Listen(groups uint32, filter []bpf.RawInstruction) (*Events, error) {
	t, err := c.transport.Another(0, groups)
	if err != nil {
		return nil, err
	}
	if err := t.Filter(filter); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return &Events{transport: t, buf: make([]byte, receiveSize)}, nil
}

// Next waits for a datagram, and calls each with the type and the attributes of
// its messages; the bytes are valid during the call only. Errors: unix.ENOBUFS
// where the kernel had more to tell than the socket could hold, net.ErrClosed after
// Close. It may be called again after all others.
func (e *Events) Next(each func(typ uint16, attrs []byte)) error {
	for {
		n, err := e.transport.Receive(e.buf)
		switch {
		case e.closed.Load():
			return net.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue // nothing has happened for a while
		case err != nil:
			return err
		}
		for m, err := range messages(e.buf[:n]) {
			if err != nil {
				return err
			}
			if len(m.body) < nfHeader {
				return errMalformed
			}
			each(m.typ, m.body[nfHeader:])
		}
		return nil
	}
}

// Close ends it, and a Next that waits.
func (e *Events) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	return e.transport.Close()
}
