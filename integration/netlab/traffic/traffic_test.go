//go:build linux

package traffic_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

var families = []struct{ name, client, server, nobody string }{
	{"IPv4", "10.1.0.1", "10.1.0.2", "10.1.0.9"},
	{"IPv6", "2001:db8::1", "2001:db8::2", "2001:db8::9"},
}

func port(a string, p uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), p) }

// pair is a client host and a server host on one cable, with addresses of both
// families.
func pair(t testing.TB) (client, server *netlab.Host) {
	t.Helper()
	w := netlabtest.NewWorld(t)
	client, server = netlabtest.NewHost(t, w, "client"), netlabtest.NewHost(t, w, "server")
	netlabtest.Must(t, w.Link(client, "eth0", server, "eth0"))
	for _, f := range families {
		bits := 24
		if netip.MustParseAddr(f.client).Is6() {
			bits = 64
		}
		netlabtest.Must(t,
			client.AddAddress("eth0", netip.PrefixFrom(netip.MustParseAddr(f.client), bits)),
			server.AddAddress("eth0", netip.PrefixFrom(netip.MustParseAddr(f.server), bits)))
	}
	return client, server
}

func each(t *testing.T, f func(t *testing.T, network, client, server, nobody string)) {
	for _, fam := range families {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(fam.name+"/"+network, func(t *testing.T) { f(t, network, fam.client, fam.server, fam.nobody) })
		}
	}
}

