package needs_test

// Needs of services, and values that meet them.

import (
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/needs"
)

func TestNeeds(t *testing.T) {
	const forward4, forward6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
	const tcp = "net.netfilter.nf_conntrack_tcp_be_liberal net.netfilter.nf_conntrack_tcp_timeout_close_wait"
	for _, test := range []struct{ service, want string }{
		{`listen: "203.0.113.10:80", backends: "10.0.0.11:80"`, forward4 + " " + tcp},
		{`listen: "[2001:db8::1]:80", backends: "[fd00::1]:80"`, forward6 + " " + tcp},
		{`listen: "203.0.113.10:80", protocol: [udp, sctp], backends: "10.0.0.11:80"`, forward4},
		{`listen: "203.0.113.10:80", role: client, backends: "10.0.0.11:80"`, tcp},
		{`listen: "203.0.113.10:80", backends: ":8080"`, tcp},
		{`listen: "203.0.113.10:80", backends: []`, ""},
	} {
		p, err := config.Parse("p.yaml", []byte("services: [{name: s, "+test.service+"}]"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		wanted := false
		for _, n := range needs.Of([]*lb.Profile{p, p}) {
			got = append(got, n.Param)
			if wanted && !n.Wanted {
				t.Errorf("%s: %s comes after those that are only wanted", test.service, n.Param)
			}
			wanted = n.Wanted
			if wanted != strings.Contains(n.Param, "netfilter") {
				t.Errorf("%s: %s: wanted is %v", test.service, n.Param, wanted)
			}
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%s: needs %q, want %q", test.service, got, test.want)
		}
	}
}

// TestFleets: what is only wanted of one balancer is required where connections come
// from others.
func TestFleets(t *testing.T) {
	for _, test := range []struct{ profile, required string }{
		{"services: [{name: s, listen: \"203.0.113.10:80\", snat: none, backends: 10.0.0.11}]", "ip_forward"},
		{"fleet: pair\nservices: [{name: s, listen: \"203.0.113.10:80\", snat: none, backends: 10.0.0.11}]", "ip_forward be_liberal"},
		{"fleet: mesh\nservices: [{name: s, listen: \"203.0.113.10:80\", snat: none, backends: 10.0.0.11}]", "ip_forward be_liberal loose"},
		{"fleet: mesh\nservices: [{name: s, listen: \"203.0.113.10:80\", snat: none, backends: []}]", ""},
		{"fleet: mesh\nservices: [{name: s, listen: \"203.0.113.10:80\", snat: none, protocol: udp, backends: 10.0.0.11}]", "ip_forward"},
		{"fleet: mesh\nservices: [{name: s, listen: \"203.0.113.10:80\", snat: none, role: client, backends: 10.0.0.11}]", ""},
	} {
		p, err := config.Parse("p.yaml", []byte(test.profile))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range needs.Of([]*lb.Profile{p}) {
			if !n.Wanted {
				got = append(got, strings.TrimPrefix(n.Param[strings.LastIndex(n.Param, ".")+1:], "nf_conntrack_tcp_"))
			}
		}
		if got := strings.Join(got, " "); got != test.required {
			t.Errorf("%s: requires %q, want %q", test.profile, got, test.required)
		}
	}
}

func TestNeedMet(t *testing.T) {
	for _, test := range []struct {
		need  needs.Need
		found string
		want  bool
	}{
		{needs.Need{Value: "1"}, "1", true},
		{needs.Need{Value: "1"}, "2", false},
		{needs.Need{Value: "3600", AtLeast: true}, "60", false},
		{needs.Need{Value: "3600", AtLeast: true}, "3600", true},
		{needs.Need{Value: "3600", AtLeast: true}, "86400", true},
		{needs.Need{Value: "3600", AtLeast: true}, "", false},
	} {
		if got := test.need.Met(test.found); got != test.want {
			t.Errorf("%+v, found %q: %v", test.need, test.found, got)
		}
	}
}
