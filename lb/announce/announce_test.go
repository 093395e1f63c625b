package announce

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"nlb/lb"
	"nlb/lb/config"
)

func parse(t *testing.T, text string) *lb.Profile {
	t.Helper()
	p, err := config.Parse("shop.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const shop = `
announce: {interface: lo, delay: 10s}
services:
  - {name: web, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], health: tcp, backends: [10.0.0.1, 10.0.0.2, "fd00::1"]}
  - {name: tls, listen: "203.0.113.10:443", backends: {address: 10.0.0.3, weight: 0}}
  - {name: dns, listen: "203.0.113.9:53", protocol: udp, backends: 10.0.0.4}
  - {name: own, listen: ":8080", role: server, backends: 192.0.2.1}
  - {name: loop, listen: "127.0.0.9:80", backends: 10.0.0.1}
`

func serves(_ *lb.Profile, s *lb.Service, f lb.Family) bool { return Serves(s, f) }

// serving are the addresses that serve, out of those that there are.
func serving(profiles ...*lb.Profile) string {
	var out []string
	for _, v := range VIPs(profiles, serves) {
		mark := "-"
		if v.Serves {
			mark = "+"
		}
		out = append(out, mark+v.Addr.String())
	}
	return fmt.Sprint(out)
}

// TestServes: what is known of backends decides whether their address has somebody.
func TestServes(t *testing.T) {
	up, down := lb.Standing{Verdict: lb.VerdictUp}, lb.Standing{Verdict: lb.VerdictDown}
	for _, tt := range []struct {
		name     string
		one, two lb.Standing // of web's backends of IPv4
		six      lb.Standing
		want     string
	}{
		{"nobody was checked", lb.Standing{}, lb.Standing{}, lb.Standing{}, "[+203.0.113.9 -203.0.113.10 -2001:db8::10]"},
		{"one is up", up, down, down, "[+203.0.113.9 +203.0.113.10 -2001:db8::10]"},
		{"all are down: health is ignored, but not here", down, down, down, "[+203.0.113.9 -203.0.113.10 -2001:db8::10]"},
		{"of the other family", down, down, up, "[+203.0.113.9 -203.0.113.10 +2001:db8::10]"},
		{"drained", lb.Standing{Verdict: lb.VerdictUp, Order: lb.OrderDrain}, down, up, "[+203.0.113.9 -203.0.113.10 +2001:db8::10]"},
	} {
		p := parse(t, shop)
		known := map[lb.BackendID]lb.Standing{}
		for i, s := range []lb.Standing{tt.one, tt.two, tt.six} {
			known[lb.BackendID{Profile: "shop", Service: "web", Address: p.Services[0].Backends[i].Address}] = s
		}
		if got := serving(lb.Overlay([]*lb.Profile{p}, known, nil)...); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestVIPs: an address is there once, as the first profile has it, and only of
// profiles that announce.
func TestVIPs(t *testing.T) {
	first := parse(t, "announce: lo\nservices: [{name: a, listen: \"203.0.113.10:80\", backends: []}]")
	second := parse(t, "announce: nlb0\nservices: [{name: a, listen: \"203.0.113.10:81\", backends: 10.0.0.1}]")
	silent := parse(t, "services: [{name: a, listen: \"203.0.113.11:81\", backends: 10.0.0.1}]")
	got := VIPs([]*lb.Profile{silent, first, second}, serves)
	if len(got) != 1 || got[0].Interface != "lo" || !got[0].Serves {
		t.Errorf("%+v", got)
	}
}

// TestJudge: an address waits for its delay, from the moment on when it serves, and
// goes at once.
func TestJudge(t *testing.T) {
	a, b := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11")
	held := map[netip.Addr]bool{}
	j, began := Judge{}, time.Unix(1000, 0)
	for _, step := range []struct {
		at     time.Duration
		aServe bool
		want   string
		next   time.Duration // after began
	}{
		{0, true, "[203.0.113.11]", 10 * time.Second},
		{5 * time.Second, false, "[203.0.113.11]", 0},
		{6 * time.Second, true, "[203.0.113.11]", 16 * time.Second},
		{15 * time.Second, true, "[203.0.113.11]", 16 * time.Second},
		{16 * time.Second, true, "[203.0.113.10 203.0.113.11]", 0},
		{17 * time.Second, false, "[203.0.113.11]", 0},
	} {
		due, next := j.Due([]VIP{
			{Addr: a, Announce: lb.Announce{Delay: 10 * time.Second}, Serves: step.aServe},
			{Addr: b, Announce: lb.Announce{}, Serves: true},
		}, func(a netip.Addr) bool { return held[a] }, began.Add(step.at))
		var got []string
		clear(held)
		for _, v := range due {
			got, held[v.Addr] = append(got, v.Addr.String()), true
		}
		want := time.Time{}
		if step.next > 0 {
			want = began.Add(step.next)
		}
		if fmt.Sprint(got) != step.want || !next.Equal(want) {
			t.Errorf("after %s: %v, next %s, want %s, next %s", step.at, got, next, step.want, want)
		}
	}
}

// TestTakenOver: what a dead agent left goes on without a delay, where it serves.
func TestTakenOver(t *testing.T) {
	a, b := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11")
	var j Judge
	due, _ := j.Due([]VIP{
		{Addr: a, Announce: lb.Announce{Delay: time.Hour}, Serves: true}, {Addr: b, Announce: lb.Announce{Delay: time.Hour}},
	}, func(netip.Addr) bool { return true }, time.Unix(0, 0))
	if !slices.EqualFunc(due, []netip.Addr{a}, func(v VIP, a netip.Addr) bool { return v.Addr == a }) {
		t.Errorf("%+v", due)
	}
}

// TestHealthOf: one service that has somebody is enough, whatever is asked about.
func TestHealthOf(t *testing.T) {
	profiles := []*lb.Profile{parse(t, shop)}
	for _, tt := range []struct {
		name string
		want string
	}{
		{"", "{true 4 5 [shop/tls]} true"},
		{"shop", "{true 4 5 [shop/tls]} true"},
		{"shop/dns", "{true 1 1 []} true"},
		{"shop/tls", "{false 0 1 [shop/tls]} true"},
		{"sho", "{false 0 0 []} false"},
		{"shop/", "{false 0 0 []} false"},
	} {
		state := func(_ *lb.Profile, s *lb.Service, f lb.Family) bool {
			c := *s
			c.Health = nil // as the kernel has it
			return Serves(&c, f)
		}
		got, found := HealthOf(profiles, tt.name, state)
		if text := fmt.Sprint(got, found); text != tt.want {
			t.Errorf("%q: %s, want %s", tt.name, text, tt.want)
		}
	}
}
