package wire

// Sending a batch, and finding out what came of it.

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// fenceTries is how often the kernel is asked for the generation behind a
// batch, where its answers do not fit the socket.
const fenceTries = 8

// Limit returns the largest batch that can be sent, where n bytes are wanted.
func (c *Conn) Limit(n int) (int, error) { return c.transport.Reserve(n) }

// Commit sends a batch. The ruleset was of the given generation; what it is of
// afterwards is returned. An error is ErrStale, ErrRefused, *TooBigError or
// *Error (nothing was changed), ErrUnknown, or the transport's, before it sent
// anything.
func (c *Conn) Commit(b *Batch, generation uint32) (uint32, error) {
	buf := appendHeader(b.buf, unix.NFNL_MSG_BATCH_END, unix.AF_UNSPEC, unix.NLM_F_REQUEST, uint32(len(b.what)))
	binary.BigEndian.PutUint16(buf[len(buf)-2:], unix.NFNL_SUBSYS_NFTABLES)
	now, lost, err := c.deliver(b, buf)
	switch {
	case err != nil:
		return 0, err
	case now == generation && b.Messages() > 0: // an empty one makes no generation
		return 0, ErrRefused
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
	if err := c.transport.Send(buf); errors.Is(err, unix.EMSGSIZE) {
		return 0, false, &TooBigError{Size: len(buf), Limit: limit}
	} else if err != nil {
		return 0, false, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	r := &report{batch: b}
	for range fenceTries {
		err := c.send(MsgType(unix.NFT_MSG_GETGEN), unix.AF_UNSPEC, 0, nil)
		if err == nil {
			err = c.hear(r)
		}
		// Nothing of a batch with an error is ever committed.
		switch {
		case r.refused != nil && r.refused.Errno == unix.ERESTART:
			return 0, false, ErrStale
		case r.refused != nil:
			return 0, false, r.refused
		case errors.Is(err, unix.ENOBUFS):
			lost = true // the answer to our question may be among what was lost
		case err != nil:
			return 0, false, fmt.Errorf("%w: %w", ErrUnknown, err)
		default:
			return r.generation, lost, nil
		}
	}
	return 0, true, ErrUnknown
}

// report is what the kernel says of a batch.
type report struct {
	batch      *Batch
	refused    *Error
	generation uint32
}

// hear reads the kernel's errors up to the answer to the latest request, the
// generation.
func (c *Conn) hear(r *report) error {
	for {
		n, err := c.transport.Receive(c.buf)
		if err != nil {
			return err
		}
		for m, err := range messages(c.buf[:n]) {
			switch {
			case err != nil:
				return err
			case !c.ours(m):
			case m.seq == c.seq && m.typ == unix.NLMSG_ERROR:
				return errnoOf(m.body)
			case m.seq == c.seq && len(m.body) >= nfHeader:
				id := Attr(m.body[nfHeader:], unix.NFTA_GEN_ID)
				if len(id) != 4 {
					return errMalformed
				}
				r.generation = Uint32(id)
				return nil
			case m.typ == unix.NLMSG_ERROR && m.seq < uint32(len(r.batch.what)):
				r.add(m)
			}
		}
	}
}

// add takes an error of the batch.
func (r *report) add(m message) {
	errno := errnoOf(m.body)
	switch {
	case errno == 0: // an acknowledgement that nobody asked for
	case r.refused != nil:
		r.refused.Others++
	default:
		words, at := explanation(m)
		r.refused = &Error{What: r.batch.what[m.seq].String(), Errno: errno, Detail: words}
		if at > 0 {
			r.refused.Expr = r.batch.expression(m.seq, at)
		}
	}
}

// expression names the expression at a place of a message, empty where it is
// none: elements of maps are items of lists, too.
//
//	NFTA_LIST_ELEM [NFTA_EXPR_NAME, ...]
func (b *Batch) expression(seq uint32, at int) string {
	rest := b.buf
	for m, err := range messages(b.buf) {
		if err != nil {
			break
		}
		size := msgHeader + len(m.body)
		if m.seq == seq && at < size && m.typ == MsgType(unix.NFT_MSG_NEWRULE) {
			for typ, v := range Attrs(rest[at:size]) {
				if typ == unix.NFTA_LIST_ELEM {
					return Text(Attr(v, unix.NFTA_EXPR_NAME))
				}
				break // only the one that stands at the place
			}
		}
		rest = rest[min(align(size), len(rest)):]
	}
	return ""
}
