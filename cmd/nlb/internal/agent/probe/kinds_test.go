//go:build linux

package probe

// What the tests of kinds have in common: targets, and servers on both families,
// also those that no client should trust.

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// generous is the timeout of checks that have their answer at once, and short
// that of checks that never get one.
const (
	generous = 30 * time.Second
	short    = 300 * time.Millisecond
)

var loopbacks = []string{"127.0.0.1", "::1"}

// onBoth runs a test with each family's loopback address.
func onBoth(t *testing.T, f func(t *testing.T, host string)) {
	for _, host := range loopbacks {
		t.Run(host, func(t *testing.T) { f(t, host) })
	}
}

// carry carries a check out, and looks at what every outcome must have.
func carry(t *testing.T, c lb.Check, at string, timeout time.Duration) Outcome {
	t.Helper()
	return carryTarget(t, Target{Check: &c, At: netip.MustParseAddrPort(at)}, timeout)
}

func carryTarget(t *testing.T, target Target, timeout time.Duration) Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	began := time.Now()
	o := kinds[target.Check.Kind](ctx, target)
	if took := time.Since(began); took > timeout+generous {
		t.Errorf("%q took %s of %s", o.Reason, took, timeout)
	}
	o.Reason = tidy(o.Reason) // as the pool does
	wantSound(t, o)
	return o
}

// wantSound: an outcome can be shown, and is not two things at once.
func wantSound(t *testing.T, o Outcome) {
	t.Helper()
	if len(o.Reason) > lb.MaxReason || strings.ContainsFunc(o.Reason, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"$;\`, r) }) {
		t.Errorf("reason %q", o.Reason)
	}
	if o.OK && (o.Refused || o.Ours) || o.Refused && o.Ours || o.Percent < -1 || o.Percent > 100 {
		t.Errorf("%+v", o)
	}
}

func wantOutcome(t *testing.T, got, want Outcome) {
	t.Helper()
	want.Percent = -1
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// answer serves TCP connections, each in a goroutine, until the test ends.
func answer(t *testing.T, host string, f func(c net.Conn)) (at string) {
	t.Helper()
	l, local := listen(t, net.JoinHostPort(host, "0"))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return local.String()
}

// The servers that hold a check up, or want it to go wrong.
var hostile = map[string]func(c net.Conn){
	"silent": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
	"slow": func(c net.Conn) {
		for _, err := c.Write([]byte("H")); err == nil; _, err = c.Write([]byte("x")) {
			time.Sleep(20 * time.Millisecond)
		}
	},
	"endless": func(c net.Conn) {
		b := []byte(strings.Repeat("x", 64<<10))
		for _, err := c.Write(b); err == nil; _, err = c.Write(b) {
		}
	},
	"endless header": func(c net.Conn) {
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for ; err == nil; _, err = io.WriteString(c, "X-Header: "+strings.Repeat("x", 1000)+"\r\n") {
		}
	},
	"endless interim answers": func(c net.Conn) {
		_, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		for ; err == nil; _, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n") {
		}
	},
	"garbage": func(c net.Conn) {
		_, _ = io.WriteString(c, "\x00\xff\";\r\n\x1b[2J\n\n\xfe\x80")
	},
	"gone": func(net.Conn) {},
	"reset": func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
	},
}

// asking are checks that hold a conversation.
var asking = []lb.Check{
	{Kind: lb.CheckTCP, Send: "hello", Expect: "welcome"},
	{Kind: lb.CheckTLS},
	{Kind: lb.CheckHTTP, Path: "/", Body: "welcome"},
	{Kind: lb.CheckHTTPS, Path: "/"},
	{Kind: lb.CheckGRPC},
	{Kind: lb.CheckGRPC, TLS: true},
	{Kind: lb.CheckDNS},
	{Kind: lb.CheckAgent},
}

// TestHostile: no server gets an outcome out of a check that is its own, or holds
// it up. Only agents have a say that is no verdict.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits until checks give up")
	}
	t.Parallel()
	for name, f := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, host string) {
				t.Parallel()
				at := answer(t, host, f)
				for _, c := range asking {
					o := carry(t, c, at, short)
					if o.OK || o.Refused || o.Ours != (c.Kind == lb.CheckAgent) {
						t.Errorf("kind %d: %+v", c.Kind, o)
					}
					t.Log(o.Reason)
				}
			})
		})
	}
}

// TestRefused: what a closed port says is told from all else.
func TestRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, host string) {
		at := closed(t, host).String()
		for c, want := range map[*lb.Check]string{
			{Kind: lb.CheckTCP, Send: "x"}:   "tcp: refused",
			{Kind: lb.CheckTLS}:              "tls: refused",
			{Kind: lb.CheckHTTP, Path: "/"}:  "http: refused",
			{Kind: lb.CheckHTTPS, Path: "/"}: "https: refused",
			{Kind: lb.CheckGRPC}:             "grpc: refused",
			{Kind: lb.CheckGRPC, TLS: true}:  "grpc: refused",
			{Kind: lb.CheckDNS}:              "dns: refused",
			{Kind: lb.CheckUDP, Send: "x"}:   "udp: refused",
		} {
			wantOutcome(t, carry(t, *c, at, generous), Outcome{Refused: true, Reason: want})
		}
		// An agent that is not there says nothing.
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckAgent}, at, generous), Outcome{Ours: true, Reason: "agent: refused"})
	})
}

