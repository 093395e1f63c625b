//go:build linux

package bench

// Bounded things: what grows must not grow with its square. Each is applied in
// two sizes, the larger one four times the smaller.

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"nlb/integration/netlab"
	"nlb/lb"
)

// quadrupled is the most that four times as much may take. A quadratic step
// would take 16 times as long.
const quadrupled = 6

// bounded are profiles of a size.
var bounded = []struct {
	name, what string
	most       int // the larger size
	profile    func(n int) *lb.Profile
}{
	// Heavy backends, and one of another weight, so that there is no common
	// divisor.
	{"slots", "slots in one service", 65_535, func(n int) *lb.Profile {
		s := service(0)
		for i := 0; n > 0; i++ {
			b := backend(i)
			b.Weight = min(lb.MaxWeight, n)
			if i == 0 {
				b.Weight--
			}
			n -= b.Weight
			s.Backends = append(s.Backends, b)
		}
		return &lb.Profile{Name: "slots", Services: []lb.Service{s}}
	}},
	// Ports that are not neighbours.
	{"listens", "listens of one service", 16_384, func(n int) *lb.Profile {
		s := service(0, backend(0))
		s.Listen[0].Ports = nil
		for i := range n {
			port := uint16(1 + 2*i)
			s.Listen[0].Ports = append(s.Listen[0].Ports, lb.PortRange{First: port, Last: port})
		}
		return &lb.Profile{Name: "ports", Services: []lb.Service{s}}
	}},
	{"deny", "prefixes in deny", 100_000, func(n int) *lb.Profile {
		s := service(0, backend(0))
		for i := range n {
			s.Deny = append(s.Deny, netip.PrefixFrom(after(netip.MustParseAddr("11.0.0.0"), i<<9), 24))
		}
		return &lb.Profile{Name: "denied", Services: []lb.Service{s}}
	}},
	{"affinity", "services with affinity", 10_000, func(n int) *lb.Profile {
		p := fleet("sticky", 0, n)
		for i := range p.Services {
			p.Services[i].Affinity = &lb.Affinity{Timeout: 600e9, Bits: 32, Bits6: 128}
		}
		return p
	}},
}

func BenchmarkBounded(b *testing.B) {
	prepare(b)
	for _, x := range bounded {
		b.Run(x.name, func(b *testing.B) {
			most := x.most
			if *quick {
				most /= 8
			}
			quadruple(b, fmt.Sprintf("%s %s", grouped(most), x.what), save(b, "small.yaml", x.profile(most/4)), save(b, "large.yaml", x.profile(most)))
		})
	}
	// They are one batch and one table, and packets meet the rules of one.
	b.Run("folder", func(b *testing.B) {
		most := size(1000)
		small, large := folder(b, most/4), folder(b, most)
		var ways []string
		for _, what := range []string{filepath.Join(large, "p0000.yaml"), large} {
			fresh(b, func(h *netlab.Host) {
				before := generation(b, h)
				output(b, h, "", *program, "apply", what)
				if after := generation(b, h); after != before+1 {
					b.Fatalf("not one batch: generation %d, was %d", after, before)
				}
				ways = append(ways, packetsWay(b, h))
			})
		}
		if ways[0] != ways[1] {
			b.Fatalf("%d profiles make another way for packets than one:\n%s\n%s", most, ways[0], ways[1])
		}
		quadruple(b, grouped(most)+" profiles in one folder: one batch, one table, the base chains of one", small, large)
	})
	b.Run("all ports", func(b *testing.B) {
		one := service(0, backend(0))
		all := one
		all.Listen = []lb.Listen{{Prefix: one.Listen[0].Prefix, Ports: []lb.PortRange{lb.AllPorts}}}
		oneFile := save(b, "one.yaml", &lb.Profile{Name: "listen", Services: []lb.Service{one}})
		allFile := save(b, "all.yaml", &lb.Profile{Name: "listen", Services: []lb.Service{all}})
		var ones, alls usages
		for b.Loop() {
			for range 4 { // they are over in a few milliseconds
				ones.alone(b, *program, "apply", oneFile)
				alls.alone(b, *program, "apply", allFile)
			}
		}
		compare(b, "cold apply, a listen of all ports", alls.Walls, "of one port", ones.Walls, 1.5)
	})
}

// quadruple applies two sizes in turn.
func quadruple(b *testing.B, what, small, large string) {
	var s, l usages
	for b.Loop() {
		s.alone(b, *program, "apply", small)
		l.alone(b, *program, "apply", large)
	}
	compare(b, "cold apply, "+what, l.Walls, "a quarter of them", s.Walls, quadrupled)
}

// packetsWay is the one table's chains that packets meet, as nft lists them.
func packetsWay(b *testing.B, h *netlab.Host) string {
	if n := strings.Count(output(b, h, "", "nft", "list", "tables"), "\n"); n != 1 {
		b.Fatalf("%d tables", n)
	}
	all := ""
	for _, chain := range []string{"prerouting", "output", "postrouting"} {
		all += output(b, h, "", "nft", "list", "chain", "inet", "nlb", chain)
	}
	return all
}
