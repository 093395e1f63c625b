package config

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/lbtest"
)

func mustParse(t *testing.T, text string) *lb.Profile {
	t.Helper()
	p, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", Format(err.(lb.Errors)), text)
	}
	return p
}

func one(s string) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

func endpoint(s string) lb.Endpoint {
	e, p := parseEndpoint(s, "backend", endpointForms)
	if p != nil {
		panic(p.Msg)
	}
	return e
}

// plainBackend is what a backend is without any keys.
func plainBackend(s string) lb.Backend {
	return lb.Backend{Name: strings.TrimPrefix(s, "0.0.0.0"), Address: endpoint(s), Weight: 1, Priority: 1}
}

// TestParse has what the contract says about every key.
func TestParse(t *testing.T) {
	web := func(change func(*lb.Service)) *lb.Profile {
		s := lb.Service{
			Name:      "web",
			Listen:    []lb.Listen{{Prefix: one("203.0.113.10"), Ports: []lb.PortRange{{First: 80, Last: 80}}}},
			Protocols: []lb.Protocol{lb.TCP},
			Backends:  []lb.Backend{plainBackend("10.0.0.11:8080")},
		}
		if change != nil {
			change(&s)
		}
		return &lb.Profile{Name: "test", Services: []lb.Service{s}}
	}
	const start = "services:\n  - name: web\n    listen: 203.0.113.10:80\n    backends: 10.0.0.11:8080\n"
	const noListen = "services:\n  - name: web\n    backends: 10.0.0.11:8080\n"
	const noBackends = "services:\n  - name: web\n    listen: 203.0.113.10:80\n"
	log := &lb.Log{Prefix: "web ", Level: lb.LogInfo}
	for _, tt := range []struct {
		name, text string
		want       *lb.Profile
	}{
		{"least", start, web(nil)},
		{"no services", "services: []", &lb.Profile{Name: "test"}},
		{"names", "profile: az-AZ_09.\nsysctl: keep\nservices: []", &lb.Profile{Name: "az-AZ_09.", Sysctl: lb.SysctlKeep}},
		{"longest name", "profile: " + strings.Repeat("x", lb.MaxName) + "\nservices: []", &lb.Profile{Name: strings.Repeat("x", lb.MaxName)}},
		{"quoted", "\"profile\": 'x'\n'services': []", &lb.Profile{Name: "x"}},
		{"number as name", "profile: 010\nservices: []", &lb.Profile{Name: "010"}},
		{
			"JSON", `{"profile": "j", "services": [{"name": "web", "listen": ["203.0.113.10:80"], "backends": [{"address": "10.0.0.11:8080", "weight": 1}]}]}`,
			&lb.Profile{Name: "j", Services: web(nil).Services},
		},
		{
			"aliases", "services:\n  - name: &n web\n    listen: 203.0.113.10:80\n    backends: [&a 10.0.0.11:8080]\n  - {name: b, listen: 203.0.113.11:80, backends: [*a]}\n",
			&lb.Profile{Name: "test", Services: append(web(nil).Services, web(func(s *lb.Service) {
				s.Name, s.Listen[0].Prefix = "b", one("203.0.113.11")
			}).Services...)},
		},

		{
			"listens", noListen + "    listen: [\"203.0.113.10:443,80\", \"203.0.113.11:8000-8010\", \"203.0.113.12:*\", 10.9.0.0/16:53, \":8080\", 10.0.0.1/32:80]",
			web(func(s *lb.Service) {
				s.Listen = []lb.Listen{
					{Prefix: one("203.0.113.10"), Ports: []lb.PortRange{{First: 80, Last: 80}, {First: 443, Last: 443}}},
					{Prefix: one("203.0.113.11"), Ports: []lb.PortRange{{First: 8000, Last: 8010}}},
					{Prefix: one("203.0.113.12"), Ports: []lb.PortRange{lb.AllPorts}},
					{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Ports: []lb.PortRange{{First: 53, Last: 53}}},
					{Ports: []lb.PortRange{{First: 8080, Last: 8080}}},
					{Prefix: one("10.0.0.1"), Ports: []lb.PortRange{{First: 80, Last: 80}}},
				}
			}),
		},
		{"listen on everything", noListen + "    listen: 0.0.0.0/0:1-65535", web(func(s *lb.Service) {
			s.Listen = []lb.Listen{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Ports: []lb.PortRange{{First: 1, Last: 65535}}}}
		})},
		{
			"IPv6", "services:\n  - name: web\n    listen: [\"[2001:DB8:0::1]:80\", \"[2001:db8:1::/48]:80\"]\n    backends: [\"[2001:db8::2]:80\", 2001:db8::3, \"2001:0db8::4\"]",
			web(func(s *lb.Service) {
				s.Listen = []lb.Listen{
					{Prefix: one("2001:db8::1"), Ports: []lb.PortRange{{First: 80, Last: 80}}},
					{Prefix: netip.MustParsePrefix("2001:db8:1::/48"), Ports: []lb.PortRange{{First: 80, Last: 80}}},
				}
				s.Backends = []lb.Backend{plainBackend("[2001:db8::2]:80"), plainBackend("2001:db8::3"), plainBackend("2001:db8::4")}
			}),
		},
		{"loopback", "services:\n  - {name: web, listen: 127.0.0.1:80, backends: [127.0.0.1:8080]}", web(func(s *lb.Service) {
			s.Listen[0].Prefix, s.Backends = one("127.0.0.1"), []lb.Backend{plainBackend("127.0.0.1:8080")}
		})},
		{"this host", noBackends + "    snat: vip\n    backends: [\":8080\", {address: \":8081\", name: b, snat: none}, 0.0.0.0:8082]", web(func(s *lb.Service) {
			s.SNAT = lb.SNAT{Mode: lb.SNATVIP}
			s.Backends = []lb.Backend{plainBackend("0.0.0.0:8080"), plainBackend("0.0.0.0:8081"), plainBackend("0.0.0.0:8082")}
			for i := range s.Backends {
				s.Backends[i].SNAT = lb.SNAT{Mode: lb.SNATNone}
			}
			s.Backends[1].Name = "b"
		})},
		{"this host, both families", "services:\n  - {name: web, listen: \":80\", backends: [\":8080\", {address: \":8081\", name: b}, \"[::]:8082\"]}", web(func(s *lb.Service) {
			s.Listen = []lb.Listen{{Ports: []lb.PortRange{{First: 80, Last: 80}}}}
			s.Backends = nil
			for _, at := range []string{"0.0.0.0:8080", "[::]:8080", "0.0.0.0:8081", "[::]:8081", "[::]:8082"} {
				b := plainBackend(at)
				b.SNAT.Mode = lb.SNATNone
				s.Backends = append(s.Backends, b)
			}
			s.Backends[2].Name, s.Backends[3].Name = "b-ipv4", "b-ipv6"
		})},
		{"protocols", start + "    protocol: [udp, tcp]", web(func(s *lb.Service) { s.Protocols = []lb.Protocol{lb.TCP, lb.UDP} })},
		{"sctp", start + "    protocol: sctp", web(func(s *lb.Service) { s.Protocols = []lb.Protocol{lb.SCTP} })},
		{"interface", start + "    interface: eth*", web(func(s *lb.Service) { s.Interface = "eth*" })},
		{"role", start + "    role: server", web(func(s *lb.Service) { s.Role = lb.RoleServer })},
		{"random", start + "    scheduler: random", web(func(s *lb.Service) { s.Scheduler = lb.Random })},
		{"hash", start + "    scheduler: hash", web(func(s *lb.Service) {
			s.Scheduler, s.HashBy, s.HashSeed = lb.Hash, []lb.HashField{lb.SourceAddress}, 0x0fd9bc91
		})},
		{"hash keys", start + "    scheduler: hash\n    hash-by: [protocol, source-port]\n    hash-seed: 7", web(func(s *lb.Service) {
			s.Scheduler, s.HashBy, s.HashSeed = lb.Hash, []lb.HashField{lb.SourcePort, lb.ByProtocol}, 7
		})},
		{"hash seed 0", start + "    scheduler: hash\n    hash-seed: 0", web(func(s *lb.Service) {
			s.Scheduler, s.HashBy = lb.Hash, []lb.HashField{lb.SourceAddress}
		})},
		{"affinity", start + "    affinity: 10m", web(func(s *lb.Service) {
			s.Affinity = &lb.Affinity{Timeout: 10 * time.Minute, Bits: 32, Bits6: 128}
		})},
		{"affinity keys", start + "    affinity: {timeout: 7d, prefix: 24, prefix6: 64}", web(func(s *lb.Service) {
			s.Affinity = &lb.Affinity{Timeout: 7 * 24 * time.Hour, Bits: 24, Bits6: 64}
		})},
		{"longest affinity", start + "    affinity: {timeout: 365d, prefix: 1, prefix6: 1}", web(func(s *lb.Service) {
			s.Affinity = &lb.Affinity{Timeout: lb.MaxTimeout, Bits: 1, Bits6: 1}
		})},
		{"shortest affinity", start + "    affinity: {timeout: 1s, prefix: 32, prefix6: 128}", web(func(s *lb.Service) {
			s.Affinity = &lb.Affinity{Timeout: time.Second, Bits: 32, Bits6: 128}
		})},
		{"largest", start + "    scheduler: hash\n    hash-seed: 4294967295\n    limit: {connections-per-source: 4294967295, new: 1000000000/second}\n" +
			"    log: {prefix: " + strings.Repeat("x", lb.MaxLogPrefix) + "}", web(func(s *lb.Service) {
			s.Scheduler, s.HashBy, s.HashSeed = lb.Hash, []lb.HashField{lb.SourceAddress}, 1<<32-1
			s.Limit = lb.Limit{ConnectionsPerSource: 1<<32 - 1, New: lb.Rate{Events: 1e9, Per: time.Second}}
			s.Log = &lb.Log{Prefix: strings.Repeat("x", lb.MaxLogPrefix), Level: lb.LogInfo}
			s.Backends[0].Log = s.Log
		})},
		{"snat none", start + "    snat: none", web(func(s *lb.Service) {
			s.SNAT.Mode, s.Backends[0].SNAT.Mode = lb.SNATNone, lb.SNATNone
		})},
		{"random ports of one backend", noBackends + "    snat: none\n    random-ports: true\n    backends: [10.0.0.11, {address: 10.0.0.12, snat: masquerade}]", web(func(s *lb.Service) {
			s.SNAT.Mode, s.RandomPorts = lb.SNATNone, true
			s.Backends = []lb.Backend{plainBackend("10.0.0.11"), plainBackend("10.0.0.12")}
			s.Backends[0].SNAT.Mode = lb.SNATNone
		})},
		{"snat address", start + "    snat: 198.51.100.1", web(func(s *lb.Service) {
			s.SNAT = lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}
			s.Backends[0].SNAT = s.SNAT
		})},
		{"snat list", start + "    snat: [198.51.100.2, 198.51.100.1]", web(func(s *lb.Service) {
			s.SNAT = lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.1")}}
			s.Backends[0].SNAT = s.SNAT
		})},
		{"clients", start + "    allow: [10.0.0.0/8, 192.0.2.1, 10.0.0.0/16]\n    deny: 10.1.0.0/16", web(func(s *lb.Service) {
			s.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/16"), one("192.0.2.1")}
			s.Deny = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
		})},
		{"nobody", start + "    allow: []\n    deny: none\n    limit: none\n    log: none\n    affinity: none", web(nil)},
		{"limit", start + "    limit: {connections-per-source: 50, new-per-source: 100/second, burst: 200, new: 5000/minute}", web(func(s *lb.Service) {
			s.Limit = lb.Limit{ConnectionsPerSource: 50, NewPerSource: lb.Rate{Events: 100, Per: time.Second}, Burst: 200, New: lb.Rate{Events: 5000, Per: time.Minute}}
		})},
		{"burst", start + "    limit: {new-per-source: 100/hour}", web(func(s *lb.Service) {
			s.Limit = lb.Limit{NewPerSource: lb.Rate{Events: 100, Per: time.Hour}, Burst: 100}
		})},
		{"log", start + "    log: true", web(func(s *lb.Service) { s.Log, s.Backends[0].Log = log, log })},
		{"log keys", start + "    log: {prefix: \"x: \", level: debug, rate: 10/day}", web(func(s *lb.Service) {
			s.Log = &lb.Log{Prefix: "x: ", Level: 7, Rate: lb.Rate{Events: 10, Per: 24 * time.Hour}}
			s.Backends[0].Log = s.Log
		})},
		{"on-empty", start + "    on-empty: drop", web(func(s *lb.Service) { s.OnEmpty = lb.Drop })},
		{"no backends", noBackends + "    backends: []", web(func(s *lb.Service) { s.Backends = nil })},
		{"one backend", noBackends + "    backends: {address: 10.0.0.11:8080}", web(nil)},
		{"backends", noBackends + `    snat: vip
    log: true
    backends:
      - 10.0.0.11
      - {address: 10.0.0.12:80, name: b, weight: 0, max-connections: 10, snat: none, log: false}
      - {name: 10.0.0.11x, log: {level: err}, address: 10.0.0.13:80, weight: 1000, max-connections: none}
`, web(func(s *lb.Service) {
			vip := lb.SNAT{Mode: lb.SNATVIP}
			s.SNAT, s.Log = vip, log
			s.Backends = []lb.Backend{
				{Name: "10.0.0.11", Address: endpoint("10.0.0.11"), Weight: 1, Priority: 1, SNAT: vip, Log: log},
				{Name: "b", Address: endpoint("10.0.0.12:80"), Priority: 1, MaxConnections: 10, SNAT: lb.SNAT{Mode: lb.SNATNone}},
				{Name: "10.0.0.11x", Address: endpoint("10.0.0.13:80"), Weight: 1000, Priority: 1, SNAT: vip, Log: &lb.Log{Prefix: "web ", Level: 3}},
			}
		})},

		{"defaults", start + "defaults:\n  protocol: udp\n  snat: none\n  scheduler: hash\n  log: true\n  affinity: 1h\n", web(func(s *lb.Service) {
			s.Protocols, s.Scheduler, s.HashBy, s.HashSeed = []lb.Protocol{lb.UDP}, lb.Hash, []lb.HashField{lb.SourceAddress}, 0x0fd9bc91
			s.SNAT.Mode, s.Backends[0].SNAT.Mode = lb.SNATNone, lb.SNATNone
			s.Log, s.Backends[0].Log = log, log
			s.Affinity = &lb.Affinity{Timeout: time.Hour, Bits: 32, Bits6: 128}
		})},
		{
			"defaults give way", "defaults:\n  snat: none\n  scheduler: hash\n  hash-by: [source-port]\n  log: true\n  affinity: 1h\n  role: client\n  limit: {new: 1/day}\n" +
				"  allow: 10.0.0.0/8\n" + start +
				"    scheduler: random\n    snat: masquerade\n    log: false\n    affinity: none\n    role: proxy\n    limit: none\n    allow: none\n" +
				"  - {name: h, listen: 203.0.113.11:80, backends: []}",
			&lb.Profile{Name: "test", Services: append(web(func(s *lb.Service) { s.Scheduler = lb.Random }).Services, lb.Service{
				Name: "h", Listen: []lb.Listen{{Prefix: one("203.0.113.11"), Ports: []lb.PortRange{{First: 80, Last: 80}}}}, Protocols: []lb.Protocol{lb.TCP},
				Role: lb.RoleClient, Scheduler: lb.Hash, HashBy: []lb.HashField{lb.SourcePort}, HashSeed: lb.DefaultSeed("h"), SNAT: lb.SNAT{Mode: lb.SNATNone},
				Log: &lb.Log{Prefix: "h ", Level: lb.LogInfo}, Affinity: &lb.Affinity{Timeout: time.Hour, Bits: 32, Bits6: 128}, Limit: lb.Limit{New: lb.Rate{Events: 1, Per: 24 * time.Hour}},
				Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			})},
		},
		{"default backends", "defaults: {backends: [10.0.0.11:8080]}\nservices:\n- {name: web, listen: 203.0.113.10:80}", web(nil)},
		{"default pool of both families", "defaults: {snat: [198.51.100.1, \"2001:db8::9\"]}\n" + start, web(func(s *lb.Service) {
			s.SNAT = lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}
			s.Backends[0].SNAT = s.SNAT
		})},
		{"offload", start + "    offload: software\n    devices: [eth1, eth0]", web(func(s *lb.Service) {
			s.Offload, s.Devices = lb.OffloadSoftware, []string{"eth0", "eth1"}
		})},
		{"default offload of a client", "defaults: {offload: hardware, devices: eth0}\n" + start + "    role: client", web(func(s *lb.Service) { s.Role = lb.RoleClient })},
		{"default devices of none", "defaults: {offload: auto, devices: eth0}\n" + start + "    offload: none", web(nil)},
		{"datagrams", start + "    protocol: udp\n    balance: datagrams", web(func(s *lb.Service) {
			s.Protocols, s.Balance, s.SNAT = []lb.Protocol{lb.UDP}, lb.Datagrams, lb.SNAT{Mode: lb.SNATNone}
			s.Backends[0].SNAT = s.SNAT
		})},
		{"default unserved of a client", "defaults: {unserved: drop, forward: balanced}\n" + start + "    role: client", web(func(s *lb.Service) { s.Role, s.Forward = lb.RoleClient, lb.ForwardBalanced })},
		{"no default devices", "defaults: {offload: auto, devices: eth0}\n" + start + "    devices: none", web(func(s *lb.Service) { s.Offload = lb.OffloadAuto })},
		{"default interface of a client", "defaults: {interface: eth0}\n" + start + "    role: client", web(func(s *lb.Service) { s.Role = lb.RoleClient })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := mustParse(t, tt.text)
			if diff := cmp.Diff(tt.want, got, lbtest.Same); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			checkProfile(t, got)
		})
	}
}

