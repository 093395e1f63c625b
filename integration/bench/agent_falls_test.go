//go:build linux

package bench

// What clients notice when one of two servers dies, at 300 new connections a second.

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// The servers of these measurements; the first one dies.
var dying, living = netip.MustParseAddrPort("10.2.0.11:8080"), netip.MustParseAddrPort("10.2.0.12:8080")

// clientsWait is how long clients wait for an answer.
const clientsWait = 10 * time.Second

// pair is the profile of one service of the two servers, with a check of a kind and
// other keys.
func pair(kind, keys string) string {
	interval := ""
	if *quick {
		interval = ", interval: 500ms"
	}
	return fmt.Sprintf("profile: shop\nservices:\n  - name: web\n    listen: %s\n    health: {check: %s%s}\n    %s\n    backends: [%q, %q]\n", vip, kind, interval, keys, dying, living)
}

// haproxyPair is the same for HAProxy.
func haproxyPair(keys string) string {
	if *quick {
		keys += "\tdefault-server inter 500ms\n"
	}
	return fmt.Sprintf("listen web\n\tbind %s\n\tbalance roundrobin\n%s\tserver a %s check\n\tserver b %s check\n", vip, keys, dying, living)
}

// felt is what clients noticed of a death, in several rounds.
type felt struct {
	failed, taken, late []int           // connections: that failed; of these, that the server had taken; that were served after they had asked twice
	last                []time.Duration // from the death to the last connection that came to the dead server
	longest             []time.Duration // that a client waited, who was served
	out                 []time.Duration // from the death to the word that it is down
	ended               int             // rounds in which a live connection of it was ended
	after               []int           // of an agent: that failed although they began after its commit
}

// add counts a round.
func (f *felt) add(all []traffic.Attempt, death, down time.Time) {
	failed, taken, late, last, longest := 0, 0, 0, time.Duration(0), time.Duration(0)
	for _, a := range all {
		if a.Err != nil {
			failed++
			if errors.Is(a.Err, unix.ECONNRESET) {
				taken++
			}
		} else {
			longest = max(longest, a.Took)
		}
		if a.Err == nil && a.Late() {
			late++
		}
		if a.Err != nil || a.Late() {
			last = max(last, a.Began.Sub(death))
		}
	}
	f.failed, f.taken, f.late = append(f.failed, failed), append(f.taken, taken), append(f.late, late)
	f.last, f.longest, f.out = append(f.last, last), append(f.longest, longest), append(f.out, down.Sub(death))
}

func (f *felt) String() string {
	if len(f.failed) == 0 {
		return "not installed"
	}
	return fmt.Sprintf("%d failed, %d late; last misdirected %s after the death; longest wait %s; out after %s",
		median(f.failed), median(f.late), short(median(f.last)), short(median(f.longest)), short(median(f.out)))
}

// hasHAProxy reports whether it is installed, and says so where it is not.
func hasHAProxy(b *testing.B) bool {
	_, err := exec.LookPath("haproxy")
	if err != nil {
		b.Log("haproxy is not installed: its column stays empty")
	}
	return err == nil
}

// checker is a balancer that checks its servers.
type checker struct {
	felt
	agent bool
	start func(b *testing.B, h *netlab.Host) *daemon
	down  string // what it says of a server that is down
	up    string // and of one that is up again
}

// agentOf is nlb run with a profile.
func agentOf(b *testing.B, name, profile string) *checker {
	file := write(b, name+".yaml", profile)
	return &checker{agent: true, start: func(b *testing.B, h *netlab.Host) *daemon { return runAgent(b, h, file) }, down: "msg=down", up: "msg=up"}
}

// haproxyOf is HAProxy with what listens.
func haproxyOf(config string) *checker {
	return &checker{start: func(b *testing.B, h *netlab.Host) *daemon {
		return runHAProxy(b, h, config)
	}, down: "is DOWN", up: "is UP"}
}