func TestExchange(t *testing.T) {
	t.Parallel()
	ch, sh := pair(t)
	each(t, func(t *testing.T, network, client, server, _ string) {
		to := port(server, 80)
		s, err := traffic.Serve(sh, "web", traffic.Port{Network: network, At: to})
		netlabtest.Must(t, err)
		defer s.Close()

		c := traffic.Client{Host: ch, Port: 4444}
		got, err := c.Exchange(t.Context(), network, to)
		netlabtest.Must(t, err)
		from := port(client, 4444)
		if want := (traffic.Reply{Backend: "web", Seen: from, Local: to, From: from}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		// A connection's port again, while its last one is in TIME_WAIT.
		if network == "tcp" {
			c.Reset = true
			c.Port = 4445
			for range 3 {
				_, err := c.Exchange(t.Context(), network, to)
				netlabtest.Must(t, err)
			}
		}
	})
}

func TestKeep(t *testing.T) {
	t.Parallel()
	ch, sh := pair(t)
	each(t, func(t *testing.T, network, _, server, _ string) {
		to := port(server, 81)
		s, err := traffic.Serve(sh, "kept", traffic.Port{Network: network, At: to})
		netlabtest.Must(t, err)
		defer s.Close()
		conn, err := traffic.Client{Host: ch}.Dial(t.Context(), network, to)
		netlabtest.Must(t, err)
		defer conn.Close()
		first := conn.Reply
		for range 3 {
			r, err := conn.Again()
			netlabtest.Must(t, err)
			if r != first {
				t.Errorf("got %v, then %v", first, r)
			}
		}

		s.Stop()
		if network == "tcp" {
			if _, err := conn.Again(); err != nil {
				t.Errorf("a live connection to a stopped server: %v", err)
			}
		}
		if _, err := (traffic.Client{Host: ch}).Exchange(t.Context(), network, to); !errors.Is(err, traffic.ErrRefused) {
			t.Errorf("a stopped server: %v", err)
		}
		s.Abort()
		if _, err := conn.Again(); !errors.Is(err, traffic.ErrRefused) {
			t.Errorf("an aborted connection: %v", err)
		}
	})
}

func TestFailures(t *testing.T) {
	t.Parallel()
	ch, sh := pair(t)
	each(t, func(t *testing.T, network, _, server, nobody string) {
		t.Parallel()
		c := traffic.Client{Host: ch}
		for _, f := range []struct {
			to   netip.AddrPort
			want error
		}{
			{port(server, 99), traffic.ErrRefused},
			{port(nobody, 80), traffic.ErrUnreachable}, // nobody answers neighbour discovery
			{port(map[bool]string{true: "2001:db8:1::1", false: "10.2.0.1"}[len(server) > 10], 80), traffic.ErrUnreachable}, // no route
		} {
			if _, err := c.Exchange(t.Context(), network, f.to); !errors.Is(err, f.want) {
				t.Errorf("%s: got %v, want %v", f.to, err, f.want)
			}
		}
		c.Timeout = 30 * time.Millisecond
		if _, err := c.Exchange(t.Context(), network, port(nobody, 80)); !errors.Is(err, traffic.ErrTimeout) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		c.Timeout = time.Hour // when nobody would see the end of the test
		if _, err := c.Exchange(ctx, network, port(nobody, 80)); err == nil {
			t.Error("a context that ends: no error")
		}
	})
	t.Run("not there", func(t *testing.T) {
		if _, err := traffic.Serve(sh, "x", traffic.Port{Network: "tcp", At: port("10.9.9.9", 80)}); err == nil {
			t.Error("serves at an address that the host has not")
		}
	})
}

func TestMany(t *testing.T) {
	t.Parallel()
	ch, sh := pair(t)
	each(t, func(t *testing.T, network, client, server, _ string) {
		to := port(server, 82)
		s, err := traffic.Serve(sh, "many", traffic.Port{Network: network, At: to})
		netlabtest.Must(t, err)
		defer s.Close()
		const n = 500
		got := traffic.Client{Host: ch}.Many(t.Context(), network, to, n, 4)
		netlabtest.Must(t, got.Err)
		want := &traffic.Tally{Backends: map[string]int{"many": n}, Sources: map[netip.Addr]int{netip.MustParseAddr(client): n}, Failures: map[string]int{}}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("-want +got: %s", d)
		}

		s.Stop()
		// All of them, although the kernel usually limits what it tells.
		got = traffic.Client{Host: ch}.Many(t.Context(), network, to, n, 2)
		if got.Failures["refused"] != n || len(got.Backends) != 0 || !errors.Is(got.Err, traffic.ErrRefused) {
			t.Errorf("a stopped server: got %+v", got)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got := traffic.Client{Host: ch}.Many(ctx, "tcp", port("10.1.0.2", 82), 1000, 2)
		if len(got.Failures) != 0 || !errors.Is(got.Err, context.Canceled) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestSCTP(t *testing.T) {
	t.Parallel()
	ch, sh := pair(t)
	to := port("10.1.0.2", 80)
	s, err := traffic.Serve(sh, "sctp", traffic.Port{Network: "sctp", At: to})
	if errors.Is(err, traffic.ErrUnsupported) {
		if _, err := (traffic.Client{Host: ch}).Exchange(t.Context(), "sctp", to); !errors.Is(err, traffic.ErrUnsupported) {
			t.Errorf("the client: %v", err)
		}
		// There is no more to prove on such a kernel; the virtual machines have it.
		t.Log("this kernel has no SCTP: only its absence was proved")
		return
	}
	netlabtest.Must(t, err)
	defer s.Close()
	conn, err := traffic.Client{Host: ch}.Dial(t.Context(), "sctp", to)
	netlabtest.Must(t, err)
	if _, err := conn.Again(); err != nil {
		t.Error(err)
	}
	netlabtest.Must(t, conn.Close())
	s.Stop()
	if _, err := (traffic.Client{Host: ch}).Exchange(t.Context(), "sctp", to); !errors.Is(err, traffic.ErrRefused) {
		t.Errorf("a stopped server: %v", err)
	}
}

func TestCloseWithLiveConnections(t *testing.T) {
	t.Parallel()
	ch, sh := pair(t)
	to := port("10.1.0.2", 83)
	s, err := traffic.Serve(sh, "s", traffic.Port{Network: "tcp", At: to})
	netlabtest.Must(t, err)
	conn, err := traffic.Client{Host: ch}.Dial(t.Context(), "tcp", to)
	netlabtest.Must(t, err, s.Close(), s.Close())
	if _, err := io.ReadAll(conn); err == nil {
		t.Error("a closed server ended its connection in order")
	}
	conn.Close()
}

func BenchmarkExchange(b *testing.B) {
	ch, sh := pair(b)
	for _, network := range []string{"tcp", "udp"} {
		b.Run(network, func(b *testing.B) {
			to := port("10.1.0.2", 80)
			s, err := traffic.Serve(sh, "s", traffic.Port{Network: network, At: to})
			netlabtest.Must(b, err)
			defer s.Close()
			for b.Loop() {
				_, err := traffic.Client{Host: ch}.Exchange(b.Context(), network, to)
				netlabtest.Must(b, err)
			}
		})
		b.Run(network+"/many", func(b *testing.B) {
			to := port("10.1.0.2", 81)
			s, err := traffic.Serve(sh, "s", traffic.Port{Network: network, At: to})
			netlabtest.Must(b, err)
			defer s.Close()
			netlabtest.Must(b, traffic.Client{Host: ch}.Many(b.Context(), network, to, b.N, 4).Err)
		})
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	ch, sh := pair(t)
	each(t, func(t *testing.T, network, _, server, _ string) {
		if network != "tcp" {
			return
		}
		to, web := port(server, 84), port(server, 85)
		s, err := traffic.Serve(sh, "s", traffic.Port{Network: "tcp", At: to})
		netlabtest.Must(t, err)
		w, err := traffic.ServeWeb(sh, "w", web)
		netlabtest.Must(t, err)
		stream := func(to netip.AddrPort, http bool, while func()) (ways map[string]int) {
			f := traffic.Load{From: ch, To: to, Rate: 200, Timeout: 200 * time.Millisecond, HTTP: http}.Start(t.Context())
			time.Sleep(100 * time.Millisecond)
			while()
			time.Sleep(100 * time.Millisecond)
			all, err := f.Stop()
			netlabtest.Must(t, err)
			ways = map[string]int{}
			for _, a := range all {
				if a.Err != nil {
					a.Backend = traffic.Way(a.Err)
				}
				ways[a.Backend]++
			}
			return ways
		}
		// One that is under way when the server closes may end in another way.
		if got := stream(to, false, func() { s.Close() }); got["s"] == 0 || got["refused"] == 0 || len(got) > 2 && (got["other"] != 1 || len(got) > 3) {
			t.Errorf("a server that was closed: %v", got)
		}
		if got := stream(web, true, w.Hang); got["w"] == 0 || got["timeout"] == 0 || len(got) > 2 {
			t.Errorf("a server that hung: %v", got)
		}
		w.Resume()
		if got := stream(web, true, func() {}); got["w"] == 0 || len(got) > 1 {
			t.Errorf("a server that goes on: %v", got)
		}
	})
}
