package lb

import (
	"net/netip"
	"reflect"
	"testing"
)

// TestCompare changes a service in one way, and has what is said of it.
func TestCompare(t *testing.T) {
	shop := func(change func(*Service)) []*Profile {
		backend := func(address string) Backend {
			return Backend{Name: address, Address: Endpoint{Addr: netip.MustParseAddr(address)}, Weight: 1}
		}
		s := Service{
			Name: "web", Protocols: []Protocol{TCP},
			Listen: []Listen{
				{Prefix: netip.MustParsePrefix("203.0.113.1/32"), Ports: []PortRange{{80, 80}, {443, 443}}},
				{Prefix: netip.MustParsePrefix("203.0.113.2/32"), Ports: []PortRange{{80, 80}}},
			},
			Backends: []Backend{backend("10.0.0.1"), backend("10.0.0.2")},
		}
		change(&s)
		return []*Profile{{Name: "shop", Services: []Service{s}}}
	}
	same := func(*Service) {}
	empty := func(s *Service) { s.Backends = nil }
	log := &Log{Prefix: "web ", Level: LogInfo}
	for _, tt := range []struct {
		name       string
		have, want func(*Service)
		changes    []string
	}{
		{"nothing", same, same, nil},
		{"the order of backends", same, func(s *Service) { s.Backends[0], s.Backends[1] = s.Backends[1], s.Backends[0] }, nil},
		{"how listens are spelled", same, func(s *Service) {
			s.Listen[0], s.Listen[1] = s.Listen[1], Listen{Prefix: s.Listen[0].Prefix, Ports: s.Listen[0].Ports[:1]}
			s.Listen = append(s.Listen, Listen{Prefix: s.Listen[1].Prefix, Ports: []PortRange{{443, 443}}})
		}, nil},
		{"a state", same, func(s *Service) { s.Backends[0].State = Down }, nil},
		{"what each backend has of its own", same, func(s *Service) { s.SNAT.Mode, s.Log = SNATVIP, log }, nil},
		{"on-empty with backends", same, func(s *Service) { s.OnEmpty = Drop }, nil},
		{
			"on-empty without backends", empty, func(s *Service) { s.Backends, s.OnEmpty = nil, Drop },
			[]string{"~ service shop/web  on-empty reject -> drop"},
		},
		{
			"a log without backends", empty, func(s *Service) { s.Backends, s.Log = nil, log },
			[]string{`~ service shop/web  log none -> level info, prefix "web "`},
		},
		{"several keys", same, func(s *Service) {
			s.Role, s.Interface, s.Scheduler, s.Deny = RoleServer, "eth0", Random, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			s.Backends[0].Weight, s.Backends[0].MaxConnections, s.Backends[0].Log, s.Backends[0].SNAT.Mode = 2, 3, log, SNATNone
		}, []string{
			"~ service shop/web  role proxy -> server, interface none -> eth0, scheduler round-robin -> random, deny none -> [10.0.0.0/8]",
			`~ backend shop/web 10.0.0.1  weight 1 -> 2, max-connections none -> 3, log none -> level info, prefix "web ", snat masquerade -> none`,
		}},
	} {
		var got []string
		for _, c := range Compare(shop(tt.have), shop(tt.want)) {
			got = append(got, c.String())
		}
		if !reflect.DeepEqual(got, tt.changes) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.changes)
		}
	}
}

// TestFirstDifference names fields that no key describes.
func TestFirstDifference(t *testing.T) {
	type inner struct{ MaxPackets uint32 }
	type outer struct {
		Pos   Pos
		SNAT  SNAT
		Inner *inner
		Words []string
	}
	for _, tt := range []struct {
		have, want outer
		difference string
	}{
		{outer{Pos: Pos{Line: 1}}, outer{Pos: Pos{Line: 2}}, ""},
		{outer{Inner: &inner{1}}, outer{Inner: &inner{2}}, "inner.max-packets 1 -> 2"},
		{outer{SNAT: SNAT{Mode: SNATVIP}}, outer{}, "snat.mode vip -> masquerade"},
		{outer{}, outer{Words: []string{"a"}}, "words [] -> [a]"},
	} {
		if got := walker.Difference("", reflect.ValueOf(tt.have), reflect.ValueOf(tt.want)); got != tt.difference {
			t.Errorf("%q, want %q", got, tt.difference)
		}
	}
	if d := walker.Difference("", reflect.ValueOf(outer{}), reflect.ValueOf(outer{Inner: &inner{}})); d == "" {
		t.Error("nil is what a pointer is to")
	}
}
