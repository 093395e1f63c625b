package integration

// Editions: a profile that changes in every way that a profile can change,
// while the services that its clients use stay.

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"nlb/lb/config"
)

// TestEditions: every change makes another profile that is valid, and before
// long there has been a change of every kind.
func TestEditions(t *testing.T) {
	p, draw := newHitlessProfile(), rand.New(rand.NewPCG(1, 3))
	before := p.String()
	for range 4 * len(ways) {
		what := p.change(draw)
		after := p.String()
		if _, err := config.Parse("shop.yaml", []byte(after)); err != nil || after == before {
			t.Fatalf("%s: %v\n%s", what, err, after)
		}
		before = after
	}
	for _, way := range ways {
		if p.changes[way.name] == 0 {
			t.Errorf("no change is of the kind %q", way.name)
		}
	}
}

// hitlessProfile is a profile of two services that stay, and of others that
// come and go.
type hitlessProfile struct {
	web, dns hitlessService
	others   map[int]bool
	changes  map[string]int // that there were
	order    []int          // of those that come next
}

// hitlessService is one that clients use.
type hitlessService struct {
	network   string
	port      int
	target    int
	name      string
	wide      bool        // it listens on a range of ports
	weights   map[int]int // of the backends that there are
	scheduler string
	snat      string
	affinity  string
}

func newHitlessProfile() *hitlessProfile {
	service := func(network string, port, target int) hitlessService {
		return hitlessService{
			network: network, port: port, target: target, name: network + "-0", weights: map[int]int{1: 1, 2: 1, 3: 1},
			scheduler: "round-robin", snat: "masquerade", affinity: "none",
		}
	}
	return &hitlessProfile{web: service("tcp", 80, 8080), dns: service("udp", 53, 8053), others: map[int]bool{0: true, 1: true}, changes: map[string]int{}}
}

// String is the profile as a file.
func (p *hitlessProfile) String() string {
	var b strings.Builder
	b.WriteString("profile: shop\nservices:\n")
	p.web.write(&b)
	p.dns.write(&b)
	for _, i := range slices.Sorted(maps.Keys(p.others)) {
		fmt.Fprintf(&b, "  - {name: other-%d, listen: \"203.0.113.%d:80\", backends: [\"10.2.0.11:8080\", \"10.2.0.12:8080\"]}\n", i, 20+i)
	}
	return b.String()
}

func (s *hitlessService) write(b *strings.Builder) {
	ports := fmt.Sprint(s.port)
	if s.wide {
		ports += fmt.Sprintf("-%d", s.port+1)
	}
	fmt.Fprintf(b, "  - name: %s\n    listen: [\"203.0.113.10:%s\", \"[2001:db8::10]:%s\"]\n", s.name, ports, ports)
	fmt.Fprintf(b, "    protocol: %s\n    scheduler: %s\n    snat: %s\n    affinity: %s\n    backends:\n", s.network, s.scheduler, s.snat, s.affinity)
	for _, i := range slices.Sorted(maps.Keys(s.weights)) {
		for _, address := range []string{"10.2.0.%d:%d", "[fd02::%d]:%d"} {
			fmt.Fprintf(b, "      - {address: \"%s\", weight: %d}\n", fmt.Sprintf(address, 10+i, s.target), s.weights[i])
		}
	}
}

// members are the backends of both services, each after its protocol.
func (p *hitlessProfile) members() map[string]bool {
	out := map[string]bool{}
	for _, s := range []*hitlessService{&p.web, &p.dns} {
		for i := range s.weights {
			out[fmt.Sprintf("%s 10.2.0.%d", s.network, 10+i)] = true
			out[fmt.Sprintf("%s fd02::%d", s.network, 10+i)] = true
		}
	}
	return out
}

