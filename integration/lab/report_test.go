//go:build linux

package lab

// What a report looks like, and how a rehearsal ends early.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
)

var sample = Report{
	Connections: 1240, Seconds: 0.4321,
	Notes:    []string{"shop/dns: SCTP is not rehearsed, since this kernel lacks it"},
	Problems: []string{"shop/web: backend 203.0.113.10:80 is what the service itself listens on: connections come back to the balancer and are refused"},
	Profiles: []Profile{{Name: "shop", Services: []Service{
		{
			Name: "web", Listen: []string{"203.0.113.10:80", "[2001:db8::10]:80"}, Protocol: []string{"tcp"},
			Role: "proxy", Scheduler: "random", SNAT: "masquerade",
			Trials: []Trial{
				{
					Family: "IPv4", Protocol: "tcp", From: "network", Due: "balanced", Connections: 600, Clients: 16, Answered: 600,
					Denied: &Denied{2, 2},
					Backends: []Backend{
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
					Backends: []Backend{{Name: "large", Weight: 5, Connections: 57, Due: 57, Least: 57, Most: 57, Sources: []string{"x", "y"}}},
					Problems: []string{"3 of 60 connections failed: timeout (from balancer to tcp 203.0.113.10:80: timeout: dial tcp " +
						"0.0.0.0:10000->203.0.113.10:80: i/o timeout)"},
				},
			},
			Limits: []Limit{
				{What: "connections-per-source 5", Found: "of 8 live connections of one client 3 were refused"},
				{What: "new 1000000/second", Found: "not tried, since it takes more than 3000 connections", Skipped: true},
			},
			Outage: &Outage{Backend: "large", Trial: "IPv4 tcp", Live: 10, Ended: 10, Connections: 30, Failures: map[string]int{"refused": 25}, AfterConnections: 30},
		},
		{
			Name: "dns", Listen: []string{"a", "b", "c", "d"}, Protocol: []string{"tcp", "udp"}, Role: "client", Scheduler: "hash", SNAT: "none",
			Trials: []Trial{
				{Family: "IPv4", Protocol: "tcp", From: "host", Due: "silence", Connections: 2, Clients: 1, Failures: map[string]int{"timeout": 2}},
				{
					Family: "IPv4", Protocol: "udp", From: "host", Due: "balanced", Connections: 60, Clients: 8, Answered: 60, Kept: &Kept{8, 8},
					Backends: []Backend{{Name: "10.0.0.11", Weight: 1, Connections: 60, Due: 60, Least: 60, Most: 60, Sources: []string{"198.18.0.1"}}},
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

shop/dns  a b and 2 more  tcp,udp  hash  snat none  role client
  ok  IPv4 tcp from the balancer itself: 2 connections, 2 unanswered, since no backend can take them
  ok  IPv4 udp from the balancer itself: 60 connections of 8 clients, 8 of 8 stayed with one
      backend, as due

  note: shop/dns: SCTP is not rehearsed, since this kernel lacks it

  problem: shop/web: backend 203.0.113.10:80 is what the service itself listens on: connections come
           back to the balancer and are refused

2 problems: 2 services, 1240 connections in 0.4 s
`

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	must(t, sample.Write(&b, Style{}))
	if d := cmp.Diff(sampleText, b.String()); d != "" {
		t.Error(d)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 101 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	b.Reset()
	must(t, sample.Write(&b, Style{Color: true}))
	for _, want := range []string{"\x1b[32mok\x1b[0m", "\x1b[31m!!\x1b[0m", "\x1b[31m2 problems\x1b[0m"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in colour", want)
		}
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(&sample)
	must(t, err)
	var got struct {
		OK       bool     `json:"ok"`
		Problems []string `json:"problems"`
		Profiles []struct {
			Name     string `json:"name"`
			Services []struct {
				Trials []struct {
					Backends []struct {
						Weight, Connections int
						SourcesDue          string `json:"sources-due"`
					}
				}
			}
		}
	}
	must(t, json.Unmarshal(b, &got))
	backend := got.Profiles[0].Services[0].Trials[0].Backends[1]
	if got.OK || len(got.Problems) != 1 || got.Profiles[0].Name != "shop" || backend.Connections != 99 || backend.SourcesDue != "the client" {
		t.Errorf("got %+v", got)
	}
	if b, err = json.Marshal(&Report{}); err != nil || !strings.HasPrefix(string(b), `{"ok":true,`) {
		t.Errorf("got %s, %v", b, err)
	}
}

// many is a profile of services, each over its own backends.
func many(services, backends int) *lb.Profile {
	p := &lb.Profile{Name: "many"}
	for i := range services {
		s := service(fmt.Sprint("s", i), []lb.Listen{listenAt(fmt.Sprintf("203.0.113.%d", i+1), 80)})
		for k := range backends {
			s.Backends = append(s.Backends, backendAt(fmt.Sprintf("10.%d.%d.%d:8080", i, k/250, k%250+1), 1))
		}
		p.Services = append(p.Services, s)
	}
	return p
}

func TestMany(t *testing.T) {
	requireNFT(t)
	for _, c := range []struct{ services, backends int }{{10, 3}, {1, 300}} {
		t.Run(fmt.Sprintf("%d of %d", c.services, c.backends), func(t *testing.T) {
			begin := time.Now()
			r, err := Run(t.Context(), []*lb.Profile{many(c.services, c.backends)}, &witness{t: t}, Options{})
			must(t, err)
			if !r.OK() {
				t.Errorf("problems: %s", strings.Join(r.AllProblems(), "\n"))
			}
			t.Logf("%d connections in %s", r.Connections, time.Since(begin))
		})
	}
}

func TestInterrupted(t *testing.T) {
	requireNFT(t)
	for _, at := range []string{"building hosts", "applying many", "many/s0: IPv4 tcp", "many/s0: ending a backend"} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begin := time.Now()
			_, err := Run(ctx, []*lb.Profile{many(2, 2)}, &witness{t: t}, Options{Progress: func(what string) {
				if what == at {
					cancel()
				}
			}})
			if !errors.Is(err, context.Canceled) || time.Since(begin) > 2*time.Second {
				t.Errorf("got %v after %s", err, time.Since(begin))
			}
		})
	}
}

func TestNotApplied(t *testing.T) {
	_, err := Run(t.Context(), []*lb.Profile{many(1, 1)}, refusal{}, Options{})
	if want := "lab: apply many: no such kernel"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

type refusal struct{}

func (refusal) Apply(context.Context, []*lb.Profile) error { return errors.New("no such kernel") }

func TestDoors(t *testing.T) {
	requireNFT(t)
	p := many(1, 1)
	p.Services[0].Interface = "wan0"
	p.Services = append(p.Services, with(p.Services[0], func(s *lb.Service) { s.Name, s.Interface = "other", "lan*" }))
	l, err := New(t.Context(), []*lb.Profile{p}, &witness{t: t}, Options{})
	must(t, err)
	defer l.Close()
	var b strings.Builder
	must(t, l.WriteDoors(&b))
	for _, want := range []string{"balancer     nsenter", "clients-wan0 nsenter", "clients-lan0 nsenter", "backends     nsenter", fmt.Sprintf("--net=/proc/%d/fd/", os.Getpid())} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	r, err := l.Rehearse(t.Context())
	must(t, err)
	if !r.OK() {
		t.Errorf("problems: %s", strings.Join(r.AllProblems(), "\n"))
	}
}

// Two profiles are rehearsed in one world.
func TestTwoProfiles(t *testing.T) {
	requireNFT(t)
	a, b := *many(1, 2), *many(1, 3)
	a.Name, b.Name = "a", "b"
	b.Services[0].Listen = []lb.Listen{listenAt("203.0.113.200", 80)}
	b.Services[0].Allow = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("198.51.100.0/24")}
	r, err := Run(t.Context(), []*lb.Profile{&a, &b}, &witness{t: t}, Options{Connections: 30})
	must(t, err)
	if !r.OK() || len(r.Profiles) != 2 || len(r.Profiles[1].Services[0].Trials) != 1 {
		t.Errorf("got %+v", r)
	}
}
