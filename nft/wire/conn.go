package wire

// A conversation with the kernel: dumps and single requests. Batches are in
// commit.go.

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Transport carries datagrams of netlink messages. Open returns the real one.
// A Transport is used by one goroutine at a time.
type Transport interface {
	// Send hands one datagram to the kernel, which has worked on all of it
	// when Send returns.
	Send(b []byte) error
	// Receive waits for a datagram and returns its length. It fails with
	// ENOBUFS where the kernel had more to say than the socket could hold, and
	// with os.ErrDeadlineExceeded where it says nothing for long.
	Receive(b []byte) (int, error)
	// Reserve makes room for a datagram of n bytes and returns the largest
	// that can be sent now, which may be less.
	Reserve(n int) (int, error)
	// Port is the number of the socket, which answers to it bear.
	Port() uint32
	// Another opens a further socket in the same network namespace: on this
	// port, or on any where it is 0, and with these multicast groups (a mask).
	// It fails with EADDRINUSE where somebody has the port.
	Another(port, groups uint32) (Transport, error)
	// Filter has the kernel drop what is sent to the socket unless a program
	// takes it (SO_ATTACH_FILTER).
	Filter(program []bpf.RawInstruction) error
	Close() error
}

const receiveSize = 1 << 16 // the kernel's dumps use at most 32 KiB of it

// Errors of a conversation.
var (
	// ErrStale: the ruleset is not of the batch's generation any more.
	// Nothing was changed.
	ErrStale = errors.New("the ruleset was changed by somebody else meanwhile")
	// ErrInterrupted: a dump is inconsistent, since the ruleset changed while
	// it was read.
	ErrInterrupted = errors.New("the ruleset changed while it was read")
	// ErrUnknown: the kernel's answer got lost, and it cannot be told whether
	// the batch was committed.
	ErrUnknown = errors.New("the kernel's answer was lost")
	// ErrRefused: the kernel refused a batch, and its reason got lost. Nothing
	// was changed.
	ErrRefused = errors.New("the kernel refused the batch, and its reason was lost")
)

// TooBigError says that the socket cannot take a batch. Nothing was changed.
type TooBigError struct{ Size, Limit int }

func (e *TooBigError) Error() string {
	return fmt.Sprintf("a batch of %d bytes exceeds the socket's %d (net.core.wmem_max)", e.Size, e.Limit)
}

// Error is the kernel's refusal of a message. It unwraps to the errno.
type Error struct {
	// What is the object that the message was about; empty for a request.
	What string
	// Expr is the expression of a rule that the kernel stumbled over, as it
	// calls it; empty where it did not say.
	Expr string
	// Errno is why.
	Errno unix.Errno
	// Detail is the kernel's own explanation (extended acknowledgement);
	// often empty.
	Detail string
	// Others counts the further messages of the batch that were refused.
	Others int
}

