package iptables

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// simulator takes connections through the rules one by one, with real counters
// and real chance: the plain way to find out what walk computes.
type simulator struct {
	set      *syntax.Ruleset
	r        *rand.Rand
	counters map[*syntax.Nth]uint32
}

type packet struct {
	src, dst       netip.Addr
	port           uint16
	mark, connmark uint32
	to             netip.Addr
}

type verdict int

const (
	goesOn verdict = iota
	accepted
	returned
	gone
)

func (s *simulator) connection(p packet) string {
	for _, table := range []string{"mangle", "nat"} {
		c := s.set.Table(table).Chain("PREROUTING")
		if c == nil {
			continue
		}
		if s.chain(c, &p) == gone {
			return "dropped"
		}
	}
	if p.to.IsValid() {
		return p.to.String()
	}
	return "none"
}

func (s *simulator) chain(c *syntax.Chain, p *packet) verdict {
	for _, r := range c.Rules {
		if !s.fits(r, p) {
			continue
		}
		switch t := r.Target.(type) {
		case syntax.Accept:
			return accepted
		case syntax.Drop:
			return gone
		case syntax.Return:
			return goesOn
		case syntax.DNAT:
			p.to = t.To[0].First
			return accepted
		case syntax.Jump:
			v := s.chain(s.set.Table(r.Table).Chain(t.Chain), p)
			if v != goesOn || t.Goto {
				return v
			}
		case syntax.SetMark:
			if t.Connection {
				p.connmark = p.connmark&^t.Mask ^ t.Value
			} else {
				p.mark = p.mark&^t.Mask ^ t.Value
			}
		case syntax.CopyMark:
			if t.Save {
				p.connmark = p.connmark&^t.Clear ^ p.mark&t.Take
			} else {
				p.mark = p.mark&^t.Clear ^ p.connmark&t.Take
			}
		}
	}
	return goesOn
}

func (s *simulator) fits(r *syntax.Rule, p *packet) bool {
	for _, m := range r.Matches {
		holds := true
		switch m := m.(type) {
		case syntax.Source:
			holds = m.Has(space.NumberOf(p.src))
		case syntax.Within:
			switch m.Of {
			case space.Destination:
				holds = m.Has(space.NumberOf(p.dst))
			case space.Port:
				holds = m.Has(space.N(uint64(p.port)))
			}
		case syntax.Mark:
			v := p.mark
			if m.Connection {
				v = p.connmark
			}
			holds = (v&m.Mask == m.Value) != m.Not
		case syntax.Chance:
			f, _ := m.Kernel.Float64()
			holds = (s.r.Float64() < f) != m.Not
		case *syntax.Nth:
			n, ok := s.counters[m]
			if !ok {
				n = m.Every - 1 - m.Packet
			}
			if n++; n >= m.Every {
				n = 0
			}
			s.counters[m] = n
			holds = (n == 0) != m.Not
		}
		if !holds {
			return false
		}
	}
	return true
}

