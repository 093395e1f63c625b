package integration

// Stopped: an apply that comes to its end at any message to or from the kernel.

import (
	"encoding/binary"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// crash is a scenario of an apply that stops at some message.
type crash struct {
	name     string
	old, new string
	flows    bool // UDP flows of a backend that leaves
	limit    int  // what the socket can take; 0: everything
	batches  bool // it takes several batches, with states between the old and the new
}

func crashes() []crash {
	service := func(name, listen string, backends ...int) string {
		s := fmt.Sprintf("  - {name: %s, listen: \"%s\", protocol: [tcp, udp], backends: [", name, listen)
		for _, i := range backends {
			s += fmt.Sprintf("\"10.2.0.%d:8080\", ", i)
		}
		return s + "]}\n"
	}
	const web, wide, mail = "203.0.113.10:80", "203.0.113.10:80-89", "203.0.113.11:80"
	head := "profile: shop\nservices:\n"
	old := head + service("web", web, 11, 12, 13) + service("mail", mail, 11)
	changed := head + service("web", web, 12, 14) + service("mail", mail, 11, 12) + service("new", "203.0.113.12:80", 11)
	return []crash{
		{name: "one batch", old: old, new: changed},
		{name: "flows move", old: old, new: changed, flows: true},
		{name: "handover to another map", old: old, new: head + service("web", wide, 11, 12) + service("mail", mail, 11), batches: true},
		{name: "handover to another service", old: old, new: head + service("shop", web, 11, 12) + service("mail", mail, 11), batches: true},
		{name: "small socket", old: old, new: changed, limit: 900, batches: true},
		{name: "small socket, other ports", old: head + service("web", wide, 11, 12) + service("mail", mail, 11), new: head + service("web", "203.0.113.10:80-84,87-99", 11, 12) + service("mail", mail, 11, 13) + service("new", "203.0.113.12:80-89", 11), limit: 900, batches: true},
		{name: "small socket, handover", old: old, new: head + service("shop", wide, 12, 13), limit: 900, batches: true},
	}
}

// TestNothingLostStopped stops an apply at each of its messages to and from
// the kernel.
func TestNothingLostStopped(t *testing.T) {
	t.Parallel()
	total := 0
	for _, c := range crashes() {
		t.Run(c.name, func(t *testing.T) { total += c.run(t) })
	}
	figures(t, "%d applies stopped, each at another message", total)
}

func (c *crash) run(t *testing.T) int {
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14")
	oldProfile, newProfile := b.Parse(c.old), b.Parse(c.new)
	// An apply sweeps what others retired, unless packets keep it waiting, as on
	// a busy machine: then the next one does.
	swept := func(enough func(shape map[string]int) bool) (got map[string]int) {
		for i := range 20 {
			scheduler := []string{"random", "round-robin"}[i%2]
			b.applySoon(c.new + "  - {name: last, listen: \"203.0.113.99:80\", backends: [\"10.2.0.11:8080\"], scheduler: " + scheduler + "}\n")
			if got = shape(b.listing()); enough(got) {
				break
			}
		}
		return got
	}
	reset := func() {
		b.drop()
		b.applySoon(c.old)
		if c.flows {
			b.Row("udp", "203.0.113.10:80", 3)
		}
	}
	// In the end there are as many elements as in a table that never was another.
	b.drop()
	fresh := swept(func(map[string]int) bool { return true })
	clean := func(shape map[string]int) bool {
		for what, n := range shape {
			if strings.HasSuffix(what, "element") && fresh[what] != n {
				return false
			}
		}
		return true
	}
	reset()
	before := b.listing()
	undisturbed := b.stopAt(1<<30, c.limit, c.new)
	after := b.listing()
	want := swept(clean)
	if !clean(want) {
		t.Errorf("what was retired stays for good:\n%s", cmp.Diff(fresh, want))
	}

	// Before each write, and after the last, the kernel holds something else.
	outcomes := map[string]int{}
	steps := append(undisturbed.writes, undisturbed.steps-1)
	if *full {
		steps = nil
		for step := range undisturbed.steps {
			steps = append(steps, step)
		}
	}
	for _, step := range steps {
		reset()
		b.stopAt(step, c.limit, c.new)
		state, listing := b.Load(), b.listing()
		isOld, isNew := holds(state, oldProfile), holds(state, newProfile)
		switch {
		case isOld && listing == before:
			outcomes["old"]++
		case isNew && listing == after:
			outcomes["new"]++
		case c.batches && (isOld || isNew):
			outcomes["old or new, with what goes ahead or retires"]++
		case c.batches && c.limit > 0:
			outcomes["between"]++
		default:
			t.Errorf("stopped at %d: neither the old nor the new state (read as old: %v, as new: %v)", step, isOld, isNew)
		}
		// Whatever it is, what both profiles listen on is served, by a backend
		// of one of them.
		was, will := servedBy(oldProfile), servedBy(newProfile)
		for to := range was {
			if will[to] == nil {
				continue
			}
			for _, backend := range append(b.Row("tcp", to+":80", 4), b.Row("udp", to+":80", 4)...) {
				if !slices.Contains(was[to], backend) && !slices.Contains(will[to], backend) {
					t.Errorf("stopped at %d: %s answers at %s", step, backend, to)
				}
			}
		}
		b.applySoon(c.new)
		b.repaired(newProfile)
		if d := cmp.Diff(want, swept(func(s map[string]int) bool { return maps.Equal(s, want) })); d != "" {
			t.Errorf("stopped at %d: something is left for good:\n%s", step, d)
		}
	}
	figures(t, "%s: stopped at %d of %d messages: %v", c.name, len(steps), undisturbed.steps, outcomes)
	return len(steps)
}

// servedBy are the backends of each address that a profile listens on.
func servedBy(p *lb.Profile) map[string][]string {
	out := map[string][]string{}
	for i := range p.Services {
		for _, l := range p.Services[i].Listen {
			for _, backend := range p.Services[i].Backends {
				to := l.Prefix.Addr().String()
				out[to] = append(out[to], backend.Address.Addr.String())
			}
		}
	}
	return out
}

// stopping is a transport whose program comes to its end when it has done some
// steps, as by a crash: nothing more is sent, and its sockets are closed.
type stopping struct {
	wire.Transport
	program *program
}

// program is one that stops before a step. Its steps are messages to and from
// the kernel, and sockets.
type program struct {
	stop, limit int
	steps       int   // that it made
	writes      []int // those that changed something
	sockets     []wire.Transport
}

func (p *program) step() {
	if p.steps == p.stop {
		runtime.Goexit()
	}
	p.steps++
}

func (p *program) open(t wire.Transport, err error) (wire.Transport, error) {
	if err != nil {
		return nil, err
	}
	p.sockets = append(p.sockets, t)
	return &stopping{t, p}, nil
}

const deleteFlow = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

func (s *stopping) Send(b []byte) error {
	s.program.step()
	if typ := binary.NativeEndian.Uint16(b[4:]); typ == unix.NFNL_MSG_BATCH_BEGIN || typ == deleteFlow {
		s.program.writes = append(s.program.writes, s.program.steps-1)
	}
	return s.Transport.Send(b)
}

func (s *stopping) Receive(b []byte) (int, error) {
	s.program.step()
	return s.Transport.Receive(b)
}

func (s *stopping) Another(port, groups uint32) (wire.Transport, error) {
	s.program.step()
	return s.program.open(s.Transport.Another(port, groups))
}

func (s *stopping) Reserve(n int) (int, error) {
	limit, err := s.Transport.Reserve(n)
	if s.program.limit > 0 {
		limit = min(limit, s.program.limit)
	}
	return limit, err
}

// stopAt applies a profile and stops before a step, if it comes to it.
func (b *bed) stopAt(step, limit int, profile string) *program {
	b.T.Helper()
	p := &program{stop: step, limit: limit}
	err := b.Balancer.Do(func() error {
		defer func() {
			for _, s := range p.sockets {
				_ = s.Close()
			}
		}()
		transport, err := p.open(wire.Open())
		if err != nil {
			return err
		}
		return b.applyOver(wire.NewConn(transport), profile)
	})
	if p.steps < step {
		b.Check(err)
	}
	return p
}

// applySoon is apply that does not wait for answers that are under way.
func (b *bed) applySoon(profile string) {
	b.T.Helper()
	b.within(func(c *wire.Conn) error { return b.applyOver(c, profile) })
}

// applyOver applies as the command does, but for the wait.
func (b *bed) applyOver(c *wire.Conn, profile string) error {
	_, err := nft.Apply(b.T.Context(), c, []*lb.Profile{b.Parse(profile)}, nft.Options{Table: "nlb", Record: true, Settle: time.Millisecond})
	return err
}

// shape is how much there is of what in a listing, whatever its numbers are.
func shape(listing string) map[string]int {
	n := map[string]int{}
	for line := range strings.Lines(listing) {
		words := strings.Fields(line)
		what := strings.Join(words[:2], " ")
		if words[2] == "element" {
			what += " element"
		}
		n[what]++
	}
	return n
}
