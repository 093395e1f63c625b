package iptables

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"nlb/lb"
	"nlb/lb/config"
)

// pick is one of the words.
func pick(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }

// anyRule is a rule of everything that is read, put together as it comes, v6
// with addresses of IPv6.
func anyRule(r *rand.Rand, v6 bool) string {
	address := func() string {
		if v6 {
			return pick(r, "2001:db8::1", "2001:db8::2/128", "2001:db8::/64", "fd02::11", "::/0", "2001:db8::/127")
		}
		return pick(r, "203.0.113.1", "203.0.113.2/32", "203.0.113.0/24", "10.2.0.11", "0.0.0.0/0", "203.0.113.0/255.255.255.254", "203.0.113.1,203.0.113.2", "127.0.0.1")
	}
	to := func() string {
		if v6 {
			return pick(r, "fd02::11", "[fd02::12]:8080", "fd02::11-fd02::14", "[fd02::11]:8000-8010")
		}
		return pick(r, "10.2.0.11", "10.2.0.12:8080", "10.2.0.13:80", "10.2.0.11-10.2.0.14", "10.2.0.11:8000-8010", "10.2.0.11:6000-6010/8000", ":99", "10.2.0.0-10.9.0.0")
	}
	conditions := []func() string{
		func() string { return "-s " + address() },
		func() string { return "-d " + address() },
		func() string {
			return "-p " + pick(r, "tcp", "udp", "sctp", "all", "6", "icmp", "47") + pick(r, "", " --dport 80", " --dport 80:90", " --dport http", " --sport 99")
		},
		func() string {
			return "-p tcp -m multiport --dports " + pick(r, "80,443", "80,8000:8010", "1:65535", ":99")
		},
		func() string { return "-i " + pick(r, "eth0", "eth+", "lo", "+", "eth1") },
		func() string { return "-o " + pick(r, "eth0", "eth+", "lo") },
		func() string {
			return "-m " + pick(r, "state --state NEW", "conntrack --ctstate NEW,RELATED", "conntrack --ctstate DNAT", "conntrack --ctorigdstport 80")
		},
		func() string { return fmt.Sprintf("-m statistic --mode nth --every %d", 1+r.IntN(5)) },
		func() string {
			return "-m statistic --mode random --probability " + pick(r, "0", "0.1", ".25", ".3333", "0.5", "1", "0.123456")
		},
		func() string {
			return "-m " + pick(r, "mark", "connmark") + " --mark " + pick(r, "1", "0x2/0x3", "0", "0x4000/0x4000")
		},
		func() string {
			return "-m addrtype --" + pick(r, "dst", "src") + "-type " + pick(r, "LOCAL", "UNICAST", "BROADCAST")
		},
		func() string {
			return "-m comment --comment " + pick(r, `"web shop"`, `"default/web:http"`, `" FARM_x_0_ "`, `"ü"`, "x")
		},
		func() string {
			return "-m recent --name L " + pick(r, "--set", "--rcheck --seconds 60", "--update --seconds 60 --hitcount 3")
		},
		func() string {
			return "-m " + pick(r, "limit --limit 5/min", "geoip --source-country A1", "connlimit --connlimit-above 3", "tcp --syn")
		},
	}
	targets := []func() string{
		func() string { return "DNAT --to-destination " + to() + pick(r, "", "", " --random", " --persistent") },
		func() string { return "DNAT --to-destination " + to() },
		func() string { return "REDIRECT" + pick(r, "", " --to-ports 8080", " --to-ports 8080-8090") },
		func() string {
			return pick(r, "ACCEPT", "RETURN", "DROP", "MASQUERADE", "OWN", "MORE", "OWN", "TRACE", "NETMAP --to 10.0.0.0/8", "NOWHERE")
		},
		func() string {
			return "MARK --" + pick(r, "set-mark 1", "set-xmark 0x2/0x3", "or-mark 4", "and-mark 1", "xor-mark 2")
		},
		func() string {
			return "CONNMARK --" + pick(r, "save-mark", "restore-mark", "set-mark 1/3", "save-mark --nfmask 1 --ctmask 2")
		},
		func() string {
			return "LOG" + pick(r, "", " --log-prefix \"a \\\" b\"", " --log-level debug", " --log-prefix x --log-uid")
		},
		func() string {
			if v6 {
				return "SNAT --to-source " + pick(r, "2001:db8::1", "fd02::1-fd02::3")
			}
			return "SNAT --to-source " + pick(r, "203.0.113.1", "10.2.0.1", "10.2.0.1-10.2.0.3", "10.2.0.1:1000-2000")
		},
	}
	words := []string{"-A", pick(r, "PREROUTING", "PREROUTING", "OUTPUT", "POSTROUTING", "OWN", "MORE")}
	for range r.IntN(4) {
		c := conditions[r.IntN(len(conditions))]()
		if r.IntN(8) == 0 && !strings.Contains(c, ",") {
			i := strings.LastIndex(c, "-")
			if j := strings.LastIndex(c, " --"); j >= 0 {
				i = j + 1
			}
			c = c[:max(i, 0)] + "! " + c[max(i, 0):]
		}
		words = append(words, c)
	}
	return strings.Join(words, " ") + " -j " + targets[r.IntN(len(targets))]()
}

// TestRandomRules: whatever rules there are, what they become is a profile, in
// bounded time, and each finding has a place in the text.
func TestRandomRules(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	refused, services := 0, 0
	for range 150 {
		var b strings.Builder
		v6 := r.IntN(4) == 0
		for _, table := range []string{"mangle", "nat"} {
			b.WriteString("*" + table + "\n:OWN - [0:0]\n:MORE - [0:0]\n")
			for range r.IntN(12) {
				b.WriteString(anyRule(r, v6) + "\n")
			}
			b.WriteString("COMMIT\n")
		}
		text := b.String()
		began := time.Now()
		m, err := Import("random", []byte(text))
		if d := time.Since(began); d > time.Minute {
			t.Fatalf("it took %v\n%s", d, text)
		}
		if errs, ok := errors.AsType[lb.Errors](err); ok {
			refused++
			config.Format(errs)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		yaml := m.YAML()
		p, err := config.Parse("random", yaml)
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, text, yaml)
		}
		if errs := lb.Conflicts([]*lb.Profile{p}); errs != nil {
			t.Fatalf("%v\n%s\n%s", errs, text, yaml)
		}
		services += len(p.Services)
		lines := strings.Count(text, "\n")
		for _, f := range m.Findings {
			for _, l := range f.Lines() {
				if l < 1 || l > lines {
					t.Fatalf("%s\n%s", f.Format(), text)
				}
			}
		}
	}
	t.Logf("%d refused, %d services", refused, services)
	if refused > 100 || services < 40 {
		t.Errorf("%d texts were refused, and the others gave %d services", refused, services)
	}
}
