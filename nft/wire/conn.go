package wire

// A conversation with the kernel: dumps, single requests, and batches.

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Transport carries datagrams of netlink messages. Dial returns the real one.
// A Transport is used by one goroutine at a time.
type Transport interface {
	// Send hands one datagram to the kernel, which has worked on all of it
	// when Send returns.
	Send(b []byte) error
	// Receive waits for a datagram and returns its length. It fails with
	// ENOBUFS where the kernel had more to say than the socket could hold.
	Receive(b []byte) (int, error)
	// Reserve makes room for a datagram of n bytes and returns the largest
	// that can be sent now, which may be less.
	Reserve(n int) (int, error)
	Close() error
}

// Message types that end or break a conversation.
const (
	receiveSize = 1 << 16 // the kernel's dumps use at most 32 KiB of it
	fenceTries  = 8
)

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
}

// NewConn returns a conversation over a transport.
func NewConn(t Transport) *Conn {
	// Sequence numbers of requests stay clear of those of batches.
	return &Conn{transport: t, buf: make([]byte, receiveSize), seq: 1 << 31}
}

// Close ends the conversation.
func (c *Conn) Close() error { return c.transport.Close() }

// Request sends a message that the kernel answers with one message, and
// returns the attributes of the answer.
func (c *Conn) Request(typ uint16, family uint8, attrs []byte) ([]byte, error) {
	var answer []byte
	err := c.ask(typ, family, 0, attrs, func(b []byte) error {
		answer = append([]byte{}, b...)
		return nil
	})
	return answer, err
}

// Do sends a message that the kernel only acknowledges.
func (c *Conn) Do(typ uint16, family uint8, flags uint16, attrs []byte) error {
	return c.ask(typ, family, flags|unix.NLM_F_ACK, attrs, func([]byte) error { return nil })
}

// Dump asks for all objects of a kind and calls each with the attributes of
// every one; the bytes are valid during the call only.
func (c *Conn) Dump(typ uint16, family uint8, attrs []byte, each func(attrs []byte) error) error {
	return c.ask(typ, family, unix.NLM_F_DUMP, attrs, each)
}

