package integration

// What real networks do: kinds of trouble that people meet with balancers. The table
// in docs/field.md leads here.

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab/traffic"
)

// TestGhostsEnd: connections whose ends have vanished do not count for longer than the
// service says. Nothing is sent in them, and Linux would remember them for five days.
func TestGhostsEnd(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"backends: [{address: 10.2.0.11:8080, max-connections: 3}]", "limit: {connections-per-source: 3}, backends: [10.2.0.11:8080]"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11")
			profile := "profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", timeouts: {established: 2s}, " + limit + "}]\n"
			b.Apply(profile)
			if open := b.holdMost("tcp", "203.0.113.10:80", 5); len(open) > 3 {
				t.Fatalf("%d connections at once, want 3", len(open))
			}
			b.eventually("new clients are served beside silent connections", func() bool {
				c, err := b.dial("tcp", "203.0.113.10:80")
				if err == nil {
					c.Close()
				} else if !errors.Is(err, traffic.ErrRefused) {
					t.Errorf("%v, want it refused", err)
				}
				return err == nil
			})
		})
	}
}

// TestTimeouts: each state of a connection has the timeout that the service says.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply(`profile: shop
services:
  - name: web
    listen: "203.0.113.10:80"
    protocol: [tcp, udp]
    timeouts: {established: 3000s, close-wait: 4000s, half-open: 5000s, time-wait: 6000s, udp: 7000s, udp-idle: 8000s}
    backends: 10.2.0.11:8080
`)
	left := func(what string, state uint8, want time.Duration) {
		t.Helper()
		for _, got := range b.remembered(state) {
			if got <= want && got > want-time.Minute {
				return
			}
		}
		t.Errorf("%s: conntrack remembers it for %v, want %v", what, b.remembered(state), want)
	}
	if got := b.halfClosed(); got > 4000*time.Second || got < 3900*time.Second {
		t.Errorf("half closed: conntrack remembers it for %v, want 4000s", got)
	}
	b.Serve([]int{8080}, "10.2.0.11")
	open := map[string]*traffic.Conn{}
	for _, network := range []string{"tcp", "udp"} {
		c, err := b.dial(network, "203.0.113.10:80")
		b.Check(err)
		defer c.Close()
		open[network] = c
	}
	left("established", tcpEstablished, 3000*time.Second)
	left("a first datagram with its answer", notTCP, 8000*time.Second)
	b.Check(open["tcp"].Close())
	b.eventually("a connection has ended", func() bool { return len(b.remembered(tcpTimeWait)) > 0 })
	left("ended", tcpTimeWait, 6000*time.Second)
	b.NFT(b.Server, "add table inet mute\nadd chain inet mute in { type filter hook input priority 0; }\nadd rule inet mute in tcp flags syn drop\n")
	if _, err := b.dial("tcp", "203.0.113.10:80"); err == nil {
		t.Error("a server that is mute answers")
	}
	left("half open", tcpSynSent, 5000*time.Second)
	b.eventually("a flow of datagrams lasts", func() bool {
		_, err := open["udp"].Again()
		return err == nil && slices.ContainsFunc(b.remembered(notTCP), func(d time.Duration) bool { return d <= 7000*time.Second })
	})
	left("datagrams for longer", notTCP, 7000*time.Second)

	listed := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	if n := strings.Count(listed, "ct timeout timeouts-"); n != 2 {
		t.Errorf("nft lists %d policies, want 2:\n%s", n, listed)
	}
}

// States of TCP connections in conntrack (nf_conntrack_tcp.h).
const (
	notTCP         = 0
	tcpSynSent     = 1
	tcpEstablished = 3
	tcpTimeWait    = 7
)

// remembered says for how long the balancer's conntrack remembers the connections of a
// state.
func (b *bed) remembered(state uint8) (out []time.Duration) {
	b.T.Helper()
	b.Check(b.Balancer.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range flows {
			tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP)
			if ok && tcp.State == state || !ok && state == notTCP {
				out = append(out, time.Duration(f.TimeOut)*time.Second)
			}
		}
		return err
	}))
	return out
}
