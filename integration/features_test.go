package integration

// Features: profiles that between them use every statement, and what has to
// hold for each of them.

import (
	"reflect"
	"strings"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft/compile"
	"nlb/nft/probe"
)

// features are profiles that between them use every statement that nlb makes.
var features = map[string]string{
	"plain":             web + backends(8080, -1, -1, -1),
	"least-connections": web + "    scheduler: least-connections\n" + backends(8080, 3, 1),
	"random by weight":  web + "    scheduler: random\n" + backends(8080, 30, 10, 0),
	"sctp":              web + "    protocol: [tcp, udp, sctp]\n" + backends(8080, -1),
	"all hashes": `profile: hash
services:
  - name: all
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    protocol: [tcp, udp]
    scheduler: hash
    hash-by: [source-address, source-port, destination-address, destination-port, protocol]
    hash-seed: 4294967295
    backends: ["10.2.0.11", "10.2.0.12", "[fd02::11]", "[fd02::12]:99"]
  - {name: seed-0, listen: "203.0.113.11:80", scheduler: hash, hash-seed: 0, backends: ["10.2.0.11"]}
  - {name: port, listen: "203.0.113.12:80", scheduler: hash, hash-by: source-port, backends: ["10.2.0.11"]}
`,
	"consistent": `profile: consistent
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    scheduler: consistent
    hash-by: [source-address, source-port]
    backends: [{address: "10.2.0.11:80", weight: 5}, "10.2.0.12", {address: "10.2.0.13:80", weight: 0}, "[fd02::11]:80"]
  - {name: kept, listen: "203.0.113.11:80", scheduler: consistent, affinity: 10m, backends: ["10.2.0.11:80", "10.2.0.12:80"]}
  - {name: full, listen: "203.0.113.12:80", scheduler: consistent, backends: [{address: "10.2.0.11:80", max-connections: 5}, "10.2.0.12:80"]}
  - {name: again, listen: "203.0.113.13:80", scheduler: consistent, retry: true, affinity: 10m, backends: ["10.2.0.11:80", "10.2.0.12:80"]}
  - {name: drained, listen: "203.0.113.14:80", scheduler: consistent, on-empty: drop, backends: [{address: "10.2.0.11:80", weight: 0}]}
  - {name: empty, listen: "203.0.113.15:80", scheduler: consistent, backends: []}
`,
	"direct": `profile: direct
services:
  - {name: web, mode: dsr, remember: 90s, interface: eth0, scheduler: consistent, listen: ["203.0.113.10:80", "[2001:db8::1]:80-90"], protocol: [tcp, udp], backends: [10.2.0.11, {address: 10.2.0.12, weight: 0}, "fd02::11"]}
  - {name: hash, mode: dsr, interface: eth0, scheduler: hash, listen: "203.0.113.11:80", backends: ["10.2.0.11:80", "10.2.0.12:80"]}
  - {name: empty, mode: dsr, interface: eth0, scheduler: hash, listen: "203.0.113.12:80", backends: []}
`,
	"ports": `profile: ports
services:
  - {name: a, listen: "203.0.113.10:80,443,8000-8010", backends: ["10.2.0.11:80"]}
  - {name: b, listen: "203.0.113.11:*", backends: ["10.2.0.11"]}
  - {name: c, listen: ["[2001:db8::1]:*", "[2001:db8::2]:1-65535"], protocol: udp, backends: ["fd02::11"]}
`,
	"snat": `profile: snat
services:
  - {name: chosen, listen: "203.0.113.14:80", snat: auto, backends: ["10.2.0.11:80", {address: "10.2.0.12:80", snat: none, weight: 0}]}
  - {name: none, listen: "203.0.113.10:80", snat: none, backends: ["10.2.0.11:80"]}
  - {name: vip, listen: ["203.0.113.11:80", "[2001:db8::1]:80"], snat: vip, backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: one, listen: "203.0.113.12:80", snat: 192.0.2.1, backends: ["10.2.0.11:80"]}
  - {name: pool, listen: "[2001:db8::2]:80", snat: ["fd02::1", "fd02::2"], backends: ["[fd02::11]:80"]}
  - name: mixed
    listen: "203.0.113.13:80"
    backends: ["10.2.0.11:80", {address: "10.2.0.12:80", snat: vip}, {address: "10.2.0.13:80", snat: [192.0.2.1, 192.0.2.9], name: third}]
`,
	"random-ports": `profile: ports
services:
  - {name: host, listen: ["203.0.113.10:80", "[2001:db8::1]:80"], random-ports: true, backends: ["10.2.0.11:80", {address: "10.2.0.12:80", snat: none}, {address: "10.2.0.13:80", snat: vip}, "[fd02::11]:80"]}
  - {name: vip, listen: ["203.0.113.11:80", "[2001:db8::2]:80"], snat: vip, random-ports: true, backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: pool, listen: ["203.0.113.12:80", "[2001:db8::3]:80"], snat: [192.0.2.1, "fd02::1"], random-ports: true, backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: same, listen: ["203.0.113.13:80", "[2001:db8::4]:80"], snat: [192.0.2.1, "fd02::1"], backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: nobody, listen: "203.0.113.14:80", random-ports: true, backends: []}
`,
	"empty": `profile: empty
services:
  - {name: reject, listen: "203.0.113.10:80", backends: []}
  - {name: drop, listen: "[2001:db8::1]:80", on-empty: drop, backends: [{address: "[fd02::11]:80", weight: 0}]}
`,
	"odd names": `profile: 9to5.x
services:
  - {name: "-", listen: "203.0.113.10:80", backends: ["10.2.0.11:80"]}
  - {name: "80", listen: "203.0.113.11:80", backends: ["10.2.0.11:80"]}
  - {name: aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg, listen: "203.0.113.12:80", backends: [{address: "10.2.0.11:80", name: aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg, weight: 1000}]}
`,
	"roles": `profile: roles
services:
  - {name: client, role: client, listen: ["198.51.100.7:80", "198.18.0.0/15:443", "[2001:db8:9::]:80", "[2001:db8:a::/48]:53"], backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: server, role: server, listen: ["203.0.113.10:80-90", "[2001:db8::1]:80"], backends: ["10.2.0.1:8080", "[fd02::1]:8080"]}
  - {name: own, listen: ":80,8000-8010", protocol: [tcp, udp], backends: ["10.2.0.11", "[fd02::11]:80"]}
  - {name: own-server, role: server, listen: ":99", backends: ["10.2.0.11"]}
  - {name: own-client, role: client, listen: ":98", backends: ["fd02::11"]}
  - {name: network, listen: ["10.9.0.0/16:53", "10.9.1.0/24:54", "0.0.0.0/0:54"], protocol: udp, backends: ["10.2.0.11:53", "10.2.0.12"]}
  - {name: everything, listen: "[::/0]:*", backends: ["fd02::11"]}
`,
	"this host": `profile: host
services:
  - {name: web, listen: ["203.0.113.10:80", "[2001:db8::1]:80"], protocol: [tcp, udp, sctp], backends: ["10.2.0.11:80", {address: ":8080", weight: 3}, "[fd02::11]"]}
  - {name: own, listen: ":80", affinity: 10m, snat: none, backends: [":8080", {address: ":8081", name: second}]}
  - {name: sent, role: client, listen: "198.51.100.7:80", snat: vip, backends: [{address: ":8080", max-connections: 5}, {address: "0.0.0.0:8081", name: other, weight: 0}]}
`,
	"interfaces": `profile: interfaces
services:
  - {name: one, interface: eth0, listen: ["203.0.113.10:80", "[2001:db8::1]:80-90"], backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: many, interface: "wg*", listen: "203.0.113.0/24:80", backends: ["10.2.0.11:80"]}
  - {name: own, interface: "eth1", listen: ":80", backends: ["10.2.0.11:80"]}
  - {name: server, role: server, interface: "eth2", listen: "203.0.113.10:80", backends: ["10.2.0.1:81"]}
`,
	"affinity": `profile: affinity
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::1]:80"]
    affinity: {timeout: 90m, prefix: 24, prefix6: 64}
    backends: ["10.2.0.11:80", "10.2.0.12:80", "[fd02::11]:80", {address: "10.2.0.13:80", weight: 0}]
  - name: plain
    listen: ["203.0.113.10:81", "[2001:db8::1]:81"]
    affinity: {timeout: 1h, group: both}
    backends: ["10.2.0.11:81", {address: "10.2.0.12:81", max-connections: 5}, "[fd02::11]:81"]
  - {name: tls, listen: "203.0.113.10:444", affinity: {timeout: 1h, group: both}, scheduler: consistent, backends: ["10.2.0.11:444", "10.2.0.12"]}
  - {name: single, listen: "203.0.113.11:80", affinity: 1d, scheduler: random, backends: ["10.2.0.11:80"]}
  - {name: empty, listen: "203.0.113.12:80", affinity: 10s, backends: []}
`,
	"nobody serves": `profile: nobody
services:
  - {name: drained, listen: ["203.0.113.10:80", "[2001:db8::1]:80"], scheduler: consistent, backends: [{address: "10.2.0.11:80", weight: 0, max-connections: 5}, {address: "fd02::11", weight: 0, max-connections: 5000}]}
  - {name: empty, listen: "203.0.113.11:80", offload: auto, backends: []}
`,
	"guards": `profile: guards
services:
  - name: all
    listen: ["203.0.113.10:80", "[2001:db8::1]:80"]
    deny: [10.66.0.0/16, 10.66.1.0/24, 10.67.0.0/16, "2001:db8:66::/48", 255.0.0.0/8]
    allow: [0.0.0.0/0, "::/0"]
    limit: {connections-per-source: 50, new-per-source: 100/second, burst: 200, new: 5000/minute}
    log: {prefix: "web: ", level: debug, rate: 10/second}
    backends: ["10.2.0.11:80", "[fd02::11]:80"]
  - {name: allowed, listen: "203.0.113.11:80", allow: 10.0.0.0/8, backends: ["10.2.0.11:80"]}
  - {name: other-family, listen: "203.0.113.17:80", allow: [10.0.0.0/8, "fd00::/8"], deny: "fd66::/16", backends: ["10.2.0.11:80"]}
  - {name: refused-family, listen: "[2001:db8::12]:80", allow: 10.0.0.0/8, backends: ["[fd02::11]:80"]}
  - {name: logged, listen: "203.0.113.12:80", log: true, backends: ["10.2.0.11:80"]}
  - {name: networks, on-refuse: drop, listen: ["203.0.113.14:80", "[2001:db8::2]:80"], limit: {connections-per-source: 50, new-per-source: 100/second, prefix: 24, prefix6: 64}, backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: full, on-refuse: drop, listen: "203.0.113.15:80", backends: [{address: "10.2.0.11:80", max-connections: 9}]}
  - {name: few, listen: "203.0.113.13:80", limit: {new-per-source: 3/hour}, backends: ["10.2.0.11:80"]}
  - {name: half-open, listen: ["203.0.113.16:80", "[2001:db8::3]:80"], protocol: [tcp, udp], limit: {half-open: 1000}, timeouts: {half-open: 10s}, backends: [{address: "10.2.0.11:80", max-connections: 9}, {address: "fd02::11", weight: 0}]}
`,
	"retry": `profile: again
services:
  - {name: web, retry: true, listen: ["203.0.113.10:80", "[2001:db8::1]:80"], affinity: 10m, backends: ["10.2.0.11:80", {address: "10.2.0.12:80", max-connections: 5}, "[fd02::11]:80", "[fd02::12]:80"]}
  - {name: random, retry: true, listen: "203.0.113.11:80", scheduler: random, backends: ["10.2.0.11:80", "10.2.0.12"]}
  - {name: hash, retry: true, listen: "203.0.113.12:80", scheduler: hash, backends: ["10.2.0.11:80", "10.2.0.12:80"]}
  - {name: alone, retry: true, listen: "203.0.113.13:80", backends: ["10.2.0.11:80"]}
  - {name: none, retry: true, listen: "203.0.113.14:80", on-empty: drop, backends: []}
`,
	"timeouts": `profile: timeouts
services:
  - {name: all, listen: "203.0.113.10:80", protocol: [tcp, udp], timeouts: {established: 20d, close-wait: 2h, half-open: 1s, time-wait: 10s, udp: 3m, udp-idle: 30s}, backends: ["10.2.0.11:80"]}
  - {name: one, listen: "203.0.113.11:80", timeouts: {established: 1h}, backends: ["10.2.0.11:80"]}
  - {name: same, listen: "[2001:db8::1]:80", timeouts: {established: 1h}, backends: ["[fd02::11]:80"]}
  - {name: idle, listen: "203.0.113.12:80", protocol: udp, timeouts: {udp-idle: 5s}, backends: ["10.2.0.11:80"]}
`,
	"offload": `profile: fast
services:
  - {name: web, offload: auto, listen: ["203.0.113.10:80", "[2001:db8::1]:80"], backends: ["10.2.0.11:80", {address: "10.2.0.12:80", weight: 0}, "[fd02::11]:80"]}
  - {name: named, offload: auto, devices: [eth1, eth0], snat: none, listen: "203.0.113.11:80", protocol: udp, backends: 10.2.0.11}
`,
	"helpers": `profile: helpers
services:
  - {name: ftp, helper: ftp, listen: ["203.0.113.10:21", "[2001:db8::1]:21"], limit: {new: 5/second}, backends: ["10.2.0.11", "fd02::11"]}
  - {name: sip, helper: sip, protocol: [tcp, udp], snat: none, listen: "203.0.113.11:5060", backends: ["10.2.0.11"]}
  - {name: tftp, helper: tftp, protocol: udp, listen: "203.0.113.12:69", backends: ["10.2.0.11"]}
  - {name: tftp-too, helper: tftp, protocol: udp, listen: "[2001:db8::3]:69", backends: ["fd02::11"]}
`,
	"syn-protection": `profile: proven
services:
  - {name: web, syn-protection: synproxy, protocol: [tcp, udp], listen: ["203.0.113.10:80", "[2001:db8::1]:80-90"], deny: 10.66.0.0/16, limit: {new: 5/second}, backends: ["10.2.0.11:80", "10.2.0.12", "[fd02::11]:80"]}
  - {name: above, syn-protection: synproxy, limit: {half-open: 1, new-per-source: 3/second}, listen: "203.0.113.14:80", backends: ["10.2.0.11:80"]}
  - {name: told, syn-protection: {mss: 1400, window-scale: 10}, unserved: reject, affinity: 10m, listen: "203.0.113.11:80", backends: [{address: "10.2.0.11:80", max-connections: 9}]}
  - {name: plain, syn-protection: {window-scale: 0}, listen: ["203.0.113.12:*", "[2001:db8::3]:80"], backends: ["10.2.0.11", {address: "fd02::11", weight: 0}]}
  - {name: empty, syn-protection: synproxy, on-empty: drop, listen: "203.0.113.13:80", backends: []}
`,
	"datagrams": `profile: datagrams
defaults: {protocol: udp, balance: datagrams}
services:
  - {name: syslog, listen: ["203.0.113.10:514", "[2001:db8::1]:514-520"], allow: [10.0.0.0/8, "fd00::/8"], deny: 10.66.0.0/16, backends: [10.2.0.11, {address: 10.2.0.12, weight: 3}, "fd02::11"]}
  - {name: port, listen: ["203.0.113.11:514", "[2001:db8::2]:514"], scheduler: random, backends: ["10.2.0.11:5140", "10.2.0.12:5140", "[fd02::11]:5140"]}
  - {name: none, listen: "203.0.113.12:514", backends: [{address: 10.2.0.11, weight: 0}]}
  - {name: empty, listen: "203.0.113.13:*", on-empty: drop, backends: []}
`,
	"border": `profile: border
defaults: {forward: balanced}
services:
  - {name: pass, listen: "203.0.113.9:80", backends: ["10.2.0.11:80"]}
  - {name: reject, unserved: reject, listen: ["203.0.113.10:80", "[2001:db8::1]:80"], backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: drop, unserved: drop, listen: ["203.0.113.10:81", "203.0.113.11:80-90"], backends: ["10.2.0.11"]}
  - {name: reject-all, unserved: reject-all, listen: ["203.0.113.12:80", "203.0.113.32/28:80"], role: server, backends: ["10.2.0.1:81"]}
  - {name: drop-all, unserved: drop-all, forward: open, listen: "[2001:db8::2]:80", backends: ["fd02::11"]}
`,
	"fleet": `profile: any
fleet: anycast
defaults: {scheduler: consistent, snat: none}
services:
  - {name: web, limit: {new-per-source: 5/second, new: 100/second}, deny: [10.9.0.0/16], listen: ["203.0.113.10:80", "[2001:db8::1]:80"], backends: ["10.2.0.11:80", {address: "10.2.0.12:80", weight: 0}, "[fd02::11]:80"]}
  - {name: dns, protocol: [tcp, udp], listen: ["203.0.113.0/28:50-60", "203.0.113.10:53"], backends: ["10.2.0.11", "10.2.0.12:80"]}
  - {name: direct, mode: dsr, on-empty: drop, listen: "203.0.113.11:80", backends: 10.2.0.11}
`,
	"mesh": `profile: mesh
fleet: mesh
services:
  - {name: web, snat: none, listen: ["203.0.113.10:80", "[2001:db8::1]:80"], backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: empty, on-empty: drop, listen: "203.0.113.12:80", backends: []}
`,
	"pair": `profile: pair
fleet: pair
services:
  - {name: web, snat: [203.0.113.200], retry: true, listen: "203.0.113.10:80", backends: ["10.2.0.11:80", "10.2.0.12:80"]}
`,
	"backends of their own": `profile: own
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::1]:80"]
    affinity: 10m
    backends:
      - {address: "10.2.0.11:80", max-connections: 3}
      - {address: "10.2.0.12:80", log: {prefix: second}, max-connections: 5000}
      - {address: "10.2.0.13", log: true}
      - "[fd02::11]:80"
`,
}