func (c *Conn) send(typ uint16, family uint8, flags uint16, attrs []byte) error {
	c.seq++
	b := appendHeader(nil, typ, family, flags|unix.NLM_F_REQUEST, c.seq)
	b = append(b, attrs...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return c.transport.Send(b)
}

// ask sends one message and reads until its answer is complete: one message, an
// acknowledgement, or the end of a dump.
func (c *Conn) ask(typ uint16, family uint8, flags uint16, attrs []byte, each func([]byte) error) error {
	if err := c.send(typ, family, flags, attrs); err != nil {
		return err
	}
	var fail error
	interrupted := false
	for done := false; !done; {
		n, err := c.transport.Receive(c.buf)
		if err != nil {
			return err
		}
		for m := range messages(c.buf[:n]) {
			if m.seq != c.seq || done {
				continue // the answer to an earlier request that was given up
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.typ == unix.NLMSG_DONE:
				done = true
				if errno := errnoOf(m.body); errno != 0 {
					fail = &Error{Errno: errno}
				}
			case m.typ == unix.NLMSG_ERROR:
				done = true
				if errno := errnoOf(m.body); errno != 0 {
					fail = &Error{Errno: errno, Detail: detail(m)}
				}
			case len(m.body) < nfHeader:
				return fmt.Errorf("netlink: a message of %d bytes", len(m.body))
			case fail == nil:
				fail = each(m.body[nfHeader:])
			}
			if flags&(unix.NLM_F_DUMP|unix.NLM_F_ACK) == 0 {
				done = true
			}
		}
	}
	if fail == nil && interrupted {
		return ErrInterrupted
	}
	return fail
}

// Generation returns the number of the ruleset's generation, which every
// commit of anybody in this network namespace increases.
func (c *Conn) Generation() (uint32, error) {
	b, err := c.Request(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, nil)
	if err != nil {
		return 0, err
	}
	id := Attr(b, unix.NFTA_GEN_ID)
	if len(id) < 4 {
		return 0, errors.New("netlink: the kernel names no generation")
	}
	return Uint32(id), nil
}

// Limit returns the largest batch that can be sent, where n bytes are wanted.
func (c *Conn) Limit(n int) (int, error) { return c.transport.Reserve(n) }

// Commit sends a batch made for a generation, and returns the generation after
// it. An error is ErrStale, ErrRefused, *TooBigError or *Error (nothing was
// changed), ErrUnknown, or the transport's.
func (c *Conn) Commit(b *Batch, generation uint32) (uint32, error) {
	buf := appendHeader(b.buf, unix.NFNL_MSG_BATCH_END, unix.AF_UNSPEC, unix.NLM_F_REQUEST, uint32(len(b.what)))
	binary.BigEndian.PutUint16(buf[len(buf)-2:], unix.NFNL_SUBSYS_NFTABLES)
	now, lost, err := c.deliver(b, buf)
	switch {
	case err != nil:
		return 0, err
	case now == generation:
		// An empty batch makes no generation; anything else was refused.
		if lost {
			return 0, ErrRefused
		}
	case lost:
		return 0, ErrUnknown
	}
	return now, nil
}

// Check lets the kernel validate a batch and changes nothing: the kernel drops
// a batch that has no END. Errors are those of Commit.
func (c *Conn) Check(b *Batch) error {
	_, lost, err := c.deliver(b, b.buf)
	if err == nil && lost {
		err = ErrUnknown
	}
	return err
}

// deliver sends a batch and behind it a question for the generation: the
// kernel answers in order, so that the errors of the batch, which it reports
// without being asked for acknowledgements, are all there when the generation
// is. lost says that there was an answer that did not fit the socket.
func (c *Conn) deliver(b *Batch, buf []byte) (generation uint32, lost bool, err error) {
	limit, err := c.transport.Reserve(len(buf))
	if err != nil {
		return 0, false, err
	}
	if len(buf) > limit {
		return 0, false, &TooBigError{Size: len(buf), Limit: limit}
	}
	if err := c.transport.Send(buf); err != nil {
		if errors.Is(err, unix.EMSGSIZE) {
			return 0, false, &TooBigError{Size: len(buf), Limit: limit}
		}
		return 0, false, err
	}
	var refused *Error
	for range fenceTries {
		if err := c.send(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, 0, nil); err != nil {
			return 0, false, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		for {
			n, err := c.transport.Receive(c.buf)
			if errors.Is(err, unix.ENOBUFS) {
				lost = true
				break // the answer to our question may be among what was lost
			}
			if err != nil {
				return 0, false, fmt.Errorf("%w: %w", ErrUnknown, err)
			}
			fence := false
			for m := range messages(c.buf[:n]) {
				switch {
				case m.seq == c.seq && m.typ == unix.NLMSG_ERROR:
					return 0, false, fmt.Errorf("%w: %w", ErrUnknown, errnoOf(m.body))
				case m.seq == c.seq && len(m.body) >= nfHeader:
					generation, fence = Uint32(Attr(m.body[nfHeader:], unix.NFTA_GEN_ID)), true
				case m.typ == unix.NLMSG_ERROR && int(m.seq) < len(b.what):
					if errno := errnoOf(m.body); errno != 0 {
						refused = refused.and(&Error{What: b.what[m.seq], Errno: errno, Detail: detail(m)})
					}
				}
			}
			if !fence {
				continue
			}
			switch {
			case refused == nil:
				return generation, lost, nil
			case refused.Errno == unix.ERESTART:
				return 0, false, ErrStale
			}
			return 0, false, refused
		}
	}
	return 0, true, ErrUnknown
}

func (e *Error) and(next *Error) *Error {
	if e == nil {
		return next
	}
	e.Others++
	return e
}
