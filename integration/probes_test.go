package integration

// Probes: checks that the balancer makes itself.

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/probe"
	"nlb/nft/wire"
)

// applyProbes makes the balancer hold a profile, and tell checks from others.
func (b *bed) applyProbes(profile string, probes bool) (r *nft.Result) {
	b.T.Helper()
	b.Kernel(b.Balancer, func(c *wire.Conn) (err error) {
		r, err = nft.Apply(b.T.Context(), c, []*lb.Profile{b.Parse(profile)}, nft.Options{Table: "nlb", Probes: probes, Record: true, Build: "test"})
		return err
	})
	return r
}

// check asks an address from the balancer, with the priority of a check, and
// returns what answers.
func (b *bed) check(network, to string, priority int) string {
	b.T.Helper()
	var line string
	b.Check(b.Balancer.Do(func() error {
		d := net.Dialer{Timeout: traffic.DefaultTimeout, Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			ctrl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, priority) })
			if ctrl != nil {
				return ctrl
			}
			return err
		}}
		conn, err := d.DialContext(context.Background(), network, to)
		if err != nil {
			return err
		}
		defer conn.Close()
		b.Check(conn.SetDeadline(time.Now().Add(traffic.DefaultTimeout)))
		if network == "udp" {
			if _, err := conn.Write([]byte("?")); err != nil {
				return err
			}
		}
		line, err = bufio.NewReader(conn).ReadString('\n')
		return err
	}))
	return line
}

// awaitLocal waits until the balancer knows an address as its own: for IPv6 the
// kernel makes that route a moment after the address.
func (b *bed) awaitLocal(a netip.Addr) {
	b.T.Helper()
	b.Check(b.Balancer.Do(func() error {
		for {
			routes, err := netlink.RouteGet(a.AsSlice())
			if err != nil || len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}))
}

// TestProbes: checks go where they are sent, and conntrack forgets them.
func TestProbes(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ vip, backend string }{
		{"203.0.113.10:80", "10.2.0.11:8080"},
		{"[2001:db8::10]:80", "[fd02::11]:8080"},
	} {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(network+" "+f.vip, func(t *testing.T) {
				t.Parallel()
				b := newBed(t)
				vip, backend := netip.MustParseAddrPort(f.vip), netip.MustParseAddrPort(f.backend)
				b.Serve([]int{8080}, backend.Addr().String())
				b.Check(b.Balancer.AddAddress("lo", netip.PrefixFrom(vip.Addr(), vip.Addr().BitLen())))
				_, err := traffic.Serve(b.Balancer, "itself", traffic.Port{Network: network, At: vip})
				b.Check(err)
				b.awaitLocal(vip.Addr())
				profile := fmt.Sprintf("profile: shop\nservices:\n  - {name: web, listen: %q, protocol: [tcp, udp], backends: [%q]}\n", f.vip, f.backend)
				b.applyProbes(profile, true)

				for to, want := range map[string]string{f.vip: "itself", f.backend: backend.Addr().String()} {
					if got := b.check(network, to, compile.ProbePriority); !strings.HasPrefix(got, want+" ") {
						t.Errorf("a check of %s gets to %q, want %s", to, got, want)
					}
				}
				if got := b.check(network, f.vip, 0); !strings.HasPrefix(got, backend.Addr().String()+" ") {
					t.Errorf("what is no check gets to %q, want the backend", got)
				}
				// The kernel remembers others for at least half a minute.
				protocol := map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[network]
				b.awaitFlows(conntrack.Filter{Protocol: protocol}, func(n int) bool { return n == 1 })
				b.awaitFlows(conntrack.Filter{Protocol: protocol, Mark: compile.OursMark, Mask: compile.OursMask}, func(n int) bool { return n == 1 })
			})
		}
	}
}

// TestProbesAreAsked: what checks need comes when it is asked for, stays, and nft
// can save and load it.
func TestProbesAreAsked(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	profile := "profile: shop\nservices:\n  - {name: web, listen: \"203.0.113.10:80\", backends: [\"10.2.0.11:8080\"]}\n"
	there := func() bool {
		return strings.Contains(b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "nlb"), "ct timeout probes-tcp")
	}
	for i, want := range []bool{false, true, true} {
		probes := i == 1
		if r := b.applyProbes(profile, probes); len(r.Changes) > 0 != (i == 0) || r.Repaired {
			t.Errorf("step %d: %+v", i, r)
		}
		if there() != want {
			t.Errorf("step %d: it is there: %v, want %v", i, !want, want)
		}
		if r := b.applyProbes(profile, probes); r.Messages != 0 {
			t.Errorf("step %d, again: %d messages", i, r.Messages)
		}
		b.undrifted(fmt.Sprintf("step %d", i))
	}
	ours := b.list()
	listed := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	b.NFT(b.Balancer, "flush ruleset\n"+listed)
	if theirs := b.list(); !slices.Equal(ours, theirs) {
		t.Errorf("loaded from a listing: %v\nwant %v", theirs, ours)
	}
	parsed := []*lb.Profile{b.Parse(profile)}
	text := compile.Beside("nlb", parsed, nil, compile.NewNumbers(0, parsed), func(object string) bool { return object == compile.ProbesChain }).String()
	b.NFT(b.Balancer, text)
	rendered := b.list()
	ours = slices.DeleteFunc(ours, func(s string) bool { return strings.Contains(s, "applied") })
	slices.Sort(ours) // here the chain came later than others
	slices.Sort(rendered)
	if !slices.Equal(ours, rendered) {
		t.Errorf("loaded from the text: %v\nwant %v", rendered, ours)
	}
}

// TestKernelForProbes: a kernel that lacks what checks need says so.
func TestKernelForProbes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, lacks := range []string{"", "objref"} {
		var transport wire.Transport
		b.Check(b.Balancer.Do(func() (err error) { transport, err = wire.Open(); return err }))
		if lacks != "" {
			transport = &netlabtest.Lacking{Transport: transport, Expression: lacks}
		}
		c := wire.NewConn(transport)
		defer c.Close()
		if err := probe.Checks(c); (err != nil) != (lacks != "") {
			t.Errorf("without %q: %v", lacks, err)
		}
	}
}
