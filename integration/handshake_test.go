package integration

// Handshakes: connections that a client has begun, and not completed.

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"nlb/integration/netlab/traffic"
)

// bounded is the profile proven with a limit of half-open connections.
func bounded(most int, keys ...string) string {
	lines := fmt.Sprintf("    limit: {half-open: %d}\n", most)
	for _, key := range keys {
		lines += "    " + key + "\n"
	}
	return strings.Replace(proven, "    syn-protection: synproxy\n", lines, 1)
}

// open opens connections, in turn over both families, and fails where one is refused for
// 10 seconds. A connection counts for a moment after its handshake.
func (b *bed) open(n int) (out []*traffic.Conn) {
	b.T.Helper()
	for i := range n {
		to := at([]string{"203.0.113.10", "2001:db8::10"}[i%2], 80)
		for deadline := time.Now().Add(10 * time.Second); ; {
			c, err := b.dial("tcp", to)
			if err == nil {
				out = append(out, c)
				break
			}
			if time.Now().After(deadline) {
				b.T.Fatalf("connection %d to %s: %v", i, to, err)
			}
			time.Sleep(20 * time.Millisecond) // answers to those that are refused are bounded
		}
	}
	return out
}

// overflow floods until as many half-open connections are tracked as may be, beside those that
// are open. It fails where there are fewer or more, or more SYNs reached backends.
func (b *bed) overflow(most, syns int, open []*traffic.Conn) {
	b.T.Helper()
	vip4, vip6 := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")
	before, _ := b.handshakes()
	// What is over counts until the kernel has collected it.
	left, floods := 0, 0
	for end := time.Now().Add(10 * time.Second); left < most && time.Now().Before(end); floods++ {
		b.Check(flood(b.Client, syns, vip4, vip6)) // the same ones again
		left = b.entries() - len(open)
	}
	now, _ := b.handshakes()
	figures(b.T, "%d forged SYNs, %d connections tracked, %d SYNs reached backends", floods*syns, left, now-before)
	if left < most || left > most+20 || now-before > floods*most {
		b.T.Errorf("of %d times %d: %d are tracked, and %d reached backends", floods, syns, left, now-before)
	}
}

// TestHalfOpenLimit: what clients have completed does not count, nor what is refused, and
// of a flood no more is remembered, and reaches backends, than the limit says.
func TestHalfOpenLimit(t *testing.T) {
	t.Parallel()
	const most = 100
	syns := 10_000
	if *full {
		syns = 70_000
	}
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("own %v", own), func(t *testing.T) {
			t.Parallel()
			b := newFlooded(t, own)
			b.Apply(bounded(most))
			open := b.open(3 * most)
			b.overflow(most, syns, open)
			if refused := b.Load().Refused("shop", "web"); refused < uint64(syns-2*most) {
				t.Errorf("of %d SYNs and more %d were refused", syns, refused)
			}
			b.fate("a new client", b.Client, "tcp", at("203.0.113.10", 80), "refused")
			b.fate("this host", b.Balancer, "tcp", at("203.0.113.10", 80), "served")
			for _, c := range open {
				if err := echoes(c, 64); err != nil {
					t.Errorf("%s: %v", c.RemoteAddr(), err)
				}
			}
		})
	}
}

// TestHalfOpenHost: connections that this host opens do not count, also while nothing has
// come over them.
func TestHalfOpenHost(t *testing.T) {
	t.Parallel()
	const most = 10
	b := newFlooded(t, true)
	b.Apply(bounded(most))
	for range most {
		b.Check(b.Balancer.Do(func() error {
			c, err := net.Dial("tcp", "203.0.113.10:80")
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		}))
	}
	b.fate("a client", b.Client, "tcp", at("203.0.113.10", 80), "served")
}

// TestHalfOpenBusy: a connection that sends without a pause is not half-open.
func TestHalfOpenBusy(t *testing.T) {
	t.Parallel()
	const most = 4
	b := newFlooded(t, false)
	b.Apply(bounded(most))
	var all sync.WaitGroup
	end, failed := make(chan struct{}), make(chan error, 3*most)
	for range 3 * most { // those behind the limit are refused where the ones before still count
		c := b.open(1)[0]
		all.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if err := echoes(c, 64); err != nil {
					failed <- fmt.Errorf("%s: %w", c.RemoteAddr(), err)
					return
				}
			}
		})
	}
	close(end)
	all.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

// TestHalfOpenGivesWay: with syn-protection, clients below the limit meet their backend
// at once, and those above have to answer first.
func TestHalfOpenGivesWay(t *testing.T) {
	t.Parallel()
	const most = 50
	b := newFlooded(t, false)
	b.Apply(bounded(most, "syn-protection: synproxy"))
	open := b.open(2 * most)
	b.overflow(most, 10_000, open)
	open = append(open, b.open(4)...)
	for _, c := range open {
		if err := echoes(c, 1<<12); err != nil {
			t.Errorf("%s: %v", c.RemoteAddr(), err)
		}
	}
	if b.Load().Refused("shop", "web") != 0 {
		t.Error("clients were refused")
	}
}

// TestHalfOpenEnds: what a backend refuses, or nobody takes, is half-open no more.
func TestHalfOpenEnds(t *testing.T) {
	t.Parallel()
	const most = 4
	for name, backends := range map[string]string{
		"nobody listens": `["10.2.0.11:9", "[fd02::11]:9"]`,
		"drained":        `[{address: "10.2.0.11:8080", weight: 0}, {address: "fd02::11", weight: 0}]`,
		"full":           `[{address: "10.2.0.11:8080", max-connections: 1}, {address: "[fd02::11]:8080", max-connections: 1}]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFlooded(t, false)
			profile, _, _ := strings.Cut(bounded(most), "backends")
			b.Apply(profile + "backends: " + backends + "\n")
			var open []*traffic.Conn
			if name == "full" {
				open = b.open(2)
			}
			for i := range 5 * most { // for longer than the kernel takes to collect what is over
				time.Sleep(20 * time.Millisecond)
				b.fate(name, b.Client, "tcp", at([]string{"203.0.113.10", "2001:db8::10"}[i%2], 80), "refused")
			}
			b.Apply(bounded(most))
			for _, c := range append(open, b.open(2*most)...) {
				c.Close()
			}
		})
	}
}
