//go:build linux

package view

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/integration/lab"
	"nlb/integration/lab/plan"
)

var sample = lab.Report{
	Connections: 1240, Seconds: 0.4321,
	Notes:    []string{"shop/dns: SCTP is not rehearsed, since this kernel lacks it"},
	Problems: []string{"shop/web: backend 203.0.113.10:80 is what the service itself listens on: connections come back to the balancer and are refused"},
	Profiles: []lab.Profile{{Name: "shop", Services: []lab.Service{
		{
			Name: "web", Listen: []string{"203.0.113.10:80", "[2001:db8::10]:80"}, Protocol: []string{"tcp"},
			Role: "proxy", Scheduler: "random", SNAT: "masquerade",
			Trials: []lab.Trial{
				{
					Family: "IPv4", Protocol: "tcp", From: "network", Due: "balanced", Connections: 600, Clients: 16, Answered: 600,
					Denied: &lab.Denied{Refused: 2, Of: 2},
					Backends: []lab.Backend{
						{Name: "large", Weight: 5, Connections: 501, Due: 500, Least: 440, Most: 550, Sources: []string{"198.18.0.1"}},
						{
							Name: "10.0.0.12:8080", Weight: 1, Connections: 99, Due: 100, Least: 50, Most: 160,
							Sources: []string{"a", "b", "c"}, SourcesDue: "the client",
						},
						{Name: "10.0.0.13:8080", Sources: []string{}},
					},
				},
				{
					Family: "IPv4", Protocol: "tcp", From: "host", Due: "balanced", Connections: 60, Clients: 1, Answered: 57,
					Failures: map[string]int{"timeout": 3},
					Backends: []lab.Backend{{Name: "large", Weight: 5, Connections: 57, Due: 57, Least: 57, Most: 57, Sources: []string{"x", "y"}}},
					Problems: []string{"3 of 60 connections failed: timeout (from balancer to tcp 203.0.113.10:80: timeout: dial tcp " +
						"0.0.0.0:10000->203.0.113.10:80: i/o timeout)"},
				},
			},
			Limits: []lab.Limit{
				{What: "connections-per-source 5", Found: "of 8 live connections of one client 3 were refused"},
				{What: "new 1000000/second", Found: "not tried, since it takes more than 3000 connections", Skipped: true},
			},
			Outage: &lab.Outage{Backend: "large", Trial: "IPv4 tcp", Live: 10, Ended: 10, Connections: 30, Failures: map[string]int{"refused": 25}, AfterConnections: 30},
			Failings: []lab.Failing{
				{
					Backend: "large", Way: "refuse", Falls: 1, Out: new(0.0123), OutDue: &plan.Due{}, Back: new(1.87), BackDue: &plan.Due{Least: 0.5, Most: 2.6},
					Connections: 99, Lost: 1,
				},
				{
					Backend: "large", Way: "silent", OutDue: &plan.Due{Least: 3, Most: 5.1}, Connections: 1, Late: 1,
					Problems: []string{"it was not out after 9.7 s, due is 3 s to 5.1 s"},
				},
				{Backend: "10.0.0.12:8080", Way: "flap", Falls: 2, Out: new(0.06), Connections: 348, Lost: 2},
			},
		},
		{
			Name: "dns", Listen: []string{"a", "b", "c", "d"}, Protocol: []string{"tcp", "udp"}, Role: "client", Scheduler: "hash", SNAT: "none",
			Trials: []lab.Trial{
				{Family: "IPv4", Protocol: "tcp", From: "host", Due: "silence", Connections: 2, Clients: 1, Failures: map[string]int{"timeout": 2}},
				{
					Family: "IPv4", Protocol: "udp", From: "host", Due: "balanced", Connections: 60, Clients: 8, Answered: 60, Kept: &lab.Kept{Kept: 8, Of: 8},
					Backends: []lab.Backend{{Name: "10.0.0.11", Weight: 1, Connections: 60, Due: 60, Least: 60, Most: 60, Sources: []string{"198.18.0.1"}}},
				},
			},
		},
	}}},
}

const sampleText = `shop/web  203.0.113.10:80 [2001:db8::10]:80  tcp  random  snat masquerade
  ok  IPv4 tcp: 600 connections of 16 clients, 2 of 2 that are denied refused
      backend         weight  got  due            saw
      large                5  501  500 (440-550)  198.18.0.1
      10.0.0.12:8080       1   99  100 (50-160)   the 3 clients
      10.0.0.13:8080       0    0  0              -
  !!  IPv4 tcp from the balancer itself: 60 connections
      backend  weight  got  due  saw
      large         5   57  57   x y
      3 of 60 connections failed: timeout (from balancer to tcp 203.0.113.10:80: timeout: dial tcp
      0.0.0.0:10000->203.0.113.10:80: i/o timeout)
  ok  connections-per-source 5: of 8 live connections of one client 3 were refused
  --  new 1000000/second: not tried, since it takes more than 3000 connections
  ok  large ends: 10 of its 10 live connections ended, 25 of 30 new ones failed (refused); once it
      is out of the profile, 0 of 30 fail
  ok  large refuses: out after 0.012 s (due at once); of 99 new connections 1 lost, 0 late; back
      after 1.9 s (due 0.5 s to 2.6 s)
  !!  large falls silent: never out (due 3 s to 5.1 s); of 1 new connection 0 lost, 1 late
      it was not out after 9.7 s, due is 3 s to 5.1 s
  ok  10.0.0.12:8080 flaps: out after 0.06 s, 2 times; of 348 new connections 2 lost, 0 late

shop/dns  a b and 2 more  tcp,udp  hash  snat none  role client
  ok  IPv4 tcp from the balancer itself: 2 connections, 2 unanswered, since no backend can take them
  ok  IPv4 udp from the balancer itself: 60 connections of 8 clients, 8 of 8 stayed with one
      backend, as due

  note: shop/dns: SCTP is not rehearsed, since this kernel lacks it

  problem: shop/web: backend 203.0.113.10:80 is what the service itself listens on: connections come
           back to the balancer and are refused

3 problems: 2 services, 1240 connections in 0.4 s
`

func TestReport(t *testing.T) {
	var b bytes.Buffer
	c := NewConsole("nlb", nil, &b, &b)
	c.PrintReport(&sample)
	if d := cmp.Diff(sampleText, b.String()); d != "" {
		t.Error(d)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 101 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	b.Reset()
	c.Out.Color = true
	c.PrintReport(&sample)
	for _, want := range []string{"\x1b[32mok\x1b[0m", "\x1b[31m!!\x1b[0m", "\x1b[31m3 problems\x1b[0m"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in colour", want)
		}
	}
}
