//go:build linux

package probe

// Talk with a server in bytes that the profile has: tcp and udp.

import (
	"bytes"
	"context"
	"io"
	"net"
	"time"
)

// How much of an answer is looked at, in bytes.
const (
	maxAnswer   = 64 << 10
	maxDatagram = 8 << 10
)

// courtesy is how long a server that has answered may go on, so that it is not
// interrupted.
const courtesy = 50 * time.Millisecond

// dial connects. Nothing waits on the connection longer than ctx lasts.
func dial(ctx context.Context, t Target, network string) (net.Conn, error) {
	c, err := Dialer(t).DialContext(ctx, network, t.At.String())
	if err == nil {
		until(ctx, c)
	}
	return c, err
}

func until(ctx context.Context, c net.Conn) {
	context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

// leave ends a conversation by FIN, and reads what is still under way for a
// moment. The kernel answers what nobody reads with RST, and servers log that.
func leave(c net.Conn) {
	if half, ok := c.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
	_ = c.SetReadDeadline(time.Now().Add(courtesy))
	_, _ = io.CopyN(io.Discard, c, maxAnswer)
}

// talk is the kind tcp with something to send or to expect.
func talk(ctx context.Context, t Target) Outcome {
	c, err := dial(ctx, t, "tcp")
	if err != nil {
		return fault(ctx, "tcp", err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, t.Check.Send); err != nil {
		return fault(ctx, "tcp", err)
	}
	if t.Check.Expect == "" {
		leave(c)
		return passed("tcp", "connected")
	}
	found, err := contains(c, t.Check.Expect)
	switch {
	case found:
		leave(c)
		return passed("tcp", "as expected")
	case err != nil:
		return fault(ctx, "tcp", err)
	}
	return wrong("tcp", "not as expected")
}

// contains reads at most maxAnswer bytes, until they have a text.
func contains(r io.Reader, text string) (bool, error) {
	got := make([]byte, 0, 4<<10)
	for len(got) < maxAnswer {
		if len(got) == cap(got) {
			got = append(make([]byte, 0, min(4*cap(got), maxAnswer)), got...)
		}
		n, err := r.Read(got[len(got):cap(got)])
		// The text may have begun in what was read before.
		from := max(0, len(got)-len(text)+1)
		got = got[:len(got)+n]
		switch {
		case bytes.Contains(got[from:], []byte(text)):
			return true, nil
		case err == io.EOF && len(got) > 0:
			return false, nil
		case err != nil:
			return false, err
		}
	}
	return false, nil
}

// datagram is the kind udp. The kernel says of a closed port that it is, by ICMP.
func datagram(ctx context.Context, t Target) Outcome {
	c, err := dial(ctx, t, "udp")
	if err != nil {
		return fault(ctx, "udp", err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, t.Check.Send); err != nil {
		return fault(ctx, "udp", err)
	}
	b := make([]byte, maxDatagram)
	for read := 0; read < maxAnswer; {
		n, err := c.Read(b)
		switch {
		case err != nil && read > 0 && ctx.Err() != nil:
			return wrong("udp", "not as expected")
		case err != nil:
			return fault(ctx, "udp", err)
		case bytes.Contains(b[:n], []byte(t.Check.Expect)):
			return passed("udp", "answered")
		}
		read += n + 1
	}
	return wrong("udp", "not as expected")
}
