//go:build linux

package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// busy is an agent between a client and two servers, with connections that stay open.
type busy struct {
	*bed
	world *netlabtest.Bed
	open  map[string][]*traffic.Conn // by the server
}

// startBusy runs an agent that keeps a service with these keys beside its backends.
func startBusy(t *testing.T, keys string, backends ...string) *busy {
	t.Helper()
	t.Parallel()
	world := netlabtest.New(t)
	world.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b := &busy{newBed(t, world.Balancer), world, map[string][]*traffic.Conn{}}
	must(t, b.write(keys, backends...))
	b.run()
	b.await("shop 10.2.0.11 10.2.0.12")
	return b
}

func (b *busy) write(keys string, backends ...string) error {
	if backends == nil {
		backends = []string{`"10.2.0.11:8080"`, `"10.2.0.12:8080"`}
	}
	text := fmt.Sprintf("profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", %s, backends: [%s, %s]}]\n", keys, backends[0], backends[1])
	return b.put("shop.yaml", text)
}

// hold opens connections and says who has how many of them.
func (b *busy) hold(n int) (to map[string]int) {
	b.t.Helper()
	to = map[string]int{}
	for range n {
		c, err := b.world.From().Dial(b.t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
		must(b.t, err)
		b.t.Cleanup(func() { c.Close() })
		b.open[c.Reply.Backend] = append(b.open[c.Reply.Backend], c)
		to[c.Reply.Backend]++
	}
	return to
}

// end closes all connections of a server.
func (b *busy) end(backend string) {
	for _, c := range b.open[backend] {
		c.Close()
	}
	b.open[backend] = nil
}

// shares are those of the backends in the kernel.
func (b *busy) shares() (out []uint8) {
	b.t.Helper()
	for _, s := range lb.Services(b.state().Profiles) {
		for i := range s.Backends {
			out = append(out, s.Backends[i].Share)
		}
	}
	return out
}

// shared waits until the two backends have such shares.
func (b *busy) shared(so func(first, second uint8) bool, when string) {
	b.t.Helper()
	b.until(func() bool { s := b.shares(); return so(s[0], s[1]) }, func() string { return fmt.Sprintf("%s: shares %v", when, b.shares()) })
}

// TestAgentBalances: where one server has the connections that stay, the new ones go
// to the other; the shares come back when they end, and with the scheduler.
func TestAgentBalances(t *testing.T) {
	b := startBusy(t, "scheduler: least-connections")
	if got := b.hold(60); got["10.2.0.11"] < 25 || got["10.2.0.11"] > 35 {
		t.Errorf("before anything differs, it is round robin: %v", got)
	}
	b.end("10.2.0.12")
	b.shared(func(first, second uint8) bool { return first == 2 && second == 32 }, "one has all connections that stay")
	if got := b.hold(17); got["10.2.0.12"] < 12 {
		t.Errorf("beside thirty connections of the other, it gets of 17 new ones: %v", got)
	}
	b.end("10.2.0.11")
	b.end("10.2.0.12")
	b.shared(func(first, second uint8) bool { return first == 0 && second == 0 }, "all connections have ended")

	b.hold(20)
	b.end("10.2.0.11")
	b.shared(func(first, second uint8) bool { return first > second }, "the other one has those that stay")
	must(t, b.write("scheduler: round-robin"))
	b.shared(func(first, second uint8) bool { return first == 0 && second == 0 }, "round robin has no shares")
	must(t, b.stop())
}

// TestAgentLimits: the agent counts what the kernel need not, and a backend that is full
// gets no more connections until some have ended.
func TestAgentLimits(t *testing.T) {
	const most = 2001
	b := startBusy(t, "snat: none", fmt.Sprintf(`{address: "10.2.0.11:8080", max-connections: %d}`, most), `"10.2.0.12:8080"`)
	if got := b.hold(2 * most); got["10.2.0.11"] != most {
		t.Fatalf("in turn they have %v", got)
	}
	b.until(func() bool { return b.hold(1)["10.2.0.12"] == 1 && b.hold(4)["10.2.0.12"] == 4 }, func() string { return "the backend goes on over its limit" })
	b.end("10.2.0.11")
	b.until(func() bool { return b.hold(1)["10.2.0.11"] == 1 }, func() string { return "the backend gets none although its connections have ended" })
	must(t, b.stop())
}
