//go:build linux

package traffic

// The client: one exchange at a time, or a connection to keep.

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

// DefaultTimeout is that of a Client that does not say. In a world no packet
// takes a millisecond, so this is for a busy machine.
const DefaultTimeout = 3 * time.Second

// Client opens connections from a host. It is a value: copy it to change it.
type Client struct {
	// Host is where it is; nil: where this process is.
	Host *netlab.Host
	// Source is the address to connect from; zero: the kernel's choice.
	Source netip.Addr
	// Port is the port to connect from; 0: the next of the host, so that each
	// connection and datagram is new to conntrack, or, without a host, any.
	Port uint16
	// Timeout bounds each exchange: connecting and the answer. 0: DefaultTimeout.
	Timeout time.Duration
	// Reset ends TCP connections with a reset. Without it they end in order,
	// and the client's end waits in TIME_WAIT for a minute.
	Reset bool
	// Hello has it speak first on TCP and SCTP, as ServeChecks wants it.
	Hello bool
}

// Reply is what a server answered.
type Reply struct {
	// Backend is the server's name.
	Backend string
	// Seen is the source address that the server saw, Local its own.
	Seen, Local netip.AddrPort
	// From is the client's own end.
	From netip.AddrPort
}

// Conn is a connection that stays open, or a UDP socket. It is for one
// goroutine.
type Conn struct {
	net.Conn
	// Reply is the latest one.
	Reply   Reply
	client  Client
	r       *bufio.Reader
	network string
}

// Exchange connects, reads the reply and closes; with UDP, it sends a datagram
// from a fresh socket. Network is "tcp", "udp" or "sctp". Errors wrap
// ErrRefused, ErrTimeout, ErrUnreachable and so on where it is one of these.
func (c Client) Exchange(ctx context.Context, network string, to netip.AddrPort) (Reply, error) {
	conn, err := c.Dial(ctx, network, to)
	if err != nil {
		return Reply{}, err
	}
	return conn.Reply, conn.Close()
}

// Dial is Exchange with a connection, or a UDP socket, that stays.
func (c Client) Dial(ctx context.Context, network string, to netip.AddrPort) (*Conn, error) {
	var conn *Conn
	err := do(c.Host, func() (err error) {
		conn, err = c.dial(ctx, network, to)
		return err
	})
	return conn, err
}

// do runs f in a host, or where this process is.
func do(h *netlab.Host, f func() error) error {
	if h == nil {
		return f()
	}
	return h.Do(f)
}

// name is that of a host, for errors.
func name(h *netlab.Host) string {
	if h == nil {
		return "this host"
	}
	return h.Name()
}

// pushed is what Server.Push says.
const pushed = "pushed\n"

// Again asks once more: with UDP, for a new reply; elsewhere a line has to
// come back.
func (c *Conn) Again() (Reply, error) {
	err := c.within(c.again)
	return c.Reply, err
}

// Heard waits for what Server.Push says, and does not speak.
func (c *Conn) Heard() error {
	return c.within(func() error {
		got, err := c.r.ReadString('\n')
		if err == nil && got != pushed {
			err = fmt.Errorf("got %q, want %q", got, pushed)
		}
		return err
	})
}

// within does something in the time that the client has for it.
func (c *Conn) within(do func() error) error {
	err := c.SetDeadline(c.client.deadline())
	if err == nil {
		err = do()
	}
	if err != nil {
		err = c.client.errorf(c.network, c.RemoteAddr(), err)
	}
	return err
}

func (c *Conn) again() error {
	const line = "again\n"
	if _, err := c.Write([]byte(line)); err != nil {
		return err
	}
	if c.network == "udp" {
		return c.read()
	}
	got, err := c.r.ReadString('\n')
	for err == nil && got == pushed {
		got, err = c.r.ReadString('\n')
	}
	if err == nil && got != line {
		err = fmt.Errorf("sent %q, got %q", line, got)
	}
	return err
}