// someRules are random rules of the kinds that people write, and of kinds that
// they should not.
func someRules(r *rand.Rand, random bool) string {
	condition := func() string {
		var b strings.Builder
		pick := func(n int) bool { return r.IntN(n) == 0 }
		not := map[bool]string{true: "! "}[pick(6)]
		if pick(2) {
			fmt.Fprintf(&b, "-d 203.0.113.%d ", 1+r.IntN(3))
		}
		if pick(5) {
			fmt.Fprintf(&b, "%s-s 10.%d.0.0/16 ", not, 1+r.IntN(2))
		}
		b.WriteString("-p tcp ")
		if pick(3) {
			fmt.Fprintf(&b, "%s--dport %d ", not, 80+r.IntN(2))
		}
		if pick(4) {
			fmt.Fprintf(&b, "-m %s %s--mark %d/%d ", []string{"mark", "connmark"}[r.IntN(2)], not, r.IntN(4), 3)
		}
		switch n := 1 + r.IntN(4); {
		case random && pick(3):
			fmt.Fprintf(&b, "-m statistic --mode random %s--probability %.2f ", not, float64(r.IntN(101))/100)
		case pick(2):
			fmt.Fprintf(&b, "-m statistic --mode nth %s--every %d --packet %d ", not, n, r.IntN(n))
		}
		return b.String()
	}
	var b strings.Builder
	b.WriteString("*mangle\n:OWN - [0:0]\n")
	for range r.IntN(5) {
		chain := []string{"PREROUTING", "PREROUTING", "OWN"}[r.IntN(3)]
		target := []string{"MARK --set-mark %d/3", "MARK --or-mark %d", "CONNMARK --set-mark %d", "CONNMARK --save-mark", "CONNMARK --restore-mark --mask 1", "ACCEPT", "DROP"}[r.IntN(7)]
		if strings.Contains(target, "%d") {
			target = fmt.Sprintf(target, r.IntN(4))
		}
		if chain == "PREROUTING" && r.IntN(4) == 0 {
			target = []string{"OWN", "OWN", "RETURN"}[r.IntN(3)]
		}
		fmt.Fprintf(&b, "-A %s %s-j %s\n", chain, condition(), target)
	}
	b.WriteString("COMMIT\n*nat\n:OWN - [0:0]\n:MORE - [0:0]\n")
	for i := range 2 + r.IntN(7) {
		chain := []string{"PREROUTING", "PREROUTING", "OWN", "MORE"}[r.IntN(4)]
		target := fmt.Sprintf("-j DNAT --to-destination 10.2.0.%d", 11+i)
		switch n := r.IntN(10); {
		case n == 0:
			target = "-j RETURN"
		case n == 1 && chain != "MORE":
			target = []string{"-j", "-g"}[r.IntN(2)] + " MORE"
		case n < 4 && chain == "PREROUTING":
			target = []string{"-j", "-g"}[r.IntN(2)] + " OWN"
		}
		fmt.Fprintf(&b, "-A %s %s%s\n", chain, condition(), target)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// TestWalkIsWhatHappens: the shares that are computed for random rules are
// those that thousands of simulated connections get.
func TestWalkIsWhatHappens(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	compared := 0
	for range 100 {
		random := r.IntN(2) == 0
		text := someRules(r, random)
		lines, _ := importer.Lines("random", []byte(text))
		sets, err := syntax.Parse("random", lines, importer.New("random", "", lines))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		budget := maxSteps
		found, _, err := partition(sets[0], interfacesOf(sets[0]), waysOf(sets[0]), prerouting, &budget)
		if err != nil {
			continue
		}
		for _, dst := range []string{"203.0.113.1", "203.0.113.2", "203.0.113.9"} {
			p := packet{src: netip.MustParseAddr("10.1.0.2"), dst: netip.MustParseAddr(dst), port: 80}
			got, exact := sharesOf(found, p)
			if !exact {
				continue
			}
			const n = 6000
			s := &simulator{sets[0], r, map[*syntax.Nth]uint32{}}
			count := map[string]int{}
			for range n {
				count[s.connection(p)]++
			}
			if got == nil { // no share of it is balanced
				for name := range count {
					if name != "none" && name != "dropped" {
						t.Fatalf("%s: %v, and nothing was found\n%s", dst, count, text)
					}
				}
				continue
			}
			compared++
			for name := range count {
				if _, ok := got[name]; !ok {
					t.Fatalf("%s: %v, computed %v\n%s", dst, count, got, text)
				}
			}
			for name, share := range got {
				tolerance := 0.01
				if random {
					tolerance += 5 * math.Sqrt(share*(1-share)/n)
				}
				if math.Abs(float64(count[name])/n-share) > tolerance {
					t.Fatalf("%s: %s got %d of %d, computed %v\n%s", dst, name, count[name], n, share, text)
				}
			}
		}
	}
	if compared < 80 {
		t.Errorf("only %d compared", compared)
	}
}

// sharesOf are the shares that were computed for a packet.
func sharesOf(found []*finding, p packet) (shares map[string]float64, exact bool) {
	for _, f := range found {
		for _, r := range f.regions {
			if !r[space.Destination].Has(space.NumberOf(p.dst)) || !r[space.Port].Has(space.N(uint64(p.port))) ||
				!r[space.Protocol].Has(space.N(uint64(lb.TCP))) {
				continue
			}
			if f.notExact != nil {
				return nil, false
			}
			for _, c := range f.classes {
				if !c.src.Has(space.NumberOf(p.src)) {
					continue
				}
				shares = map[string]float64{}
				for _, o := range c.outcomes {
					name := "none"
					if o.fate == dropped {
						name = "dropped"
					} else if o.fate == balanced {
						name = o.to.addr.String()
					}
					shares[name] += o.share.real
				}
				return shares, true
			}
		}
	}
	return nil, true
}

// TestFollowedCounters: matches that one connection meets whatever they say.
func TestFollowedCounters(t *testing.T) {
	mark := func(mode string, value int) string {
		return fmt.Sprintf("-A PREROUTING -m conntrack --ctstate NEW -m statistic --mode %s -j MARK --set-mark %d\n", mode, value)
	}
	for _, tt := range []struct {
		name, marks string
		want        map[string]float64 // by mark; the rest is unbalanced
	}{
		{"in step, the last wins", mark("nth --every 2 --packet 0", 1) + mark("nth --every 2 --packet 0", 2), map[string]float64{"10.2.0.2": 1.0 / 2}},
		{
			"in turn", mark("nth --every 3 --packet 0", 1) + mark("nth --every 3 --packet 1", 2) + mark("nth --every 3 --packet 2", 3),
			map[string]float64{"10.2.0.1": 1.0 / 3, "10.2.0.2": 1.0 / 3, "10.2.0.3": 1.0 / 3},
		},
		{
			"at different paces", mark("nth --every 4 --packet 1", 1) + mark("nth --every 6 --packet 3", 2),
			// Of 12, 1, 5 and 9 get 1, and 3 and 9 get 2.
			map[string]float64{"10.2.0.1": 2.0 / 12, "10.2.0.2": 2.0 / 12},
		},
		{
			"with chance between", mark("nth --every 2 --packet 0", 1) + mark("random --probability 0.5", 2) + mark("nth --every 2 --packet 0", 3),
			map[string]float64{"10.2.0.2": 1.0 / 4, "10.2.0.3": 1.0 / 2},
		},
	} {
		rules := "*mangle\n" + tt.marks + "COMMIT\n*nat\n"
		for i := range 3 {
			rules += fmt.Sprintf("-A PREROUTING -m mark --mark %d -j DNAT --to-destination 10.2.0.%d\n", i+1, i+1)
		}
		lines, _ := importer.Lines("marks", []byte(rules+"COMMIT\n"))
		sets, err := syntax.Parse("marks", lines, importer.New("marks", "", lines))
		if err != nil {
			t.Fatal(err)
		}
		budget := maxSteps
		found, _, err := partition(sets[0], interfacesOf(sets[0]), waysOf(sets[0]), prerouting, &budget)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := sharesOf(found, packet{src: netip.MustParseAddr("10.1.0.2"), dst: netip.MustParseAddr("203.0.113.1"), port: 80})
		for name, share := range tt.want {
			if math.Abs(got[name]-share) > 1e-9 {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
				break
			}
		}
	}
}
