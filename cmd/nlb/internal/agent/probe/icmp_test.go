//go:build linux

package probe

import (
	"context"
	"net/netip"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// TestEcho: an address of the host answers, one that nobody has does not, and
// where there are no ping sockets, the check says so and nothing of the server.
func TestEcho(t *testing.T) {
	h := netlabtest.NewHost(t, netlabtest.NewWorld(t), "host")
	ping := func(at string) (o Outcome) {
		t.Helper()
		target := Target{Check: &lb.Check{Kind: lb.CheckICMP}, At: netip.AddrPortFrom(netip.MustParseAddr(at), 0)}
		netlabtest.Must(t, h.Do(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), generous)
			defer cancel()
			o = echo(ctx, target)
			o.Reason = tidy(o.Reason)
			return nil
		}))
		wantSound(t, o)
		return o
	}
	for _, at := range loopbacks { // a new namespace lets nobody ping
		wantOutcome(t, ping(at), Outcome{Ours: true, Reason: "icmp: not permitted: ping_group_range"})
	}
	netlabtest.Must(t, h.SetSysctl("net.ipv4.ping_group_range", "0 0"))
	for _, at := range loopbacks {
		wantOutcome(t, ping(at), Outcome{OK: true, Reason: "icmp: answered"})
	}
	for _, at := range []string{"192.0.2.1", "2001:db8::1"} {
		wantOutcome(t, ping(at), Outcome{Reason: "icmp: no route"})
	}
	netlabtest.Must(t, h.Do(func() error {
		c, err := pingSocket(Target{Check: &lb.Check{}, At: netip.MustParseAddrPort("[::1]:0")})
		netlabtest.Must(t, err)
		defer c.Close()
		wantPriority(t, c)
		return nil
	}))
}

// TestEchoSilence: of a machine that does not answer, the check says that, once
// its time is over.
func TestEchoSilence(t *testing.T) {
	t.Parallel()
	h := netlabtest.NewHost(t, netlabtest.NewWorld(t), "host")
	netlabtest.Must(t, h.SetSysctl("net.ipv4.ping_group_range", "0 0"), h.SetSysctl("net.ipv4.icmp_echo_ignore_all", "1"),
		h.SetSysctl("net.ipv6.icmp.echo_ignore_all", "1"))
	for _, at := range loopbacks {
		netlabtest.Must(t, h.Do(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), short)
			defer cancel()
			o := echo(ctx, Target{Check: &lb.Check{}, At: netip.AddrPortFrom(netip.MustParseAddr(at), 0)})
			wantOutcome(t, o, Outcome{Reason: "icmp: timeout"})
			return nil
		}))
	}
}