// round has a server die under a stream, and counts what clients notice.
func (c *checker) round(b *testing.B, http bool, die func(bed *netlabtest.Bed), servers ...func(bed *netlabtest.Bed)) {
	b.Helper()
	bed := netlabtest.New(b)
	for _, serve := range servers {
		serve(bed)
	}
	netlabtest.Must(b, bed.Balancer.AddLocal(netip.PrefixFrom(vip.Addr(), 32)))
	quiet()
	d := c.start(b, bed.Balancer)
	defer d.end(syscall.SIGKILL)
	var kernel *commits
	if c.agent {
		kernel = watchCommits(b, bed.Balancer)
	}
	time.Sleep(time.Second) // it has heard of both
	flow := traffic.Load{From: bed.Client, To: vip, Rate: 300, Timeout: clientsWait, HTTP: http}.Start(b.Context())
	time.Sleep(500 * time.Millisecond)
	var live net.Conn
	if http {
		live = held(b, bed)
		defer live.Close()
	}
	die(bed)
	death := time.Now()
	down := d.awaits(b, c.down, 1, death.Add(-100*time.Millisecond))
	time.Sleep(time.Second)
	all, err := flow.Stop()
	netlabtest.Must(b, err)
	c.add(all, death, down)
	if c.agent {
		c.after = append(c.after, failedAfter(b, all, kernel.after(death)))
	}
	if http && endsSoon(live) {
		c.ended++
	}
}

// outage runs a checker under a stream while servers come and go, and returns what
// became of the connections. do is told how to make the dying server, or the living one,
// serve or end.
func (c *checker) outage(b *testing.B, do func(d *daemon, serve, end func(at netip.AddrPort))) []traffic.Attempt {
	b.Helper()
	bed := netlabtest.New(b)
	servers := map[netip.AddrPort]*traffic.Server{}
	serve := func(at netip.AddrPort) {
		s, err := traffic.Serve(bed.Server, at.Addr().String(), traffic.Port{Network: "tcp", At: at})
		netlabtest.Must(b, err)
		servers[at] = s
	}
	end := func(at netip.AddrPort) {
		servers[at].Close()
		delete(servers, at)
	}
	defer func() {
		for at := range servers {
			end(at)
		}
	}()
	serve(dying)
	serve(living)
	netlabtest.Must(b, bed.Balancer.AddLocal(netip.PrefixFrom(vip.Addr(), 32)))
	quiet()
	d := c.start(b, bed.Balancer)
	defer d.end(syscall.SIGKILL)
	time.Sleep(time.Second) // it has heard of both
	flow := traffic.Load{From: bed.Client, To: vip, Rate: 300, Timeout: clientsWait}.Start(b.Context())
	time.Sleep(500 * time.Millisecond)
	do(d, serve, end)
	all, err := flow.Stop()
	netlabtest.Must(b, err)
	return all
}

// allDie has both servers end, and one come back after a while.
func allDie(b *testing.B) {
	const away = 10 * time.Second
	type back struct{ first, last, up []time.Duration } // since it came back: the first that was served, the last that failed, and the word
	var figures [2]back
	balancers := []*checker{agentOf(b, "alldie", pair("tcp", "")), haproxyOf(haproxyPair(""))}
	if !hasHAProxy(b) {
		balancers = balancers[:1]
	}
	for b.Loop() {
		for i, c := range balancers {
			var returned, up time.Time
			all := c.outage(b, func(d *daemon, serve, end func(netip.AddrPort)) {
				died := time.Now()
				end(dying)
				end(living)
				d.awaits(b, c.down, 2, died.Add(-100*time.Millisecond))
				time.Sleep(time.Until(died.Add(away)))
				serve(living)
				returned = time.Now()
				up = d.awaits(b, c.up, 1, returned)
				time.Sleep(time.Second)
			})
			first, last := time.Hour, time.Duration(0)
			for _, a := range all {
				if a.Err == nil && a.Began.After(returned) {
					first = min(first, a.Began.Add(a.Took).Sub(returned))
				} else if a.Err != nil {
					last = max(last, a.Began.Sub(returned))
				}
			}
			f := &figures[i]
			f.first, f.last, f.up = append(f.first, first), append(f.last, last), append(f.up, up.Sub(returned))
		}
	}
	words := func(f back) string {
		if len(f.up) == 0 {
			return ""
		}
		return fmt.Sprintf("after it came back, the first was served after %s, the last failed after %s; up after %s", short(median(f.first)), short(median(f.last)), short(median(f.up)))
	}
	// All get connections while nobody is up, so one works at once for those that come to
	// it; two checks later it is the only one.
	prove(b, "all die, and one comes back after 10 s", words(figures[0]), words(figures[1]), "served from then on, alone within 2.1 s + 0.5 s + 0.1 s",
		median(figures[0].first) <= 100*time.Millisecond && median(figures[0].last) <= 2700*time.Millisecond)
}