// ways are in which a profile changes. Each returns what it changed of a
// service, and nothing where there is nothing to change in this way.
var ways = []struct {
	name   string
	change func(p *hitlessProfile, s *hitlessService, draw *rand.Rand) string
}{
	{"backend added", func(_ *hitlessProfile, s *hitlessService, draw *rand.Rand) string {
		i := 1 + draw.IntN(hitlessBackends)
		if _, there := s.weights[i]; there {
			return ""
		}
		s.weights[i] = 1 + draw.IntN(3)
		return fmt.Sprint(i)
	}},
	{"backend removed", func(_ *hitlessProfile, s *hitlessService, draw *rand.Rand) string {
		i := 1 + draw.IntN(hitlessBackends)
		if _, there := s.weights[i]; !there || !s.worksWithout(i) {
			return ""
		}
		delete(s.weights, i)
		return fmt.Sprint(i)
	}},
	{"backend reweighted", func(_ *hitlessProfile, s *hitlessService, draw *rand.Rand) string {
		i, weight := 1+draw.IntN(hitlessBackends), draw.IntN(4)
		if now, there := s.weights[i]; !there || weight == now || weight == 0 && !s.worksWithout(i) {
			return ""
		}
		s.weights[i] = weight
		return fmt.Sprintf("%d to %d", i, weight)
	}},
	{"service added", func(p *hitlessProfile, _ *hitlessService, draw *rand.Rand) string {
		n := draw.IntN(8)
		if p.others[n] {
			return ""
		}
		p.others[n] = true
		return fmt.Sprint(n)
	}},
	{"service removed", func(p *hitlessProfile, _ *hitlessService, draw *rand.Rand) string {
		n := draw.IntN(8)
		if !p.others[n] {
			return ""
		}
		delete(p.others, n)
		return fmt.Sprint(n)
	}},
	{"service replaced", func(_ *hitlessProfile, s *hitlessService, draw *rand.Rand) string {
		return another(draw, &s.name, s.network+"-0", s.network+"-1")
	}},
	{"listen", func(_ *hitlessProfile, s *hitlessService, _ *rand.Rand) string {
		s.wide = !s.wide
		return fmt.Sprintf("a range of ports: %v", s.wide)
	}},
	{"scheduler", func(_ *hitlessProfile, s *hitlessService, draw *rand.Rand) string {
		return another(draw, &s.scheduler, "round-robin", "random", "hash", "least-connections", "consistent")
	}},
	{"snat", func(_ *hitlessProfile, s *hitlessService, draw *rand.Rand) string {
		return another(draw, &s.snat, "masquerade", "none", "vip", "[198.51.100.1, 198.51.100.2, \"2001:db8:9::1\"]")
	}},
	{"affinity", func(_ *hitlessProfile, s *hitlessService, draw *rand.Rand) string {
		return another(draw, &s.affinity, "none", "10m", "{timeout: 1m, prefix: 24, prefix6: 64}")
	}},
}

// change changes something, and returns what. Each service is changed in each
// way before one is again, if it can be.
func (p *hitlessProfile) change(draw *rand.Rand) string {
	for {
		if len(p.order) == 0 {
			p.order = draw.Perm(2 * len(ways))
		}
		way, s := ways[p.order[0]/2], []*hitlessService{&p.web, &p.dns}[p.order[0]%2]
		p.order = p.order[1:]
		for range 20 {
			if of := way.change(p, s, draw); of != "" {
				p.changes[way.name]++
				return fmt.Sprintf("%s, %s: %s", s.name, way.name, of)
			}
		}
	}
}

// another gives a value another one of some values, and returns it.
func another(draw *rand.Rand, now *string, values ...string) string {
	values = slices.DeleteFunc(values, func(v string) bool { return v == *now })
	*now = values[draw.IntN(len(values))]
	return *now
}

// worksWithout reports whether another backend takes connections.
func (s *hitlessService) worksWithout(i int) bool {
	for j, weight := range s.weights {
		if j != i && weight > 0 {
			return true
		}
	}
	return false
}
