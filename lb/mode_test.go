package lb_test

// Needs of services, and values that meet them.

import (
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/config"
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
		for _, n := range lb.Needs([]*lb.Profile{p, p}) {
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

func TestNeedMet(t *testing.T) {
	for _, test := range []struct {
		need  lb.Need
		found string
		want  bool
	}{
		{lb.Need{Value: "1"}, "1", true},
		{lb.Need{Value: "1"}, "2", false},
		{lb.Need{Value: "3600", AtLeast: true}, "60", false},
		{lb.Need{Value: "3600", AtLeast: true}, "3600", true},
		{lb.Need{Value: "3600", AtLeast: true}, "86400", true},
		{lb.Need{Value: "3600", AtLeast: true}, "", false},
	} {
		if got := test.need.Met(test.found); got != test.want {
			t.Errorf("%+v, found %q: %v", test.need, test.found, got)
		}
	}
}
