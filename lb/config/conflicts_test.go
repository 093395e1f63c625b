package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
)

func parseNamed(t *testing.T, file, text string) *lb.Profile {
	t.Helper()
	p, err := Parse(file, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestConflictsAcrossProfiles(t *testing.T) {
	const text = "services:\n  - {name: web, listen: 203.0.113.10:80, backends: []}\n"
	shop, blog := parseNamed(t, "shop.yaml", text), parseNamed(t, "blog.yaml", text)
	kernel := parseNamed(t, "shop.yaml", text)
	kernel.Pos, kernel.Services[0].Pos, kernel.Services[0].Listen[0].Pos = lb.Pos{}, lb.Pos{}, lb.Pos{}
	for _, tt := range []struct {
		name     string
		profiles []*lb.Profile
		want     string
	}{
		{
			"two files",
			[]*lb.Profile{shop, blog},
			"blog.yaml:2:25: service blog/web claims 203.0.113.10:80 tcp, which service shop/web claims at shop.yaml:2:25, " +
				"want each address, port and protocol once",
		},
		{
			"the other order",
			[]*lb.Profile{blog, shop},
			"shop.yaml:2:25: service shop/web claims 203.0.113.10:80 tcp, which service blog/web claims at blog.yaml:2:25, " +
				"want each address, port and protocol once",
		},
		{
			"kernel",
			[]*lb.Profile{kernel, blog},
			"blog.yaml:2:25: service blog/web claims 203.0.113.10:80 tcp, which service shop/web claims in the kernel, " +
				"want each address, port and protocol once",
		},
		{
			"one name",
			[]*lb.Profile{parseNamed(t, "a/shop.yaml", "services: []"), parseNamed(t, "b/shop.yaml", "\nservices: []")},
			"b/shop.yaml:1:1: profile shop is here twice, first at a/shop.yaml:1:1, want a name for each profile",
		},
		{"none", []*lb.Profile{shop}, ""},
	} {
		if diff := cmp.Diff(tt.want, lb.Conflicts(tt.profiles).Error()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestQuote(t *testing.T) {
	a := "services:\n  - {name: web, listen: [203.0.113.10:80, 203.0.113.10:81], backends: []}\n"
	b := bom + "services:\r\n  - name: api\r\n    listen: 203.0.113.10:*\r\n    backends: []\r\n"
	errs := lb.Conflicts([]*lb.Profile{parseNamed(t, "b.yaml", b), parseNamed(t, "a.yaml", a)})
	Quote(errs, "b.yaml", []byte(b))
	Quote(errs, "a.yaml", []byte(a))
	want := `a.yaml:2:26: error: service a/web claims 203.0.113.10:80 tcp, which service b/api claims at b.yaml:3:13
   2 |   - {name: web, listen: [203.0.113.10:80, 203.0.113.10:81], backends: []}
     |                          ^^^^^^^^^^^^^^^ want each address, port and protocol once
a.yaml:2:43: error: service a/web claims 203.0.113.10:81 tcp, which service b/api claims at b.yaml:3:13
   2 |   - {name: web, listen: [203.0.113.10:80, 203.0.113.10:81], backends: []}
     |                                           ^^^^^^^^^^^^^^^ want each address, port and protocol once`
	if diff := cmp.Diff(want, Format(errs)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
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
	prefixes := []netip.Prefix{{}, one("10.0.0.1"), one("10.0.0.2"), netip.MustParsePrefix("10.0.0.0/8")}
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
			if lost[e.Pos] || i > 0 && byPlace(errs[i-1], e) >= 0 {
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

// TestConflictsTime has many services in one place, in ways that a comparison
// of each with each would take minutes for.
func TestConflictsTime(t *testing.T) {
	const n = 64_000
	for name, change := range map[string]func(int, *lb.Service){
		"all the same": func(_ int, s *lb.Service) { s.Listen[0].Prefix = one("10.0.0.1") },
		"one address": func(i int, s *lb.Service) {
			s.Listen[0].Prefix, s.Listen[0].Ports = one("10.0.0.1"), []lb.PortRange{{First: uint16(i + 1), Last: uint16(i + 1)}}
		},
		"nested ranges": func(i int, s *lb.Service) {
			s.Listen[0].Prefix, s.Listen[0].Ports = one("10.0.0.1"), []lb.PortRange{{First: uint16(i/2 + 1), Last: uint16(65535 - i/2)}}
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
		p := fleet(n)
		for i := range p.Services {
			change(i, &p.Services[i])
		}
		start := time.Now()
		errs := lb.Conflicts([]*lb.Profile{p})
		took := time.Since(start)
		t.Logf("%s: %d conflicts in %v", name, len(errs), took)
		if took > 5*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
}
