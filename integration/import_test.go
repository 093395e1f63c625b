package integration

// What import says of old rules, against what they do: the rules are loaded
// with iptables, their traffic is measured, what iptables-save prints is
// imported and applied, and the traffic is measured again.

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables"
	"nlb/lb/importer/iptlb"
	"nlb/lb/importer/ipvs"
	"nlb/lb/importer/nftlb"
)

// unbalanced is who answers what no rule has sent to a backend.
const unbalanced = "nobody"

// oldBed is a bed whose balancer answers itself, at the addresses that rules
// balance, what they leave.
func oldBed(t *testing.T, listens ...string) *bed {
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14", "fd02::11", "fd02::12")
	for _, l := range listens {
		ap := netip.MustParseAddrPort(l)
		b.Address(b.Balancer, "lo", netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()).String())
		_, err := traffic.Serve(b.Balancer, unbalanced, traffic.Port{Network: "tcp", At: ap}, traffic.Port{Network: "udp", At: ap})
		b.Check(err)
	}
	return b
}

// variants are the two programs that are called iptables, the older one with -full.
func variants() []string {
	if *full {
		return []string{"iptables", "iptables-legacy"}
	}
	return []string{"iptables"}
}

// restore runs iptables-restore.
func (b *bed) restore(variant, rules string) string {
	b.T.Helper()
	b.Witness(b.Balancer, rules, variant+"-restore")
	return b.Witness(b.Balancer, "", variant+"-save")
}

// forget takes all rules away.
func (b *bed) forget(variant string) {
	b.T.Helper()
	for _, table := range []string{"nat", "mangle"} {
		b.Witness(b.Balancer, "", variant, "-t", table, "-F")
		b.Witness(b.Balancer, "", variant, "-t", table, "-X")
	}
}

// take imports a text, and requires it to be complete or not.
func (b *bed) take(read func(string, []byte) (*importer.Import, error), text string, complete bool) *importer.Import {
	b.T.Helper()
	m, err := read("old", []byte(text))
	b.Check(err)
	if m.Complete() != complete {
		for _, f := range m.Findings {
			b.T.Log(f.Format())
		}
		b.T.Fatalf("complete: %v, want %v", m.Complete(), complete)
	}
	return m
}

// stated are the shares that an import names for rules that do not give all
// the same, with what they leave unbalanced.
func stated(m *importer.Import) map[string]float64 {
	out := map[string]float64{}
	for _, f := range m.Findings {
		_, list, ok := strings.Cut(f.Msg, ": ")
		if !ok || !strings.Contains(f.Msg, " unbalanced") && !strings.Contains(f.Msg, "the same") {
			continue
		}
		for _, s := range regexp.MustCompile(`([^,]+) ([0-9.]+) %`).FindAllStringSubmatch(list, -1) {
			share, _ := strconv.ParseFloat(s[2], 64)
			name, _, _ := strings.Cut(strings.TrimSpace(s[1]), ":")
			if name == "no backend" {
				name = unbalanced
			}
			out[name] = share / 100
		}
	}
	return out
}

// shares are those of the backends of a service.
func shares(s lb.Service) map[string]float64 {
	out := map[string]float64{}
	sum := 0
	for _, b := range s.Backends {
		sum += b.Weight
	}
	for _, b := range s.Backends {
		out[b.Address.Addr.String()] = float64(b.Weight) / float64(sum)
	}
	return out
}

