//go:build linux

package netlabtest

// The bed with what tests do on it. What fails, fails the test.

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
	"nlb/nft/direct"
	"nlb/nft/links"
	"nlb/nft/wire"
)

// Bed is a netlab.Bed of a test. Services listen on 203.0.113.0/24 and
// 2001:db8::/64, which reach the balancer by the client's default route.
type Bed struct {
	*netlab.Bed
	T    testing.TB
	lock string // of iptables-legacy, which is otherwise the machine's
}

// New makes a bed that ends with the test.
func New(t testing.TB) *Bed {
	t.Helper()
	Packets(t)
	b, err := netlab.NewBed()
	Must(t, err)
	t.Cleanup(func() { Must(t, b.World.Close()) })
	return &Bed{b, t, filepath.Join(t.TempDir(), "xtables.lock")}
}

// With is the same bed for a subtest.
func (b *Bed) With(t testing.TB) *Bed { return &Bed{b.Bed, t, b.lock} }

// Host adds a host to the bed's world.
func (b *Bed) Host(name string) *netlab.Host {
	b.T.Helper()
	return NewHost(b.T, b.World, name)
}

// Check fails the test where there is an error.
func (b *Bed) Check(err error) {
	b.T.Helper()
	Must(b.T, err)
}

// Address gives a link of a host addresses.
func (b *Bed) Address(h *netlab.Host, link string, prefixes ...string) {
	b.T.Helper()
	for _, p := range prefixes {
		b.Check(h.AddAddress(link, netip.MustParsePrefix(p)))
	}
}

// Via gives a host default routes.
func (b *Bed) Via(h *netlab.Host, gateways ...string) {
	b.T.Helper()
	for _, g := range gateways {
		b.Check(h.DefaultVia(netip.MustParseAddr(g)))
	}
}

// Serve starts stand-in backends on the server machine, one for each address,
// for TCP and UDP at each port. A backend is called by its address.
func (b *Bed) Serve(ports []int, addresses ...string) {
	b.T.Helper()
	for _, a := range addresses {
		var at []traffic.Port
		for _, p := range ports {
			ap := netip.AddrPortFrom(netip.MustParseAddr(a), uint16(p))
			at = append(at, traffic.Port{Network: "tcp", At: ap}, traffic.Port{Network: "udp", At: ap})
		}
		_, err := traffic.Serve(b.Server, a, at...)
		b.Check(err)
	}
}

// Parse reads a profile; each of its mistakes is an error of the test.
func (b *Bed) Parse(yaml string) *lb.Profile {
	b.T.Helper()
	p, err := config.Parse("test.yaml", []byte(yaml))
	if errs, ok := errors.AsType[lb.Errors](err); ok {
		for _, e := range errs {
			b.T.Error(config.FormatError(e))
		}
	}
	b.Check(err)
	return p
}

// Apply makes the balancer hold the profiles, by the code that `nlb apply` runs.
func (b *Bed) Apply(profiles ...string) *nft.Result {
	b.T.Helper()
	return b.ApplyOn(b.Balancer, profiles...)
}

// ApplyOn is Apply on a host.
func (b *Bed) ApplyOn(h *netlab.Host, profiles ...string) *nft.Result {
	b.T.Helper()
	var parsed []*lb.Profile
	for _, p := range profiles {
		parsed = append(parsed, b.Parse(p))
	}
	var result *nft.Result
	b.Kernel(h, func(c *wire.Conn) (err error) {
		result, err = nft.Apply(b.T.Context(), c, parsed, nft.Options{Table: "nlb", Links: Links(h)})
		return err
	})
	return result
}

// Links reads the links of a host.
func Links(h *netlab.Host) func(profiles []*lb.Profile) (*direct.Links, error) {
	return func(profiles []*lb.Profile) (l *direct.Links, err error) {
		err = h.Do(func() error {
			r, err := links.Open()
			if err != nil {
				return err
			}
			defer r.Close()
			l, err = r.Read(profiles)
			return err
		})
		return l, err
	}
}

// Kernel talks to a host's kernel.
func (b *Bed) Kernel(h *netlab.Host, f func(c *wire.Conn) error) {
	b.T.Helper()
	var c *wire.Conn
	b.Check(h.Do(func() (err error) { c, err = wire.Dial(); return err }))
	defer c.Close()
	b.Check(f(c))
}

// Load reads the balancer's table.
func (b *Bed) Load() *nft.State {
	b.T.Helper()
	var s *nft.State
	b.Kernel(b.Balancer, func(c *wire.Conn) (err error) { s, err = nft.Load(c, "nlb"); return err })
	return s
}

// From is a client on the client machine.
func (b *Bed) From() traffic.Client { return traffic.Client{Host: b.Client} }

// Ask makes one exchange and returns who answered.
func (b *Bed) Ask(network, to string) traffic.Reply {
	b.T.Helper()
	r, err := b.From().Exchange(b.T.Context(), network, netip.MustParseAddrPort(to))
	if err != nil {
		b.T.Fatalf("%s %s: %v", network, to, err)
	}
	return r
}

// Reaches is who answers at an address, for a host; empty: nobody. Where an
// answer is due it waits for as long as a busy machine takes.
func (b *Bed) Reaches(from *netlab.Host, network, to string, due bool) string {
	b.T.Helper()
	c := traffic.Client{Host: from}
	if !due {
		c.Timeout = 200 * time.Millisecond
	}
	r, err := c.Exchange(b.T.Context(), network, netip.MustParseAddrPort(to))
	if err != nil {
		return ""
	}
	return r.Backend
}

// Row makes n exchanges, one after the other, and returns who answered each.
func (b *Bed) Row(network, to string, n int) []string {
	b.T.Helper()
	var out []string
	for range n {
		out = append(out, b.Ask(network, to).Backend)
	}
	return out
}

// WantShares fails where the backends did not get exactly these shares.
func (b *Bed) WantShares(got map[string]int, want map[string]int) {
	b.T.Helper()
	if !maps.Equal(got, want) {
		b.T.Errorf("shares: got %v, want %v", got, want)
	}
}

// Command prepares a program on a host.
func (b *Bed) Command(h *netlab.Host, name string, args ...string) *netlab.Cmd {
	c := h.Command(context.Background(), name, args...)
	c.Env = append(os.Environ(), "XTABLES_LOCKFILE="+b.lock)
	return c
}

// Witness runs a program on a host, which has to be installed, and returns what
// it prints.
func (b *Bed) Witness(h *netlab.Host, stdin, name string, args ...string) string {
	b.T.Helper()
	Needs(b.T, name)
	c := b.Command(h, name, args...)
	c.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		b.T.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// NFT gives a host a script for nft.
func (b *Bed) NFT(h *netlab.Host, script string) {
	b.T.Helper()
	b.Witness(h, script, "nft", "-f", "-")
}

// OnlyMark is the mark of the only connection that the balancer tracks.
func (b *Bed) OnlyMark() uint32 {
	b.T.Helper()
	var flows []*netlink.ConntrackFlow
	b.Check(b.Balancer.Do(func() (err error) {
		flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		return err
	}))
	if len(flows) != 1 {
		b.T.Fatalf("%d connections, want 1", len(flows))
	}
	return flows[0].Mark
}
