//go:build linux

// Package modules has packet tests of what needs modules of the kernel: flow tables,
// tunnels and IPVS. integration/qemu runs them in machines: go test ./integration/qemu -run Modules.
package modules

// Offload: connections in flow tables.

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// program is the nlb to test. Without it this is not one of the machines.
var program = flag.String("nlb", "", "the nlb to test, in a machine whose kernel has the modules")

func TestMain(m *testing.M) {
	netlabtest.Enter()
	if *program == "" {
		fmt.Println("these are run by integration/qemu, in machines")
		return
	}
	os.Exit(m.Run())
}

// bed is a bed with four servers, two of each family, and a counter of what the hook
// forward sees of connections whose destination was translated.
type bed struct {
	*netlabtest.Bed
	t   *testing.T
	dir string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{netlabtest.New(t), t, t.TempDir()}
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
	return b
}

// count has the balancer count in a chain of its own.
func (b *bed) count() {
	b.t.Helper()
	b.NFT(b.Balancer, "table inet count { chain see { type filter hook forward priority 0; ct status dnat counter; }; }")
}

// seen is what was counted.
func (b *bed) seen() int {
	b.t.Helper()
	out := b.Witness(b.Balancer, "", "nft", "list", "chain", "inet", "count", "see")
	_, after, _ := strings.Cut(out, "counter packets ")
	n, err := strconv.Atoi(strings.Fields(after)[0])
	b.Check(err)
	return n
}

