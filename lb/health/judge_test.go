package health

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
)

var start = time.Date(2026, 11, 26, 4, 5, 6, 0, time.UTC)

func check(rise, fall int) *lb.Check {
	return &lb.Check{Interval: 2 * time.Second, Timeout: time.Second, Rise: rise, Fall: fall}
}

// feed gives a result a second: '+' passed, '-' failed, '!' failed and sudden. It
// returns the verdicts: n, u, d.
func feed(j *Judge, at time.Time, results string) string {
	var out strings.Builder
	for i, r := range results {
		before := j.Verdict()
		changed := j.Result(at.Add(time.Duration(i)*time.Second), r == '+', r == '!', string(r))
		if changed != (before != j.Verdict()) {
			out.WriteByte('?')
		}
		out.WriteByte("nud"[j.Verdict()])
	}
	return out.String()
}

func TestResults(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first         lb.Verdict
		rise, fall    int
		results, want string
	}{
		{"new: one success is enough", lb.VerdictNew, 5, 3, "+", "u"},
		{"new: as many failures as any other", lb.VerdictNew, 2, 3, "---", "nnd"},
		{"new: a failure, then a success", lb.VerdictNew, 2, 3, "--+", "nnu"},
		{"new: sudden", lb.VerdictNew, 2, 3, "!", "d"},
		{"fall in a row", lb.VerdictUp, 2, 3, "--+--+---", "uuuuuuuud"},
		{"fall 1", lb.VerdictUp, 2, 1, "-", "d"},
		{"rise in a row", lb.VerdictDown, 3, 1, "++-+++", "dddddu"},
		{"rise 1", lb.VerdictDown, 1, 3, "+", "u"},
		{"sudden death", lb.VerdictUp, 2, 100, "+!", "ud"},
		{"down already", lb.VerdictDown, 2, 3, "!-!", "ddd"},
		{"a streak of before does not count", lb.VerdictUp, 2, 2, "-+-", "uuu"},
	} {
		j := New(check(tt.rise, tt.fall), lb.Standing{Verdict: tt.first}, start)
		if got := feed(j, start, tt.results); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestWhatIsShown(t *testing.T) {
	before := start.Add(-time.Hour)
	j := New(check(2, 2), lb.Standing{Verdict: lb.VerdictDown, Since: before, Reason: "tcp: refused"}, start)
	j.Late()
	j.Result(start, false, false, "tcp: timeout")
	if j.Verdict() != lb.VerdictDown || !j.since.Equal(before) || j.reason != "tcp: refused" || j.Streak() != -1 || j.Lates() != 1 {
		t.Errorf("what was known does not stand: %+v", j)
	}
	feed(j, start.Add(time.Second), "++")
	if want := start.Add(2 * time.Second); !j.since.Equal(want) || j.reason != "+" || j.Streak() != 2 {
		t.Errorf("came up: %+v, want since %v", j, want)
	}
	if got := New(check(1, 1), lb.Standing{}, start).since; !got.Equal(start) {
		t.Errorf("nothing was known: since %v, want %v", got, start)
	}
}

// TestFlapping: a server that falls again and again needs more and more successes,
// until it was good for a while.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := New(check(2, 1), lb.Standing{Verdict: lb.VerdictUp}, time.Now())
		needs := func() (n int) {
			for j.Verdict() != lb.VerdictUp {
				time.Sleep(time.Second)
				j.Result(time.Now(), true, false, "")
				n++
			}
			return n
		}
		var got []int
		for range 7 {
			j.Result(time.Now(), false, false, "")
			got = append(got, needs())
		}
		if want := []int{2, 4, 8, 16, 32, 64, 64}; !cmp.Equal(got, want) {
			t.Errorf("needed %v, want %v", got, want)
		}

		got = nil
		for _, after := range []time.Duration{9 * time.Minute, 10 * time.Minute, 4 * time.Minute, 6 * time.Minute, time.Minute} {
			time.Sleep(after)
			j.Result(time.Now(), false, false, "")
			got = append(got, needs())
		}
		if want := []int{64, 2, 4, 4, 8}; !cmp.Equal(got, want) {
			t.Errorf("after a while needed %v, want %v", got, want)
		}
	})
}