// wantNear fails where counts are further from shares than chance brings them
// once in ten million times.
func (b *bed) wantNear(what string, got map[string]int, want map[string]float64) {
	b.T.Helper()
	n := 0
	for _, c := range got {
		n += c
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == 0 {
			b.T.Errorf("%s: %d of %d went to %s, and none should", what, got[name], n, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		p := want[name]
		if off := math.Abs(float64(got[name]) - float64(n)*p); off > 5.5*math.Sqrt(float64(n)*p*(1-p))+1 {
			b.T.Errorf("%s: %d of %d went to %s, %.1f were due", what, got[name], n, name, float64(n)*p)
		}
	}
	b.T.Logf("%s: %v of %d", what, got, n)
}

// sample is how many connections show shares: n with -full, and half as many else.
func sample(n int) int {
	if *full {
		return n
	}
	return n / 2
}

func (b *bed) many(network, to string, n int) map[string]int {
	b.T.Helper()
	got := b.From().Many(b.T.Context(), network, netip.MustParseAddrPort(to), n, 8)
	b.Check(got.Err)
	return got.Backends
}

// nat is a table nat with rules for PREROUTING, one for each backend, that have
// these conditions.
func nat(conditions ...string) string {
	s := "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n"
	for i, c := range conditions {
		s += fmt.Sprintf("-A PREROUTING -i eth0 -d 203.0.113.10 -p tcp --dport 80 -m state --state NEW %s -j DNAT --to-destination 10.2.0.%d:8080\n", c, 11+i)
	}
	return s + "-A POSTROUTING -d 10.2.0.0/24 -j MASQUERADE\nCOMMIT\n"
}

func nth(every, packet int) string {
	return fmt.Sprintf("-m statistic --mode nth --every %d --packet %d", every, packet)
}

func chance(p string) string { return "-m statistic --mode random --probability " + p }

const oldVIP = "203.0.113.10:80"

// TestImportedCascades: the shares of cascades of rules, measured with
// iptables, stated by import, and measured with nlb.
func TestImportedCascades(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		rules    string
		complete bool
		// exact are connections of 256, random the shares.
		exact  map[string]int
		random map[string]float64
	}{
		{
			"the four rules of a hundred tutorials", nat(nth(4, 0), nth(4, 1), nth(4, 2), nth(4, 3)), false,
			map[string]int{"10.2.0.11": 64, "10.2.0.12": 48, "10.2.0.13": 36, "10.2.0.14": 27, unbalanced: 81},
			nil,
		},
		{
			"the right four rules", nat(nth(4, 0), nth(3, 0), nth(2, 0), ""), true,
			map[string]int{"10.2.0.11": 64, "10.2.0.12": 64, "10.2.0.13": 64, "10.2.0.14": 64},
			nil,
		},
		{
			"a quarter, and the same of the rest", nat(nth(4, 3), nth(4, 0), ""), true,
			map[string]int{"10.2.0.11": 64, "10.2.0.12": 48, "10.2.0.13": 144},
			nil,
		},
		{
			".25 .3333 .5 1", nat(chance(".25"), chance(".3333"), chance(".5"), chance("1")), true,
			nil,
			map[string]float64{"10.2.0.11": .25, "10.2.0.12": .25, "10.2.0.13": .25, "10.2.0.14": .25},
		},
		{
			".25 four times", nat(chance(".25"), chance(".25"), chance(".25"), chance(".25")), false,
			nil,
			map[string]float64{"10.2.0.11": .25, "10.2.0.12": .1875, "10.2.0.13": .140625, "10.2.0.14": .10546875, unbalanced: .31640625},
		},
		{
			"three tenths", nat(chance(".3"), ""), true,
			nil,
			map[string]float64{"10.2.0.11": .3, "10.2.0.12": .7},
		},
	} {
		for _, variant := range variants() {
			t.Run(tt.name+" "+variant, func(t *testing.T) {
				b := oldBed(t, oldVIP)
				m := b.take(iptables.Import, b.restore(variant, tt.rules), tt.complete)
				// What the rules do.
				if tt.exact != nil {
					b.WantShares(count(b.Row("tcp", oldVIP, 256)), tt.exact)
				} else {
					b.wantNear("iptables", b.many("tcp", oldVIP, sample(2000)), tt.random)
				}
				// What import says of it.
				want := maps.Clone(tt.random)
				if want == nil {
					want = map[string]float64{}
					for name, n := range tt.exact {
						want[name] = float64(n) / 256
					}
				}
				if said := stated(m); len(said) > 0 || !tt.complete {
					for name, share := range want {
						if math.Abs(said[name]-share) > 0.0001 {
							t.Errorf("import says %s got %v, and it got %v", name, said[name], share)
						}
					}
				}
				// What the profile does: what was balanced, all of it.
				b.forget(variant)
				b.Apply(string(m.YAML()))
				part := 1 - want[unbalanced]
				delete(want, unbalanced)
				s := m.Profile.Services[0]
				sum := 0
				for i, backend := range s.Backends {
					sum += backend.Weight
					want[backend.Address.Addr.String()] /= part
					if due := want[backend.Address.Addr.String()]; math.Abs(shares(s)[backend.Address.Addr.String()]-due) > 1e-3 {
						t.Errorf("backend %d has the weight %d, and the share %v is due", i, backend.Weight, due)
					}
				}
				if s.Scheduler == lb.Random {
					b.wantNear("nlb", b.many("tcp", oldVIP, sample(2000)), want)
					return
				}
				got := count(b.Row("tcp", oldVIP, sum))
				for _, backend := range s.Backends {
					if n := got[backend.Address.Addr.String()]; n != backend.Weight {
						t.Errorf("%s got %d of %d, want %d", backend.Name, n, sum, backend.Weight)
					}
				}
				t.Logf("nlb: %v of %d", got, sum)
			})
		}
	}
}

// TestImportedMarks: Zevenet's way, marks by probability and SNAT to the farm's
// address; and marks that overwrite each other.
func TestImportedMarks(t *testing.T) {
	t.Parallel()
	zevenet := `*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -j CONNMARK --restore-mark
-A PREROUTING -d 203.0.113.10 -p tcp -m statistic --mode random --probability 1.0 -m multiport --dports 80 -m comment --comment " FARM_shop_1_ " -m state --state NEW -j MARK --set-mark 0x20e
-A PREROUTING -d 203.0.113.10 -p tcp -m statistic --mode random --probability 0.75 -m multiport --dports 80 -m comment --comment " FARM_shop_0_ " -m state --state NEW -j MARK --set-mark 0x20d
-A PREROUTING -m state --state NEW -j CONNMARK --save-mark
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m mark --mark 0x20e -m comment --comment " FARM_shop_1_ " -j DNAT --to-destination 10.2.0.12:8080
-A PREROUTING -p tcp -m mark --mark 0x20d -m comment --comment " FARM_shop_0_ " -j DNAT --to-destination 10.2.0.11:8080
-A POSTROUTING -p tcp -m mark --mark 0x20e -m comment --comment " FARM_shop_1_ " -j SNAT --to-source 203.0.113.10
-A POSTROUTING -p tcp -m mark --mark 0x20d -m comment --comment " FARM_shop_0_ " -j SNAT --to-source 203.0.113.10
COMMIT
`
	for _, variant := range variants() {
		t.Run("zevenet "+variant, func(t *testing.T) {
			b := oldBed(t, oldVIP)
			m := b.take(iptables.Import, b.restore(variant, zevenet), true)
			want := map[string]float64{"10.2.0.11": .75, "10.2.0.12": .25}
			b.wantNear("iptables", b.many("tcp", oldVIP, sample(2000)), want)
			if seen := b.Ask("tcp", oldVIP).Seen.Addr().String(); seen != "203.0.113.10" {
				t.Errorf("with iptables, the backend sees %s", seen)
			}
			s := m.Profile.Services[0]
			if !maps.Equal(shares(s), want) || s.Name != "shop" || s.SNAT.Mode != lb.SNATVIP {
				t.Errorf("%s has %v, snat %s", s.Name, shares(s), s.SNAT)
			}
			b.forget(variant)
			b.Apply(string(m.YAML()))
			b.wantNear("nlb", b.many("tcp", oldVIP, sample(2000)), want)
			if seen := b.Ask("tcp", oldVIP).Seen.Addr().String(); seen != "203.0.113.10" {
				t.Errorf("with nlb, the backend sees %s", seen)
			}
		})
		t.Run("overwritten "+variant, func(t *testing.T) {
			b := oldBed(t, oldVIP)
			mark := "-A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -m conntrack --ctstate NEW %s -j MARK --set-mark %d\n"
			rules := "*mangle\n" + fmt.Sprintf(mark, nth(2, 0), 1) + fmt.Sprintf(mark, nth(2, 0), 2) + fmt.Sprintf(mark, nth(3, 1), 3) + "COMMIT\n*nat\n" +
				"-A PREROUTING -p tcp -m mark --mark 1 -j DNAT --to-destination 10.2.0.11:8080\n" +
				"-A PREROUTING -p tcp -m mark --mark 2 -j DNAT --to-destination 10.2.0.12:8080\n" +
				"-A PREROUTING -p tcp -m mark --mark 3 -j DNAT --to-destination 10.2.0.13:8080\nCOMMIT\n"
			m := b.take(iptables.Import, b.restore(variant, rules), false)
			// Connections 0, 2, 4 get mark 2; then 1 and 4 of six get mark 3.
			b.WantShares(count(b.Row("tcp", oldVIP, 60)), map[string]int{"10.2.0.12": 20, "10.2.0.13": 20, unbalanced: 20})
			if said := stated(m); math.Abs(said[unbalanced]-1.0/3) > 0.001 {
				t.Errorf("import says %v", said)
			}
			b.forget(variant)
			b.Apply(string(m.YAML()))
			b.WantShares(count(b.Row("tcp", oldVIP, 20)), map[string]int{"10.2.0.12": 10, "10.2.0.13": 10})
		})
	}
}

// TestImportedClient: IPTLB's chains in OUTPUT, for an address that nothing but
// the default route covers; and its state for the same.
func TestImportedClient(t *testing.T) {
	t.Parallel()
	const to = "10.100.0.10:8081"
	rules := `*nat
:OUTPUT ACCEPT [0:0]
:IPTLB_NAT_TEST - [0:0]
-A OUTPUT -p tcp -d 10.100.0.10 --dport 8081 -j IPTLB_NAT_TEST
-A IPTLB_NAT_TEST -d 10.100.0.10 -p tcp -j LOG --log-prefix IPTLB:IPTLB_NAT_TEST:ACCEPT: --log-level 4
-A IPTLB_NAT_TEST -p tcp -d 10.100.0.10 --dport 8081 -m statistic --mode random --probability 0.33333 -j DNAT --to-destination 10.2.0.11:8080
-A IPTLB_NAT_TEST -p tcp -d 10.100.0.10 --dport 8081 -m statistic --mode random --probability 0.50000 -j DNAT --to-destination 10.2.0.12:8080
-A IPTLB_NAT_TEST -p tcp -d 10.100.0.10 --dport 8081 -m statistic --mode random --probability 1.00000 -j DNAT --to-destination 10.2.0.13:8080
-A IPTLB_NAT_TEST -j RETURN
COMMIT
`
	state := `test:
  source: 10.100.0.10:8081
  destination: ["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"]
  protocol: tcp
  rulesBackend: client
  logLevel: "4"
`
	third := map[string]float64{"10.2.0.11": 1.0 / 3, "10.2.0.12": 1.0 / 3, "10.2.0.13": 1.0 / 3}
	measure := func(b *bed, what string, n int) {
		b.T.Helper()
		got := traffic.Client{Host: b.Balancer}.Many(b.T.Context(), "tcp", netip.MustParseAddrPort(to), n, 8)
		b.Check(got.Err)
		b.wantNear(what, got.Backends, third)
		if who := b.Reaches(b.Client, "tcp", to, false); who != "" {
			b.T.Errorf("%s: another host reaches %s", what, who)
		}
	}
	bed := func(t *testing.T) *bed {
		b := oldBed(t)
		b.Via(b.Balancer, "10.1.0.2", "fd01::2")
		return b
	}
	for _, variant := range variants() {
		t.Run(variant, func(t *testing.T) {
			b := bed(t)
			m := b.take(iptables.Import, b.restore(variant, rules), true)
			measure(b, "iptables", sample(1500))
			s := m.Profile.Services[0]
			if s.Role != lb.RoleClient || s.Log == nil || s.Name != "test" {
				t.Errorf("%s has the role %s, log %v", s.Name, s.Role, s.Log)
			}
			b.forget(variant)
			b.Apply(string(m.YAML()))
			measure(b, "nlb", 1500)
		})
	}
	t.Run("state", func(t *testing.T) {
		b := bed(t)
		b.Apply(string(b.take(iptlb.Import, state, true).YAML()))
		measure(b, "nlb", 1500)
	})
}

// TestImportedOthers: formats whose programs are not here, as their manuals say
// that they are written; what import states is what nlb does.
func TestImportedOthers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		read  func(string, []byte) (*importer.Import, error)
		text  string
		to    string
		seen  string
		due   map[string]int // of a round, or nil: at random
		share map[string]float64
	}{
		{"ipvs wrr", ipvs.Import, `-A -t 203.0.113.10:80 -s wrr
-a -t 203.0.113.10:80 -r 10.2.0.11:8080 -m -w 3
-a -t 203.0.113.10:80 -r 10.2.0.12:8080 -m -w 1
-a -t 203.0.113.10:80 -r 10.2.0.13:8080 -m -w 0
`, oldVIP, "10.1.0.2", map[string]int{"10.2.0.11": 30, "10.2.0.12": 10}, nil},
		{"ipvs IPv6", ipvs.Import, `-A -t [2001:db8::10]:80 -s rr
-a -t [2001:db8::10]:80 -r [fd02::11]:8080 -m -w 1
-a -t [2001:db8::10]:80 -r [fd02::12]:8080 -m -w 1
`, "[2001:db8::10]:80", "fd01::2", map[string]int{"fd02::11": 20, "fd02::12": 20}, nil},
		{
			"nftlb weight", nftlb.Import, `{"farms": [{"name": "lb01", "family": "ipv4", "virtual-addr": "203.0.113.10", "virtual-ports": "80",
  "mode": "snat", "protocol": "tcp", "scheduler": "weight", "intra-connect": "on", "state": "up", "backends": [
    {"name": "bck0", "ip-addr": "10.2.0.11", "port": "8080", "weight": "5", "priority": "1", "state": "up"},
    {"name": "bck1", "ip-addr": "10.2.0.12", "port": "8080", "weight": "15", "priority": "1", "state": "up"}]}]}`,
			oldVIP, "10.2.0.1", nil,
			map[string]float64{"10.2.0.11": .25, "10.2.0.12": .75},
		},
		{
			"nftlb rr", nftlb.Import, `{"farms": [{"name": "lb01", "virtual-addr": "203.0.113.10", "virtual-ports": "80", "source-addr": "203.0.113.10",
  "mode": "snat", "scheduler": "rr", "intra-connect": "on", "backends": [
    {"name": "bck0", "ip-addr": "10.2.0.11", "port": "8080", "weight": "1"},
    {"name": "bck1", "ip-addr": "10.2.0.12", "port": "8080", "weight": "3"}]}]}`,
			oldVIP, "203.0.113.10",
			map[string]int{"10.2.0.11": 10, "10.2.0.12": 30},
			nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := oldBed(t, tt.to)
			b.Apply(string(b.take(tt.read, tt.text, true).YAML()))
			if tt.due != nil {
				b.WantShares(count(b.Row("tcp", tt.to, 40)), tt.due)
			} else {
				b.wantNear("nlb", b.many("tcp", tt.to, sample(2000)), tt.share)
			}
			if seen := b.Ask("tcp", tt.to).Seen.Addr().String(); seen != tt.seen {
				t.Errorf("the backend sees %s, want %s", seen, tt.seen)
			}
		})
	}
}

