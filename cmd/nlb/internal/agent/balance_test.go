//go:build linux

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// shares are those of the backends in the kernel.
func (b *bed) shares() (out []uint8) {
	b.t.Helper()
	for _, s := range lb.Services(b.state().Profiles) {
		for i := range s.Backends {
			out = append(out, s.Backends[i].Share)
		}
	}
	return out
}

// TestAgentBalances: where one server has the connections that stay, the new ones go
// to the other; the shares come back when they end, and with the scheduler.
func TestAgentBalances(t *testing.T) {
	world := netlabtest.New(t)
	world.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	t.Chdir(t.TempDir())
	b := &bed{t: t, host: world.Balancer, reload: make(chan os.Signal, 1), socket: "run/nlb.sock"}
	profile := func(scheduler string) error {
		text := fmt.Sprintf("profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", scheduler: %s, backends: [\"10.2.0.11:8080\", \"10.2.0.12:8080\"]}]\n", scheduler)
		return errors.Join(os.WriteFile("etc/.new", []byte(text), 0o644), os.Rename("etc/.new", "etc/shop.yaml"))
	}
	must(t, os.Mkdir("etc", 0o755), profile("least-connections"))
	b.run()
	b.await("shop 10.2.0.11 10.2.0.12")

	vip := netip.MustParseAddrPort("203.0.113.10:80")
	open := map[string][]*traffic.Conn{}
	hold := func(n int) (to map[string]int) {
		t.Helper()
		to = map[string]int{}
		for range n {
			c, err := world.From().Dial(t.Context(), "tcp", vip)
			must(t, err)
			t.Cleanup(func() { c.Close() })
			open[c.Reply.Backend] = append(open[c.Reply.Backend], c)
			to[c.Reply.Backend]++
		}
		return to
	}
	end := func(backend string) {
		for _, c := range open[backend] {
			c.Close()
		}
		open[backend] = nil
	}
	if got := hold(60); got["10.2.0.11"] < 25 || got["10.2.0.11"] > 35 {
		t.Errorf("before anything differs, it is round robin: %v", got)
	}
	end("10.2.0.12")
	shared := func(so func(first, second uint8) bool, what string) {
		t.Helper()
		b.until(func() bool { s := b.shares(); return so(s[0], s[1]) }, func() string { return fmt.Sprintf("%s: shares %v", what, b.shares()) })
	}
	shared(func(first, second uint8) bool { return first == 2 && second == 32 }, "one has all connections that stay")
	if got := hold(17); got["10.2.0.12"] < 12 {
		t.Errorf("beside thirty connections of the other, it gets of 17 new ones: %v", got)
	}
	end("10.2.0.11")
	end("10.2.0.12")
	shared(func(first, second uint8) bool { return first == 0 && second == 0 }, "all connections have ended")

	hold(20)
	end("10.2.0.11")
	shared(func(first, second uint8) bool { return first > second }, "the other one has those that stay")
	must(t, profile("round-robin"))
	shared(func(first, second uint8) bool { return first == 0 && second == 0 }, "round robin has no shares")
	must(t, b.stop())
}
