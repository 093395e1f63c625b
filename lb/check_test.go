package lb_test

import (
	"net/netip"
	"testing"
	"time"

	"nlb/lb"
)

func TestCheckTarget(t *testing.T) {
	one, many := []lb.PortRange{{First: 80, Last: 80}}, []lb.PortRange{{First: 80, Last: 80}, {First: 443, Last: 443}}
	server, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::9")
	for _, tt := range []struct {
		name  string
		ports []lb.PortRange
		check lb.Check
		port  uint16
		at    lb.CheckAt
		want  string
	}{
		{"the backend's port", many, lb.Check{}, 8080, lb.CheckAt{}, "10.0.0.1:8080"},
		{"the listen's", one, lb.Check{}, 0, lb.CheckAt{}, "10.0.0.1:80"},
		{"one of many", many, lb.Check{}, 0, lb.CheckAt{}, "10.0.0.1:0"},
		{"all ports", []lb.PortRange{lb.AllPorts}, lb.Check{}, 0, lb.CheckAt{}, "10.0.0.1:0"},
		{"the check's", one, lb.Check{Port: 9000}, 8080, lb.CheckAt{Port: 7}, "10.0.0.1:9000"},
		{"another port", one, lb.Check{}, 8080, lb.CheckAt{Port: 7}, "10.0.0.1:7"},
		{"another address", one, lb.Check{}, 8080, lb.CheckAt{Addr: other}, "[fd00::9]:8080"},
		{"both", one, lb.Check{}, 0, lb.CheckAt{Addr: other, Port: 7}, "[fd00::9]:7"},
		{"a ping", one, lb.Check{Kind: lb.CheckICMP}, 8080, lb.CheckAt{Addr: other, Port: 7}, "[fd00::9]:0"},
		{"a command", many, lb.Check{Kind: lb.CheckExec}, 8080, lb.CheckAt{}, "10.0.0.1:8080"},
		{"a command without", many, lb.Check{Kind: lb.CheckExec}, 0, lb.CheckAt{}, "10.0.0.1:0"},
	} {
		s := lb.Service{Listen: []lb.Listen{{Ports: tt.ports}, {Ports: tt.ports}}}
		b := lb.Backend{Address: lb.Endpoint{Addr: server, Port: tt.port}, CheckAt: tt.at}
		if got := s.CheckTarget(&tt.check, &b).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestCheckRate(t *testing.T) {
	s := lb.Service{Backends: make([]lb.Backend, 3)}
	s.Backends[2].CheckAt.None = true
	p := &lb.Profile{Services: []lb.Service{s, s}}
	if got := lb.CheckRate([]*lb.Profile{p}); got != 0 {
		t.Errorf("%v checks a second without checks", got)
	}
	p.Services[1].Health = []lb.Check{lb.DefaultCheck(lb.CheckTCP), {Interval: 100 * time.Millisecond}}
	if got := lb.CheckRate([]*lb.Profile{p, p}); got != 2*2*(0.5+10) {
		t.Errorf("%v checks a second, want 42", got)
	}
	if s, bad := p.CheckRateProblem(); bad != nil {
		t.Errorf("%v: %v", s, bad)
	}
	p.Services[1].Backends = make([]lb.Backend, 3000)
	if s, bad := p.CheckRateProblem(); bad == nil || s != &p.Services[1] {
		t.Errorf("%v checks a second are none too many: %v", lb.CheckRate([]*lb.Profile{p}), bad)
	}
}
