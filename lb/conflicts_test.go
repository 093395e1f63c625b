package lb_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/lbtest"
)

func single(s string) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

// before reports whether one place comes before another of the same file.
func before(a, b lb.Pos) bool {
	return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
}

// overlap is what Conflicts is about, for two listens: slow and plain.
func overlap(a, b *lb.Service, k, l *lb.Listen) bool {
	if k.Prefix != l.Prefix ||
		a.Role == lb.RoleClient && b.Role == lb.RoleServer || a.Role == lb.RoleServer && b.Role == lb.RoleClient ||
		(a.Interface == "") != (b.Interface == "") {
		return false
	}
	i, iAny := strings.CutSuffix(a.Interface, "*")
	j, jAny := strings.CutSuffix(b.Interface, "*")
	if !(i == j || iAny && strings.HasPrefix(j, i) || jAny && strings.HasPrefix(i, j)) {
		return false
	}
	protocols := slices.ContainsFunc(a.Protocols, func(p lb.Protocol) bool { return slices.Contains(b.Protocols, p) })
	return protocols && slices.ContainsFunc(k.Ports, func(r lb.PortRange) bool {
		return slices.ContainsFunc(l.Ports, func(s lb.PortRange) bool { return r.First <= s.Last && s.First <= r.Last })
	})
}

// TestConflictsProperties compares Conflicts with all pairs: it finds something
// where there is something, only what is there, and each listen once. What it
// says is enough: without the listens that it names, none conflict.
func TestConflictsProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	prefixes := []netip.Prefix{{}, single("10.0.0.1"), single("10.0.0.2"), netip.MustParsePrefix("10.0.0.0/8")}
	for range 20_000 {
		p := &lb.Profile{Name: "p"}
		type at struct{ service, listen int }
		where := map[lb.Pos]at{}
		for i := range 2 + r.IntN(7) {
			s := lb.Service{Name: fmt.Sprint(i), Role: lb.Role(r.IntN(3)), Protocols: []lb.Protocol{lb.TCP}}
			if r.IntN(3) == 0 {
				s.Protocols = []lb.Protocol{lb.TCP, lb.UDP}
			}
			if r.IntN(2) == 0 {
				s.Interface = []string{"e*", "eth*", "eth0", "eth1", "eth0*", "w*", "e"}[r.IntN(7)]
			}
			for j := range 1 + r.IntN(2) {
				l := lb.Listen{Prefix: prefixes[r.IntN(len(prefixes))], Pos: lb.Pos{File: "p.yaml", Line: 1 + i, Column: 1 + j}}
				first := uint16(1 + r.IntN(20))
				l.Ports = []lb.PortRange{{First: first, Last: first + uint16(r.IntN(8))}}
				if r.IntN(10) == 0 {
					l.Ports = []lb.PortRange{lb.AllPorts}
				}
				s.Listen = append(s.Listen, l)
				where[l.Pos] = at{i, j}
			}
			p.Services = append(p.Services, s)
		}
		pairs := func(lost map[lb.Pos]bool) (n int) {
			for i := range p.Services {
				for j := range i + 1 {
					for k := range p.Services[i].Listen {
						for l := range p.Services[j].Listen {
							if i == j && l >= k {
								continue
							}
							a, b := &p.Services[i].Listen[k], &p.Services[j].Listen[l]
							if !lost[a.Pos] && !lost[b.Pos] && overlap(&p.Services[i], &p.Services[j], a, b) {
								n++
							}
						}
					}
				}
			}
			return n
		}
		errs := lb.Conflicts([]*lb.Profile{p})
		if all := pairs(nil); (all > 0) != (len(errs) > 0) {
			t.Fatalf("%d pairs, and %v\n%+v", all, errs, p.Services)
		}
		lost := map[lb.Pos]bool{}
		for i, e := range errs {
			if lost[e.Pos] || i > 0 && !before(errs[i-1].Pos, e.Pos) {
				t.Fatalf("order: %v", errs)
			}
			lost[e.Pos] = true
			a := where[e.Pos]
			conflicts := false
			for i := range a.service + 1 {
				for j := range p.Services[i].Listen {
					if i == a.service && j >= a.listen {
						break
					}
					conflicts = conflicts || overlap(&p.Services[i], &p.Services[a.service], &p.Services[i].Listen[j], &p.Services[a.service].Listen[a.listen])
				}
			}
			if !conflicts {
				t.Fatalf("%v: with nothing before it\n%+v", e, p.Services)
			}
		}
		if rest := pairs(lost); rest > 0 && !slices.ContainsFunc(p.Services, func(s lb.Service) bool { return strings.HasSuffix(s.Interface, "*") }) {
			t.Fatalf("%d more pairs beside\n%v\n%+v", rest, errs, p.Services)
		}
	}
}

// BenchmarkConflictsCrowded has many services in one place, in ways that a
// comparison of each with each would take minutes for.
func BenchmarkConflictsCrowded(b *testing.B) {
	const n = 64_000
	for name, change := range map[string]func(int, *lb.Service){
		"all the same": func(_ int, s *lb.Service) { s.Listen[0].Prefix = single("10.0.0.1") },
		"one address": func(i int, s *lb.Service) {
			s.Listen[0].Prefix, s.Listen[0].Ports = single("10.0.0.1"), []lb.PortRange{{First: uint16(i + 1), Last: uint16(i + 1)}}
		},
		"nested ranges": func(i int, s *lb.Service) {
			s.Listen[0].Prefix, s.Listen[0].Ports = single("10.0.0.1"), []lb.PortRange{{First: uint16(i/2 + 1), Last: uint16(65535 - i/2)}}
		},
		"own interfaces": func(i int, s *lb.Service) {
			s.Listen[0].Prefix, s.Interface = netip.Prefix{}, fmt.Sprintf("eth%d", i)
		},
		"interfaces and prefixes of them": func(i int, s *lb.Service) {
			s.Listen[0].Prefix, s.Interface = netip.Prefix{}, fmt.Sprintf("e%d", i)
			if i%2 == 0 {
				s.Interface = "e*"
			}
		},
	} {
		p := lbtest.Fleet(n)
		for i := range p.Services {
			change(i, &p.Services[i])
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				lb.Conflicts([]*lb.Profile{p})
			}
		})
	}
}
