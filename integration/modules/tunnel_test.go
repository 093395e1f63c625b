//go:build linux

package modules

// Tunnels: services with mode: tunnel, whose backends are behind a router.

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// distant is a world with a router in its middle. Backends have the addresses of the
// service on lo, and the ends of tunnels.
//
//	client 10.1.0.2 ----+
//	balancer 10.2.0.2 --+-- router
//	backend1 10.3.0.2 --+
//	backend2 10.4.0.2 --+
type distant struct {
	*bed
	backends []*netlab.Host
}

const (
	vip4, vip6 = "203.0.113.10", "2001:db8::10"
	upload     = 256 << 10
)

func newDistant(t *testing.T) *distant {
	t.Helper()
	w := netlabtest.NewWorld(t)
	d := &distant{bed: &bed{&netlabtest.Bed{Bed: &netlab.Bed{World: w}, T: t}, t, t.TempDir()}}
	router := netlabtest.NewHost(t, w, "router")
	for i, name := range []string{"client", "balancer", "backend1", "backend2"} {
		h := netlabtest.NewHost(t, w, name)
		at := func(host int) []string {
			return []string{fmt.Sprintf("10.%d.0.%d/24", i+1, host), fmt.Sprintf("fd0%d::%d/64", i+1, host)}
		}
		d.Check(w.Join(netlab.NewEnd(h, "eth0", at(2)...), netlab.NewEnd(router, "to-"+name, at(1)...)))
		switch i {
		case 0:
			d.Client = h
		case 1:
			d.Balancer = h
		default:
			d.backends = append(d.backends, h)
			d.serve(h, i+1)
		}
	}
	d.Check(router.Forward())
	for vip, via := range map[string]string{vip4: "10.2.0.2", vip6: "fd02::2"} {
		a := netip.MustParseAddr(vip)
		d.Check(router.AddRoute(netip.PrefixFrom(a, a.BitLen()), netip.MustParseAddr(via)))
	}
	return d
}

// serve makes a host a backend: tunnels end there, and it asks for segments that go
// through them.
func (d *distant) serve(h *netlab.Host, network int) {
	d.t.Helper()
	var ports []traffic.Port
	for i, vip := range []string{vip4, vip6} {
		own := netip.MustParseAddr([]string{fmt.Sprintf("10.%d.0.2", network), fmt.Sprintf("fd0%d::2", network)}[i])
		d.Check(h.TunnelEnd("tunnel"+[]string{"4", "6"}[i], own))
		a := netip.MustParseAddr(vip)
		d.Address(h, "lo", netip.PrefixFrom(a, a.BitLen()).String())
		for _, protocol := range []string{"tcp", "udp"} {
			ports = append(ports, traffic.Port{Network: protocol, At: netip.AddrPortFrom(a, 80)})
		}
		d.Check(h.Do(func() error { return swallow(d.t, netip.AddrPortFrom(a, 81)) }))
	}
	d.Witness(h, "", "ip", "route", "change", "default", "via", fmt.Sprintf("10.%d.0.1", network), "advmss", "1440")
	d.Witness(h, "", "ip", "-6", "route", "change", "default", "via", fmt.Sprintf("fd0%d::1", network), "advmss", "1400")
	_, err := traffic.Serve(h, h.Name(), ports...)
	d.Check(err)
}

// swallow answers each connection, when it has sent all, with how much that was.
func swallow(t *testing.T, at netip.AddrPort) error {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n, _ := io.Copy(io.Discard, c)
				fmt.Fprint(c, n)
			}()
		}
	}()
	return nil
}

// write writes the profile of a service with some backends, and returns its file.
func (d *distant) write(keys string, backends ...string) string {
	d.t.Helper()
	file := filepath.Join(d.dir, "far.yaml")
	d.Check(os.WriteFile(file, []byte(fmt.Sprintf("profile: far\nservices:\n- name: web\n  mode: tunnel\n  scheduler: consistent\n  listen: [\"%s:80-81\", \"[%s]:80-81\"]\n  protocol: [tcp, udp]\n%s  backends: [%s]\n",
		vip4, vip6, keys, strings.Join(backends, ", "))), 0o644))
	return file
}

// tunnels are what ip says of the balancer's tunnels.
func (d *distant) tunnels() string {
	d.t.Helper()
	return d.Witness(d.Balancer, "", "ip", "-d", "link", "show", "type", "ipip") + d.Witness(d.Balancer, "", "ip", "-d", "link", "show", "type", "ip6tnl")
}

var everybody = []string{"10.3.0.2", "10.4.0.2", `"fd03::2"`, `"fd04::2"`}

// met asks often, and returns who has answered.
func (d *distant) met(network, listen string) map[string]int {
	d.t.Helper()
	out := map[string]int{}
	for range 30 {
		r := d.Ask(network, listen)
		out[r.Backend]++
		if r.Seen != r.From || r.Local.String() != listen {
			d.t.Fatalf("the backend sees %s to %s; the client is %s", r.Seen, r.Local, r.From)
		}
	}
	return out
}

