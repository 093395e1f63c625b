package integration

// Hitless: the profile changes all the time, and nobody notices.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// The services that the clients use; they are there in every edition.
var (
	hitlessWeb = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.10:80"), netip.MustParseAddrPort("[2001:db8::10]:80")}
	hitlessDNS = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.10:53"), netip.MustParseAddrPort("[2001:db8::10]:53")}
)

const hitlessBackends = 5

func TestNothingLostHitless(t *testing.T) {
	t.Parallel()
	applies, enough := 2*len(ways), 0
	if *full {
		applies, enough = 1000, 200_000
	}
	b := newBed(t)
	var sources []netip.Addr
	for i := range 4 {
		v4, v6 := fmt.Sprintf("10.1.0.%d", 101+i), fmt.Sprintf("fd01::%d", 101+i)
		b.Address(b.Client, "eth0", v4+"/24", v6+"/64")
		sources = append(sources, netip.MustParseAddr(v4), netip.MustParseAddr(v6))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	past := &history{begin: time.Now()}
	udp := &datagrams{history: past, pending: map[uint64]*datagram{}}
	var web []string
	for i := range hitlessBackends {
		for _, a := range []string{fmt.Sprintf("10.2.0.%d", 11+i), fmt.Sprintf("fd02::%d", 11+i)} {
			web = append(web, a)
			b.Check(udp.serve(b.Server, netip.AddrPortFrom(netip.MustParseAddr(a), 8053)))
		}
	}
	b.Serve([]int{8080}, web...)

	draw := rand.New(rand.NewPCG(1, 2))
	p := newHitlessProfile()
	change := func(what string) {
		past.next(what, p.members())
		b.applyWatched(b.Parse(p.String()))
		past.done()
	}
	change("the first")

	var wait sync.WaitGroup
	tcp := &connections{bed: b, history: past}
	for i := range 4 {
		wait.Go(func() { tcp.short(ctx, sources[2*i:2*i+2]) })
	}
	for i := range 100 {
		wait.Go(func() { tcp.long(ctx, hitlessWeb[i%2]) })
	}
	for i, to := range hitlessDNS {
		of := slices.DeleteFunc(slices.Clone(sources), func(a netip.Addr) bool { return a.Is4() != (i == 0) })
		wait.Go(func() {
			if err := udp.stream(ctx, b.Client, of, to); err != nil {
				t.Error(err)
			}
		})
	}
	done := 0
	for ; (done < applies || tcp.made.Load() < int64(enough)) && !t.Failed(); done++ {
		change(p.change(draw))
	}
	stop()
	wait.Wait()

	figures(t, "%d applies, %d connections, %d failed; %d long ones with %d exchanges, %d broken; %d datagrams, %d astray, %d that a server answered late, in %s",
		done, tcp.made.Load(), len(tcp.failed), tcp.longs.Load(), tcp.exchanges.Load(), len(tcp.broken), udp.good, len(udp.astray), len(udp.late), past.now().Round(time.Second))
	figures(t, "changes: %v", p.changes)
	for _, list := range []struct {
		what string
		all  []string
	}{{"a connection failed", tcp.failed}, {"a long connection broke", tcp.broken}, {"a datagram went astray", udp.astray}} {
		for _, text := range list.all[:min(len(list.all), 10)] {
			t.Errorf("%s: %s", list.what, text)
		}
	}
	for _, text := range udp.late[:min(len(udp.late), 10)] {
		t.Logf("a server was slow: %s", text)
	}
	if tcp.made.Load() == 0 || tcp.exchanges.Load() == 0 || udp.good == 0 {
		t.Error("there was no traffic")
	}
}

// connections are the TCP connections.
type connections struct {
	*bed
	history                *history
	made, longs, exchanges atomic.Int64

	mu             sync.Mutex
	failed, broken []string
}

func (c *connections) fail(list *[]string, begin time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*list = append(*list, fmt.Sprintf("from %s to %s: %v; %s", begin, c.history.now(), err, c.history.around(begin)))
}

// short makes connections, one after the other, from sources in turn.
func (c *connections) short(ctx context.Context, sources []netip.Addr) {
	for i := 0; ctx.Err() == nil; i++ {
		begin := c.history.now()
		backend, err := c.exchange(netip.AddrPortFrom(sources[i%2], c.Client.NextPort()), hitlessWeb[i%2])
		switch {
		case errors.Is(err, unix.EADDRINUSE), errors.Is(err, unix.EADDRNOTAVAIL):
			continue // a long one has the port
		case err == nil && !c.history.had("tcp", backend, begin, c.history.now()):
			err = fmt.Errorf("%v took it, which is no backend", backend)
		}
		if err != nil {
			c.fail(&c.failed, begin, err)
		}
		c.made.Add(1)
	}
}

// exchange connects, hears who answers, and ends the connection with a reset.
// A connection whose first packet was lost counts as failed, though the client
// sends it again after a second.
func (c *connections) exchange(from, to netip.AddrPort) (backend netip.Addr, err error) {
	client := traffic.Client{Host: c.Client, Source: from.Addr(), Port: from.Port(), Timeout: 10 * time.Second, Reset: true}
	conn, err := client.Dial(c.T.Context(), "tcp", to)
	if err != nil {
		return backend, err
	}
	defer conn.Close()
	if backend, err = netip.ParseAddr(conn.Reply.Backend); err == nil {
		if n := netlabtest.Resent(c.T, conn.Conn); n > 0 {
			err = fmt.Errorf("its first packet was sent %d times", 1+n)
		}
	}
	return backend, err
}

// long keeps a connection and says something from time to time.
func (c *connections) long(ctx context.Context, to netip.AddrPort) {
	begin := c.history.now()
	client := traffic.Client{Host: c.Client, Timeout: 30 * time.Second, Reset: true}
	conn, err := client.Dial(c.T.Context(), "tcp", to)
	if err != nil {
		c.fail(&c.broken, begin, err)
		return
	}
	defer conn.Close()
	for c.longs.Add(1); ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		begin = c.history.now()
		if _, err := conn.Again(); err != nil {
			c.fail(&c.broken, begin, err)
			return
		}
		c.exchanges.Add(1)
	}
}