// TestFeaturesHaveAll: there is no field of a map, a chain or a rule that no
// feature sets, so that TestTextIsNetlink compares both forms of all of them.
func TestFeaturesHaveAll(t *testing.T) {
	unset := map[string]bool{}
	look := func(value any) {
		v := reflect.ValueOf(value)
		for i := range v.NumField() {
			name := v.Type().String() + "." + v.Type().Field(i).Name
			if _, seen := unset[name]; !seen || !v.Field(i).IsZero() {
				unset[name] = v.Field(i).IsZero()
			}
		}
	}
	for name, text := range features {
		p, err := config.Parse(name, []byte(text))
		netlabtest.Must(t, err)
		r := compile.Profiles("nlb", []*lb.Profile{p})
		for _, m := range r.Maps {
			look(*m)
			for _, e := range m.Elements {
				look(e)
			}
		}
		for _, c := range r.Chains {
			look(*c)
			for _, rule := range c.Rules {
				look(rule)
			}
		}
	}
	// What only an apply makes: its record.
	delete(unset, "ruleset.Map.Comment")
	for name, is := range unset {
		if is {
			t.Errorf("no feature sets %s", name)
		}
	}
}

// TestPartsAreAll: whatever profiles are made of is asked for.
func TestPartsAreAll(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	known := map[string]bool{}
	for _, p := range probe.Parts() {
		known[p.Name] = true
	}
	used := map[string]bool{}
	for name, text := range features {
		for part := range probe.Needed([]*lb.Profile{b.Parse(text)}) {
			used[part] = true
			if !known[part] {
				t.Errorf("%s needs %q, which is not asked for", name, part)
			}
		}
	}
	for name := range known {
		if !used[name] {
			t.Errorf("%q is asked for, and no profile needs it", name)
		}
	}
}

// TestDriftIsNone: what nlb has just put there is as it put it there, whatever
// it is, and after a change too.
func TestDriftIsNone(t *testing.T) {
	t.Parallel()
	for name, text := range features {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Apply(text)
			b.undrifted("applied")
			other := strings.NewReplacer("shop", "another", "203.0.113.10", "203.0.113.200").Replace(web)
			b.Apply(text, other+backends(8080, 1, 2, 3))
			b.Apply(text, other+backends(8080, 3, 1))
			b.undrifted("after changes")
		})
	}
}
