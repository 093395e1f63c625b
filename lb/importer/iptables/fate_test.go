package iptables

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/syntax"
)

// TestEveryRuleIsAccountedFor: each rule stands behind a service, or a finding
// is about it.
func TestEveryRuleIsAccountedFor(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.rules")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := importer.Lines(file, data)
		if err != nil {
			t.Fatal(err)
		}
		sets, err := syntax.Parse(file, lines, importer.New(file, "", lines))
		if err != nil {
			continue
		}
		m, err := Import(file, data)
		if err != nil {
			t.Fatal(err)
		}
		named := map[int]bool{}
		for _, f := range m.Findings {
			for _, l := range f.Lines() {
				named[l] = true
			}
		}
		for _, comment := range regexp.MustCompile(`# lines? ([0-9, -]+)\n`).FindAllStringSubmatch(string(m.YAML()), -1) {
			for part := range strings.SplitSeq(comment[1], ", ") {
				first, last, isRange := strings.Cut(part, "-")
				if !isRange {
					last = first
				}
				a, _ := strconv.Atoi(first)
				b, _ := strconv.Atoi(last)
				for ; a <= b; a++ {
					named[a] = true
				}
			}
		}
		for _, s := range sets {
			for r := range s.Rules {
				if !named[r.Place.Line] {
					t.Errorf("%s:%d: nothing is said about %s", file, r.Place.Line, r.Text)
				}
			}
		}
	}
}

// cluster is what kube-proxy writes for services with so many backends each.
func cluster(services, backends int) []byte {
	var chains, rules strings.Builder
	chains.WriteString("*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n")
	for _, c := range []string{"SERVICES", "NODEPORTS", "MARK-MASQ", "POSTROUTING"} {
		fmt.Fprintf(&chains, ":KUBE-%s - [0:0]\n", c)
	}
	rules.WriteString(`-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
`)
	pod := 0
	for i := range services {
		vip := fmt.Sprintf("10.96.%d.%d/32", i/250, i%250+1)
		fmt.Fprintf(&chains, ":KUBE-SVC-%d - [0:0]\n", i)
		fmt.Fprintf(&rules, "-A KUBE-SERVICES -d %s -p tcp -m comment --comment \"ns/s%d:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-%d\n", vip, i, i)
		fmt.Fprintf(&rules, "-A KUBE-SVC-%d ! -s 10.244.0.0/16 -d %s -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ\n", i, vip)
		for j := range backends {
			address := fmt.Sprintf("10.244.%d.%d", pod/250%250, pod%250+1)
			pod++
			chance := ""
			if left := backends - j; left > 1 {
				chance = fmt.Sprintf("-m statistic --mode random --probability %.10f ", 1/float64(left))
			}
			fmt.Fprintf(&chains, ":KUBE-SEP-%d-%d - [0:0]\n", i, j)
			fmt.Fprintf(&rules, "-A KUBE-SVC-%d %s-j KUBE-SEP-%d-%d\n", i, chance, i, j)
			fmt.Fprintf(&rules, "-A KUBE-SEP-%d-%d -s %s/32 -j KUBE-MARK-MASQ\n", i, j, address)
			fmt.Fprintf(&rules, "-A KUBE-SEP-%d-%d -p tcp -m tcp -j DNAT --to-destination %s:8080\n", i, j, address)
		}
	}
	rules.WriteString("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n")
	return []byte(chains.String() + rules.String())
}

func TestCluster(t *testing.T) {
	began := time.Now()
	m, err := Import("cluster", cluster(100, 3))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Profile.Services) != 100 || !m.Complete() {
		t.Fatalf("%d services, complete: %v", len(m.Profile.Services), m.Complete())
	}
	for _, s := range m.Profile.Services {
		if len(s.Backends) != 3 || s.Scheduler != lb.Random || s.Role != lb.RoleProxy || s.SNAT.Mode != lb.Masquerade {
			t.Fatalf("%+v", s)
		}
		for _, b := range s.Backends {
			if b.Weight != 1 {
				t.Fatalf("%s: weights %+v", s.Name, s.Backends)
			}
		}
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	m, err = Import("wide", cluster(1, 60))
	if err != nil || len(m.Profile.Services) != 1 || len(m.Profile.Services[0].Backends) != 60 {
		t.Fatal(err, m)
	}
	for _, b := range m.Profile.Services[0].Backends {
		if b.Weight != 1 {
			t.Fatalf("60 backends have the weights %+v", m.Profile.Services[0].Backends)
		}
	}
}

// FuzzImport: no text does harm, and a profile that comes of it is valid.
func FuzzImport(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.rules")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Import("fuzz", data)
		if err != nil {
			errs, ok := errors.AsType[lb.Errors](err)
			if !ok || len(errs) == 0 {
				t.Fatalf("%#v", err)
			}
			for _, e := range errs {
				if e.Pos.Line < 1 || e.Pos.Column < 1 || e.Pos.File == "" {
					t.Fatalf("%v has no place", e)
				}
				config.FormatError(e)
			}
			return
		}
		yaml := m.YAML()
		p, err := config.Parse("fuzz", yaml)
		if err != nil {
			t.Fatalf("%v\n%s", err, yaml)
		}
		if errs := lb.Conflicts([]*lb.Profile{p}); errs != nil {
			t.Fatalf("%v\n%s", errs, yaml)
		}
		for _, finding := range m.Findings {
			finding.Format()
		}
	})
}
