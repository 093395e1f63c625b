//go:build linux

package main

// Bounded things: what grows must not grow with its square. Each is applied in
// two sizes, the larger one four times the smaller.

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"nlb/integration/netlab"
	"nlb/lb"
)

// quadrupled is the most that four times as much may take. A quadratic step
// would take 16 times as long.
const quadrupled = 6

// bounded are profiles of a size.
var bounded = []struct {
	what    string
	most    int // the larger size
	profile func(n int) *lb.Profile
	because string
}{
	{"slots in one service", 65_535, slots, ""},
	{"listens of one service", 16_384, ports, ""},
	{"prefixes in deny", 100_000, denied, ""},
	{"services with affinity", 10_000, sticky, "each service with affinity has a map of its own: the kernel compares the name of each new map, " +
		"and of each map that a new rule asks for, with those of all that are there"},
}

func (b *bench) boundedRows() error {
	for _, x := range bounded {
		most := x.most
		if b.quick {
			most /= 8
		}
		small, err := b.save("small.yaml", x.profile(most/4))
		if err != nil {
			return err
		}
		large, err := b.save("large.yaml", x.profile(most))
		if err != nil {
			return err
		}
		if err := b.twice(fmt.Sprintf("%s %s", grouped(most), x.what), small, large, x.because); err != nil {
			return err
		}
	}
	if err := b.folderRow(); err != nil {
		return err
	}
	return b.allPortsRow()
}

// twice applies two sizes in turn.
func (b *bench) twice(what, small, large, because string) error {
	var s, l usages
	for range b.rounds {
		u, err := b.alone(b.nlb, "apply", small)
		if err != nil {
			return err
		}
		s = append(s, u)
		if u, err = b.alone(b.nlb, "apply", large); err != nil {
			return err
		}
		l = append(l, u)
	}
	b.progress("%s: %v, a quarter of it %v", what, l.wall(), s.wall())
	b.table.atMost(quadrupled, because, compare("cold apply, "+what, l.walls(), "a quarter of them", s.walls()))
	return nil
}

// slots is one service whose weights need n slots: heavy backends, and one of
// another weight, so that there is no common divisor.
func slots(n int) *lb.Profile {
	s := service(0)
	left := n
	for i := 0; left > 0; i++ {
		b := backend(i)
		b.Weight = min(lb.MaxWeight, left)
		if i == 0 {
			b.Weight--
		}
		left -= b.Weight
		s.Backends = append(s.Backends, b)
	}
	return &lb.Profile{Name: "slots", Services: []lb.Service{s}}
}

// ports is one service that listens on n ports that are not neighbours.
func ports(n int) *lb.Profile {
	s := service(0)
	s.Backends = []lb.Backend{backend(0)}
	s.Listen[0].Ports = nil
	for i := range n {
		port := uint16(1 + 2*i)
		s.Listen[0].Ports = append(s.Listen[0].Ports, lb.PortRange{First: port, Last: port})
	}
	return &lb.Profile{Name: "ports", Services: []lb.Service{s}}
}

// denied is one service that n networks of clients may not use.
func denied(n int) *lb.Profile {
	s := service(0)
	s.Backends = []lb.Backend{backend(0)}
	for i := range n {
		s.Deny = append(s.Deny, netip.PrefixFrom(after(netip.MustParseAddr("11.0.0.0"), i<<9), 24))
	}
	return &lb.Profile{Name: "denied", Services: []lb.Service{s}}
}

// sticky is n services with affinity.
func sticky(n int) *lb.Profile {
	p := fleet("sticky", 0, n, 3)
	for i := range p.Services {
		p.Services[i].Affinity = &lb.Affinity{Timeout: 600e9, Bits: 32, Bits6: 128}
	}
	return p
}

// folderRow applies a folder of profiles, and checks that they are one batch,
// one table, and no more rules on a packet's way than one of them.
func (b *bench) folderRow() error {
	most := b.few / 10
	small, err := b.folder(most / 4)
	if err != nil {
		return err
	}
	large, err := b.folder(most)
	if err != nil {
		return err
	}
	var ways []string
	for _, what := range []string{filepath.Join(large, "p0000.yaml"), large} {
		err := b.fresh(func(h *netlab.Host) error {
			if err := b.oneBatch(h, what); err != nil {
				return err
			}
			way, err := b.packetsWay(h)
			ways = append(ways, way)
			return err
		})
		if err != nil {
			return err
		}
	}
	if ways[0] != ways[1] {
		return fmt.Errorf("%d profiles make another way for packets than one:\n%s\n%s", most, ways[0], ways[1])
	}
	return b.twice(grouped(most)+" profiles in one folder: one batch, one table, the base chains of one", small, large, "")
}

// oneBatch applies, and fails unless that was one generation.
func (b *bench) oneBatch(h *netlab.Host, what string) error {
	before, err := generation(h)
	if err != nil {
		return err
	}
	if _, err := b.output(h, b.nlb, "apply", what); err != nil {
		return err
	}
	if after, err := generation(h); err != nil || after != before+1 {
		return fmt.Errorf("not one batch: generation %d, was %d; %w", after, before, err)
	}
	return nil
}

// packetsWay is the one table's chains that packets meet, as nft lists them.
func (b *bench) packetsWay(h *netlab.Host) (string, error) {
	tables, err := b.output(h, "nft", "list", "tables")
	if err != nil {
		return "", err
	}
	if n := strings.Count(tables, "\n"); n != 1 {
		return "", fmt.Errorf("%d tables", n)
	}
	var all strings.Builder
	for _, chain := range []string{"prerouting", "output", "postrouting"} {
		one, err := b.output(h, "nft", "list", "chain", "inet", "nlb", chain)
		if err != nil {
			return "", err
		}
		all.WriteString(one)
	}
	return all.String(), nil
}

// allPortsRow compares a listen of all ports with one of one port.
func (b *bench) allPortsRow() error {
	all := service(0)
	all.Backends = []lb.Backend{backend(0)}
	one := all
	all.Listen = []lb.Listen{{Prefix: one.Listen[0].Prefix, Ports: []lb.PortRange{lb.AllPorts}}}
	var files []string
	for _, s := range []lb.Service{one, all} {
		file, err := b.save(fmt.Sprintf("listen%d.yaml", len(files)), &lb.Profile{Name: "listen", Services: []lb.Service{s}})
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	var took [2]usages
	for range 4 * b.rounds { // they are over in a few milliseconds
		for i, file := range files {
			u, err := b.alone(b.nlb, "apply", file)
			if err != nil {
				return err
			}
			took[i] = append(took[i], u)
		}
	}
	b.table.atMost(1.5, "", compare("cold apply, a listen of all ports", took[1].walls(), "of one port", took[0].walls()))
	return nil
}
