package integration

// How connections spread: schedulers and weights.

import (
	"fmt"
	"math"
	"net/netip"
	"testing"

	"nlb/integration/netlab/traffic"
)

// backends is the YAML of a service's backends with weights; a weight of -1 is
// not written.
func backends(port int, weights ...int) string {
	s := "    backends:\n"
	for i, w := range weights {
		if w < 0 {
			s += fmt.Sprintf("      - 10.2.0.%d:%d\n", 11+i, port)
		} else {
			s += fmt.Sprintf("      - {address: \"10.2.0.%d:%d\", weight: %d}\n", 11+i, port, w)
		}
	}
	return s
}

const web = `profile: shop
services:
  - name: web
    listen: 203.0.113.10:80
`

func TestRoundRobinIsExact(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	b.Apply(web + "    protocol: [tcp, udp]\n" + backends(8080, -1, -1, -1))
	want := map[string]int{"10.2.0.11": 100, "10.2.0.12": 100, "10.2.0.13": 100}
	for _, network := range []string{"tcp", "udp"} {
		row := b.Row(network, "203.0.113.10:80", 300)
		b.WantShares(count(row), want)
		if run := longestRun(row); run > 1 {
			t.Errorf("%s: a backend got %d in a row", network, run)
		}
	}
	// Several at a time do not upset it.
	tally := b.From().Many(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"), 300, 8)
	b.Check(tally.Err)
	b.WantShares(tally.Backends, want)
}

func TestWeightsAreSpread(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	b.Apply(web + backends(8080, 5, 1, 1))
	row := b.Row("tcp", "203.0.113.10:80", 70)
	b.WantShares(count(row), map[string]int{"10.2.0.11": 50, "10.2.0.12": 10, "10.2.0.13": 10})
	if run := longestRun(row); run > 3 {
		t.Errorf("a backend got %d in a row: %v", run, row)
	}
}

func TestRandomFollowsTheWeights(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	b.Apply(web + "    scheduler: random\n" + backends(8080, 3, 2, 1))
	const n = 2000
	got := b.From().Many(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"), n, 8)
	b.Check(got.Err)
	chi2 := 0.0
	for backend, weight := range map[string]float64{"10.2.0.11": 3, "10.2.0.12": 2, "10.2.0.13": 1} {
		due := n * weight / 6
		chi2 += math.Pow(float64(got.Backends[backend])-due, 2) / due
	}
	// With two degrees of freedom the tail beyond x is exp(-x/2).
	if p := math.Exp(-chi2 / 2); p < 1e-6 {
		t.Errorf("%v is not 3:2:1, p = %.2g", got.Backends, p)
	}
	// Random is not a round: the same backend comes twice in a row.
	if run := longestRun(b.Row("tcp", "203.0.113.10:80", 50)); run < 2 {
		t.Error("50 connections at random, and never the same backend twice in a row")
	}
}

// TestHashKeepsClients: the same client meets the same backend, at every
// balancer that has the same profile.
func TestHashKeepsClients(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12", "fd02::13")
	second := b.Host("second")
	b.Check(b.World.Link(b.Client, "eth1", second, "eth0"))
	b.Check(b.World.Link(second, "eth1", b.Server, "eth1"))
	b.Address(b.Client, "eth1", "10.3.0.2/24", "fd03::2/64")
	b.Address(second, "eth0", "10.3.0.1/24", "fd03::1/64")
	b.Address(second, "eth1", "10.4.0.1/24", "fd04::1/64")
	b.Address(b.Server, "eth1", "10.4.0.2/24", "fd04::2/64")
	b.Check(second.AddRoute(netip.MustParsePrefix("10.2.0.0/24"), netip.MustParseAddr("10.4.0.2")))
	b.Check(second.AddRoute(netip.MustParsePrefix("fd02::/64"), netip.MustParseAddr("fd04::2")))
	b.Check(second.Forward())
	profile := `profile: shop
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    scheduler: hash
    backends: ["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080", "[fd02::11]:8080", "[fd02::12]:8080", "[fd02::13]:8080"]
`
	b.Apply(profile)
	// The other one has had something else before, so that its numbers differ.
	b.ApplyOn(second, `profile: shop
services:
  - {name: other, listen: "203.0.113.99:80", backends: ["10.2.0.14:1", "10.2.0.15:1"]}
`)
	b.ApplyOn(second, profile)

	for _, family := range []struct{ client, vip, gateway string }{
		{"10.1.1.%d/32", "203.0.113.10:80", "10.3.0.1"},
		{"fd01:0:0:1::%d/128", "[2001:db8::10]:80", "fd03::1"},
	} {
		vip := netip.MustParseAddrPort(family.vip)
		first := map[netip.Addr]string{}
		for i := range 50 {
			p := netip.MustParsePrefix(fmt.Sprintf(family.client, i+1))
			b.Address(b.Client, "lo", p.String())
			b.Check(b.Balancer.AddRoute(p, ofFamily(p.Addr(), "10.1.0.2", "fd01::2")))
			b.Check(second.AddRoute(p, ofFamily(p.Addr(), "10.3.0.2", "fd03::2")))
			for range 2 {
				r, err := traffic.Client{Host: b.Client, Source: p.Addr()}.Exchange(t.Context(), "tcp", vip)
				b.Check(err)
				if was, ok := first[p.Addr()]; ok && was != r.Backend {
					t.Fatalf("client %s met %s and %s", p.Addr(), was, r.Backend)
				}
				first[p.Addr()] = r.Backend
			}
		}
		used := map[string]bool{}
		for _, backend := range first {
			used[backend] = true
		}
		if len(used) != 3 {
			t.Errorf("50 clients met only %v", used)
		}
		b.Check(b.Client.AddRoute(netip.PrefixFrom(vip.Addr(), vip.Addr().BitLen()), netip.MustParseAddr(family.gateway)))
		for client, backend := range first {
			r, err := traffic.Client{Host: b.Client, Source: client}.Exchange(t.Context(), "tcp", vip)
			b.Check(err)
			if r.Backend != backend {
				t.Errorf("client %s meets %s at one balancer and %s at the other", client, backend, r.Backend)
			}
		}
	}
}

// ofFamily picks the address of a's family.
func ofFamily(a netip.Addr, v4, v6 string) netip.Addr {
	if a.Is4() {
		return netip.MustParseAddr(v4)
	}
	return netip.MustParseAddr(v6)
}