// flapping has one of two servers end and come back, about every second: whoever checks
// at a steady pace is not to find it always the same.
func flapping(b *testing.B) {
	const times = 10
	about := func() time.Duration { return 800*time.Millisecond + rand.N(400*time.Millisecond) }
	type swings struct{ failed, late, changes []int }
	var figures [2]swings
	balancers := []*checker{agentOf(b, "flapping", pair("tcp", "")), haproxyOf(haproxyPair(""))}
	if !hasHAProxy(b) {
		balancers = balancers[:1]
	}
	for b.Loop() {
		for i, c := range balancers {
			changes := 0
			all := c.outage(b, func(d *daemon, serve, end func(netip.AddrPort)) {
				began := time.Now()
				for range times {
					end(dying)
					time.Sleep(about())
					serve(dying)
					time.Sleep(about())
				}
				changes = len(d.said(c.down, began)) + len(d.said(c.up, began))
			})
			failed, late := 0, 0
			for _, a := range all {
				if a.Err != nil {
					failed++
				} else if a.Late() {
					late++
				}
			}
			f := &figures[i]
			f.failed, f.late, f.changes = append(f.failed, failed), append(f.late, late), append(f.changes, changes)
		}
	}
	words := func(f swings) string {
		if len(f.failed) == 0 {
			return ""
		}
		return fmt.Sprintf("%d failed, %d late, %d changes of its verdict", median(f.failed), median(f.late), median(f.changes))
	}
	// It falls, comes back after two successes, falls, and needs four, which it never has.
	prove(b, fmt.Sprintf("a server dies and comes back about every second, %d times", times), words(figures[0]), words(figures[1]), "held from the second fall on: at most 3 changes; at most 3 failed for each fall",
		median(figures[0].changes) <= 3 && median(figures[0].failed) <= 6)
}

// failedAfter counts connections that failed although they began after the commit that
// took a server out.
func failedAfter(b *testing.B, all []traffic.Attempt, commits []time.Time) (n int) {
	b.Helper()
	if len(commits) == 0 {
		b.Fatal("it is down, and nothing was committed")
	}
	for _, a := range all {
		if a.Err != nil && a.Began.After(commits[0]) {
			n++
		}
	}
	return n
}

// held is a connection that the dying server answered once.
func held(b *testing.B, bed *netlabtest.Bed) net.Conn {
	b.Helper()
	for range 100 {
		var c net.Conn
		netlabtest.Must(b, bed.Client.Do(func() (err error) { c, err = net.Dial("tcp", vip.String()); return err }))
		answer := make([]byte, 1<<10)
		_, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: service\r\n\r\n"))
		n, err2 := c.Read(answer)
		netlabtest.Must(b, err, err2)
		if bytes.Contains(answer[:n], []byte("\n"+dying.Addr().String()+" ")) {
			return c
		}
		c.Close()
	}
	b.Fatalf("%s never answers", dying)
	return nil
}

