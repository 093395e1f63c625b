// Package integration proves nlb with real packets: clients, balancers and
// backends in network namespaces, and nft and strace as witnesses.
//
// Every test builds a world of its own and leaves the namespace that the tests
// were started in alone. Without root the tests run in a user namespace.
package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
	"nlb/nft/wire"
)

func TestMain(m *testing.M) {
	if err := netlab.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: packet tests cannot run:", err)
		os.Exit(1)
	}
	// The lock of iptables-legacy is root's; each run has its own.
	lock := filepath.Join(os.TempDir(), fmt.Sprintf("nlb-xtables-%d.lock", os.Getpid()))
	os.Setenv("XTABLES_LOCKFILE", lock)
	code := m.Run()
	os.RemoveAll(builtIn)
	os.Remove(lock)
	os.Exit(code)
}

// bed is the world of most tests: a client and a server machine, each on a
// network of its own with the balancer between them.
//
//	client 10.1.0.2 --- 10.1.0.1 balancer 10.2.0.1 --- 10.2.0.11.. server
//	client fd01::2  --- fd01::1  balancer fd02::1  --- fd02::11..  server
//
// Services listen on 203.0.113.0/24 and 2001:db8::/64, which are routed to the
// balancer.
type bed struct {
	t                        *testing.T
	world                    *netlab.World
	client, balancer, server *netlab.Host
}

func newBed(t *testing.T) *bed {
	t.Helper()
	w, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, world: w}
	t.Cleanup(func() { b.check(w.Close()) })
	b.client, b.balancer, b.server = b.host("client"), b.host("balancer"), b.host("server")
	b.check(w.Link(b.client, "eth0", b.balancer, "eth0"))
	b.check(w.Link(b.balancer, "eth1", b.server, "eth0"))
	b.address(b.client, "eth0", "10.1.0.2/24", "fd01::2/64")
	b.address(b.balancer, "eth0", "10.1.0.1/24", "fd01::1/64")
	b.address(b.balancer, "eth1", "10.2.0.1/24", "fd02::1/64")
	b.check(b.balancer.Forward())
	for i := range 5 {
		b.address(b.server, "eth0", fmt.Sprintf("10.2.0.%d/24", 11+i), fmt.Sprintf("fd02::%d/64", 11+i))
	}
	b.via(b.client, "10.1.0.1", "fd01::1")
	b.via(b.server, "10.2.0.1", "fd02::1")
	return b
}

func (b *bed) host(name string) *netlab.Host {
	b.t.Helper()
	h, err := b.world.Host(name)
	b.check(err)
	return h
}

func (b *bed) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) address(h *netlab.Host, link string, prefixes ...string) {
	b.t.Helper()
	for _, p := range prefixes {
		b.check(h.AddAddress(link, netip.MustParsePrefix(p)))
	}
}

func (b *bed) via(h *netlab.Host, gateways ...string) {
	b.t.Helper()
	for _, g := range gateways {
		b.check(h.DefaultVia(netip.MustParseAddr(g)))
	}
}

// serve starts stand-in backends on the server machine, one for each address,
// for TCP and UDP at each port. A backend is called by its address.
func (b *bed) serve(ports []int, addresses ...string) {
	b.t.Helper()
	for _, a := range addresses {
		var at []traffic.Port
		for _, p := range ports {
			ap := netip.AddrPortFrom(netip.MustParseAddr(a), uint16(p))
			at = append(at, traffic.Port{Network: "tcp", At: ap}, traffic.Port{Network: "udp", At: ap})
		}
		_, err := traffic.Serve(b.server, a, at...)
		b.check(err)
	}
}

// parse reads a profile whose file would be called after its `profile:` key.
func (b *bed) parse(yaml string) *lb.Profile {
	b.t.Helper()
	p, err := config.Parse("test.yaml", []byte(yaml))
	if errs, ok := errors.AsType[lb.Errors](err); ok {
		for _, e := range errs {
			b.t.Error(config.FormatError(e))
		}
	}
	b.check(err)
	return p
}

// apply makes the balancer hold the profiles, by the code that `nlb apply` runs.
func (b *bed) apply(profiles ...string) *nft.Result {
	b.t.Helper()
	return b.applyOn(b.balancer, profiles...)
}

func (b *bed) applyOn(h *netlab.Host, profiles ...string) *nft.Result {
	b.t.Helper()
	var parsed []*lb.Profile
	for _, p := range profiles {
		parsed = append(parsed, b.parse(p))
	}
	var result *nft.Result
	b.kernel(h, func(c *wire.Conn) (err error) {
		result, err = nft.Apply(b.t.Context(), c, parsed, nft.Options{Table: "nlb"})
		return err
	})
	return result
}

// kernel talks to a host's kernel.
func (b *bed) kernel(h *netlab.Host, f func(c *wire.Conn) error) {
	b.t.Helper()
	var c *wire.Conn
	b.check(h.Do(func() (err error) { c, err = wire.Dial(); return err }))
	defer c.Close()
	b.check(f(c))
}

func (b *bed) load() *nft.State {
	b.t.Helper()
	var s *nft.State
	b.kernel(b.balancer, func(c *wire.Conn) (err error) { s, err = nft.Load(c, "nlb"); return err })
	return s
}

func (b *bed) from() traffic.Client { return traffic.Client{Host: b.client} }

// ask makes one exchange and returns who answered.
func (b *bed) ask(network, to string) traffic.Reply {
	b.t.Helper()
	r, err := b.from().Exchange(b.t.Context(), network, netip.MustParseAddrPort(to))
	if err != nil {
		b.t.Fatalf("%s %s: %v", network, to, err)
	}
	return r
}

// row makes n exchanges, one after the other, and returns who answered each.
func (b *bed) row(network, to string, n int) []string {
	b.t.Helper()
	var out []string
	for range n {
		out = append(out, b.ask(network, to).Backend)
	}
	return out
}

func count(row []string) map[string]int {
	out := map[string]int{}
	for _, s := range row {
		out[s]++
	}
	return out
}

// wantShares fails where the backends did not get exactly these shares.
func (b *bed) wantShares(got map[string]int, want map[string]int) {
	b.t.Helper()
	if !maps.Equal(got, want) {
		b.t.Errorf("shares: got %v, want %v", got, want)
	}
}

// witness runs a program on a host, which has to be installed, and returns what
// it prints.
func (b *bed) witness(h *netlab.Host, stdin, name string, args ...string) string {
	b.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missing(b.t, name)
	}
	c := h.Command(context.Background(), name, args...)
	c.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// missing skips a test whose witness is not installed. CI installs them all,
// and counts a skipped test as a failure.
func missing(t *testing.T, name string) {
	t.Helper()
	t.Skipf("SKIPPED, NOT PROVED: %s is not installed", name)
}

// longestRun is the most answers of one backend in a row, in a row that begins
// again at its end.
func longestRun(row []string) int {
	longest, run := 0, 0
	last := ""
	for _, s := range slices.Concat(row, row) {
		if s != last {
			run = 0
		}
		last = s
		run++
		longest = max(longest, run)
	}
	return longest
}
