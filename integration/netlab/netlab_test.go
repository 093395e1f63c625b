//go:build linux

package netlab_test

// Hosts and cables, with real packets.

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

func TestMain(m *testing.M) {
	netlabtest.Enter()
	if task := os.Getenv(helper); task != "" {
		os.Exit(help(task))
	}
	os.Exit(m.Run())
}

// talk opens a TCP connection between two hosts, and fails where its first
// packet was sent more than once: for an address, a neighbour or a carrier that
// was not ready.
func talk(t testing.TB, from, to *netlab.Host, at string) {
	t.Helper()
	var l net.Listener
	var c net.Conn
	netlabtest.Must(t, to.Do(func() (err error) { l, err = net.Listen("tcp", at); return err }))
	defer l.Close()
	netlabtest.Must(t, from.Do(func() (err error) { c, err = net.DialTimeout("tcp", at, 5*time.Second); return err }))
	defer c.Close()
	if n := netlabtest.Resent(t, c); n > 0 {
		t.Errorf("the first connection to %s took %d packets more than it needs", at, n)
	}
}

func TestLink(t *testing.T) {
	t.Parallel()
	w := netlabtest.NewWorld(t)
	a, b := netlabtest.NewHost(t, w, "a"), netlabtest.NewHost(t, w, "b")
	netlabtest.Must(t, w.Link(a, "eth0", b, "uplink"))
	for _, p := range []struct{ a, b, at string }{
		{"10.1.0.1/24", "10.1.0.2/24", "10.1.0.2:80"},
		{"2001:db8::1/64", "2001:db8::2/64", "[2001:db8::2]:80"},
	} {
		netlabtest.Must(t,
			a.AddAddress("eth0", netip.MustParsePrefix(p.a)),
			b.AddAddress("uplink", netip.MustParsePrefix(p.b)))
		talk(t, a, b, p.at)
	}
}

// TestBed: the client reaches the server through the balancer, and what is
// behind the server with one more route.
func TestBed(t *testing.T) {
	t.Parallel()
	b := netlabtest.New(t)
	netlabtest.Must(t,
		b.Server.AddLocal(netip.MustParsePrefix("198.51.100.0/24")),
		b.Balancer.AddRoute(netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr("10.2.0.11")))
	for _, to := range []string{"10.2.0.11:80", "[fd02::15]:80", "198.51.100.77:80"} {
		talk(t, b.Client, b.Server, to)
	}
}

func TestUnlink(t *testing.T) {
	t.Parallel()
	w := netlabtest.NewWorld(t)
	a, b := netlabtest.NewHost(t, w, "a"), netlabtest.NewHost(t, w, "b")
	netlabtest.Must(t, w.Link(a, "eth0", b, "eth0"), a.Unlink("eth0"))
	if err := b.Unlink("eth0"); err == nil || !strings.Contains(err.Error(), "host b: remove eth0") {
		t.Errorf("the other end of a removed link: %v", err)
	}
}

func namespace(t testing.TB) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	netlabtest.Must(t, err)
	return s
}

func TestDo(t *testing.T) {
	t.Parallel()
	w := netlabtest.NewWorld(t)
	h := netlabtest.NewHost(t, w, "h")
	home := namespace(t)

	t.Run("inside", func(t *testing.T) {
		netlabtest.Must(t, h.Do(func() error {
			if namespace(t) == home {
				return errors.New("still at home")
			}
			return h.Do(func() error { return nil }) // may be nested
		}))
	})
	t.Run("error", func(t *testing.T) {
		if err := h.Do(func() error { return os.ErrProcessDone }); err != os.ErrProcessDone {
			t.Errorf("got %v", err)
		}
	})
	t.Run("panic", func(t *testing.T) {
		err := h.Do(func() error { panic("no luck") })
		if err == nil || !strings.HasPrefix(err.Error(), "panic: no luck\ngoroutine") {
			t.Errorf("got %v", err)
		}
		var none map[string]int
		if err := h.Do(func() error { none["a"] = 1; return nil }); !errors.As(err, new(runtime.Error)) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("goexit", func(t *testing.T) {
		if err := h.Do(func() error { runtime.Goexit(); return nil }); err == nil {
			t.Error("no error")
		}
	})
	t.Run("threads are at home again", func(t *testing.T) {
		away, err := os.Readlink(h.Path())
		netlabtest.Must(t, err)
		tasks, err := os.ReadDir("/proc/self/task")
		netlabtest.Must(t, err)
		for _, task := range tasks {
			if got, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && got == away {
				t.Errorf("thread %s is still in the host", task.Name())
			}
		}
	})
	t.Run("closed", func(t *testing.T) {
		netlabtest.Must(t, w.Close(), w.Close())
		if err := h.Do(func() error { return nil }); err == nil || err.Error() != "host h: world is closed" {
			t.Errorf("got %v", err)
		}
		if _, err := w.Host("late"); err == nil {
			t.Error("a host in a closed world")
		}
	})
}

func TestSysctl(t *testing.T) {
	t.Parallel()
	w := netlabtest.NewWorld(t)
	a, b := netlabtest.NewHost(t, w, "a"), netlabtest.NewHost(t, w, "b")
	netlabtest.Must(t, a.Forward(), w.Link(a, "eth0.1", a, "peer"), a.SetSysctl("net/ipv4/conf/eth0.1/rp_filter", "1"))
	for _, c := range []struct {
		h         *netlab.Host
		key, want string
	}{
		{a, "net.ipv4.ip_forward", "1"},
		{b, "net.ipv4.ip_forward", "0"},
		{a, "net.ipv6.conf.all.forwarding", "1"},
		{b, "net.ipv6.conf.all.forwarding", "0"},
		{a, "net/ipv4/conf/eth0.1/rp_filter", "1"},
		{a, "net.ipv4.conf.peer.rp_filter", "0"},
	} {
		if got, err := c.h.Sysctl(c.key); err != nil || got != c.want {
			t.Errorf("%s of %s is %q, %v, want %q", c.key, c.h.Name(), got, err, c.want)
		}
	}
	if err := a.SetSysctl("net.ipv4.no_such", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	w := netlabtest.NewWorld(t)
	h := netlabtest.NewHost(t, w, "h")
	netlabtest.Must(t, w.Link(h, "here", h, "there"))

	out, err := h.Command(t.Context(), "cat", "/proc/net/dev").Output()
	if err != nil || !bytes.Contains(out, []byte("there:")) {
		t.Errorf("got %v and %s", err, out)
	}
	out, err = h.Command(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 3").CombinedOutput()
	if err == nil || string(out) != "out\nerr\n" {
		t.Errorf("got %v and %q", err, out)
	}
	if _, err = h.Command(t.Context(), "no-such-program").Output(); err == nil {
		t.Error("no error for a program that is not there")
	}

	t.Run("limit", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := h.Command(ctx, "sleep", "60").Run(); err == nil {
			t.Error("outlived its context")
		}
	})
	t.Run("close", func(t *testing.T) {
		c := h.Command(t.Context(), "sleep", "60")
		netlabtest.Must(t, c.Start(), w.Close())
		if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("after Close: %v", err)
		}
	})
}
