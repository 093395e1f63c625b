package config

import (
	"strings"
	"testing"

	"nlb/lb"
)

// example has a use of every key.
var example = map[string]string{
	"profile":                      "profile: x\nservices: []",
	"services":                     "services: []",
	"defaults":                     "defaults: {snat: none}\nservices: []",
	"sysctl":                       "sysctl: keep\nservices: []",
	"announce":                     "announce: nlb0\nservices: []",
	"announce.interface":           "announce: {interface: lo}\nservices: []",
	"announce.delay":               "announce: {delay: none}\nservices: []",
	"announce.drain":               "announce: {drain: 1s}\nservices: []",
	"announce.track":               "announce: {track: [eth1, eth0]}\nservices: []",
	"service.name":                 "",
	"service.listen":               "",
	"service.backends":             "",
	"service.protocol":             "protocol: udp",
	"service.interface":            "interface: eth0",
	"service.role":                 "role: client",
	"service.scheduler":            "scheduler: random",
	"service.hash-by":              "scheduler: hash, hash-by: [source-port]",
	"service.hash-seed":            "scheduler: hash, hash-seed: 1",
	"service.affinity":             "affinity: 10m",
	"service.snat":                 "snat: none",
	"service.allow":                "allow: 10.0.0.0/8",
	"service.deny":                 "deny: 10.0.0.0/8",
	"service.limit":                "limit: {new: 1/second}",
	"fleet":                        "services: []\nfleet: pair",
	"service.log":                  "log: true",
	"service.on-empty":             "on-empty: drop",
	"backend.address":              "backends: {address: 10.0.0.1}",
	"backend.name":                 "backends: {address: 10.0.0.1, name: a}",
	"backend.weight":               "backends: {address: 10.0.0.1, weight: 2}",
	"service.health":               "health: none",
	"service.fail-open":            "health: tcp, fail-open: 50%",
	"service.min-up":               "min-up: 1, backends: [10.0.0.1, {address: 10.0.0.2, priority: 2}]",
	"service.on-down":              "health: tcp, on-down: cut",
	"service.slow-start":           "health: tcp, slow-start: 30s",
	"service.retry":                "retry: true",
	"service.offload":              "offload: auto",
	"service.devices":              "offload: software, devices: eth0",
	"service.helper":               "helper: ftp",
	"service.balance":              "balance: datagrams, protocol: udp",
	"service.unserved":             "unserved: reject",
	"service.random-ports":         "random-ports: true",
	"service.forward":              "forward: balanced",
	"backend.priority":             "backends: [10.0.0.1, {address: 10.0.0.2, priority: 2}]",
	"backend.check-at":             "health: tcp, backends: {address: 10.0.0.1, check-at: none}",
	"health.check":                 "health: {check: tcp}",
	"health.port":                  "health: {check: tcp, port: 80}",
	"health.interval":              "health: {check: tcp, interval: 500ms}",
	"health.timeout":               "health: {check: tcp, timeout: 500ms}",
	"health.rise":                  "health: {check: tcp, rise: 1}",
	"health.fall":                  "health: {check: tcp, fall: 1}",
	"health.passive":               "health: {check: tcp, passive: false}",
	"health.source":                "health: {check: tcp, source: 192.0.2.1}",
	"health.path":                  "health: {check: http, path: /ready}",
	"health.host":                  "health: {check: http, host: example.com}",
	"health.status":                "health: {check: http, status: '200-399,401'}",
	"health.body":                  "health: {check: http, body: ok}",
	"health.verify":                "health: {check: tls, verify: system}",
	"health.send":                  "health: {check: tcp, send: 'PING\\r\\n'}",
	"health.expect":                "health: {check: tcp, expect: '+PONG'}",
	"health.query":                 "health: {check: dns, query: example.com}",
	"health.type":                  "health: {check: dns, type: A}",
	"health.service":               "health: {check: grpc, service: a.B}",
	"health.tls":                   "health: {check: grpc, tls: true}",
	"health.command":               "health: {check: exec, command: [/bin/true]}",
	"service.mode":                 "mode: dsr, scheduler: hash",
	"service.remember":             "mode: dsr, scheduler: hash, remember: 1m",
	"backend.max-connections":      "backends: {address: 10.0.0.1, max-connections: 2}",
	"backend.snat":                 "backends: {address: 10.0.0.1, snat: none}",
	"backend.log":                  "backends: {address: 10.0.0.1, log: true}",
	"affinity.timeout":             "affinity: {timeout: 1s}",
	"affinity.prefix":              "affinity: {timeout: 1s, prefix: 24}",
	"affinity.prefix6":             "affinity: {timeout: 1s, prefix6: 64}",
	"affinity.group":               "affinity: {timeout: 1s, group: web}",
	"limit.connections-per-source": "limit: {connections-per-source: 1}",
	"limit.new-per-source":         "limit: {new-per-source: 1/second}",
	"limit.burst":                  "limit: {new-per-source: 1/second, burst: 2}",
	"limit.new":                    "limit: {new: 1/second}",
	"limit.half-open":              "limit: {half-open: 1000}",
	"service.timeouts":             "timeouts: {udp: 5m}",
	"service.syn-protection":       "syn-protection: synproxy",
	"syn-protection.mss":           "syn-protection: {mss: 1400}",
	"syn-protection.window-scale":  "syn-protection: {window-scale: 0}",
	"timeouts.established":         "timeouts: {established: 1h}",
	"timeouts.close-wait":          "timeouts: {close-wait: 2h}",
	"timeouts.half-open":           "timeouts: {half-open: 10s}",
	"timeouts.time-wait":           "timeouts: {time-wait: 10s}",
	"timeouts.udp":                 "timeouts: {udp: 20d}",
	"timeouts.udp-idle":            "timeouts: {udp-idle: 10s}",
	"service.on-refuse":            "on-refuse: drop",
	"limit.prefix":                 "limit: {new-per-source: 1/second, prefix: 24}",
	"limit.prefix6":                "limit: {connections-per-source: 1, prefix6: 128}",
	"log.prefix":                   "log: {prefix: x}",
	"log.level":                    "log: {level: err}",
	"log.rate":                     "log: {rate: 1/second}",
}

