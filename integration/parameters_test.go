package integration

// Kernel parameters that nlb apply sets for TCP services, and what happens to
// connections without them.

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
)

// needed are the parameters of an IPv4 TCP service: as a kernel begins, and as
// nlb sets them.
var needed = []struct{ name, found, set string }{
	{forward4, "0", "1"},
	{"net.netfilter.nf_conntrack_tcp_be_liberal", "0", "1"},
	{"net.netfilter.nf_conntrack_tcp_timeout_close_wait", "60", "3600"},
}

// unset gives the balancer the parameters that a kernel begins with.
func (b *bed) unset() {
	b.T.Helper()
	for _, p := range needed {
		b.Check(b.Balancer.SetSysctl(p.name, p.found))
	}
}

// applied is a bed where nlb apply has set the parameters of a service at
// 203.0.113.10:80.
func applied(t *testing.T) *bed {
	b := newBed(t)
	b.unset()
	b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", web+backends(8080, -1)))
	return b
}

// TestOutOfWindow: a segment far outside of the window, from either end, leaves
// the connection as it was, and ends it without the parameter.
func TestOutOfWindow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		apply  bool // by the command, which sets the parameter
		server bool // the server sends the segment, else the client
	}{
		{"from the client", true, false},
		{"from the server", true, true},
		{"from the client, without the parameter", false, false},
		{"from the server, without the parameter", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := applied(t)
			b.Address(b.Balancer, "lo", "203.0.113.10/32") // resets what is not translated
			b.Serve([]int{8080}, "10.2.0.11")
			if !test.apply {
				b.unset()
				b.Check(b.Balancer.Forward())
			}
			conn, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
			b.Check(err)
			defer conn.Close()
			next, ack := b.numbers(conn)
			from, to := conn.Reply.From, netip.MustParseAddrPort("203.0.113.10:80")
			host := b.Client
			if test.server {
				host, next, ack = b.Server, ack, next
				from, to = conn.Reply.Local, conn.Reply.Seen
			}
			const far = 3_000_000
			b.inject(host, from, to, next+far, ack)
			time.Sleep(50 * time.Millisecond) // for what answers it
			if _, err := conn.Again(); (err == nil) != test.apply {
				t.Errorf("the connection lives: %v, want %v (%v)", err == nil, test.apply, err)
			}
		})
	}
}

// numbers are the next sequence numbers that the client's end of a connection
// sends and expects (tcp(7), TCP_REPAIR).
func (b *bed) numbers(conn *traffic.Conn) (next, expected uint32) {
	b.T.Helper()
	const receive, send, off = 1, 2, -1 // TCP_RECV_QUEUE, TCP_SEND_QUEUE, TCP_REPAIR_OFF_NO_WP
	raw, err := conn.Conn.(syscall.Conn).SyscallConn()
	b.Check(err)
	var wrong error
	b.Check(raw.Control(func(fd uintptr) {
		read := func(queue int) uint32 {
			err := unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_REPAIR_QUEUE, queue)
			n, err2 := unix.GetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_QUEUE_SEQ)
			wrong = errors.Join(wrong, err, err2)
			return uint32(n)
		}
		wrong = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_REPAIR, 1)
		next, expected = read(send), read(receive)
		wrong = errors.Join(wrong, unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_REPAIR, off))
	}))
	b.Check(wrong)
	return next, expected
}

// inject sends a TCP segment with a byte of data from a host, IPv4 only.
func (b *bed) inject(h *netlab.Host, from, to netip.AddrPort, seq, ack uint32) {
	b.T.Helper()
	b.raw(h, to.Addr(), packet(from.Addr(), to.Addr(), unix.IPPROTO_TCP, segment(from, to, flagPSH|flagACK, seq, ack, 'x')))
}

// TestHalfClosed: conntrack keeps a connection for an hour whose client has
// sent its FIN, and for a minute without the parameter.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		apply bool
		least time.Duration
		most  time.Duration
	}{
		{"as applied", true, 3500 * time.Second, time.Hour},
		{"without the parameter", false, 30 * time.Second, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := applied(t)
			if !test.apply {
				b.unset()
				b.Check(b.Balancer.Forward())
			}
			left := b.halfClosed()
			if left < test.least || left > test.most {
				t.Errorf("it is kept for another %s, want %s to %s", left, test.least, test.most)
			}
		})
	}
}

// halfClosed makes a connection to the service, sends the client's FIN, and
// returns for how long conntrack keeps it.
func (b *bed) halfClosed() time.Duration {
	b.T.Helper()
	var l net.Listener
	b.Check(b.Server.Do(func() (err error) { l, err = net.Listen("tcp", "10.2.0.11:8080"); return err }))
	defer l.Close()
	var client net.Conn
	b.Check(b.Client.Do(func() (err error) { client, err = net.DialTimeout("tcp", "203.0.113.10:80", time.Second); return err }))
	defer client.Close()
	server, err := l.Accept()
	b.Check(err)
	defer server.Close()
	b.Check(client.(*net.TCPConn).CloseWrite())
	b.Check(server.SetDeadline(time.Now().Add(time.Second)))
	if n, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		b.T.Fatalf("the server read %d bytes, and %v", n, err)
	}
	const closeWait = 5 // TCP_CONNTRACK_CLOSE_WAIT
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var flows []*netlink.ConntrackFlow
		b.Check(b.Balancer.Do(func() (err error) {
			flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			return err
		}))
		for _, f := range flows {
			if tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP); ok && tcp.State == closeWait {
				return time.Duration(f.TimeOut) * time.Second
			}
		}
	}
	b.T.Fatal("conntrack has no connection that is half closed")
	return 0
}
