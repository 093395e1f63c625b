//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
)

func open(t *testing.T) *Pool {
	t.Helper()
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// results waits for n results, by key.
func results(t *testing.T, p *Pool, n int) map[Key]Result {
	t.Helper()
	out := map[Key]Result{}
	timeout := time.After(20 * time.Second)
	for len(out) < n {
		select {
		case batch := <-p.Results():
			for _, r := range batch {
				if _, double := out[r.Key]; double {
					t.Errorf("a second result of %d: %+v", r.Key, r)
				}
				out[r.Key] = r
			}
		case <-timeout:
			t.Fatalf("%d of %d results came", len(out), n)
		}
	}
	return out
}

// none waits a while for results that must not come.
func none(t *testing.T, p *Pool) {
	t.Helper()
	select {
	case batch := <-p.Results():
		t.Errorf("unexpected: %+v", batch)
	case <-time.After(50 * time.Millisecond):
	}
}

func listen(t *testing.T, at string) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener), l.Addr().(*net.TCPAddr).AddrPort()
}

// closed is a port where nobody listens: a socket has it, and does not.
func closed(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	l, at := listen(t, net.JoinHostPort(host, "0"))
	_ = l.Close()
	return at
}

// silent is a server that does not answer: its queue is full, so that the kernel
// drops what else would connect.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0))
	name, nameErr := unix.Getsockname(fd)
	if err = errors.Join(err, nameErr); err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	for range 16 {
		c, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue does not fill")
	return at
}

func tcp(timeout time.Duration) *lb.Check {
	return &lb.Check{Kind: lb.CheckTCP, Interval: timeout, Timeout: timeout}
}