// exampleFile is a profile that uses a key.
func exampleFile(path string) string {
	text := example[path]
	if strings.Contains(text, "\n") || strings.HasPrefix(text, "services") {
		return text
	}
	keys := []string{"name: a"}
	for key, value := range map[string]string{"listen": "203.0.113.10:80", "backends": "10.0.0.1"} {
		if !strings.Contains(text, key+":") {
			keys = append(keys, key+": "+value)
		}
	}
	if text != "" {
		keys = append(keys, text)
	}
	return "services:\n- {" + strings.Join(keys, ", ") + "}\n"
}

func TestReference(t *testing.T) {
	for _, k := range Reference() {
		if k.Values == "" || k.Default == "" || k.Meaning == "" || k.Path == "" {
			t.Errorf("%+v is not complete", k)
		}
		if _, ok := example[k.Path]; !ok {
			t.Errorf("%s has no example", k.Path)
			continue
		}
		if _, err := Parse("a.yaml", []byte(exampleFile(k.Path))); err != nil {
			t.Errorf("%s: %v", k.Path, err)
		}
	}
	if got, want := len(Reference()), len(example); got != want {
		t.Errorf("%d keys, %d examples", got, want)
	}
}

func TestNearest(t *testing.T) {
	var keys []string
	for _, k := range serviceKeys.keys {
		keys = append(keys, k.word)
	}
	for s, want := range map[string]string{
		"schedular": "scheduler", "Listen": "listen", "lisen": "listen", "listne": "listen", "backend": "backends", "hash_by": "hash-by",
		"hashby": "hash-by", "proto": "protocol", "protocols": "protocol", "names": "name", "nat": "snat", "logs": "log", "onempty": "on-empty", "pro": "protocol", "pr": "",
		"affinity-timeout": "affinity", "port": "", "weight": "", "x": "", "": "", "ip": "", "something-else": "",
	} {
		if got := lb.Nearest(s, keys); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", s, got, want)
		}
	}
}
