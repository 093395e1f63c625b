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
	"nlb/lb/internal/safe"
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
	if (s.Scheduler == lb.Hash) != (len(s.HashBy) > 0) || s.Scheduler != lb.Hash && s.HashSeed != 0 || !slices.IsSorted(s.HashBy) ||
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
	addresses, names := map[lb.Endpoint]bool{}, map[string]bool{}
	for _, b := range s.Backends {
		if !b.Address.Addr.IsValid() || addresses[b.Address] || names[b.Name] || b.Weight < 0 || b.Weight > lb.MaxWeight {
			wrong("backend", b)
		}
		addresses[b.Address], names[b.Name] = true, true
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
		if n := len(lb.Slots(weights)); n > lb.MaxSlots {
			wrong("slots", n)
		}
		if len(s.Backends) > 0 && len(weights) == 0 {
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

// randomProfile is a valid profile with a bit of everything.
func randomProfile(r *rand.Rand) *lb.Profile {
	const nameRunes = "abcXYZ019-_."
	name := func() string {
		b := make([]byte, 1+r.IntN(5))
		for i := range b {
			b[i] = nameRunes[r.IntN(len(nameRunes))]
		}
		return string(b)
	}
	p := &lb.Profile{Name: name(), Sysctl: lb.SysctlPolicy(r.IntN(2))}
	used := map[string]bool{}
	for range r.IntN(5) {
		s := randomService(r)
		if s.Name = name(); used[s.Name] {
			continue
		}
		used[s.Name] = true
		if s.Scheduler == lb.Hash && r.IntN(2) == 0 {
			s.HashSeed = lb.DefaultSeed(s.Name)
		}
		if s.Log != nil && r.IntN(2) == 0 {
			s.Log.Prefix = s.Name + " "
		}
		if p.Services = append(p.Services, s); lb.Conflicts([]*lb.Profile{p}) != nil {
			p.Services = p.Services[:len(p.Services)-1]
		}
	}
	return p
}

func randomService(r *rand.Rand) lb.Service {
	some := func() bool { return r.IntN(3) == 0 }
	addr := func(f lb.Family) netip.Addr {
		if f == lb.IPv4 {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 15: byte(r.IntN(256))})
	}
	prefix := func(f lb.Family) netip.Prefix {
		a := addr(f)
		p, _ := a.Prefix(a.BitLen() - r.IntN(2)*r.IntN(a.BitLen()))
		return p
	}
	rate := func() lb.Rate {
		return lb.Rate{Events: 1 + r.Uint64N(lb.MaxRate), Per: lb.Units[r.IntN(len(lb.Units))].Duration}
	}
	s := lb.Service{Protocols: []lb.Protocol{lb.TCP}}
	families := [][]lb.Family{{lb.IPv4}, {lb.IPv6}, {lb.IPv4, lb.IPv6}}[r.IntN(3)]
	for _, f := range families {
		l := lb.Listen{Prefix: prefix(f), Ports: []lb.PortRange{lb.AllPorts}}
		if r.IntN(4) > 0 {
			l.Ports = nil
			for port := 1 + r.IntN(20000); port < 65000 && len(l.Ports) < 3; port += 2 + r.IntN(20000) {
				l.Ports = append(l.Ports, lb.PortRange{First: uint16(port), Last: uint16(min(65535, port+r.IntN(2)*r.IntN(1000)))})
				port = int(l.Ports[len(l.Ports)-1].Last)
			}
		}
		s.Listen = append(s.Listen, l)
	}
	if some() {
		s.Listen = append(s.Listen, lb.Listen{Ports: []lb.PortRange{{First: 80, Last: 80}}})
	}
	if some() {
		s.Protocols = [][]lb.Protocol{{lb.UDP}, {lb.TCP, lb.UDP}, {lb.UDP, lb.SCTP}, {lb.TCP, lb.UDP, lb.SCTP}}[r.IntN(4)]
	}
	s.Role = lb.Role(r.IntN(3))
	if some() && s.Role != lb.RoleClient {
		s.Interface = []string{"eth0", "eth*", "br-lan.7", "e"}[r.IntN(4)]
	}
	if s.Scheduler = lb.Scheduler(r.IntN(3)); s.Scheduler == lb.Hash {
		s.HashSeed = r.Uint32()
		for f := lb.SourceAddress; f <= lb.ByProtocol; f++ {
			if some() || f == lb.ByProtocol && s.HashBy == nil {
				s.HashBy = append(s.HashBy, f)
			}
		}
	}
	if some() {
		s.Affinity = &lb.Affinity{Timeout: time.Duration(1+r.IntN(int(lb.MaxTimeout/time.Second))) * time.Second, Bits: 1 + r.IntN(32), Bits6: 1 + r.IntN(128)}
		if some() {
			s.Affinity.Timeout, s.Affinity.Bits, s.Affinity.Bits6 = 10*time.Minute, 32, 128
		}
	}
	snat := func(families []lb.Family) lb.SNAT {
		out := lb.SNAT{Mode: lb.SNATMode(r.IntN(4))}
		if out.Mode == lb.SNATPool {
			for _, f := range families {
				a := addr(f)
				out.Pool = append(out.Pool, a, a.Next())
			}
		}
		return out
	}
	s.SNAT = snat(families)
	for range r.IntN(4) {
		s.Allow = append(s.Allow, prefix(families[0]))
		s.Deny = append(s.Deny, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(r.IntN(3))}), 16))
	}
	slices.SortFunc(s.Allow, netip.Prefix.Compare)
	slices.SortFunc(s.Deny, netip.Prefix.Compare)
	s.Allow, s.Deny = slices.Compact(s.Allow), slices.Compact(s.Deny)
	if some() {
		s.Limit = lb.Limit{ConnectionsPerSource: 1 + r.Uint32N(1<<31), New: rate()}
		if some() {
			s.Limit.NewPerSource = rate()
			s.Limit.Burst = uint32(s.Limit.NewPerSource.Events)
			if some() {
				s.Limit.Burst = 1 + r.Uint32N(1<<31)
			}
		}
	}
	log := func() *lb.Log {
		l := &lb.Log{Prefix: []string{"x", "a: ", "#", "'", " y ", "null", "[a]"}[r.IntN(7)], Level: lb.LogLevel(r.IntN(8))}
		if some() {
			l.Rate = rate()
		}
		return l
	}
	if some() {
		s.Log = log()
	}
	s.OnEmpty = lb.OnEmpty(r.IntN(2))
	if some() {
		return s
	}
	for _, f := range families {
		a := netip.MustParseAddr(map[lb.Family]string{lb.IPv4: "192.0.2.1", lb.IPv6: "2001:db8::"}[f])
		for range 1 + r.IntN(3) {
			b := lb.Backend{Address: lb.Endpoint{Addr: a, Port: uint16(r.IntN(2) * r.IntN(65536))}, Weight: 1, SNAT: s.SNAT, Log: s.Log}
			b.Name = b.Address.String()
			if some() {
				b.Name = fmt.Sprintf("b%d.%d", f, len(s.Backends))
			}
			if some() {
				b.Weight = r.IntN(lb.MaxWeight + 1)
			}
			if some() {
				b.MaxConnections = r.Uint32()
			}
			if some() {
				b.SNAT = snat([]lb.Family{f})
			}
			if some() {
				b.Log = [](*lb.Log){nil, log()}[r.IntN(2)]
			}
			s.Backends = append(s.Backends, b)
			a = a.Next()
		}
	}
	return s
}

func TestWriteProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	for range rounds {
		want := randomProfile(r)
		text := Write(want)
		got, err := Parse("other.yaml", text)
		if err != nil {
			t.Fatalf("%s\n%s", Format(err.(lb.Errors)), text)
		}
		if diff := cmp.Diff(want, got, sameProfile); diff != "" {
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
