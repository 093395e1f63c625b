//go:build linux

package netlab_test

// Hosts, cables and switches, with real packets.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab"
)

func TestMain(m *testing.M) {
	if err := netlab.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if task := os.Getenv(helper); task != "" {
		os.Exit(help(task))
	}
	os.Exit(m.Run())
}

func newWorld(t testing.TB) *netlab.World {
	t.Helper()
	w, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func newHost(t testing.TB, w *netlab.World, name string) *netlab.Host {
	t.Helper()
	h, err := w.Host(name)
	must(t, err)
	return h
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// limit is how long a first connection may take on a busy machine. The
// kernel's own waits, for addresses and neighbours, are a second and more.
const limit = 500 * time.Millisecond

// talk opens a TCP connection between two hosts and measures how long it took.
func talk(t testing.TB, from, to *netlab.Host, at string) time.Duration {
	t.Helper()
	var l net.Listener
	must(t, to.Do(func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	}))
	defer l.Close()
	begin := time.Now()
	must(t, from.Do(func() error {
		c, err := net.DialTimeout("tcp", at, 5*time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}))
	return time.Since(begin)
}

func TestLink(t *testing.T) {
	w := newWorld(t)
	a, b := newHost(t, w, "a"), newHost(t, w, "b")
	must(t, w.Link(a, "eth0", b, "uplink"))
	for _, p := range []struct{ a, b, at string }{
		{"10.1.0.1/24", "10.1.0.2/24", "10.1.0.2:80"},
		{"2001:db8::1/64", "2001:db8::2/64", "[2001:db8::2]:80"},
	} {
		must(t,
			a.AddAddress("eth0", netip.MustParsePrefix(p.a)),
			b.AddAddress("uplink", netip.MustParsePrefix(p.b)))
		if d := talk(t, a, b, p.at); d > limit {
			t.Errorf("first connection to %s took %s", p.at, d)
		}
	}
}

func TestSwitch(t *testing.T) {
	w := newWorld(t)
	s, err := w.Switch("lan")
	must(t, err)
	var hosts []*netlab.Host
	for i := range 3 {
		h := newHost(t, w, fmt.Sprint("h", i))
		must(t, s.Attach(h, "eth0"),
			h.AddAddress("eth0", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 24)),
			h.AddAddress("eth0", netip.MustParsePrefix(fmt.Sprintf("2001:db8::%d/64", i+1))))
		hosts = append(hosts, h)
	}
	for i, from := range hosts {
		for j, to := range hosts {
			for _, at := range []string{fmt.Sprintf("10.0.0.%d:80", j+1), fmt.Sprintf("[2001:db8::%d]:80", j+1)} {
				if d := talk(t, from, to, at); d > limit {
					t.Errorf("first connection from %d to %s took %s", i, at, d)
				}
			}
		}
	}
}

func TestRouter(t *testing.T) {
	w := newWorld(t)
	client, router, server := newHost(t, w, "client"), newHost(t, w, "router"), newHost(t, w, "server")
	must(t,
		w.Link(client, "eth0", router, "lan"), w.Link(router, "wan", server, "eth0"), router.Forward(),
		client.AddAddress("eth0", netip.MustParsePrefix("10.1.0.2/24")),
		router.AddAddress("lan", netip.MustParsePrefix("10.1.0.1/24")),
		router.AddAddress("wan", netip.MustParsePrefix("10.2.0.1/24")),
		server.AddAddress("eth0", netip.MustParsePrefix("10.2.0.2/24")),
		server.AddLocal(netip.MustParsePrefix("198.51.100.0/24")),
		client.DefaultVia(netip.MustParseAddr("10.1.0.1")),
		server.DefaultVia(netip.MustParseAddr("10.2.0.1")),
		router.AddRoute(netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr("10.2.0.2")),
	)
	talk(t, client, server, "10.2.0.2:80")
	talk(t, client, server, "198.51.100.77:80")
}

func TestSetDown(t *testing.T) {
	w := newWorld(t)
	a, b := newHost(t, w, "a"), newHost(t, w, "b")
	must(t, w.Link(a, "eth0", b, "eth0"),
		a.AddAddress("eth0", netip.MustParsePrefix("10.1.0.1/24")),
		b.AddAddress("eth0", netip.MustParsePrefix("10.1.0.2/24")),
		b.SetDown("eth0"))
	if err := a.Do(func() error {
		c, err := net.DialTimeout("tcp", "10.1.0.2:80", 50*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	}); err == nil {
		t.Error("connected over a link that is down")
	}
	must(t, b.SetUp("eth0"))
	if d := talk(t, a, b, "10.1.0.2:80"); d > limit {
		t.Errorf("first connection took %s", d)
	}
	must(t, b.RemoveAddress("eth0", netip.MustParsePrefix("10.1.0.2/24")), a.Unlink("eth0"))
	if err := b.SetUp("eth0"); err == nil || !strings.Contains(err.Error(), "host b: turn on eth0") {
		t.Errorf("the other end of a removed link: %v", err)
	}
}

func namespace(t testing.TB) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	return s
}

func TestDo(t *testing.T) {
	w := newWorld(t)
	h := newHost(t, w, "h")
	home := namespace(t)

	t.Run("inside", func(t *testing.T) {
		must(t, h.Do(func() error {
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
		must(t, err)
		tasks, err := os.ReadDir("/proc/self/task")
		must(t, err)
		for _, task := range tasks {
			if got, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && got == away {
				t.Errorf("thread %s is still in the host", task.Name())
			}
		}
	})
	t.Run("closed", func(t *testing.T) {
		must(t, w.Close(), w.Close())
		if err := h.Do(func() error { return nil }); err == nil || err.Error() != "host h: world is closed" {
			t.Errorf("got %v", err)
		}
		if _, err := w.Host("late"); err == nil {
			t.Error("a host in a closed world")
		}
	})
}

func TestSysctl(t *testing.T) {
	w := newWorld(t)
	a, b := newHost(t, w, "a"), newHost(t, w, "b")
	must(t, a.Forward(), w.Link(a, "eth0.1", a, "peer"), a.SetSysctl("net/ipv4/conf/eth0.1/rp_filter", "1"))
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
	w := newWorld(t)
	h := newHost(t, w, "h")
	must(t, w.Link(h, "here", h, "there"))

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
		must(t, c.Start(), w.Close())
		if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestManyHosts(t *testing.T) {
	begin := time.Now()
	w := newWorld(t)
	s, err := w.Switch("lan")
	must(t, err)
	for i := range 5 {
		must(t, s.Attach(newHost(t, w, fmt.Sprint("h", i)), "eth0"))
	}
	t.Logf("5 hosts on a switch in %s", time.Since(begin))
}

func TestManyAddresses(t *testing.T) {
	begin := time.Now()
	w := newWorld(t)
	a, b := newHost(t, w, "a"), newHost(t, w, "b")
	must(t, w.Link(a, "eth0", b, "eth0"))
	for i := range 500 {
		must(t, a.AddAddress("eth0", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)}), 16)))
	}
	t.Logf("500 addresses in %s", time.Since(begin))
}
