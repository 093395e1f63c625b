package integration

// Servers that die under the agent: what becomes of connections that come, of those
// that are open, and of flows.

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// fallen are the first servers of both families, which the tests have die.
var fallen = []string{"10.2.0.11", "fd02::11"}

// TestAgentServerDies: it refuses. Only the kernel's word causes a check before an
// hour is over.
func TestAgentServerDies(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var dying []*traffic.Server
	for _, f := range agentFamilies {
		dying = append(dying, b.serve(f.backends[0]))
		b.serve(f.backends[1])
	}
	b.agent(shopOf(2, "health: {check: tcp, interval: 1h, timeout: 1s}"))
	for i, f := range agentFamilies {
		b.becomes(lb.Up, "web", f.backends[:2]...)
		udp, tcp := b.holdOpen("udp", f.vip, fallen[i]), b.stream(f.vip, false)
		time.Sleep(100 * time.Millisecond)
		dying[i].Close()
		b.becomes(lb.Down, "web", fallen[i])
		down := time.Now()
		time.Sleep(100 * time.Millisecond)
		all := b.stopped(tcp)
		b.wantNoFailures("it is down", all, down)
		refused := 0
		for _, a := range all {
			if a.Err != nil {
				refused++
			}
		}
		if refused == len(all) {
			t.Error("nobody was served")
		}
		figures(t, "%s: %d of %d connections refused", f.vip, refused, len(all))
		b.moves(udp, fallen[i])
	}
}

// moves waits until another backend answers in a flow.
func (b *bed) moves(c *traffic.Conn, from string) {
	b.T.Helper()
	b.eventually("a UDP flow of "+from+" moves", func() bool {
		r, err := c.Again()
		return err == nil && r.Backend != from
	})
}

// TestAgentServerSilent: nobody answers its clients, who have ten seconds. Its live
// connections stay, and go on when it is back.
func TestAgentServerSilent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, f := range agentFamilies {
		b.serve(f.backends[0])
		b.serve(f.backends[1])
	}
	b.agent(shopOf(2, "health: {check: tcp, interval: 200ms}"))
	var live, udp []*traffic.Conn
	var flows []*traffic.Loading
	for i, f := range agentFamilies {
		b.becomes(lb.Up, "web", f.backends[:2]...)
		live = append(live, b.holdOpen("tcp", f.vip, fallen[i]))
		udp = append(udp, b.holdOpen("udp", f.vip, fallen[i]))
		flows = append(flows, b.stream(f.vip, false))
	}
	speaks := b.silence(fallen...)
	b.becomes(lb.Down, "web", fallen...)
	time.Sleep(100 * time.Millisecond)
	for i, f := range flows {
		all := b.stopped(f)
		b.wantNoFailures("silent", all, time.Time{})
		late := 0
		for _, a := range all {
			if a.Late() {
				late++
			}
		}
		figures(t, "%d of %d connections had to ask twice", late, len(all))
		b.moves(udp[i], fallen[i])
	}
	speaks()
	b.becomes(lb.Up, "web", fallen...)
	for _, c := range live {
		if r, err := c.Again(); err != nil {
			t.Errorf("a live connection of %s: %v", r.Backend, err)
		}
	}
}

// TestAgentServerHangs: it takes connections and answers nothing, which a check of
// kind tcp does not see. on-down says what becomes of its live connections.
func TestAgentServerHangs(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var hanging []*traffic.Web
	for _, f := range agentFamilies {
		hanging = append(hanging, b.serveWeb(f.backends[0]))
		b.serveWeb(f.backends[1])
	}
	// The addresses are the balancer's own, so that its kernel resets what nobody has.
	for _, own := range []string{"203.0.113.0/24", "2001:db8::/64"} {
		b.Check(b.Balancer.AddLocal(netip.MustParsePrefix(own)))
	}
	const backends = `, backends: ["10.2.0.11:8080", "10.2.0.12:8080", "[fd02::11]:8080", "[fd02::12]:8080"]}` + "\n"
	b.agent(`profile: shop
defaults: {health: {check: http, interval: 500ms}}
services:
  - {name: kept, listen: ["203.0.113.10:80", "[2001:db8::10]:80"]` + backends +
		`  - {name: ended, on-down: cut, listen: ["203.0.113.11:80", "[2001:db8::11]:80"]` + backends)
	vips := [][]string{{"203.0.113.10:80", "203.0.113.11:80"}, {"[2001:db8::10]:80", "[2001:db8::11]:80"}}
	clients := []string{"10.1.0.2", "fd01::2"}
	b.becomes(lb.Up, "kept", fallen...)
	b.becomes(lb.Up, "ended", fallen...)
	var kept, ended []*webConn
	var flows []*traffic.Loading
	for i, vip := range vips {
		kept, ended = append(kept, b.holdWeb(vip[0], fallen[i])), append(ended, b.holdWeb(vip[1], fallen[i]))
		hanging[i].Hang()
		flows = append(flows, b.stream(vip[0], true))
	}
	b.becomes(lb.Down, "kept", fallen...)
	b.becomes(lb.Down, "ended", fallen...)
	down := time.Now()
	for i, c := range ended {
		b.eventually("a live connection of "+fallen[i]+", which on-down cuts, is reset", func() bool {
			_, err := c.Write([]byte("x"))
			return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
		})
	}
	time.Sleep(100 * time.Millisecond)
	for i, w := range hanging {
		if taken := w.Taken(netip.MustParseAddr(clients[i])); taken.After(down) {
			t.Errorf("%s was given a connection %s after it was down", fallen[i], taken.Sub(down))
		}
		w.Resume()
		b.wantNoFailures("hung, and answered in the end", b.stopped(flows[i]), time.Time{})
		if got, err := kept[i].ask(); got != fallen[i] {
			t.Errorf("a live connection that on-down keeps: %q, %v", got, err)
		}
	}
	b.becomes(lb.Up, "kept", fallen...)
	b.becomes(lb.Up, "ended", fallen...)
}

// TestAgentEndsMoving: an agent that is told to end while flows move leaves nothing that
// moves them.
func TestAgentEndsMoving(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{53}, "10.2.0.11", "10.2.0.12")
	const profile = "profile: shop\nservices: [{name: dns, listen: \"203.0.113.10:53\", protocol: udp, backends: [10.2.0.11, 10.2.0.12]}]\n"
	a := b.agent(profile)
	for range 4 {
		conn, err := b.From().Dial(t.Context(), "udp", netip.MustParseAddrPort("203.0.113.10:53"))
		b.Check(err)
		defer conn.Close()
	}
	a.rewrite(strings.Replace(profile, ", 10.2.0.12", "", 1))
	b.eventually("flows are moving", b.moving)
	b.Check(a.end(syscall.SIGTERM))
	if b.moving() {
		t.Error("the agent has ended, and flows are still moving")
	}
}
