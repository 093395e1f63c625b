package integration

// Datagrams, each with a record of its own: when it was sent, who got it, when
// it was answered, and who answered. What is missing is missing at a known
// place, and a server that was too slow is told from an answer that was lost.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

const (
	// settle is how long nlb lets answers of removed backends be under way.
	settle = 250 * time.Millisecond
	// window is how many datagrams of a flow may be unanswered; with it no
	// buffer of a socket ever overflows.
	window = 16
	// datagramPace is the time between two datagrams of a flow.
	datagramPace = 4 * time.Millisecond
	// answerAfter is how long a server thinks about some of the datagrams.
	answerAfter = 60 * time.Millisecond
	// givenUp is when a datagram is lost.
	givenUp = 3 * time.Second
)

// datagram is what is known of one; times are since the test began, 0: never.
type datagram struct {
	sent, arrived, answered time.Duration
	backend                 netip.Addr
}

func (d *datagram) String() string {
	at := func(t time.Duration) string {
		if t == 0 {
			return "never"
		}
		return t.Round(10 * time.Microsecond).String()
	}
	return fmt.Sprintf("sent %s, arrived %s at %v, answered %s", at(d.sent), at(d.arrived), d.backend, at(d.answered))
}

// datagrams are all that are under way, and what became of the others.
type datagrams struct {
	history *history

	mu      sync.Mutex
	flows   uint64
	pending map[uint64]*datagram
	good    int      // answered as they should be
	late    []string // a server took longer than nlb waits for it
	astray  []string // with what is wrong
}

func (d *datagrams) newFlow() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flows++
	return d.flows << 32
}

func (d *datagrams) send(id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending[id] = &datagram{sent: d.history.now()}
}

func (d *datagrams) arrive(id uint64, backend netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.pending[id]
	switch {
	case g == nil:
		d.astray = append(d.astray, fmt.Sprintf("%x came to %v after its answer", id, backend))
		return
	case g.arrived != 0:
		d.astray = append(d.astray, fmt.Sprintf("%x came twice, the second time to %v: %v", id, backend, g))
	}
	g.arrived, g.backend = d.history.now(), backend
	if !d.history.had("udp", backend, g.sent, g.arrived) {
		d.astray = append(d.astray, fmt.Sprintf("%x came to a backend that is none: %v", id, g))
	}
}

func (d *datagrams) answer(id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g := d.pending[id]; g != nil {
		g.answered = d.history.now()
	}
}

func (d *datagrams) receive(id uint64, from, want netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.pending[id]
	switch {
	case g == nil:
		d.astray = append(d.astray, fmt.Sprintf("%x was answered twice, by %v", id, from))
	case from != want:
		d.lost(id, fmt.Sprintf("the answer came from %v", from))
	default:
		d.good++
		delete(d.pending, id)
	}
}

// lost judges a datagram without an answer that is right.
func (d *datagrams) lost(id uint64, what string) {
	g := d.pending[id]
	delete(d.pending, id)
	text := fmt.Sprintf("%x: %s: %v; %s", id, what, g, d.history.around(g.sent))
	// nlb forgets the way back no sooner than this after the datagram was sent.
	if g.answered-g.sent >= settle {
		d.late = append(d.late, text)
	} else {
		d.astray = append(d.astray, text)
	}
}

// unanswered counts what a flow waits for, and gives up what is old.
func (d *datagrams) unanswered(flow, next uint64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for id := flow; id < flow+next; id++ {
		g := d.pending[id]
		switch {
		case g == nil:
		case d.history.now()-g.sent > givenUp:
			d.lost(id, "no answer")
		default:
			n++
		}
	}
	return n
}

// serve answers datagrams at an address until the world ends.
func (d *datagrams) serve(h *netlab.Host, at netip.AddrPort) error {
	c, err := listenUDP(h, at)
	if err == nil {
		err = h.World().Own(c)
	}
	if err != nil {
		return err
	}
	go each(c, func(id uint64, from netip.AddrPort) {
		answer := func() {
			d.answer(id)
			_, _ = c.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, id), from)
		}
		if d.arrive(id, at.Addr()); id%4 != 0 {
			answer()
		} else {
			time.AfterFunc(answerAfter, answer)
		}
	})
	return nil
}