// endsSoon reports whether a connection is reset or closed when the client speaks.
func endsSoon(c net.Conn) bool {
	_, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: service\r\n\r\n"))
	if err == nil {
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// killed is the end of a server's process: it refuses.
func killed(b *testing.B) {
	var s *traffic.Server
	serve := func(bed *netlabtest.Bed) {
		bed.Serve([]int{8080}, "10.2.0.12")
		var err error
		s, err = traffic.Serve(bed.Server, "10.2.0.11", traffic.Port{Network: "tcp", At: dying})
		netlabtest.Must(b, err)
	}
	die := func(*netlabtest.Bed) { s.Close() }
	passive := agentOf(b, "passive", pair("tcp", ""))
	retry := agentOf(b, "retry", pair("tcp", "retry: true"))
	haproxy := haproxyOf(haproxyPair(""))
	there := hasHAProxy(b)
	for b.Loop() {
		passive.round(b, false, die, serve)
		retry.round(b, false, die, serve)
		if there {
			haproxy.round(b, false, die, serve)
		}
	}
	prove(b, "a server's process is killed (it refuses)", passive.String(), haproxy.String(), "last misdirected at most 20 ms after, at most 3 failed",
		median(passive.last) <= 20*time.Millisecond && median(passive.failed) <= 3)
	prove(b, "the same with `retry: true`", retry.String(), haproxy.String(), "none failed that the server had not taken",
		median(retry.failed) <= median(retry.taken))
}

// silent is a server that falls off the network.
func silent(b *testing.B) {
	serve := func(bed *netlabtest.Bed) { bed.Serve([]int{8080}, "10.2.0.11", "10.2.0.12") }
	die := func(bed *netlabtest.Bed) {
		bed.NFT(bed.Server, fmt.Sprintf("table ip silence {\n\tchain in {\n\t\ttype filter hook prerouting priority raw\n\t\tip daddr %s drop\n\t}\n}\n", dying.Addr()))
	}
	ours, haproxy := agentOf(b, "silent", pair("tcp", "")), haproxyOf(haproxyPair(""))
	there := hasHAProxy(b)
	for b.Loop() {
		ours.round(b, false, die, serve)
		if there {
			haproxy.round(b, false, die, serve)
		}
	}
	prove(b, "a server falls silent; clients wait 10 s", ours.String(), haproxy.String(), "0 failed, nobody waits longer than 7 s, out within 3 x 2 s + 1 s",
		median(ours.failed) == 0 && median(ours.longest) <= 7*time.Second+100*time.Millisecond && median(ours.out) <= 7*time.Second)
}

// hung is a server that takes connections and answers nothing.
func hung(b *testing.B) {
	var web *traffic.Web
	serve := func(bed *netlabtest.Bed) {
		for _, at := range []netip.AddrPort{living, dying} {
			var err error
			web, err = traffic.ServeWeb(bed.Server, at.Addr().String(), at)
			netlabtest.Must(b, err)
		}
	}
	die := func(*netlabtest.Bed) { web.Hang() }
	keep := agentOf(b, "keep", pair("http", ""))
	cut := agentOf(b, "cut", pair("http", "on-down: cut"))
	haproxy := haproxyOf(haproxyPair("\toption httpchk\n"))
	there := hasHAProxy(b)
	for b.Loop() {
		keep.round(b, true, die, serve)
		cut.round(b, true, die, serve)
		if there {
			haproxy.round(b, true, die, serve)
		}
	}
	after := func(f *felt) time.Duration { // the last one that came to it, after it was out
		var worst []time.Duration
		for i := range f.last {
			worst = append(worst, f.last[i]-f.out[i])
		}
		return median(worst)
	}
	words := func(f *felt) string {
		if len(f.failed) == 0 {
			return f.String()
		}
		word, by := "before", -after(f)
		if by < 0 {
			word, by = "after", -by
		}
		out := fmt.Sprintf("%d connections stuck, the last one began %s %s it was down; down %s after it hung; its live connection was ended %d times of %d",
			median(f.failed)+median(f.late), short(by), word, short(median(f.out)), f.ended, len(f.out))
		if f.after != nil {
			out += fmt.Sprintf("; stuck of those that began after the commit: %d", slices.Max(f.after))
		}
		return out
	}
	prove(b, "a server takes connections and never answers, `health: http`", words(&keep.felt), words(&haproxy.felt), "none that begins after the commit; live ones stay",
		slices.Max(keep.after) == 0 && keep.ended == 0)
	prove(b, "the same with `on-down: cut`", words(&cut.felt), "", "none that begins after the commit; live ones are reset when they speak",
		slices.Max(cut.after) == 0 && cut.ended == len(cut.out))
}
