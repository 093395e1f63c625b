package integration

// Flaws: a transport to the real kernel whose calls go wrong where a test wants
// it. What a kernel or a machine in trouble can do is here; a kernel that lies
// (a dump without an object, and no word of it) is not.

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// call is a kind of call to a transport.
type call uint8

const (
	sends call = iota
	receives
	reserves
	opens
)

// flaws are the calls that go wrong in a conversation, over all its sockets.
type flaws struct {
	at    map[int]int // the number of a call -> the number of a flaw of its kind
	calls []call      // that were made
	hit   []string    // the flaws that came to be
	limit int         // of a datagram, where it is not 0
	shut  bool        // there are no further sockets
}

// flawed is a socket.
type flawed struct {
	wire.Transport
	*flaws
	held    [][]byte // what is received before anything else
	starved bool     // what is waited for has been lost
	dead    bool
}

// A flaw does what its name says, in place of the call.
type (
	sendFlaw struct {
		name string
		do   func(f *flawed, b []byte) error
	}
	receiveFlaw struct {
		name string
		do   func(f *flawed, b []byte) (int, error)
	}
	reserveFlaw struct {
		name string
		do   func(f *flawed, n int) (int, error)
	}
)

var errnos = []unix.Errno{unix.ENOBUFS, unix.EMSGSIZE, unix.EINTR, unix.EPERM, unix.ERESTART, unix.ENOMEM}

func sendFlaws() []sendFlaw {
	out := []sendFlaw{
		{"lost on the way to the kernel", func(f *flawed, _ []byte) error { f.starved = true; return nil }},
		{"the socket dies", func(f *flawed, _ []byte) error { f.dead = true; return unix.EBADF }},
		{"the socket dies, and there is no other", func(f *flawed, _ []byte) error { f.dead, f.shut = true, true; return unix.EBADF }},
	}
	for _, e := range errnos {
		out = append(out, sendFlaw{fmt.Sprintf("not sent: %v", e), func(*flawed, []byte) error { return e }})
		if e == unix.EMSGSIZE {
			continue // never of what was sent, and no answer of the kernel's
		}
		out = append(out,
			sendFlaw{fmt.Sprintf("sent, and said to be not: %v", e), func(f *flawed, b []byte) error {
				_ = f.Transport.Send(b)
				return e
			}},
			sendFlaw{fmt.Sprintf("refused by the kernel: %v", e), func(f *flawed, b []byte) error {
				f.held = append(f.held, refusal(b, f.Port(), e))
				return nil
			}})
	}
	return out
}

// refusal is the NLMSG_ERROR by which the kernel refuses a request, or a batch.
func refusal(b []byte, port uint32, e unix.Errno) []byte {
	seq := binary.NativeEndian.Uint32(b[8:])
	if binary.NativeEndian.Uint16(b[4:]) == unix.NFNL_MSG_BATCH_BEGIN && e != unix.ERESTART {
		seq = 1 // its first message
	}
	m := binary.NativeEndian.AppendUint32(nil, 36)
	m = binary.NativeEndian.AppendUint16(m, unix.NLMSG_ERROR)
	m = binary.NativeEndian.AppendUint16(m, 0)
	m = binary.NativeEndian.AppendUint32(m, seq)
	m = binary.NativeEndian.AppendUint32(m, port)
	m = binary.NativeEndian.AppendUint32(m, -uint32(e))
	return append(m, b[:16]...)
}

func receiveFlaws() []receiveFlaw {
	lose := func(f *flawed, b []byte) { _, _ = f.next(b); f.starved = true }
	// stranger is the datagram with other numbers, before the real one.
	stranger := func(at int) func(f *flawed, b []byte) (int, error) {
		return func(f *flawed, b []byte) (int, error) {
			n, err := f.next(b)
			if err != nil {
				return n, err
			}
			f.held = append(f.held, slices.Clone(b[:n]))
			for m := b[:n]; len(m) >= 16; m = m[min(len(m), int(binary.NativeEndian.Uint32(m)+3)&^3):] {
				binary.NativeEndian.PutUint32(m[at:], binary.NativeEndian.Uint32(m[at:])+1<<20)
			}
			return n, nil
		}
	}
	out := []receiveFlaw{
		{"no room for an answer", func(f *flawed, b []byte) (int, error) { lose(f, b); return 0, unix.ENOBUFS }},
		{"no answer for long", func(f *flawed, b []byte) (int, error) { lose(f, b); return 0, os.ErrDeadlineExceeded }},
		{"a short read", func(f *flawed, b []byte) (int, error) {
			f.starved = true
			if len(f.held) > 0 {
				f.held = f.held[1:]
				return 0, unix.EMSGSIZE
			}
			return f.Transport.Receive(b[:16])
		}},
		{"half a message", func(f *flawed, b []byte) (int, error) {
			n, err := f.next(b)
			f.starved = true
			return max(0, n-2), err
		}},
		{"an answer to somebody else", stranger(12)},
		{"an answer to something else", stranger(8)},
		{"the socket dies", func(f *flawed, _ []byte) (int, error) { f.dead = true; return 0, unix.EBADF }},
		{"the socket dies, and there is no other", func(f *flawed, _ []byte) (int, error) { f.dead, f.shut = true, true; return 0, unix.EBADF }},
	}
	for _, e := range errnos {
		out = append(out, receiveFlaw{fmt.Sprintf("not received: %v", e), func(*flawed, []byte) (int, error) { return 0, e }})
	}
	return out
}

