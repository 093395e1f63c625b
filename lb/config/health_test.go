package config

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/lbtest"
)

// TestHealth: what checks are without keys, and with them.
func TestHealth(t *testing.T) {
	plain := func(k lb.CheckKind) lb.Check {
		return lb.Check{Kind: k, Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
	}
	with := func(c lb.Check, set func(*lb.Check)) lb.Check {
		set(&c)
		return c
	}
	tcp := with(plain(lb.CheckTCP), func(c *lb.Check) { c.Passive = true })
	http := with(tcp, func(c *lb.Check) {
		c.Kind, c.Path, c.Status = lb.CheckHTTP, "/", []lb.StatusRange{{First: 200, Last: 399}}
	})
	for text, want := range map[string][]lb.Check{
		"none":                    nil,
		"tcp":                     {tcp},
		"{check: tcp}":            {tcp},
		"[tcp]":                   {tcp},
		"[icmp, {check: tcp}]":    {plain(lb.CheckICMP), tcp},
		"http":                    {http},
		"https":                   {with(http, func(c *lb.Check) { c.Kind = lb.CheckHTTPS })},
		"tls":                     {with(tcp, func(c *lb.Check) { c.Kind = lb.CheckTLS })},
		"grpc":                    {with(tcp, func(c *lb.Check) { c.Kind = lb.CheckGRPC })},
		"dns":                     {with(plain(lb.CheckDNS), func(c *lb.Check) { c.Query, c.QueryType = ".", "SOA" })},
		"{port: 9, check: agent}": {with(plain(lb.CheckAgent), func(c *lb.Check) { c.Port = 9 })},
		"{interval: 250ms, check: tcp}": {with(tcp, func(c *lb.Check) {
			c.Interval, c.Timeout = 250*time.Millisecond, 250*time.Millisecond
		})},
		"{check: tcp, interval: 1m, timeout: 5s, rise: 1, fall: 1, passive: false, port: 81, source: 192.0.2.1}": {{
			Interval: time.Minute, Timeout: 5 * time.Second, Rise: 1, Fall: 1, Port: 81, Source: netip.MustParseAddr("192.0.2.1"),
		}},
		"{check: http, status: '401,200-204'}": {with(http, func(c *lb.Check) {
			c.Status = []lb.StatusRange{{First: 200, Last: 204}, {First: 401, Last: 401}}
		})},
		"{check: http, status: [401, 200]}": {with(http, func(c *lb.Check) {
			c.Status = []lb.StatusRange{{First: 200, Last: 200}, {First: 401, Last: 401}}
		})},
		`{check: tcp, send: 'a\r\n\x00\xFf\\', expect: "b\r\n"}`: {with(tcp, func(c *lb.Check) {
			c.Send, c.Expect = "a\r\n\x00\xff\\", "b\r\n"
		})},
		"{check: tls, verify: none}":                {with(tcp, func(c *lb.Check) { c.Kind = lb.CheckTLS })},
		"{check: exec, command: [/bin/x, -a, b c]}": {with(plain(lb.CheckExec), func(c *lb.Check) { c.Command = []string{"/bin/x", "-a", "b c"} })},
		"{check: exec, command: /bin/x}":            {with(plain(lb.CheckExec), func(c *lb.Check) { c.Command = []string{"/bin/x"} })},
	} {
		p, err := Parse("a.yaml", []byte("services:\n  - {name: a, listen: 203.0.113.10:80, backends: [], health: "+text+"}\n"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, p.Services[0].Health, lbtest.Same); d != "" {
			t.Errorf("%s: (-want +got)\n%s", text, d)
		}
	}
}

// TestHealthDefaults: what defaults say of health gives way where a service has
// no checks, or nothing that it could be about.
func TestHealthDefaults(t *testing.T) {
	const text = `defaults: {health: tcp, fail-open: 50%, on-down: cut, slow-start: 30s, min-up: 2, retry: true}
services:
  - name: all
    listen: 203.0.113.10:80
    backends: [10.0.0.1, 10.0.0.2, {address: 10.0.0.3, priority: 2, check-at: ":81"}]
  - {name: hash, listen: 203.0.113.11:80, scheduler: hash, backends: 10.0.0.1}
  - {name: none, listen: 203.0.113.12:80, health: none, retry: false, backends: 10.0.0.1}
  - {name: own, listen: 203.0.113.13:80, health: icmp, slow-start: none, fail-open: all-down, on-down: keep, backends: 10.0.0.1}
`
	p := mustParse(t, text)
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	type said struct {
		kinds     []lb.CheckKind
		FailOpen  lb.FailOpen
		OnDown    lb.OnDown
		SlowStart time.Duration
		MinUp     lb.MinUp
		Retry     bool
	}
	var got []said
	for _, s := range p.Services {
		one := said{nil, s.FailOpen, s.OnDown, s.SlowStart, s.MinUp, s.Retry}
		for _, c := range s.Health {
			one.kinds = append(one.kinds, c.Kind)
		}
		got = append(got, one)
	}
	tcp := []lb.CheckKind{lb.CheckTCP}
	want := []said{
		{tcp, 50, lb.CutConnections, 30 * time.Second, lb.MinUp{Count: 2}, true},
		{tcp, 50, lb.CutConnections, 0, lb.MinUp{}, true},
		{},
		{[]lb.CheckKind{lb.CheckICMP}, 0, lb.KeepConnections, 0, lb.MinUp{}, true},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(said{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if b := p.Services[0].Backends[2]; b.Priority != 2 || b.CheckAt != (lb.CheckAt{Port: 81}) {
		t.Errorf("%+v", b)
	}
	if b := p.Services[1].Backends[0]; b.Priority != 1 {
		t.Errorf("priority %d without the key, want 1", b.Priority)
	}
}

// TestCheckAt: where a backend is checked, and back.
func TestCheckAt(t *testing.T) {
	for _, text := range []string{"none", "10.0.0.9", "10.0.0.9:81", ":81", "fd00::9", "[fd00::9]:81", "::1"} {
		file := "services:\n  - {name: a, listen: 203.0.113.10:80, health: tcp, backends: {address: 10.0.0.1, check-at: \"" + text + "\"}}\n"
		p, err := Parse("a.yaml", []byte(file))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := p.Services[0].Backends[0].CheckAt.String(); got != text {
			t.Errorf("%s is %s", text, got)
		}
	}
}