// run runs nlb on the balancer, and returns what it says of its doings and its error.
func (b *bed) run(args ...string) (said string, err error) {
	c := b.Command(b.Balancer, *program, args...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err = c.Run()
	return out.String(), err
}

func (b *bed) must(args ...string) string {
	b.t.Helper()
	said, err := b.run(args...)
	if err != nil {
		b.t.Fatalf("nlb %v: %v\n%s", args, err, said)
	}
	return said
}

// save writes a profile with two backends of each family, and returns its file.
func (b *bed) save(service string, backends ...string) string {
	b.t.Helper()
	if backends == nil {
		backends = []string{"10.2.0.11:8080", "10.2.0.12:8080", "[fd02::11]:8080", "[fd02::12]:8080"}
	}
	var list []string
	for _, one := range backends {
		if !strings.HasPrefix(one, "{") {
			one = strconv.Quote(one)
		}
		list = append(list, one)
	}
	file := filepath.Join(b.dir, "shop.yaml")
	b.Check(os.WriteFile(file, []byte(fmt.Sprintf("profile: shop\nservices:\n- name: web\n  listen: [%q, %q]\n  protocol: [tcp, udp]\n  backends: [%s]\n  %s\n",
		listen4, listen6, strings.Join(list, ", "), service)), 0o644))
	return file
}

const listen4, listen6 = "203.0.113.10:80", "[2001:db8::10]:80"

// dial opens a connection, and has it answered until it can be offloaded.
func (b *bed) dial(network, to string) *traffic.Conn {
	b.t.Helper()
	client := b.From()
	client.Timeout = 5 * time.Second
	c, err := client.Dial(b.t.Context(), network, netip.MustParseAddrPort(to))
	b.Check(err)
	b.t.Cleanup(func() { c.Close() })
	b.again(c, 3)
	return c
}

func (b *bed) again(c *traffic.Conn, n int) {
	b.t.Helper()
	for range n {
		if _, err := c.Again(); err != nil {
			b.t.Fatal(err)
		}
	}
}

// passes fails the test where packets of connections do, or do not, pass by the
// chains.
func (b *bed) passes(want bool, conns ...*traffic.Conn) {
	b.t.Helper()
	before := b.seen()
	const rounds = 10
	for _, c := range conns {
		b.again(c, rounds)
	}
	switch n := b.seen() - before; {
	case want && n > 2*len(conns): // the first packet behind a change may
		b.t.Errorf("the hook forward saw %d packets of %d offloaded connections", n, len(conns))
	case !want && n < 2*rounds*len(conns):
		b.t.Errorf("the hook forward saw %d packets of %d questions and answers", n, rounds*len(conns))
	}
}

// flowtables is what nft says of the flow tables.
func (b *bed) flowtables() string {
	b.t.Helper()
	return b.Witness(b.Balancer, "", "nft", "list", "flowtables")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// each runs a test for both protocols and families.
func each(t *testing.T, f func(t *testing.T, network, listen string)) {
	for _, network := range []string{"tcp", "udp"} {
		for family, listen := range map[string]string{"4": listen4, "6": listen6} {
			t.Run(network+family, func(t *testing.T) { f(t, network, listen) })
		}
	}
}

// TestWays: packets of live connections pass by the chains, with each kind of SNAT, and
// do not without.
func TestWays(t *testing.T) {
	b := newBed(t)
	b.count()
	for _, snat := range []string{"masquerade", "none"} {
		b.must("apply", b.save("snat: "+snat+"\n  offload: software"))
		each(t, func(t *testing.T, network, listen string) {
			b := &bed{b.With(t), t, b.dir}
			c := b.dial(network, listen)
			b.passes(true, c)
		})
	}
	said := b.must("show")
	if !strings.Contains(said, "offload software: offloaded in software on eth0, eth1") {
		t.Errorf("show says\n%s", said)
	}
	if said := b.must("apply", b.save("offload: none")); strings.Contains(b.flowtables(), "flowtable") {
		t.Errorf("the flow table stayed; apply says %s\n%s", said, b.flowtables())
	}
	each(t, func(t *testing.T, network, listen string) {
		b := &bed{b.With(t), t, b.dir}
		b.passes(false, b.dial(network, listen))
	})
	script := b.must("render", b.save("offload: software\n  devices: [eth0, eth1]"))
	b.NFT(b.Balancer, script)
	b.passes(true, b.dial("udp", listen4))
	b.must("apply", b.save("offload: software\n  devices: [eth0, eth1]"))
	b.passes(true, b.dial("udp", listen4))
}

// TestAgain: an apply of the same sends nothing.
func TestAgain(t *testing.T) {
	b := newBed(t)
	for _, way := range []string{"software", "auto", "hardware", "auto\n  devices: [eth0, eth1, eth7]"} {
		file := b.save("offload: " + way)
		b.must("apply", file)
		if out := b.flowtables(); !strings.Contains(out, "flowtable software") || !strings.Contains(out, "eth0, eth1") {
			t.Errorf("offload: %s: the flow tables are\n%s", way, out)
		}
		var v struct {
			Batches int
			Changes []any
		}
		b.Check(json.Unmarshal([]byte(b.must("apply", "--json", "--quiet", file)), &v))
		if v.Batches != 0 || len(v.Changes) != 0 {
			t.Errorf("offload: %s, again: %+v", way, v)
		}
		if said, err := b.run("diff", file); err != nil {
			t.Errorf("offload: %s: diff ends with %v\n%s", way, err, said)
		}
		said, _ := b.run("doctor")
		for line := range strings.Lines(said) {
			if strings.Contains(line, "not of nlb") || strings.Contains(line, "missing") {
				t.Errorf("offload: %s: doctor says %s", way, line)
			}
		}
	}
	if said := b.must("apply", b.save("offload: hardware")); !strings.Contains(said, "eth0 is not offloaded in hardware: operation not supported") {
		t.Errorf("apply with hardware says\n%s", said)
	}
}

// TestFirewall: what a filter drops is never offloaded, and auto stays off where there
// is one.
func TestFirewall(t *testing.T) {
	b := newBed(t)
	b.NFT(b.Balancer, "table inet wall { chain forward { type filter hook forward priority 0; ip daddr 10.2.0.12 drop; }; }")
	b.must("apply", b.save("offload: software\n  snat: none"))
	served := 0
	for range 4 {
		if b.Reaches(b.Client, "tcp", listen4, false) != "" {
			served++
		}
	}
	if served == 4 || served == 0 {
		t.Errorf("%d of 4 connections were served, where one of two backends is dropped", served)
	}
	said := b.must("apply", b.save("offload: auto"))
	const off = "it would pass by table inet wall, chain forward"
	if !strings.Contains(said, off) || strings.Contains(b.flowtables(), "flowtable") {
		t.Errorf("apply says\n%s\nflow tables\n%s", said, b.flowtables())
	}
	if said := b.must("show"); !strings.Contains(strings.Join(strings.Fields(said), " "), "offload auto: not offloaded, "+off) {
		t.Errorf("show says\n%s", said)
	}
	if said, _ := b.run("doctor"); !strings.Contains(said, "chain forward") {
		t.Errorf("doctor says\n%s", said)
	}
	b.must("apply", b.save("offload: software"))
	if said, _ := b.run("doctor"); !strings.Contains(said, "passes by table inet wall, chain forward") {
		t.Errorf("with software, doctor says\n%s", said)
	}
	b.Witness(b.Balancer, "", "nft", "delete", "table", "inet", "wall")
	b.must("apply", b.save("offload: auto"))
	if !strings.Contains(b.flowtables(), "flowtable software") {
		t.Errorf("auto is off without a firewall:\n%s", b.must("show"))
	}
}

// TestAgent: nlb run turns auto off when a firewall comes, so that connections that
// are open meet it, and on when it goes.
func TestAgent(t *testing.T) {
	b := newBed(t)
	b.start(b.save("offload: auto"))
	eventually(t, "it is offloaded", func() bool { return strings.Contains(b.flowtables(), "eth0, eth1") })
	c := b.dial("tcp", listen4)
	b.NFT(b.Balancer, "table inet wall { chain forward { type filter hook forward priority 0; tcp dport 8080 drop; }; }")
	eventually(t, "it is not offloaded any more", func() bool { return !strings.Contains(b.flowtables(), "flowtable") })
	b.Check(c.SetDeadline(time.Now().Add(time.Second)))
	if _, err := c.Write([]byte("again\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 10)); err == nil {
		t.Errorf("%d bytes came through the firewall", n)
	}
	b.Witness(b.Balancer, "", "nft", "delete", "table", "inet", "wall")
	eventually(t, "it is offloaded again", func() bool { return strings.Contains(b.flowtables(), "eth0, eth1") })
	b.NFT(b.Balancer, "delete flowtable inet nlb software { hook ingress priority 0; devices = { eth1 }; }")
	eventually(t, "what somebody else took out is back", func() bool { return strings.Contains(b.flowtables(), "eth0, eth1") })
	b.replaceServer()
	eventually(t, "the new device is in the flow table", func() bool { return strings.Contains(b.flowtables(), "eth0, eth1") })
}

// start starts nlb run on the balancer, until the test ends.
func (b *bed) start(file string) {
	b.t.Helper()
	b.daemon(*program, "run", "--socket", filepath.Join(b.dir, "sock"), file)
}

// daemon starts a program on the balancer, until stop is called or the test ends.
func (b *bed) daemon(name string, args ...string) (stop func()) {
	b.t.Helper()
	c := b.Command(b.Balancer, name, args...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	b.Check(c.Start())
	stop = sync.OnceFunc(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	b.t.Cleanup(func() {
		stop()
		if b.t.Failed() {
			b.t.Logf("%s said\n%s", name, out.String())
		}
	})
	return stop
}

// replaceServer has the balancer's link to the servers vanish, and come back.
func (b *bed) replaceServer() {
	b.t.Helper()
	b.Check(b.Balancer.Unlink("eth1"))
	eventually(b.t, "the device has left the flow table", func() bool { return !strings.Contains(b.flowtables(), "eth1") })
	b.Check(b.World.Join(netlab.NewEnd(b.Server, "eth0", "10.2.0.11/24", "10.2.0.12/24", "fd02::11/64", "fd02::12/64"),
		netlab.NewEnd(b.Balancer, "eth1", "10.2.0.1/24", "fd02::1/64")))
}

// TestDevice: a device that vanished and came back is added again by an apply, and one
// that is not there refuses nothing.
func TestDevice(t *testing.T) {
	b := newBed(t)
	b.count()
	file := b.save("offload: software\n  devices: [eth0, eth1, eth7]")
	if said := b.must("apply", file); !strings.Contains(said, "eth7 is not offloaded: it is not there") {
		t.Errorf("apply says\n%s", said)
	}
	b.passes(true, b.dial("tcp", listen4))
	b.replaceServer()
	if said := b.must("apply", file); !strings.Contains(b.flowtables(), "eth0, eth1") {
		t.Errorf("apply says\n%s\nflow tables\n%s", said, b.flowtables())
	}
	for _, network := range []string{"tcp", "udp"} {
		b.passes(true, b.dial(network, listen4))
	}
}

// backends are the figures of the backends that show has.
func (b *bed) backends() map[string]int {
	b.t.Helper()
	var v struct {
		Profiles []struct {
			Services []struct {
				Backends []struct {
					Address string
					Live    int
				}
			}
		}
	}
	b.Check(json.Unmarshal([]byte(b.must("show", "--json")), &v))
	live := map[string]int{}
	for _, one := range v.Profiles[0].Services[0].Backends {
		live[one.Address] = one.Live
	}
	return live
}

// TestChanges: live counts, drains, moving of UDP flows and --cut are as without.
func TestChanges(t *testing.T) {
	b := newBed(t)
	b.count()
	const away, stays = "10.2.0.12:8080", "10.2.0.11:8080"
	b.must("apply", b.save("offload: software", away, stays, "[fd02::11]:8080"))
	const flows = 6
	conns := map[string][]*traffic.Conn{}
	for _, network := range []string{"tcp", "udp"} {
		for range flows {
			conns[network] = append(conns[network], b.dial(network, listen4))
		}
		b.passes(true, conns[network]...)
	}
	if live := b.backends(); live[away] != flows || live[stays] != flows {
		t.Errorf("live connections: %v, want %d each", live, flows)
	}
	// A backend that drains keeps what it has.
	b.must("apply", b.save("offload: software", "{address: \""+away+"\", weight: 0}", stays, "[fd02::11]:8080"))
	for _, network := range []string{"tcp", "udp"} {
		b.passes(true, conns[network]...)
	}
	if live := b.backends(); live[away] != flows {
		t.Errorf("live connections while one drains: %v", live)
	}
	// One that is removed keeps its TCP connections, and its UDP flows move.
	b.must("apply", b.save("offload: software", stays, "[fd02::11]:8080"))
	for _, c := range conns["tcp"] {
		b.again(c, 1)
	}
	moved := 0
	for _, c := range conns["udp"] {
		before := c.Reply.Backend
		b.again(c, 2)
		if c.Reply.Backend != before {
			moved++
		}
		if c.Reply.Backend != "10.2.0.11" {
			t.Errorf("%s still has a UDP flow", c.Reply.Backend)
		}
	}
	if moved != flows/2 {
		t.Errorf("%d UDP flows moved, want %d", moved, flows/2)
	}
	// They are offloaded again, where they went.
	for _, c := range conns["udp"] {
		b.again(c, 2)
	}
	b.passes(true, conns["udp"]...)
	// Cut ends the others, by resets.
	b.must("apply", b.save("offload: software", away, "[fd02::11]:8080"))
	b.must("apply", "--cut", b.save("offload: software", "10.2.0.13:8080", "[fd02::11]:8080"))
	ended := 0
	for _, c := range conns["tcp"] {
		if _, err := c.Again(); err != nil {
			ended++
		}
	}
	if ended == 0 {
		t.Error("--cut has ended no connection")
	}
}

// TestMoving: flows whose backend goes while they ask and are answered lose nothing.
func TestMoving(t *testing.T) {
	b := newBed(t)
	both := []string{"10.2.0.11:8080", "10.2.0.12:8080", "[fd02::11]:8080"}
	for round := range 3 {
		b.must("apply", b.save("offload: software", both...))
		const flows = 8
		stop, lost := make(chan struct{}), make(chan int, flows)
		for range flows {
			c := b.dial("udp", listen4)
			c.SetDeadline(time.Time{})
			go func() {
				n := 0
				defer func() { lost <- n }()
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := c.Again(); err != nil {
						n++
					}
				}
			}()
		}
		time.Sleep(200 * time.Millisecond)
		b.must("apply", b.save("offload: software", both[1:]...))
		time.Sleep(time.Second)
		close(stop)
		total := 0
		for range flows {
			total += <-lost
		}
		t.Logf("round %d: %d answers lost", round, total)
		if total > 0 {
			t.Errorf("%d answers of %d flows were lost", total, flows)
		}
	}
}