// each hands over the number in each datagram, until the socket is closed.
func each(c *net.UDPConn, of func(id uint64, from netip.AddrPort)) {
	for buf := make([]byte, 64); ; {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if n == 8 {
			of(binary.BigEndian.Uint64(buf), from)
		}
	}
}

// flow sends datagrams from a port of its own, n of them or until the context
// ends, and waits for the last answers.
func (d *datagrams) flow(ctx context.Context, h *netlab.Host, from netip.Addr, to netip.AddrPort, n uint64) error {
	c, err := listenUDP(h, netip.AddrPortFrom(from, h.NextPort()))
	for errors.Is(err, unix.EADDRINUSE) { // by another flow
		c, err = listenUDP(h, netip.AddrPortFrom(from, h.NextPort()))
	}
	if err != nil {
		return err
	}
	go each(c, func(id uint64, from netip.AddrPort) { d.receive(id, from, to) })
	defer c.Close()
	flow := d.newFlow()
	first, next := uint64(0), uint64(0) // all before the first are done with
	for ; next < n && ctx.Err() == nil; time.Sleep(datagramPace) {
		first = max(first, next-min(next, 8*window))
		if d.unanswered(flow+first, next-first) >= window {
			continue
		}
		d.send(flow + next)
		if _, err := c.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, flow+next), to); err != nil {
			return err
		}
		next++
	}
	for d.unanswered(flow, next) > 0 {
		time.Sleep(datagramPace)
	}
	return nil
}

// stream keeps flows going until the context ends: long ones from each of the
// sources, and short ones, one after the other.
func (d *datagrams) stream(ctx context.Context, h *netlab.Host, sources []netip.Addr, to netip.AddrPort) error {
	var wait sync.WaitGroup
	var fail atomic.Pointer[error]
	run := func(from netip.Addr, n uint64) bool {
		err := d.flow(ctx, h, from, to, n)
		if err != nil {
			fail.Store(&err)
		}
		return err == nil
	}
	for _, from := range sources {
		wait.Go(func() { run(from, 1<<32-1) })
		wait.Go(func() {
			for ctx.Err() == nil && run(from, 3) {
			}
		})
	}
	wait.Wait()
	if err := fail.Load(); err != nil {
		return *err
	}
	return nil
}

func listenUDP(h *netlab.Host, at netip.AddrPort) (*net.UDPConn, error) {
	var c *net.UDPConn
	err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err == nil {
		err = c.SetReadBuffer(1 << 20)
	}
	return c, err
}

// history is which backends were in the profile, and when.
type history struct {
	begin time.Time

	mu       sync.Mutex
	editions []edition
}

// edition is a profile with the time of its apply.
type edition struct {
	began, done time.Duration
	what        string // what changed
	backends    map[string]bool
}

func (h *history) now() time.Duration { return time.Since(h.begin) }

// next begins an apply.
func (h *history) next(what string, backends map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.editions = append(h.editions, edition{began: h.now(), what: what, backends: backends})
}

// done ends it.
func (h *history) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.editions[len(h.editions)-1].done = h.now()
}

// had reports whether a backend was in the profile at some time between: an
// edition holds from the beginning of its apply to the end of the next one.
func (h *history) had(network string, backend netip.Addr, from, to time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, e := range slices.Backward(h.editions) {
		if e.began <= to && e.backends[network+" "+backend.String()] {
			return true
		}
		if over := h.editions[i].done; over != 0 && over < from {
			return false
		}
	}
	return false
}

// around names the applies about a time.
func (h *history) around(t time.Duration) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := ""
	for i, e := range h.editions {
		if e.began < t+time.Second && (e.done == 0 || e.done > t-time.Second) {
			text += fmt.Sprintf("\n\t\tapply %d, %s to %s: %s", i, e.began.Round(time.Millisecond), e.done.Round(time.Millisecond), e.what)
		}
	}
	return text
}