// TestImportedTargets: what backends see, and where ports go, is the same
// before and after.
func TestImportedTargets(t *testing.T) {
	t.Parallel()
	dnat := "*nat\n-A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.11:8080\n"
	for _, tt := range []struct {
		name, program, rules string
		to                   []string
		want                 string // backend, source that it sees, its port
	}{
		{"no SNAT", "iptables", dnat, []string{oldVIP}, "10.2.0.11 10.1.0.2 8080"},
		{"MASQUERADE", "iptables", dnat + "-A POSTROUTING -o eth1 -j MASQUERADE\n", []string{oldVIP}, "10.2.0.11 10.2.0.1 8080"},
		{"MASQUERADE of others", "iptables", dnat + "-A POSTROUTING -d 10.2.0.99 -j MASQUERADE\n", []string{oldVIP}, "10.2.0.11 10.1.0.2 8080"},
		{"SNAT", "iptables", dnat + "-A POSTROUTING -p tcp -d 10.2.0.11 --dport 8080 -j SNAT --to-source 192.0.2.1\n", []string{oldVIP}, "10.2.0.11 192.0.2.1 8080"},
		{"SNAT to the service", "iptables", dnat + "-A POSTROUTING -p tcp -d 10.2.0.0/24 -j SNAT --to-source 203.0.113.10\n", []string{oldVIP}, "10.2.0.11 203.0.113.10 8080"},
		{
			"ports stay", "iptables", "*nat\n-A PREROUTING -d 203.0.113.10 -p tcp -m multiport --dports 80,8080:8090 -j DNAT --to-destination 10.2.0.11\n",
			[]string{"203.0.113.10:8080"},
			"10.2.0.11 10.1.0.2 8080",
		},
		{
			"a range of ports", "iptables", "*nat\n-A PREROUTING -d 203.0.113.10 -p tcp --dport 8070:8090 -j DNAT --to-destination 10.2.0.11:8080-8085\n",
			[]string{"203.0.113.10:8080", "203.0.113.10:8070", "203.0.113.10:8090"},
			"10.2.0.11 10.1.0.2 8080",
		},
		{
			"shifted ports", "iptables", "*nat\n-A PREROUTING -d 203.0.113.10 -p tcp --dport 5000:5010 -j DNAT --to-destination 10.2.0.11:8075-8085/5000\n",
			[]string{"203.0.113.10:5005"},
			"10.2.0.11 10.1.0.2 8080",
		},
		{
			"IPv6", "ip6tables", "*nat\n-A PREROUTING -d 2001:db8::10 -p tcp --dport 80 -j DNAT --to-destination [fd02::11]:8080\n-A POSTROUTING -d fd02::/64 -j MASQUERADE\n",
			[]string{"[2001:db8::10]:80"},
			"fd02::11 fd02::1 8080",
		},
		{"REDIRECT", "iptables", "*nat\n-A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -j REDIRECT --to-ports 8080\n", []string{oldVIP}, "itself 10.1.0.2 8080"},
		{"REDIRECT for all", "ip6tables", "*nat\n-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080\n", []string{"[fd01::1]:80"}, "itself fd01::2 8080"},
		{"a port of this host", "iptables", "*nat\n-A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination :8080\n", []string{"10.1.0.1:80"}, "itself 10.1.0.2 8080"},
		{"an order of rules", "iptables", "*nat\n:OWN - [0:0]\n-A PREROUTING -i eth1 -j ACCEPT\n-A PREROUTING -d 203.0.113.0/24 -g OWN\n-A PREROUTING -j DNAT --to-destination 10.2.0.13\n" +
			"-A OWN -d 203.0.113.9 -j RETURN\n-A OWN -p tcp ! --dport 443 -j DNAT --to-destination 10.2.0.12\n", []string{"203.0.113.10:8080"}, "10.2.0.12 10.1.0.2 8080"},
	} {
		for _, kind := range []string{"", "-legacy"} {
			t.Run(tt.name+kind, func(t *testing.T) {
				b := oldBed(t)
				b.Address(b.Balancer, "lo", "192.0.2.1/32")
				b.serveOn(b.Balancer, "itself", "10.1.0.1:8080", "[fd01::1]:8080")
				program := strings.Replace(tt.program, "tables", "tables"+kind, 1)
				m, err := iptables.Import("old", []byte(b.restore(program, tt.rules+"COMMIT\n")))
				b.Check(err)
				measure := func(what string) {
					t.Helper()
					for _, to := range tt.to {
						r := b.Ask("tcp", to)
						if got := fmt.Sprintf("%s %s %d", r.Backend, r.Seen.Addr(), r.Local.Port()); got != tt.want {
							t.Errorf("%s, %s: %s, want %s", what, to, got, tt.want)
						}
					}
				}
				measure("iptables")
				b.forget(program)
				b.Apply(string(m.YAML()))
				measure("nlb")
			})
		}
	}
}
