//go:build linux

package lab

// Faults: of a balancer, which the rehearsal must find, and of profiles, which
// it must foresee.

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

func find(name string) lb.Service {
	for _, s := range cases {
		if s.Name == name {
			return s
		}
	}
	panic(name)
}

func replace(old, new string) func(string) string {
	return func(s string) string { return strings.ReplaceAll(s, old, new) }
}

// forgetful changes a comment alone: the witness knows nothing of the key.
var forgetful = replace("# a ruleset without", "# one without")

func TestFaults(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	const n = 360
	for _, c := range []struct {
		name    string
		service lb.Service
		fault   func(string) string
		want    []string // each is in one of the problems
	}{
		{"a backend gets nothing", web, replace("2 : 65538", "2 : 65537"), []string{
			"p/web: IPv4 tcp: 10.0.0.12:8080 got 240 connections, due were 120",
			"p/web: IPv4 tcp: 10.0.0.13:8080 got 0 connections, due were 120",
		}},
		{"a small difference", find("weights"), replace("numgen inc mod 6 map { 0 : 65536", "numgen inc mod 7 map { 6 : 65536, 0 : 65536"), []string{
			"10.0.0.11:8080 got 309 connections, due were 300",
		}},
		{"random by the wrong weights", find("random"), replace("2 : 65538", "2 : 65536"), []string{
			"10.0.0.13:8080 got 0 connections, due were",
		}},
		{"no masquerading", web, replace("  ct mark 65537 masquerade\n", ""), []string{
			"10.0.0.12:8080 saw 198.18.128.1 and 15 others, due is the balancer, 198.18.0.1",
		}},
		{"masquerading", find("snat"), replace("ct mark 65537 snat", "ct mark 65537 masquerade # "), []string{
			"10.0.0.12:80 saw 198.18.0.1, due is the address that the client connected to",
		}},
		{"an address of a pool unused", find("snat"), replace("numgen inc mod 2 map { 0 : 192.0.2.1, 1 : 192.0.2.2 }", "192.0.2.1"), []string{
			"10.0.0.13:80 never saw 192.0.2.2, one of its snat addresses",
		}},
		{"the wrong port", web, replace("10.0.0.12:8080", "10.0.0.12:8081"), []string{
			"120 of 360 connections failed: refused", "10.0.0.12:8080 got 0 connections",
		}},
		{"somebody else's backend", find("both"), replace("ct mark 65536 meta l4proto { tcp, udp } dnat ip6 to [fd00::11]:8080", "ct mark 65536 dnat ip6 to fd00::12"), []string{
			"240 of 360 connections failed: refused",
		}},
		{"no service", web, replace("goto s0_ip\n", "accept\n"), []string{
			"360 of 360 connections failed: refused",
		}},
		{"silence", web, replace("chain s0_ip {", "chain s0_ip {\n drop"), []string{
			"4 of 4 connections failed: timeout",
		}},
		{"refused in silence", find("parked"), replace("goto refuse", "drop"), []string{
			"2 of 2 connections failed: timeout, due is: refused",
		}},
		{"answered, though parked", with(find("parked"), func(s *lb.Service) { s.Protocols = s.Protocols[:1] }), replace("  goto refuse", "  meta l4proto tcp dnat ip to 10.0.0.11:80"), []string{
			"2 of 2 connections were answered, due is: refused",
		}},
		{"no affinity", find("affinity"), replace("update @a_s0_ip", "# "), []string{"clients met several backends, although the affinity is to keep them"}},
		{"no hash", find("hash"), replace("jhash ip saddr mod 3 seed 0x7", "numgen inc mod 3"), []string{
			"clients met several backends, although the hash is by source-address",
		}},
		{"nobody denied", find("allow"), replace("ip saddr 192.0.2.0/28 goto refuse", ""), []string{
			"a connection of 192.0.2.1 was answered, although allow and deny turn it away",
		}},
		{"silently denied", find("allow"), replace("ip saddr != { 192.0.2.0/24 } goto refuse", "ip saddr != { 192.0.2.0/24 } drop"), []string{
			"a connection of 198.18.128.1 is to be refused, but: ",
		}},
		{"any interface", find("interface"), replace(`iifname "wan*"`, `iifname "lan*"`), []string{"360 of 360 connections failed: refused"}},
		{"not for the balancer itself", web, replace("chain output {\n  type nat hook output priority -100\n", "chain output {\n  type nat hook output priority -100\n  accept\n"), []string{
			"IPv4 tcp from the balancer itself: 60 of 60 connections failed: refused",
		}},
		{"too many of one client", find("limits"), replace("ct count over 5", "ct count over 6"), []string{
			"connections-per-source 5: 6 live connections of one client, due were 5",
		}},
		{"too few of one client", find("limits"), replace("ct count over 5", "ct count over 4"), []string{
			"connections-per-source 5: 4 live connections of one client, due were 5",
		}},
		{"too many on a backend", find("max"), replace("ct count over 20", "ct count over 22"), []string{
			"10.0.0.11:8080 had 22 live connections, due were 20",
		}},
		{"the ports of clients", with(web, func(s *lb.Service) { s.RandomPorts = true }), forgetful, []string{
			"10.0.0.12:8080 saw 120 of 120 connections with the client's port, due is one at random",
		}},
		{"too many half-open", with(web, func(s *lb.Service) { s.Limit.HalfOpen = 40 }), forgetful, []string{
			"half-open 40: 43 half-open connections, due were 40",
		}},
		{"too fast", find("limit"), replace("limit rate over 20/second", "limit rate over 50000/second"), []string{
			"were let through, due were 1 to",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // the waiting, mostly
			w := &witness{t: t, fault: c.fault}
			r, err := rehearsed(t.Context(), []*lb.Profile{{Name: "p", Services: []lb.Service{c.service}}}, w, Options{Connections: n, patience: 500 * time.Millisecond})
			netlabtest.Must(t, err)
			all := strings.Join(r.AllProblems(), "\n")
			for _, want := range c.want {
				if !strings.Contains(all, want) {
					t.Errorf("got\n%s\nwant %q", all, want)
				}
			}
		})
	}
}