// TestPolite: a check ends by FIN, although it does not want all that the server
// says: RST is what servers log. A server that is slow to answer the FIN meets RST
// all the same.
func TestPolite(t *testing.T) {
	t.Parallel()
	_, leaf := authority(t, nil)
	const header = "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"
	rest := strings.Repeat("-", 10_000)
	for name, tt := range map[string]struct {
		check lb.Check
		speak func(c net.Conn) error
	}{
		"http": {lb.Check{Kind: lb.CheckHTTP, Path: "/"}, func(c net.Conn) error {
			_, err := http.ReadRequest(bufio.NewReader(c))
			return cmp.Or(err, say(c, header+rest))
		}},
		"tcp": {lb.Check{Kind: lb.CheckTCP, Expect: "220"}, func(c net.Conn) error {
			err := say(c, "220 ready\r\n")
			_, end := io.Copy(io.Discard, c)
			return cmp.Or(err, end, say(c, rest))
		}},
		"tls": {lb.Check{Kind: lb.CheckTLS}, func(c net.Conn) error {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{leaf}})
			_, err := io.Copy(io.Discard, s)
			return cmp.Or(err, say(s, rest))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			polite := 0
			for range 20 {
				ended := make(chan error, 1)
				at := answer(t, "127.0.0.1", func(c net.Conn) {
					err := cmp.Or(tt.speak(c), c.(*net.TCPConn).CloseWrite())
					_, end := io.Copy(io.Discard, c)
					if err = cmp.Or(err, end); err == nil {
						err = acknowledged(c)
					}
					ended <- err
				})
				if o := carry(t, tt.check, at, generous); !o.OK {
					t.Errorf("%+v", o)
				}
				if err := <-ended; err == nil {
					polite++
				} else {
					t.Log(err)
				}
			}
			if polite < 10 {
				t.Errorf("%d of 20 conversations ended politely", polite)
			}
		})
	}
}

// acknowledged waits until the other end has what was sent, or has reset.
func acknowledged(c net.Conn) (err error) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	left := 1
	for i := 0; i < 5000 && err == nil && left > 0; i++ {
		time.Sleep(time.Millisecond)
		cerr := raw.Control(func(fd uintptr) {
			if left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
				var e int
				if e, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); e != 0 {
					err = unix.Errno(e)
				}
			}
		})
		err = cmp.Or(err, cerr)
	}
	if err == nil && left > 0 {
		err = errors.New("not acknowledged")
	}
	return err
}

func say(c net.Conn, s string) error {
	_, err := io.WriteString(c, s)
	return err
}

// TestSourceOfKinds: checks come from the source that they are given for servers of
// its family, and one that the host does not have is no failure of the server.
func TestSourceOfKinds(t *testing.T) {
	from := make(chan string, 1)
	at := answer(t, "127.0.0.1", func(c net.Conn) { from <- c.RemoteAddr().(*net.TCPAddr).IP.String() })
	c := lb.Check{Kind: lb.CheckTCP, Send: "x", Source: netip.MustParseAddr("127.0.0.77")}
	if o := carry(t, c, at, generous); !o.OK {
		t.Fatalf("%+v", o)
	}
	if got := <-from; got != "127.0.0.77" {
		t.Errorf("the check comes from %s", got)
	}
	six := answer(t, "::1", func(net.Conn) {})
	if o := carry(t, c, six, generous); !o.OK {
		t.Errorf("IPv6, and a source for IPv4: %+v", o)
	}
	c.Source = netip.MustParseAddr("192.0.2.1")
	if o := carry(t, c, at, generous); !o.Ours || o.Refused {
		t.Errorf("from %s: %+v", c.Source, o)
	}
}

// TestMarked: the sockets of all kinds have the priority that rules look for.
func TestMarked(t *testing.T) {
	onBoth(t, func(t *testing.T, host string) {
		at := answer(t, host, hostile["silent"])
		for _, network := range []string{"tcp", "udp"} {
			c, err := dial(t.Context(), Target{Check: &lb.Check{}, At: netip.MustParseAddrPort(at)}, network)
			netlabtest.Must(t, err)
			defer c.Close()
			wantPriority(t, c)
		}
	})
}

func wantPriority(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	netlabtest.Must(t, err)
	var got int
	netlabtest.Must(t, raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY) }), err)
	if got != Priority {
		t.Errorf("%T has priority %#x", c, got)
	}
}

// TestLeavesNothing: whatever a server does, a check leaves no goroutine and no
// descriptor behind.
func TestLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for what ends on its own")
	}
	at := map[string]string{}
	for name, f := range hostile {
		at[name] = answer(t, "127.0.0.1", f)
	}
	count := func() (goroutines, files int) {
		d, err := os.ReadDir("/proc/self/fd")
		netlabtest.Must(t, err)
		return runtime.NumGoroutine(), len(d)
	}
	round := func() {
		var all sync.WaitGroup
		defer all.Wait()
		for _, a := range at {
			all.Go(func() {
				for _, c := range asking {
					carry(t, c, a, 50*time.Millisecond)
				}
			})
		}
		carry(t, lb.Check{Kind: lb.CheckExec, Command: []string{"sleep", "1000"}}, "127.0.0.1:1", 50*time.Millisecond)
	}
	round() // what is kept for good comes now
	// What ends on its own has time for it.
	settle := func() (goroutines, files int) {
		for same := 0; same < 10; same++ {
			time.Sleep(20 * time.Millisecond)
			if g, f := count(); g != goroutines || f != files {
				goroutines, files, same = g, f, 0
			}
		}
		return goroutines, files
	}
	g0, f0 := settle()
	for range 3 {
		round()
	}
	g, f := settle()
	for i := 0; i < 100 && (g > g0 || f > f0); i++ {
		g, f = settle()
	}
	if g > g0 || f > f0 {
		t.Errorf("%d goroutines and %d files became %d and %d", g0, f0, g, f)
	}
}