// Close ends the connection, the way that the client says.
func (c *Conn) Close() error {
	if c.client.Reset {
		reset(c.Conn)
	}
	return c.Conn.Close()
}

// dial is Dial on a thread of the host.
func (c Client) dial(ctx context.Context, network string, to netip.AddrPort) (*Conn, error) {
	conn, err := c.connect(ctx, network, to)
	if err != nil {
		return nil, c.errorf(network, to, err)
	}
	k := &Conn{Conn: conn, client: c, network: network, r: bufio.NewReaderSize(conn, 1<<10)}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	err = conn.SetDeadline(c.deadline())
	if err == nil && c.Hello && network != "udp" {
		_, err = conn.Write([]byte(hello))
	}
	if err == nil && network == "udp" {
		// A ruleset on this host that drops the datagram is told at once, with
		// EPERM; one that refuses it says so to the reader as well.
		if _, err = conn.Write([]byte("hello")); errors.Is(err, unix.EPERM) {
			err = nil
		}
	}
	if err == nil {
		err = k.read()
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		reset(conn)
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, c.errorf(network, to, err)
	}
	return k, nil
}

// attempts is how many ports of the host are tried, or how often the one that is given.
const attempts = 200

// connect is a connected socket, on the next port that is free. A port that is given may be
// taken for a moment after its socket was closed: a process that is just being started
// holds all of its parent's.
func (c Client) connect(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	source := c.Source
	if !source.IsValid() {
		if source = netip.IPv4Unspecified(); to.Addr().Is6() {
			source = netip.IPv6Unspecified()
		}
	}
	for n := 1; ; n++ {
		port := c.Port
		if port == 0 && c.Host != nil {
			port = c.Host.NextPort()
		}
		conn, err := c.connectFrom(ctx, network, netip.AddrPortFrom(source, port), to)
		taken := errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL)
		if !taken || n == attempts {
			return conn, err
		}
		if c.Port != 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

func (c Client) connectFrom(ctx context.Context, network string, from, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Deadline: c.deadline(), KeepAlive: -1}
	switch network {
	case "sctp":
		return dialSCTP(ctx, from, to, d.Deadline)
	case "udp":
		d.LocalAddr = net.UDPAddrFromAddrPort(from)
		d.Control = tellErrors
	default:
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
		d.Control = reuse
	}
	return d.DialContext(ctx, network, to.String())
}

// reuse lets a TCP socket take a port whose last connection is in TIME_WAIT.
func reuse(_, _ string, c syscall.RawConn) error {
	return set(c, unix.SOL_SOCKET, unix.SO_REUSEADDR)
}

// tellErrors has a UDP socket tell of a host that is unreachable, as it does
// of a port without being asked.
func tellErrors(network, _ string, c syscall.RawConn) error {
	if network == "udp6" {
		return set(c, unix.SOL_IPV6, unix.IPV6_RECVERR)
	}
	return set(c, unix.SOL_IP, unix.IP_RECVERR)
}

func set(c syscall.RawConn, level, option int) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt", err)
}

// read takes a reply.
func (c *Conn) read() error {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return err
	}
	f := strings.Fields(line)
	if len(f) != 3 {
		return fmt.Errorf("not a reply: %q", line)
	}
	c.Reply = Reply{Backend: f[0], From: addrPort(c.LocalAddr())}
	if c.Reply.Seen, err = netip.ParseAddrPort(f[1]); err != nil {
		return err
	}
	if c.Reply.Local, err = netip.ParseAddrPort(f[2]); err != nil {
		return err
	}
	if c.network == "udp" {
		c.r.Reset(c.Conn) // the payload
	}
	return nil
}

func (c Client) deadline() time.Time {
	return time.Now().Add(cmp.Or(c.Timeout, DefaultTimeout))
}

func (c Client) errorf(network string, to fmt.Stringer, err error) error {
	return fmt.Errorf("from %s to %s %s: %w", name(c.Host), network, to, classify(err))
}