// A backend that stays although the profile has it no longer.
func TestFaultOfRemoval(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	w := &witness{t: t}
	first := ""
	w.fault = func(s string) string {
		if first == "" {
			first = s
		}
		return first + "\n"
	}
	r, err := rehearsed(t.Context(), []*lb.Profile{{Name: "p", Services: []lb.Service{web}}}, w, Options{Connections: 30})
	netlabtest.Must(t, err)
	want := "p/web: IPv4 tcp, without 10.0.0.11:8080: 10 new connections failed"
	if all := strings.Join(r.AllProblems(), "\n"); !strings.HasPrefix(all, want) {
		t.Errorf("got %s, want %s", all, want)
	}
	if w.applied != 3 {
		t.Errorf("applied %d times, want 3: at first, without a backend, and again", w.applied)
	}
}

func TestForesight(t *testing.T) {
	t.Parallel()
	none := func(at string) lb.Backend { return snat(backendAt(at, 1), lb.SNATNone) }
	for _, c := range []struct {
		name            string
		service         lb.Service
		problems, notes []string
	}{
		{"nothing", web, nil, nil},
		{"itself", service("s", vip, backendAt("203.0.113.10:80", 1)), []string{
			"p/s: backend 203.0.113.10:80 is what the service itself listens on: a connection is not balanced twice, so it ends on the balancer",
		}, nil},
		{"itself, any port", service("s", vip, backendAt("203.0.113.10", 1)), []string{
			"p/s: backend 203.0.113.10 is what the service itself listens on: a connection is not balanced twice, so it ends on the balancer",
		}, nil},
		{"another service", service("s", vip, backendAt("203.0.113.99:80", 1)), []string{
			"p/s: backend 203.0.113.99:80 is what p/other listens on: a connection is not balanced twice, so it ends on the balancer",
		}, nil},
		{"another port of the balancer", service("s", vip, backendAt("203.0.113.10:8080", 1)), nil, nil},
		{"link-local", service("s", []lb.Listen{listenAt("2001:db8::1", 80)}, backendAt("[fe80::1]:80", 1)), []string{
			"p/s: backend [fe80::1]:80 is a link-local address: it is not reached through a router",
		}, nil},
		{"one network, surely", with(service("s", vip, none("10.0.0.11:80")), func(s *lb.Service) {
			s.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.64/26"), netip.MustParsePrefix("192.0.2.0/24")}
		}), []string{
			"p/s: backend 10.0.0.11:80 is in one network with clients 10.0.0.64/26, and snat is none: it answers them directly, " +
				"past the balancer, and they do not know the answer; use snat masquerade",
		}, nil},
		{"one network, maybe", service("s", vip, none("203.0.113.11:80")), nil, []string{
			"p/s: snat is none, and backends are in the network of 203.0.113.10, 203.0.113.0/24: clients that are in it too get their " +
				"answers past the balancer, and drop them",
		}},
		{"all parked", service("s", vip, backendAt("10.0.0.11:80", 0)), nil, []string{
			"p/s: no IPv4 backend can take a connection: all are refused",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			other := service("other", []lb.Listen{listenAt("203.0.113.99", 80)}, backendAt("10.0.0.1:80", 1))
			s := draft([]*lb.Profile{{Name: "p", Services: []lb.Service{c.service, other}}}, 10, false)
			problems := foresee(s)
			if got, want := strings.Join(problems, "\n"), strings.Join(c.problems, "\n"); got != want {
				t.Errorf("problems:\n%s\nwant\n%s", got, want)
			}
			if got, want := strings.Join(s.notes, "\n"), strings.Join(c.notes, "\n"); got != want {
				t.Errorf("notes:\n%s\nwant\n%s", got, want)
			}
		})
	}
}