func reserveFlaws() []reserveFlaw {
	return []reserveFlaw{
		{"no room for a batch", func(*flawed, int) (int, error) { return 0, unix.ENOBUFS }},
		{"room may not be asked for", func(*flawed, int) (int, error) { return 0, unix.EPERM }},
		{"little room from now on", func(f *flawed, n int) (int, error) { f.limit = 2 << 10; return f.Reserve(n) }},
	}
}

// openErrors: no further socket.
var openErrors = []unix.Errno{unix.EMFILE, unix.ENOMEM, unix.EPERM, unix.EADDRINUSE}

// goesWrong counts a call, and returns the number of its flaw, of so many.
func (f *flaws) goesWrong(c call, of int) (n int, wrong bool) {
	n, wrong = f.at[len(f.calls)]
	f.calls = append(f.calls, c)
	return n % of, wrong
}

func (f *flawed) Send(b []byte) error {
	f.starved = false
	all := sendFlaws()
	if n, wrong := f.goesWrong(sends, len(all)); wrong && !f.dead {
		f.hit = append(f.hit, fmt.Sprintf("call %d, %s", len(f.calls), all[n].name))
		return all[n].do(f, b)
	}
	if f.dead {
		return unix.EBADF
	}
	return f.Transport.Send(b)
}

func (f *flawed) Receive(b []byte) (int, error) {
	all := receiveFlaws()
	if n, wrong := f.goesWrong(receives, len(all)); wrong && !f.dead && !f.starved {
		f.hit = append(f.hit, fmt.Sprintf("call %d, %s", len(f.calls), all[n].name))
		return all[n].do(f, b)
	}
	return f.next(b)
}

// next is what comes next, if anything does.
func (f *flawed) next(b []byte) (int, error) {
	switch {
	case f.dead:
		return 0, unix.EBADF
	case f.starved:
		f.starved = false
		return 0, os.ErrDeadlineExceeded
	case len(f.held) > 0:
		n := copy(b, f.held[0])
		f.held = f.held[1:]
		return n, nil
	}
	return f.Transport.Receive(b)
}

func (f *flawed) Reserve(n int) (int, error) {
	all := reserveFlaws()
	if i, wrong := f.goesWrong(reserves, len(all)); wrong && !f.dead {
		f.hit = append(f.hit, fmt.Sprintf("call %d, %s", len(f.calls), all[i].name))
		return all[i].do(f, n)
	}
	if f.dead {
		return 0, unix.EBADF
	}
	limit, err := f.Transport.Reserve(n)
	if f.limit > 0 {
		limit = min(limit, f.limit)
	}
	return limit, err
}

func (f *flawed) Another(port, groups uint32) (wire.Transport, error) {
	if n, wrong := f.goesWrong(opens, len(openErrors)); wrong {
		f.hit = append(f.hit, fmt.Sprintf("call %d, no further socket: %v", len(f.calls), openErrors[n]))
		return nil, openErrors[n]
	}
	if f.shut {
		return nil, unix.EMFILE
	}
	t, err := f.Transport.Another(port, groups)
	if err != nil {
		return nil, err
	}
	return &flawed{Transport: t, flaws: f.flaws}, nil
}

// flawsOf counts the flaws of a kind of call.
func flawsOf(c call) int {
	return map[call]int{sends: len(sendFlaws()), receives: len(receiveFlaws()), reserves: len(reserveFlaws()), opens: len(openErrors)}[c]
}