func TestHeld(t *testing.T) {
	j := New(check(2, 1), lb.Standing{Verdict: lb.VerdictUp}, start)
	var got []string
	for i, r := range "-++-++++-++++++-+" {
		j.Result(start.Add(time.Duration(i)*time.Second), r == '+', false, "")
		have, need := j.Held()
		got = append(got, fmt.Sprintf("%c%d/%d", r, have, need))
	}
	want := "-0/0 +0/0 +0/0 -0/0 +1/4 +2/4 +3/4 +0/0 -0/0 +1/8 +2/8 +3/8 +4/8 +5/8 +6/8 -0/0 +1/8"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

// TestNext: when checks are due, from the beginning of the one before.
func TestNext(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name     string
		interval time.Duration
		first    lb.Verdict
		results  string
		took     time.Duration
		low      time.Duration
		high     time.Duration
	}{
		{"first", time.Second, lb.VerdictNew, "", 0, 0, time.Second},
		{"first, seldom", time.Hour, lb.VerdictDown, "", 0, 0, 2 * time.Second},
		{"up", 2 * time.Second, lb.VerdictNew, "+", 0, 1900 * time.Millisecond, 2100 * time.Millisecond},
		{"down", 2 * time.Second, lb.VerdictDown, "-", 0, 1900 * time.Millisecond, 2100 * time.Millisecond},
		{"it took a while", 2 * time.Second, lb.VerdictUp, "+", time.Second, 900 * time.Millisecond, 1100 * time.Millisecond},
		{"up, in doubt", 2 * time.Second, lb.VerdictUp, "-", 0, 500 * time.Millisecond, 500 * time.Millisecond},
		{"down, in doubt", 2 * time.Second, lb.VerdictDown, "+", 0, 500 * time.Millisecond, 500 * time.Millisecond},
		{"new, in doubt", 2 * time.Second, lb.VerdictNew, "-", 0, 500 * time.Millisecond, 500 * time.Millisecond},
		{"in doubt, often", 200 * time.Millisecond, lb.VerdictUp, "-", 0, 100 * time.Millisecond, 100 * time.Millisecond},
		{"in doubt, and it took longer", 2 * time.Second, lb.VerdictUp, "-", time.Second, 0, 0},
		{"doubt is over", 2 * time.Second, lb.VerdictUp, "-+", 0, 1900 * time.Millisecond, 2100 * time.Millisecond},
	} {
		c := check(2, 3)
		c.Interval = tt.interval
		least, most := time.Duration(1<<62), time.Duration(0)
		for range 1000 {
			j := New(c, lb.Standing{Verdict: tt.first}, start)
			feed(j, start, tt.results)
			next := j.Next(start, start.Add(tt.took), r)
			least, most = min(least, next), max(most, next)
		}
		if spread := (tt.high - tt.low) / 20; least < tt.low || most > tt.high || least > tt.low+spread || most < tt.high-spread {
			t.Errorf("%s: %v to %v, want %v to %v", tt.name, least, most, tt.low, tt.high)
		}
	}
}

// TestMonotonic: what a judge keeps has its monotonic reading, so that differences
// do not depend on the wall clock.
func TestMonotonic(t *testing.T) {
	j := New(check(1, 1), lb.Standing{Verdict: lb.VerdictUp}, time.Now())
	j.Result(time.Now(), false, false, "")
	down := j.since
	j.Result(time.Now(), true, false, "")
	for _, at := range []time.Time{down, j.since, j.rose, j.fell} {
		if !strings.Contains(at.String(), " m=") {
			t.Errorf("%v has no monotonic reading", at)
		}
	}
}

// event is a result of the random test.
type event struct {
	at         time.Time
	ok, sudden bool
}

// naive tells the verdict from all that ever happened, by the rules as they are
// written down.
func naive(c *lb.Check, v lb.Verdict, events []event) lb.Verdict {
	type life struct{ rose, fell time.Time }
	var lives []life
	rose := start
	for i, e := range events {
		row := 0
		for k := i; k >= 0 && events[k].ok == e.ok; k-- {
			row++
		}
		times := 1 // as many successes, for all falls so far
		for k, l := range lives {
			if l.fell.Sub(l.rose) >= 10*time.Minute {
				times = 1
			} else if k > 0 && l.fell.Sub(lives[k-1].fell) <= 5*time.Minute {
				times = min(32, 2*times)
			}
		}
		switch {
		case e.ok && v == lb.VerdictNew, e.ok && v == lb.VerdictDown && row >= c.Rise*times:
			v, rose = lb.VerdictUp, e.at
		case !e.ok && v == lb.VerdictUp && (e.sudden || row >= c.Fall):
			v, lives = lb.VerdictDown, append(lives, life{rose, e.at})
		case !e.ok && v == lb.VerdictNew && (e.sudden || row >= c.Fall):
			v = lb.VerdictDown
		}
	}
	return v
}

func TestRandom(t *testing.T) {
	changes := 0
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 7))
		c := check(1+r.IntN(3), 1+r.IntN(4))
		first := lb.Verdict(r.IntN(3))
		j := New(c, lb.Standing{Verdict: first}, start)
		var events []event
		at, ok := start, true
		for range 300 {
			if r.IntN(5) == 0 {
				ok = !ok
			}
			at = at.Add(time.Duration(r.IntN(30)) * time.Second)
			if r.IntN(60) == 0 {
				at = at.Add(time.Duration(r.IntN(15)) * time.Minute)
			}
			e := event{at, ok, !ok && r.IntN(20) == 0}
			events = append(events, e)
			if j.Result(e.at, e.ok, e.sudden, "") {
				changes++
			}
			if got, want := j.Verdict(), naive(c, first, events); got != want {
				t.Fatalf("seed %d, result %d: got %v, want %v", seed, len(events), got, want)
			}
		}
	}
	if changes < 1500 {
		t.Errorf("only %d changes: the test tests little", changes)
	}
}

// TestDetection: no server that ceases to answer is up for longer than Detection,
// whenever that happens, and some are for nearly as long.
func TestDetection(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []*lb.Check{
		{Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
		{Interval: 2 * time.Second, Timeout: 10 * time.Millisecond, Rise: 2, Fall: 3},
		{Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Rise: 1, Fall: 1},
		{Interval: time.Minute, Timeout: time.Second, Rise: 1, Fall: 10},
	} {
		longest := time.Duration(0)
		for range 500 {
			j := New(c, lb.Standing{}, start)
			began := start
			j.Result(began, true, false, "")
			at := began.Add(j.Next(began, began, r))
			for j.Verdict() == lb.VerdictUp {
				end := at.Add(c.Timeout)
				j.Result(end, false, false, "")
				longest = max(longest, end.Sub(began))
				at = end.Add(j.Next(at, end, r))
			}
		}
		if bound := Detection(c); longest > bound || longest < bound*98/100 {
			t.Errorf("%+v: the longest took %s, Detection is %s", c, longest, bound)
		}
	}
}