// TestParseConflictFree has listens that look alike and do not conflict.
func TestParseConflictFree(t *testing.T) {
	for _, tt := range []struct{ name, first, second string }{
		{"ports", "listen: 203.0.113.10:80", "listen: 203.0.113.10:81"},
		{"protocols", "listen: 203.0.113.10:53", "listen: 203.0.113.10:53, protocol: udp"},
		{"longer prefix", "listen: 10.0.0.0/8:53", "listen: 10.9.0.0/16:53"},
		{"address in prefix", "listen: 10.9.0.0/16:53", "listen: 10.9.0.1:53"},
		{"own and address", `listen: ":80"`, "listen: 203.0.113.10:80"},
		{"own and everything", `listen: ":80"`, "listen: 0.0.0.0/0:80"},
		{"roles", "listen: 203.0.113.10:80, role: client", "listen: 203.0.113.10:80, role: server"},
		{"interfaces", "listen: 203.0.113.10:80, interface: eth0", "listen: 203.0.113.10:80, interface: eth1"},
		{"interface and any", "listen: 203.0.113.10:80, interface: eth0", "listen: 203.0.113.10:80"},
		{"interface prefixes", `listen: 203.0.113.10:80, interface: "eth*"`, `listen: 203.0.113.10:80, interface: "wlan*"`},
		{"interface and longer prefix", `listen: 203.0.113.10:80, interface: "eth0*"`, "listen: 203.0.113.10:80, interface: eth"},
		{"families", "listen: 0.0.0.0/0:80", `listen: "[::/0]:80"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mustParse(t, "services:\n  - {name: a, backends: [], "+tt.first+"}\n  - {name: b, backends: [], "+tt.second+"}\n")
		})
	}
}

func TestParsePositions(t *testing.T) {
	p := mustParse(t, "# shop\nprofile: shop\nservices:\n  - listen:\n      - 203.0.113.10:80\n      - &x 203.0.113.11:80\n    name: a\n    backends: []\n  - {name: b, listen: 203.0.113.12:80, backends: []}\n")
	for _, tt := range []struct {
		what string
		got  lb.Pos
		want string
	}{
		{"profile", p.Pos, "test.yaml:2:10"},
		{"service a", p.Services[0].Pos, "test.yaml:4:5"},
		{"listen a", p.Services[0].Listen[0].Pos, "test.yaml:5:9"},
		{"listen a with anchor", p.Services[0].Listen[1].Pos, "test.yaml:6:9"},
		{"service b", p.Services[1].Pos, "test.yaml:9:5"},
		{"listen b", p.Services[1].Listen[0].Pos, "test.yaml:9:23"},
	} {
		if tt.got.String() != tt.want {
			t.Errorf("%s is at %s, want %s", tt.what, tt.got, tt.want)
		}
	}
}

func TestParseName(t *testing.T) {
	for file, want := range map[string]string{
		"shop.yaml": "shop", "/etc/nlb/shop.yaml": "shop", "shop": "shop", "a.b.yaml": "a.b", "-": "stdin", "./x.yml": "x",
	} {
		p, err := Parse(file, []byte("services: []"))
		if err != nil || p.Name != want {
			t.Errorf("%s: %v, %v; want %s", file, p, err, want)
		}
	}
	for _, file := range []string{"", ".yaml", "a b.yaml", "/x/", strings.Repeat("x", 64) + ".yaml", "ü.yaml"} {
		if _, err := Parse(file, []byte("services: []")); err == nil {
			t.Errorf("%q: accepted", file)
		}
		if _, err := Parse(file, []byte("profile: x\nservices: []")); err != nil {
			t.Errorf("%q with a name inside: %v", file, err)
		}
	}
}

// TestParseEncoding has what cannot stand in an archive of text files.
func TestParseEncoding(t *testing.T) {
	const valid = "services:\n  - name: web\n    listen: 203.0.113.10:80\n    backends: []\n"
	for name, text := range map[string]string{
		"line breaks of DOS": strings.ReplaceAll(valid, "\n", "\r\n"),
		"byte order mark":    bom + valid,
		"no last line break": strings.TrimSuffix(valid, "\n"),
		"umlauts":            "# für größere\u00a0Läden \U0001f600 \ufffd\n" + valid,
	} {
		if _, err := Parse("a.yaml", []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tt := range []struct{ name, text, want string }{
		{"NUL", "services: []\n# \x00", "a.yaml:2:3: error: a NUL byte: this is not a text file\n   2 | # \\x00\n     |   ^^^^ want plain text in UTF-8"},
		{"escape", "a: \x1b[31m", "a.yaml:1:4: error: the control character \\x1b\n   1 | a: \\x1b[31m\n     |    ^^^^^^^^ want plain text in UTF-8"},
		{"not UTF-8", "# ü\na: gr\xf6\xdfe", "a.yaml:2:6: error: the byte \\xf6, which is not UTF-8\n   2 | a: gr\\xf6\\xdfe\n     |      ^^^^^^^^^ want plain text in UTF-8"},
		{"carriage return", "a: b\rc: d", "a.yaml:1:5: error: a carriage return within a line\n   1 | a: b\\rc: d\n     |     ^^^ want plain text in UTF-8"},
		{"line separator", "a: b\u2028c: d", "a.yaml:1:5: error: the control character U+2028\n   1 | a: b\\u2028c: d\n     |     ^^^^^^^ want plain text in UTF-8"},
		{"byte order mark within", "a: b" + bom, "a.yaml:1:5: error: the control character U+FEFF\n   1 | a: b\\ufeff\n     |     ^^^^^^ want plain text in UTF-8"},
		{"UTF-16", "\xff\xfea\x00", "a.yaml:1:1: error: the file is in UTF-16\n   1 | \\xff\\xfea\\x00\n     | ^^^^^^^^^^^^^ want UTF-8"},
		{"too large", strings.Repeat("#", MaxFile+1), "a.yaml:1:1: error: the file is too long\n   want at most 16 MiB\n   hint: several profiles can be applied together"},
		{"after a byte order mark", bom + "a: 1\nservices: []", "a.yaml:1:1: error: unknown key a in the profile\n   1 | a: 1\n     | ^ want profile, services, defaults, sysctl, announce or fleet"},
		{"line breaks of DOS", "a: 1\r\nservices: []\r\n", "a.yaml:1:1: error: unknown key a in the profile\n   1 | a: 1\n     | ^ want profile, services, defaults, sysctl, announce or fleet"},
	} {
		_, err := Parse("a.yaml", []byte(tt.text))
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		if diff := cmp.Diff(tt.want, Format(err.(lb.Errors))); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

// TestParseManyErrors has more mistakes than are told.
func TestParseManyErrors(t *testing.T) {
	_, err := Parse("a.yaml", []byte("services:\n"+strings.Repeat("  - x\n", 5000)))
	errs := err.(lb.Errors)
	if len(errs) != maxErrors+1 {
		t.Fatalf("%d errors, want %d", len(errs), maxErrors+1)
	}
	if got, want := errs[maxErrors].Error(), "a.yaml:102:5: 4900 more errors"; got != want {
		t.Errorf("the last is %q, want %q", got, want)
	}
}

// TestNames: backends that are names, and what is known of them only when they
// are resolved.
func TestNames(t *testing.T) {
	text := `services:
  - name: web
    listen: [203.0.113.10:8000-8010, "[2001:db8::1]:80", ":443"]
    snat: [198.51.100.1, 2001:db8::2]
    health: tcp
    min-up: 3
    backends:
      - Web.Example.:8080
      - {address: web:80, name: w, weight: 0, priority: 2, snat: 198.51.100.7}
      - {address: srv:_http._tcp.web.example, max-connections: 7}
`
	p := mustParse(t, text)
	pool := p.Services[0].SNAT
	want := []lb.Backend{
		{Name: "web.example.:8080", Host: lb.Host{Name: "web.example."}, Address: lb.Endpoint{Port: 8080}, Weight: 1, Priority: 1, SNAT: pool},
		{
			Name: "w", Host: lb.Host{Name: "web"}, Address: lb.Endpoint{Port: 80}, Priority: 2,
			SNAT: lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{netip.MustParseAddr("198.51.100.7")}},
		},
		{
			Name: "srv:_http._tcp.web.example", Host: lb.Host{Name: "_http._tcp.web.example", SRV: true}, Weight: 1, Priority: 1, SNAT: pool,
			MaxConnections: 7,
		},
	}
	if diff := cmp.Diff(want, p.Services[0].Backends, lbtest.Same); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	if got := p.Services[0].Families(); !slices.Equal(got, []lb.Family{lb.IPv4, lb.IPv6}) {
		t.Errorf("families %v", got)
	}
	_, err := Parse("p.yaml", []byte(strings.Replace(text, "web:80,", "web,", 1)))
	if err == nil || !strings.Contains(err.Error(), "backend web has no port") {
		t.Errorf("the port of web is not known, and that is no mistake: %v", err)
	}
}

// TestHalves: thousands of services, which are read in two runs, are those that one run
// reads, and mistakes come in the order of the file.
func TestHalves(t *testing.T) {
	t.Parallel()
	text := string(Write(lbtest.Fleet(4001)))
	root, bad := readTree("fleet.yaml", text)
	if bad != nil {
		t.Fatal(bad)
	}
	kids := root.kids[slices.IndexFunc(root.kids, func(n node) bool { return n.text == "services" })+1].kids
	base := &draft{Service: lb.Service{Protocols: []lb.Protocol{lb.TCP}}}
	var one run
	(&decoder{file: "fleet.yaml"}).run(kids, base, &one)
	two := (&decoder{file: "fleet.yaml"}).inHalves(kids, base)
	if !reflect.DeepEqual(one, two) || len(two.services) != 4001 {
		t.Errorf("two runs read %d services, and one reads %d", len(two.services), len(one.services))
	}
	lines := strings.Split(text, "\n")
	var listens []int
	for i, line := range lines {
		if strings.HasPrefix(line, "    listen: ") {
			listens = append(listens, i)
		}
	}
	for _, want := range [][]int{{listens[4000]}, {listens[5], listens[4000]}} {
		wrong := slices.Clone(lines)
		for _, i := range want {
			wrong[i] = "    listen: nowhere"
		}
		_, err := Parse("fleet.yaml", []byte(strings.Join(wrong, "\n")))
		var got []int
		if errs, ok := errors.AsType[lb.Errors](err); ok {
			for _, e := range errs {
				got = append(got, e.Pos.Line-1)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("mistakes in lines %v, want %v: %v", got, want, err)
		}
	}
}