func TestConnects(t *testing.T) {
	t.Parallel()
	p := open(t)
	const timeout = 5 * time.Second
	_, four := listen(t, "127.0.0.1:0")
	_, six := listen(t, "[::1]:0")
	from := tcp(timeout)
	from.Source = netip.MustParseAddr("127.0.0.9")
	lost := tcp(timeout)
	lost.Source = netip.MustParseAddr("192.0.2.1")
	other := tcp(timeout)
	other.Source = netip.MustParseAddr("::1")
	cases := []struct {
		target            Target
		ok, refused, ours bool
		reason            string
	}{
		{Target{Check: tcp(timeout), At: four}, true, false, false, "tcp: connected"},
		{Target{Check: tcp(timeout), At: six}, true, false, false, "tcp: connected"},
		{Target{Check: from, At: four}, true, false, false, "tcp: connected"},
		{Target{Check: tcp(timeout), At: closed(t, "127.0.0.1")}, false, true, false, "tcp: refused"},
		{Target{Check: tcp(timeout), At: closed(t, "::1")}, false, true, false, "tcp: refused"},
		{Target{Check: tcp(300 * time.Millisecond), At: silent(t)}, false, false, false, "tcp: timeout"},
		{Target{Check: lost, At: four}, false, false, true, "tcp: no such source, or no port"},
	}
	for i, c := range cases {
		p.Start(Key(i), &c.target, 0)
	}
	for key, r := range results(t, p, len(cases)) {
		c := cases[key]
		want := Outcome{OK: c.ok, Refused: c.refused, Ours: c.ours, Percent: -1, Reason: c.reason}
		if r.Outcome != want {
			t.Errorf("%v: got %+v, want %+v", c.target.At, r.Outcome, want)
		}
		if c.reason == "tcp: timeout" && r.Took < c.target.Check.Timeout || r.Began.IsZero() {
			t.Errorf("%v: began %v, took %v", c.target.At, r.Began, r.Took)
		}
		if c.ours && !r.Late {
			t.Errorf("%v: this host's fault is the server's: %+v", c.target.At, r)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connects.busy != 0 {
		t.Errorf("%d connects are left", p.connects.busy)
	}
}

// TestSource: the server sees the address that the check wants, of the pool's own
// sockets and of a Dialer's.
func TestSource(t *testing.T) {
	p := open(t)
	l, at := listen(t, "127.0.0.1:0")
	check := tcp(5 * time.Second)
	check.Source = netip.MustParseAddr("127.0.0.9")
	target := Target{Check: check, At: at}
	p.Start(1, &target, 0)
	results(t, p, 1)
	c, err := Dialer(target).DialContext(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, who := range []string{"pool", "dialer"} {
		_ = l.SetDeadline(time.Now().Add(20 * time.Second))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(who, err)
		}
		if from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != check.Source {
			t.Errorf("%s: from %v, want %v", who, from, check.Source)
		}
		if who == "pool" { // what was opened was reset
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the check ended with %v, want a reset", err)
			}
		}
		_ = c.Close()
	}
}

// TestPriority: the sockets have the mark that the rules look for.
func TestPriority(t *testing.T) {
	_, at := listen(t, "127.0.0.1:0")
	target := Target{Check: tcp(time.Second), At: at}
	fd, err := connect(target)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY); got != Priority || err != nil {
		t.Errorf("connect: got %#x, %v, want %#x", got, err, Priority)
	}
	for _, network := range []string{"tcp", "udp"} {
		c, err := Dialer(target).DialContext(t.Context(), network, at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(interface {
			File() (*os.File, error)
		}).File()
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if got, err := unix.GetsockoptInt(int(raw.Fd()), unix.SOL_SOCKET, unix.SO_PRIORITY); got != Priority || err != nil {
			t.Errorf("%s: got %#x, %v, want %#x", network, got, err, Priority)
		}
	}
}

// TestWhen: checks begin in the order of their moments, none before its own, and
// what was stopped or begun anew leaves no result.
func TestWhen(t *testing.T) {
	t.Parallel()
	p := open(t)
	_, at := listen(t, "127.0.0.1:0")
	target := Target{Check: tcp(5 * time.Second), At: at}
	begun := time.Now()
	const n = 20
	var first, last [n]time.Time // that the moment of a check can be
	for i := range n {           // backwards
		in := time.Duration(n-i) * 5 * time.Millisecond
		first[i] = time.Now().Add(in)
		p.Start(Key(i), &target, in)
		last[i] = time.Now().Add(in)
	}
	p.Start(100, &target, time.Hour)
	p.Start(101, &target, time.Hour)
	p.Start(101, &target, 0) // sooner
	p.Start(102, &target, 0)
	p.Stop(102)
	p.Start(103, &target, 20*time.Millisecond)
	p.Start(103, &target, time.Hour) // later
	p.Stop(104)
	got := results(t, p, n+1)
	for i := range n {
		if after := got[Key(i)].Began.Sub(begun); after < time.Duration(n-i)*5*time.Millisecond {
			t.Errorf("%d began after %v", i, after)
		}
		// Where this test was held up, it is not known whose moment is the sooner.
		if i > 0 && last[i].Before(first[i-1]) && got[Key(i)].Began.After(got[Key(i-1)].Began) {
			t.Errorf("%d began after %d", i, i-1)
		}
	}
	if !got[101].OK {
		t.Errorf("sooner: %+v", got[101])
	}
	none(t, p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.probes) != 2 || len(p.timers) != 2 {
		t.Errorf("%d probes, %d timers are left, want 2", len(p.probes), len(p.timers))
	}
}

// TestStopFlying: what is stopped, or begun anew, while it is under way is closed.
func TestStopFlying(t *testing.T) {
	t.Parallel()
	p := open(t)
	_, good := listen(t, "127.0.0.1:0")
	dead := silent(t)
	slow := tcp(time.Hour)
	for key := range Key(3) {
		p.Start(key, &Target{Check: slow, At: dead}, 0)
	}
	busy := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.connects.busy
	}
	for busy() < 3 {
		time.Sleep(time.Millisecond)
	}
	p.Stop(0)
	p.Start(1, &Target{Check: slow, At: good}, 0)
	if r := results(t, p, 1)[1]; !r.OK {
		t.Errorf("begun anew: %+v", r)
	}
	none(t, p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connects.busy != 1 || len(p.timers) != 1 || len(p.probes) != 1 {
		t.Errorf("%d connects, %d timers, %d probes are left, want 1", p.connects.busy, len(p.timers), len(p.probes))
	}
}

// TestRoom: no more than so many are under way at a time, the others come when one
// ends, and that they had to wait makes none of them late.
func TestRoom(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.mu.Lock()
	p.connects.most = 4
	p.mu.Unlock()
	dead := silent(t)
	const n = 12
	check := tcp(300 * time.Millisecond)
	for key := range Key(n) {
		p.Start(key, &Target{Check: check, At: dead}, 0)
	}
	var begun []time.Time
	for _, r := range results(t, p, n) {
		if r.OK || r.Reason != "tcp: timeout" {
			t.Errorf("got %+v", r)
		}
		begun = append(begun, r.Began)
	}
	slices.SortFunc(begun, time.Time.Compare)
	for i := 4; i < n; i++ {
		if gap := begun[i].Sub(begun[i-4]); gap < check.Timeout {
			t.Errorf("%d began %v after the fourth before it", i, gap)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.connects.full.After(begun[0]) {
		t.Error("it was never full: those that waited look late")
	}
}

// TestStopQueued: what is stopped while it waits for room does not begin.
func TestStopQueued(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.mu.Lock()
	p.connects.most = 1
	p.mu.Unlock()
	_, good := listen(t, "127.0.0.1:0")
	p.Start(1, &Target{Check: tcp(time.Hour), At: silent(t)}, 0)
	p.Start(2, &Target{Check: tcp(5 * time.Second), At: good}, time.Millisecond)
	for queued := 0; queued == 0; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		queued = len(p.connects.queue)
		p.mu.Unlock()
	}
	p.Stop(2)
	p.Stop(1)
	p.Start(3, &Target{Check: tcp(5 * time.Second), At: good}, 0)
	if r := results(t, p, 1)[3]; !r.OK {
		t.Errorf("got %+v", r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connects.busy != 0 || len(p.probes) != 0 {
		t.Errorf("%d connects, %d probes are left", p.connects.busy, len(p.probes))
	}
}

// TestWake: a check that is due before the next turn brings that forward.
func TestWake(t *testing.T) {
	p := open(t)
	before := time.Now()
	for !p.Turned().After(before) {
		time.Sleep(time.Millisecond)
	}
	const after = 200 * time.Millisecond
	p.Start(1, &Target{Check: tcp(time.Second), At: closed(t, "127.0.0.1")}, after)
	due := time.Now().Add(after)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake.After(due) {
		t.Errorf("the next turn comes %v late", p.wake.Sub(due))
	}
}

// TestLate judges moments that are made up: nothing has to be slow.
func TestLate(t *testing.T) {
	now := time.Now()
	ago := func(ms int) time.Time { return now.Add(-time.Duration(ms) * time.Millisecond) }
	for _, tt := range []struct {
		name             string
		due, full, began time.Time
		outcome          Outcome
		late             bool
	}{
		{"in time", ago(1000), time.Time{}, ago(1000), Outcome{}, false},
		{"began a little late", ago(14_000), time.Time{}, ago(10_000), Outcome{}, false},
		{"began late", ago(16_000), time.Time{}, ago(10_000), Outcome{}, true},
		{"had to wait for others", ago(16_000), ago(11_000), ago(10_000), Outcome{}, false},
		{"had to wait, then began late", ago(30_000), ago(16_000), ago(10_000), Outcome{}, true},
		{"read a little late", ago(14_000), time.Time{}, ago(14_000), Outcome{}, false},
		{"read late", ago(16_000), time.Time{}, ago(16_000), Outcome{}, true},
		{"passed, read late", ago(16_000), time.Time{}, ago(16_000), Outcome{OK: true}, true},
		{"could not ask", ago(10), time.Time{}, ago(10), Outcome{Ours: true}, true},
	} {
		p := &Pool{probes: map[Key]*probe{}}
		pr := &probe{
			target: &Target{Check: tcp(10 * time.Second)}, lane: &lane{full: tt.full}, place: -1, fd: -1, due: tt.due, began: tt.began,
		}
		p.finish(pr, tt.outcome)
		if got := p.done[0]; got.Late != tt.late || got.OK != tt.outcome.OK {
			t.Errorf("%s: got %+v, want late %v", tt.name, got, tt.late)
		}
	}
}

// TestLooked: a deadline that has passed since the pool looked for answers, or while
// more of them wait to be read, proves nothing.
func TestLooked(t *testing.T) {
	t.Parallel()
	target := Target{Check: tcp(time.Second), At: silent(t)}
	fd, err := connect(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &Pool{probes: map[Key]*probe{}, flying: make([]*probe, fd+1)}
	began := time.Now().Add(-time.Minute)
	pr := &probe{target: &target, lane: &p.connects, began: began, due: began, at: began.Add(time.Second), fd: fd}
	p.probes[0], p.flying[fd] = pr, pr
	p.timers.add(pr)

	events := []unix.EpollEvent{{Fd: 0}} // of a check that is gone
	p.turn(events, 0, began)
	p.turn(events, 1, time.Now())
	if len(p.done) != 0 {
		t.Errorf("got %+v", p.done)
	}
	p.turn(events, 0, time.Now())
	if len(p.done) != 1 || p.done[0].Reason != "tcp: timeout" || !p.done[0].Late {
		t.Errorf("got %+v, want a timeout that was late", p.done)
	}
}

// TestCalls: kinds that need a goroutine get one, with a deadline, and no more of
// them than there is room for.
func TestCalls(t *testing.T) {
	const kind = lb.CheckKind(200)
	var running, most atomic.Int32
	kinds[kind] = func(ctx context.Context, t Target) Outcome {
		now := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		if t.Backend == "waits" {
			<-ctx.Done()
			return failed("exec", ctx.Err())
		}
		return Outcome{OK: true, Percent: 75, Reason: "a \"b\" \x1b[31m " + t.Service}
	}
	p := open(t)
	p.mu.Lock()
	p.calls.most = 3
	p.mu.Unlock()
	quick, slow := &lb.Check{Kind: kind, Timeout: 20 * time.Second}, &lb.Check{Kind: kind, Timeout: 50 * time.Millisecond}
	for key := range Key(10) {
		p.Start(key, &Target{Check: slow, Backend: "waits"}, 0)
	}
	for key := range Key(10) {
		p.Start(10+key, &Target{Check: quick, Service: "web"}, 0)
	}
	for key, r := range results(t, p, 20) {
		switch {
		case key < 10 && (r.OK || r.Reason != "exec: timeout" || r.Took < slow.Timeout):
			t.Errorf("waits: %+v", r)
		case key >= 10 && (!r.OK || r.Percent != 75 || r.Reason != "a ?b? ?[31m web"):
			t.Errorf("quick: %+v", r)
		}
	}
	if got := most.Load(); got != 3 {
		t.Errorf("%d ran at a time, want 3", got)
	}

	// What is stopped, or still runs at the end, is told to end.
	p.Start(30, &Target{Check: &lb.Check{Kind: kind, Timeout: time.Hour}, Backend: "waits"}, 0)
	p.Start(31, &Target{Check: &lb.Check{Kind: kind, Timeout: time.Hour}, Backend: "waits"}, 0)
	for running.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	p.Stop(30)
	for running.Load() > 1 {
		time.Sleep(time.Millisecond)
	}
	none(t, p)
	p.Close()
	if got := running.Load(); got != 0 {
		t.Errorf("%d run on", got)
	}
	delete(kinds, kind)
}

// TestBusyOwner: nobody takes results for a while, and none is lost.
func TestBusyOwner(t *testing.T) {
	t.Parallel()
	p := open(t)
	_, at := listen(t, "127.0.0.1:0")
	const n = 300
	for key := range Key(n) {
		p.Start(key, &Target{Check: tcp(5 * time.Second), At: at}, time.Duration(key)*100*time.Microsecond)
	}
	for {
		p.mu.Lock()
		left := len(p.probes)
		p.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	results(t, p, n)
	before := p.Turned()
	for !p.Turned().After(before) { // it turns, though there is nothing to do
		time.Sleep(10 * time.Millisecond)
	}
}

func TestFailed(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Outcome
	}{
		{context.DeadlineExceeded, Outcome{Reason: "tcp: timeout"}},
		{os.ErrDeadlineExceeded, Outcome{Reason: "tcp: timeout"}},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.ECONNREFUSED)}, Outcome{Refused: true, Reason: "tcp: refused"}},
		{unix.ECONNRESET, Outcome{Reason: "tcp: reset"}},
		{unix.EHOSTUNREACH, Outcome{Reason: "tcp: no route"}},
		{unix.ENETUNREACH, Outcome{Reason: "tcp: no route"}},
		{unix.EPROTO, Outcome{Reason: "tcp: EPROTO"}},
		{unix.EMFILE, Outcome{Ours: true, Reason: "tcp: EMFILE"}},
		{fmt.Errorf("what else"), Outcome{Reason: "tcp: what else"}},
	} {
		tt.want.Percent = -1
		if got := failed("tcp", tt.err); got != tt.want {
			t.Errorf("%v: got %+v, want %+v", tt.err, got, tt.want)
		}
	}
}

func TestTidy(t *testing.T) {
	for in, want := range map[string]string{
		"tcp: refused":           "tcp: refused",
		"up; drain by admin":     "up? drain by admin",
		"\"$x\\\"\n\x7fé":        "??x?????",
		strings.Repeat("ab", 20): strings.Repeat("ab", 20),
		strings.Repeat("ab", 50): strings.Repeat("ab", 18) + "a...",
	} {
		if got := tidy(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestUrgent: the result of a check that was wanted at once does not wait for others,
// and takes along those that do.
func TestUrgent(t *testing.T) {
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	p.Close() // from here on, it turns as this test does
	p.results = make(chan []Result, 1)
	ended := func(key Key, after time.Duration) {
		p.Start(key, &Target{Check: &lb.Check{Kind: lb.CheckTCP, Timeout: time.Second}}, after)
		p.turned = time.Now()
		p.finish(p.probes[key], failed("tcp", unix.ECONNREFUSED))
		p.handOver()
	}
	ended(1, time.Minute)
	if len(p.results) > 0 {
		t.Error("the result of a check in its turn does not wait")
	}
	ended(2, 0)
	if len(p.results) == 0 {
		t.Fatal("the result of a check that was wanted at once waits")
	}
	if got := <-p.results; len(got) != 2 {
		t.Errorf("got %d results, want both", len(got))
	}
}
