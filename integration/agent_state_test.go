package integration

// What the agent knows of servers: who serves when few are left, who has to wait,
// what admins order, and what outlives the agent.

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"nlb/lb"
)

// TestAgentAllDown: with nobody up, health is ignored, until one is back.
func TestAgentAllDown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	one, two := b.serve("10.2.0.11"), b.serve("10.2.0.12")
	a := b.agent(web + "    health: {check: tcp, interval: 100ms}\n" + backends(8080, -1, -1))
	one.Close()
	b.becomes(lb.Down, "web", "10.2.0.11")
	two.Close()
	a.says(0, "all get connections")
	b.becomes(lb.Up, "web", "10.2.0.11", "10.2.0.12")
	b.serve("10.2.0.12")
	b.becomes(lb.Down, "web", "10.2.0.11")
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 10)), map[string]int{"10.2.0.12": 10})
	a.says(0, "enough backends are up again")
}

// TestAgentNewcomer: one that never worked waits outside, while another one is up.
func TestAgentNewcomer(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.serve("10.2.0.11")
	const health = "    health: {check: tcp, interval: 3s, fall: 100}\n" // it never falls here
	a := b.agent(web + health + backends(8080, -1))
	a.rewrite(web + health + backends(8080, -1, -1))
	b.becomes(lb.Down, "web", "10.2.0.12")
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 10)), map[string]int{"10.2.0.11": 10})
	a.end(syscall.SIGKILL)
	a.begin()
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 10)), map[string]int{"10.2.0.11": 10})
	b.serve("10.2.0.12")
	b.becomes(lb.Up, "web", "10.2.0.12")
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 10)), map[string]int{"10.2.0.11": 5, "10.2.0.12": 5})
}

// TestAgentPriorities: the spare server joins when the first one falls, and stands
// by again when that is back.
func TestAgentPriorities(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	first := b.serve("10.2.0.11")
	b.serve("10.2.0.12")
	b.agent(web + "    health: {check: tcp, interval: 100ms}\n    backends: [\"10.2.0.11:8080\", {address: \"10.2.0.12:8080\", priority: 2}]\n")
	for range 2 {
		b.becomes(lb.Standby, "web", "10.2.0.12")
		b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 5)), map[string]int{"10.2.0.11": 5})
		first.Close()
		b.becomes(lb.Up, "web", "10.2.0.12")
		b.becomes(lb.Down, "web", "10.2.0.11")
		b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 5)), map[string]int{"10.2.0.12": 5})
		first = b.serve("10.2.0.11")
		b.becomes(lb.Up, "web", "10.2.0.11")
	}
}

// TestAgentFlapping: each fall doubles the good checks that a server needs.
func TestAgentFlapping(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.serve("10.2.0.12")
	b.agent(web + "    health: {check: tcp, interval: 100ms, rise: 1}\n" + backends(8080, -1, -1))
	// Checks of a server in doubt begin 100 ms apart, or later on a busy machine.
	const apart = 90 * time.Millisecond
	for _, needs := range []int{1, 1, 2, 4, 8} {
		b.becomes(lb.Down, "web", "10.2.0.11")
		began := time.Now()
		s := b.serve("10.2.0.11")
		b.becomes(lb.Up, "web", "10.2.0.11")
		if took := time.Since(began); took < time.Duration(needs-1)*apart {
			t.Errorf("it was up after %s, and needed %d checks", took, needs)
		}
		s.Close()
	}
}

// TestAgentOrders: what an admin says holds, whatever checks say, until it is taken
// back or its time is over.
func TestAgentOrders(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	one := b.serve("10.2.0.11")
	b.serve("10.2.0.12")
	a := b.agent(web + "    health: {check: tcp, interval: 100ms}\n" + backends(8080, -1, -1))
	live := b.holdOpen("tcp", "203.0.113.10:80", "10.2.0.11")
	order := func(args ...string) {
		t.Helper()
		if code, text := a.process(args...); code != 0 {
			t.Fatalf("nlb %v: %s", args, text)
		}
	}
	const backend = "shop/web/10.2.0.11:8080"
	order("drain", backend)
	b.becomes(lb.Draining, "web", "10.2.0.11")
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 5)), map[string]int{"10.2.0.12": 5})
	one.Stop()
	a.fails("web", "10.2.0.11")
	b.serve("10.2.0.11")
	b.becomes(lb.Draining, "web", "10.2.0.11")
	if got, _ := b.server("web", "10.2.0.11"); got.Standing.Order != lb.OrderDrain || got.Standing.By == "" {
		t.Errorf("the order is %d, by %q", got.Standing.Order, got.Standing.By)
	}
	order("disable", backend, "--for", "2s")
	b.becomes(lb.Down, "web", "10.2.0.11")
	b.becomes(lb.Up, "web", "10.2.0.11")
	order("disable", backend)
	b.becomes(lb.Down, "web", "10.2.0.11")
	order("enable", backend)
	b.becomes(lb.Up, "web", "10.2.0.11")
	if _, err := live.Again(); err != nil {
		t.Errorf("a live connection: %v", err)
	}
	if code, _ := a.process("drain", "shop/web/nobody"); code == 0 {
		t.Error("a backend that is not there was drained")
	}
}

// TestAgentEnds: killed or told to stop, it leaves the kernel as it is, and the next
// one goes on from there.
func TestAgentEnds(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, address := range []string{"10.2.0.11", "10.2.0.12"} {
		b.serve(address)
	}
	a := b.agent(web + "    health: {check: tcp, interval: 100ms}\n" + backends(8080, -1, -1, -1, -1))
	a.fails("web", "10.2.0.13", "10.2.0.14")
	if code, text := a.process("drain", "shop/web/10.2.0.12:8080"); code != 0 {
		t.Fatal(text)
	}
	b.becomes(lb.Draining, "web", "10.2.0.12")
	live := b.holdOpen("tcp", "203.0.113.10:80", "10.2.0.11")
	states := func() (s string) {
		for _, x := range b.Load().Profiles[0].Services[0].Backends {
			s += fmt.Sprintf("%s is %s, verdict %d of %s, order %d by %s\n", x.Name, x.State, x.Standing.Verdict, x.Standing.Since, x.Standing.Order, x.Standing.By)
		}
		return s
	}
	before, flow := states(), b.stream("203.0.113.10:80", false)
	for _, by := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		if err := a.end(by); by == syscall.SIGTERM && err != nil {
			t.Errorf("told to stop: %v", err)
		}
		if got := states(); got != before {
			t.Errorf("%s changed\n%sto\n%s", by, before, got)
		}
		a.begin()
		for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if got := states(); got != before {
				t.Fatalf("the next agent after %s changed\n%sto\n%s", by, before, got)
			}
		}
	}
	b.wantNoFailures("while agents came and went", b.stopped(flow), time.Time{})
	if _, err := live.Again(); err != nil {
		t.Errorf("a live connection: %v", err)
	}
	b.serve("10.2.0.13")
	b.becomes(lb.Up, "web", "10.2.0.13")
}