// TestTunnel: packets reach backends behind a router as the client has sent them, and
// large ones too; tunnels come and go with the backends.
func TestTunnel(t *testing.T) {
	d := newDistant(t)
	d.must("apply", d.write("", everybody...))
	each(t, func(t *testing.T, network, listen string) {
		d := &distant{&bed{d.With(t), t, d.dir}, d.backends}
		if met := d.met(network, listen); len(met) != 2 {
			t.Errorf("%v", met)
		}
	})
	for _, vip := range []string{vip4, vip6} {
		d.Check(d.Client.Do(func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(vip, "81"), 5*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Write(make([]byte, upload)); err != nil {
				return err
			}
			_ = c.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(c)
			if string(got) != fmt.Sprint(upload) {
				t.Errorf("%s: %d bytes were sent, and %s came: %v", vip, upload, got, err)
			}
			return nil
		}))
	}
	if out := d.tunnels(); strings.Count(out, "nlb-") != 4 || !strings.Contains(out, "nlb, table nlb: tunnel to 10.3.0.2") {
		t.Errorf("the tunnels are\n%s", out)
	}
	if said := d.must("apply", d.write("", everybody...)); !strings.Contains(said, "no change") {
		t.Errorf("applied again: %s", said)
	}
	d.must("apply", d.write("", everybody[1], everybody[3]))
	if out := d.tunnels(); strings.Count(out, "nlb-") != 2 || strings.Contains(out, "to 10.3.0.2") {
		t.Errorf("without backend1 the tunnels are\n%s", out)
	}
	each(t, func(t *testing.T, network, listen string) {
		d := &distant{&bed{d.With(t), t, d.dir}, d.backends}
		if met := d.met(network, listen); met["backend2"] != 30 {
			t.Errorf("%v", met)
		}
	})
	d.must("flush")
	if out := d.tunnels(); strings.Contains(out, "nlb-") {
		t.Errorf("a flush leaves\n%s", out)
	}
}

// TestTunnelOfOthers: a tunnel that is there is used, and stays. One that is down is in the
// way.
func TestTunnelOfOthers(t *testing.T) {
	d := newDistant(t)
	d.Witness(d.Balancer, "", "ip", "link", "add", "asleep", "type", "ipip", "remote", "10.4.0.2")
	if said, err := d.run("apply", d.write("", everybody...)); err == nil || !strings.Contains(said, "to 10.4.0.2: a tunnel of another name leads there, and is down") {
		t.Errorf("beside a tunnel that is down: %v, %s", err, said)
	}
	if out := d.tunnels(); strings.Contains(out, "nlb-") {
		t.Errorf("an apply that was refused leaves\n%s", out)
	}
	d.Witness(d.Balancer, "", "ip", "link", "del", "asleep")
	d.Witness(d.Balancer, "", "ip", "link", "add", "mine", "type", "ipip", "local", "10.2.0.2", "remote", "10.3.0.2")
	d.Witness(d.Balancer, "", "ip", "link", "set", "mine", "up")
	d.must("apply", d.write("", everybody...))
	if out := d.tunnels(); strings.Count(out, "nlb-") != 3 {
		t.Errorf("the tunnels are\n%s", out)
	}
	if met := d.met("tcp", listen4); len(met) != 2 {
		t.Errorf("%v", met)
	}
	d.must("flush")
	if out := d.tunnels(); strings.Contains(out, "nlb-") || !strings.Contains(out, "mine") {
		t.Errorf("a flush leaves\n%s", out)
	}
}

// TestTunnelRemembers: flows stay with a backend that goes, and so does its tunnel.
func TestTunnelRemembers(t *testing.T) {
	d := newDistant(t)
	d.must("apply", d.write("  remember: 60s\n", everybody...))
	var flows []*traffic.Conn
	for range 10 {
		flows = append(flows, d.dial("tcp", listen4), d.dial("udp", listen6))
	}
	d.must("apply", d.write("  remember: 60s\n", everybody[1], everybody[3]))
	for _, c := range flows {
		if _, err := c.Again(); err != nil {
			t.Error(err)
		}
	}
	if out := d.tunnels(); strings.Count(out, "nlb-") != 4 {
		t.Errorf("the tunnels are\n%s", out)
	}
}

// TestTunnelUnderAgent: the agent makes a tunnel anew that somebody has removed, and
// takes a server out that is gone.
func TestTunnelUnderAgent(t *testing.T) {
	d := newDistant(t)
	file := d.write("  health: {check: tcp, port: 80, interval: 500ms}\n", everybody[:2]...)
	text, err := os.ReadFile(file)
	d.Check(err)
	d.Check(os.WriteFile(file, []byte(strings.ReplaceAll(string(text), fmt.Sprintf(", \"[%s]:80-81\"", vip6), "")), 0o644))
	for i, h := range d.backends { // checks go to its own address
		_, err := traffic.Serve(h, h.Name(), traffic.Port{Network: "tcp", At: netip.MustParseAddrPort(fmt.Sprintf("10.%d.0.2:80", i+3))})
		d.Check(err)
	}
	agent := d.Command(d.Balancer, *program, "run", "--socket", filepath.Join(d.dir, "socket"), file)
	d.Check(agent.Start())
	t.Cleanup(func() { _ = agent.Process.Signal(syscall.SIGTERM); _ = agent.Wait() })
	reached := func(n int) func() bool {
		return func() bool {
			met := map[string]bool{}
			for range 20 {
				client := d.From()
				client.Timeout = time.Second
				r, err := client.Exchange(t.Context(), "tcp", netip.MustParseAddrPort(listen4))
				if err != nil {
					return false
				}
				met[r.Backend] = true
			}
			return len(met) == n
		}
	}
	eventually(t, "both backends are reached", reached(2))
	for _, line := range strings.Split(d.Witness(d.Balancer, "", "ip", "-o", "link", "show", "type", "ipip"), "\n") {
		if _, name, ok := strings.Cut(line, ": nlb-"); ok {
			name, _, _ = strings.Cut(name, "@")
			d.Witness(d.Balancer, "", "ip", "link", "del", "nlb-"+name)
		}
	}
	eventually(t, "both are reached by new tunnels", reached(2))
	d.Witness(d.backends[0], "", "ip", "link", "set", "eth0", "down")
	eventually(t, "the other is alone", reached(1))
}