func (e *Error) Error() string {
	s := e.Errno.Error()
	if e.Expr != "" {
		s = "expression " + e.Expr + ": " + s
	}
	if e.What != "" {
		s = e.What + ": " + s
	}
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	if e.Others > 0 {
		s += fmt.Sprintf(", and %d more", e.Others)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Errno }

// Conn talks to the kernel's netfilter. It is not safe for concurrent use.
type Conn struct {
	transport Transport
	buf       []byte
	seq       uint32
	watched   bool
	midway    bool // the kernel has a dump for this socket that was not read to its end
}

// NewConn returns a conversation over a transport.
func NewConn(t Transport) *Conn {
	// Sequence numbers of requests stay clear of those of batches.
	return &Conn{transport: t, buf: make([]byte, receiveSize), seq: 1 << 31}
}

// Close ends the conversation.
func (c *Conn) Close() error { return c.transport.Close() }

// Renew goes on over a new socket in the same network namespace, where the old
// one cannot be relied on any more. Where there is none to be had, the old one
// stays.
func (c *Conn) Renew() error {
	t, err := c.transport.Another(0, 0)
	if err != nil {
		return err
	}
	_ = c.transport.Close() // it may be broken
	c.transport, c.midway = t, false
	return nil
}

// Watched says whether a Watch tells what the ruleset's changes are: then a
// dump that was interrupted is no error.
func (c *Conn) Watched(on bool) { c.watched = on }

// Request sends a message that the kernel answers with one message, and
// returns the attributes of the answer.
func (c *Conn) Request(typ uint16, family uint8, attrs []byte) ([]byte, error) {
	var answer []byte
	err := c.Requests(typ, family, attrs, 1, func(b []byte) error {
		answer = append([]byte{}, b...)
		return nil
	})
	return answer, err
}

// Requests sends a message that the kernel answers with so many messages, or with an
// error in place of one, and calls each with the attributes of every answer; the bytes
// are valid during the call only.
func (c *Conn) Requests(typ uint16, family uint8, attrs []byte, answers int, each func(attrs []byte) error) error {
	return c.ask(typ, family, 0, attrs, answers, each)
}

// Do sends a message that the kernel only acknowledges.
func (c *Conn) Do(typ uint16, family uint8, flags uint16, attrs []byte) error {
	return c.ask(typ, family, flags|unix.NLM_F_ACK, attrs, 0, func([]byte) error { return nil })
}

// Dump asks for all objects of a kind and calls each with the attributes of
// every one; the bytes are valid during the call only. After ErrInterrupted
// each was called for all there was to read, some of it perhaps not or twice.
func (c *Conn) Dump(typ uint16, family uint8, attrs []byte, each func(attrs []byte) error) error {
	return c.ask(typ, family, unix.NLM_F_DUMP, attrs, 0, each)
}

func (c *Conn) send(typ uint16, family uint8, flags uint16, attrs []byte) error {
	c.seq++
	b := appendHeader(nil, typ, family, flags|unix.NLM_F_REQUEST, c.seq)
	b = append(b, attrs...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return c.transport.Send(b)
}

// ours reports whether a message is the answer to something that this socket
// sent.
func (c *Conn) ours(m message) bool { return m.port == c.transport.Port() }

// ask sends one message and reads until its answer is complete: so many messages, or
// where that is 0, an acknowledgement or the end of a dump.
func (c *Conn) ask(typ uint16, family uint8, flags uint16, attrs []byte, answers int, each func([]byte) error) error {
	if c.midway {
		_ = c.Renew() // another dump would be refused
	}
	if err := c.send(typ, family, flags, attrs); err != nil {
		return err
	}
	c.midway = flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	var fail error
	interrupted := false
	for done := false; !done; {
		n, err := c.transport.Receive(c.buf)
		if err != nil {
			return err
		}
		for m, err := range messages(c.buf[:n]) {
			if err != nil {
				return err
			}
			if m.seq != c.seq || !c.ours(m) || done {
				continue // the answer to somebody else, or to what was given up
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.typ == unix.NLMSG_NOOP:
				continue
			case m.typ == unix.NLMSG_OVERRUN:
				return unix.ENOBUFS
			case m.typ == unix.NLMSG_DONE:
				done = true
				if errno := errnoOf(m.body); errno != 0 {
					fail = &Error{Errno: errno}
				}
			case m.typ == unix.NLMSG_ERROR:
				done = true
				if errno := errnoOf(m.body); errno != 0 {
					words, _ := explanation(m)
					fail = &Error{Errno: errno, Detail: words}
				}
			case len(m.body) < nfHeader:
				return errMalformed
			case fail == nil:
				fail = each(m.body[nfHeader:])
			}
			if answers--; answers == 0 {
				done = true
			}
		}
	}
	c.midway = false
	if fail == nil && interrupted && !c.watched {
		return ErrInterrupted
	}
	return fail
}

// Generation returns the number of the ruleset's generation, which every
// commit of anybody in this network namespace increases.
func (c *Conn) Generation() (uint32, error) {
	b, err := c.Request(MsgType(unix.NFT_MSG_GETGEN), unix.AF_UNSPEC, nil)
	if err != nil {
		return 0, err
	}
	id := Attr(b, unix.NFTA_GEN_ID)
	if len(id) < 4 {
		return 0, errors.New("netlink: the kernel names no generation")
	}
	return Uint32(id), nil
}
