package doctor

import (
	"strings"
	"testing"
	"time"

	"nlb/lb"
)

// TestHealth: whom checks hold down while nobody makes them, where health is ignored,
// and which checks cannot be made.
func TestHealth(t *testing.T) {
	at := time.Date(2026, 11, 26, 14, 3, 7, 0, time.Local)
	fallen := Fallen{Profile: "shop", Service: "web", Backend: "b1", Since: at, Reason: "tcp: refused"}
	elsewhere, open := fallen, fallen
	elsewhere.Profile, open.Open = "mail", true
	keeps := Agent{Running: true, Profiles: []string{"shop"}, Groups: []int{7, 100}}
	const pings = "warn health shop/web: its backends cannot be pinged"
	for _, tt := range []struct {
		name   string
		kind   lb.CheckKind
		agent  Agent
		fallen []Fallen
		groups string
		want   string // empty: nothing
	}{
		{name: "nothing checks", want: ""},
		{name: "checked", agent: keeps, fallen: []Fallen{fallen}},
		{name: "held down", fallen: []Fallen{fallen}, want: "warn health shop/web b1: it is held down by health, and nobody checks it"},
		{name: "another agent's", fallen: []Fallen{fallen}, agent: Agent{Running: true, Profiles: []string{"mail"}}, want: "warn health shop/web b1: it is held down by health, and nobody checks it"},
		{name: "not asked for", fallen: []Fallen{elsewhere}},
		{name: "open", fallen: []Fallen{open}, agent: keeps, want: "warn health shop/web: too few backends are up: those that are down get connections, too"},
		{name: "in trouble", agent: Agent{Running: true, Profiles: []string{"shop"}, Trouble: "Keeps what was read before."}, want: "warn health : nlb run is not as it should be"},
		{name: "commands", kind: lb.CheckExec},
		{name: "commands that are refused", kind: lb.CheckExec, agent: keeps, want: "fail health shop/web: its checks run commands, and nlb run refuses that"},
		{name: "commands that are not", kind: lb.CheckExec, agent: Agent{Running: true, AllowExec: true}},
		{name: "pings, not known", kind: lb.CheckICMP},
		{name: "pings of nobody", kind: lb.CheckICMP, groups: "1\t0", want: pings},
		{name: "pings of root", kind: lb.CheckICMP, groups: "0\t0", want: pings},
		{name: "pings of everybody", kind: lb.CheckICMP, groups: "0\t2147483647"},
		{name: "pings of the agent", kind: lb.CheckICMP, agent: keeps, groups: "100\t100"},
		{name: "pings of others than the agent", kind: lb.CheckICMP, agent: keeps, groups: "101\t65535", want: pings},
		{name: "tcp needs no pings", agent: keeps, groups: "1\t0"},
	} {
		p := shop(t, "")
		p.Services[0].Health = []lb.Check{{Kind: tt.kind}}
		h := router(p)
		h.Agent, h.Ours.Fallen = tt.agent, tt.fallen
		if tt.groups != "" {
			h.Params[pingGroups] = tt.groups
		}
		if got := strings.Join(sick(h, p), "; "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	p := shop(t, "")
	h := router(p)
	h.Ours.Fallen = []Fallen{fallen}
	for _, tt := range []struct {
		files []string
		want  string
	}{{nil, "systemctl start nlb-agent"}, {[]string{"shop.yaml"}, "nlb apply --forget-health shop.yaml"}} {
		found := Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}, Files: tt.files})
		if f := found[len(found)-1]; f.Mend != tt.want || f.Why != "found at 2026-11-26 14:03:07: tcp: refused; no nlb run keeps its profile" {
			t.Errorf("%v: got %+v", tt.files, f)
		}
	}
	h.Blind["health"] = true // whether an agent runs is not known
	if got := sick(h, p); len(got) > 0 {
		t.Errorf("blind: %v", got)
	}
}

// TestRefusals: services that have servers and refuse clients, and why.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(s *lb.Service)
		want   string
		mend   string
	}{
		{name: "all serve", change: func(*lb.Service) {}},
		{name: "one of two is drained", change: func(s *lb.Service) { s.Backends[0].Standing.Order, s.Backends[0].State = lb.OrderDrain, lb.Draining }},
		{name: "there are none", change: func(s *lb.Service) { s.Backends = s.Backends[:2] }},
		{name: "without a weight", change: func(s *lb.Service) { s.Backends[2].Weight = 0 }},
		{
			"by order", func(s *lb.Service) {
				s.Backends[2].Standing.Order, s.Backends[2].State, s.OnEmpty = lb.OrderDisable, lb.Down, lb.Drop
			},
			"no backend takes IPv6 connections: they are dropped; [fd02::11]:8080 is disabled by order", "nlb enable shop/web/[fd02::11]:8080",
		},
		{
			"one is down, one drained", func(s *lb.Service) {
				s.Backends[0].Standing, s.Backends[0].State = lb.Standing{Verdict: lb.VerdictDown, Reason: "tcp: refused"}, lb.Down
				s.Backends[1].Standing.Order, s.Backends[1].State = lb.OrderDrain, lb.Draining
			},
			"no backend takes IPv4 connections: they are refused; 10.2.0.11:8080 is down: tcp: refused; 10.2.0.12:8080 is drained by order", "nlb enable shop/web/10.2.0.12:8080",
		},
	} {
		p := shop(t, "")
		tt.change(&p.Services[0])
		h := router(p)
		h.Ours.Held = []*lb.Profile{p}
		var got, mend string
		for _, f := range Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}}) {
			if f.Level == Fail && f.Check == "health" {
				got, mend = f.Problem+"; "+f.Why, f.Mend
			}
		}
		if got != tt.want || mend != tt.mend {
			t.Errorf("%s: got %q, mend %q", tt.name, got, mend)
		}
		if other := []*lb.Profile{{Name: "other"}}; len(sick(h, other...)) > 0 && tt.want != "" {
			t.Errorf("%s: it is not asked for, got %v", tt.name, sick(h, other...))
		}
	}
}
