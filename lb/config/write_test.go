package config

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/internal/safe"
	"nlb/lb/lbtest"
)

// checkProfile checks what the types say of a profile that was accepted.
func checkProfile(t *testing.T, p *lb.Profile) {
	t.Helper()
	if lb.CheckName(p.Name) != "" {
		t.Errorf("the profile is called %q", p.Name)
	}
	names := map[string]bool{}
	for i := range p.Services {
		s := &p.Services[i]
		if lb.CheckName(s.Name) != "" || names[s.Name] {
			t.Errorf("service %d is called %q", i, s.Name)
		}
		names[s.Name] = true
		checkService(t, s)
	}
	if errs := lb.Conflicts([]*lb.Profile{p}); errs != nil {
		t.Errorf("conflicts: %v", errs)
	}
}

func checkService(t *testing.T, s *lb.Service) {
	t.Helper()
	wrong := func(what string, v any) {
		t.Helper()
		t.Errorf("service %s: %s: %v", s.Name, what, v)
	}
	if len(s.Listen) == 0 {
		wrong("listen", s.Listen)
	}
	for _, l := range s.Listen {
		if l.Prefix.IsValid() && (l.Prefix != l.Prefix.Masked() || l.Prefix.Addr().Is4In6() || l.Prefix.Addr().Zone() != "") {
			wrong("prefix", l)
		}
		for i, r := range l.Ports {
			if r.First > r.Last || r.First == 0 && (r != lb.AllPorts || len(l.Ports) != 1) || i > 0 && r.First <= l.Ports[i-1].Last {
				wrong("ports", l)
			}
		}
		if len(l.Ports) == 0 {
			wrong("ports", l)
		}
	}
	if len(s.Protocols) == 0 || !slices.IsSorted(s.Protocols) || len(slices.Compact(slices.Clone(s.Protocols))) != len(s.Protocols) {
		wrong("protocols", s.Protocols)
	}
	if s.Scheduler.Hashes() != (len(s.HashBy) > 0) || !s.Scheduler.Hashes() && s.HashSeed != 0 || !slices.IsSorted(s.HashBy) ||
		len(slices.Compact(slices.Clone(s.HashBy))) != len(s.HashBy) {
		wrong("hash", s.HashBy)
	}
	if a := s.Affinity; a != nil && (a.Timeout < time.Second || a.Timeout > lb.MaxTimeout || a.Timeout%time.Second != 0 ||
		a.Bits < 1 || a.Bits > 32 || a.Bits6 < 1 || a.Bits6 > 128) {
		wrong("affinity", *a)
	}
	if s.Interface != "" && s.Role == lb.RoleClient {
		wrong("interface", s.Interface)
	}
	for _, prefixes := range [][]netip.Prefix{s.Allow, s.Deny} {
		for i, p := range prefixes {
			if !p.IsValid() || p != p.Masked() || i > 0 && p.Compare(prefixes[i-1]) <= 0 {
				wrong("prefixes", prefixes)
			}
		}
	}
	if (s.Limit.NewPerSource.Events == 0) != (s.Limit.Burst == 0) {
		wrong("limit", s.Limit)
	}
	checkLog(t, s.Log)
	families := s.Families()
	if len(families) == 0 {
		wrong("families", families)
	}
	checkSNAT(t, s.SNAT, families)
	addresses, names := map[place]bool{}, map[string]bool{}
	named := false
	for _, b := range s.Backends {
		at := place{b.Host, b.Address}
		if b.Address.Addr.IsValid() == b.Named() || addresses[at] || names[b.Name] || b.Weight < 0 || b.Weight > lb.MaxWeight {
			wrong("backend", b)
		}
		addresses[at], names[b.Name] = true, true
		if named = named || b.Named(); b.Named() {
			if p := lb.CheckHost(b.Host); p != nil || b.Host.SRV && b.Weight != 1 {
				wrong("host", b)
			}
			continue
		}
		family := lb.FamilyOf(b.Address.Addr)
		if !slices.Contains(families, family) {
			wrong("family", b)
		}
		if b.SNAT.Mode == lb.SNATPool && len(b.SNAT.Of(family)) == 0 {
			wrong("snat", b)
		}
		checkLog(t, b.Log)
	}
	for _, f := range families {
		var weights []int
		for _, b := range s.Of(f) {
			weights = append(weights, b.Weight)
		}
		if n := len(lb.Slots(weights)); n > lb.MaxSlots && !s.Scheduler.OwnSlots() {
			wrong("slots", n)
		}
		if len(s.Backends) > 0 && !named && len(weights) == 0 {
			wrong("no backends of family", f)
		}
	}
}

func checkSNAT(t *testing.T, s lb.SNAT, families []lb.Family) {
	t.Helper()
	if (s.Mode == lb.SNATPool) != (len(s.Pool) > 0) {
		t.Errorf("snat: %v", s)
	}
	for _, a := range s.Pool {
		if !slices.Contains(families, lb.FamilyOf(a)) {
			t.Errorf("snat: %v with %v", s, families)
		}
	}
}

func checkLog(t *testing.T, l *lb.Log) {
	t.Helper()
	if l != nil && (l.Prefix == "" || len(l.Prefix) > lb.MaxLogPrefix || !safe.Printable(l.Prefix) || strings.ContainsAny(l.Prefix, `"\`) || l.Level > 7) {
		t.Errorf("log: %+v", *l)
	}
}

func TestWriteProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	rounds := 300
	if *full {
		rounds = 3000
	}
	for range rounds {
		want := lbtest.Named(r, lbtest.Profile(r))
		text := Write(want)
		got, err := Parse("other.yaml", text)
		if err != nil {
			t.Fatalf("%s\n%s", Format(err.(lb.Errors)), text)
		}
		if diff := cmp.Diff(want, got, lbtest.Same); diff != "" {
			t.Fatalf("(-want +got)\n%s\n%s", diff, text)
		}
		checkProfile(t, got)
		if again := Write(got); string(again) != string(text) {
			t.Fatalf("written otherwise the second time\n%s", cmp.Diff(string(text), string(again)))
		}
	}
}

func TestWrite(t *testing.T) {
	const text = `profile: shop
sysctl: keep
services:
  - name: web
    listen:
      - 203.0.113.10:80,443
      - "[2001:db8::1]:*"
      - ":8080"
    protocol:
      - tcp
      - udp
    interface: eth*
    role: server
    scheduler: hash
    hash-by:
      - source-address
      - source-port
    hash-seed: 7
    affinity:
      timeout: 90s
      prefix: 24
    snat:
      - 198.51.100.1
      - 2001:db8::9
    allow: 10.0.0.0/8
    deny:
      - 10.1.0.0/16
      - 2001:db8:1::/48
    limit:
      connections-per-source: 50
      new-per-source: 100/second
      burst: 200
      new: 5000/minute
    log:
      prefix: "x: "
      level: debug
      rate: 10/day
    on-empty: drop
    backends:
      - 10.0.0.11:8080
      - address: "2001:db8::"
        name: b
        weight: 3
        max-connections: 10
        snat: none
        log: false
  - name: "null"
    listen: 10.9.0.0/16:53
    affinity: 7d
    log: true
    backends: []
`
	p := mustParse(t, text)
	if diff := cmp.Diff(text, string(Write(p))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
