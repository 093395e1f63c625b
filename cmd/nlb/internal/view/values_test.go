//go:build linux

package view

// Changes of kernel parameters, in words.

import "testing"

func TestAssignments(t *testing.T) {
	ra := func(link, from string) Parameter {
		return Parameter{"net.ipv6.conf." + link + ".accept_ra", from, "2"}
	}
	forward := Parameter{"net.ipv6.conf.all.forwarding", "0", "1"}
	for _, test := range []struct {
		changes []Parameter
		want    string
	}{
		{nil, ""},
		{[]Parameter{forward}, "net.ipv6.conf.all.forwarding=1 (was 0)"},
		{[]Parameter{ra("eth0", "1"), forward}, "net.ipv6.conf.eth0.accept_ra=2 (was 1), net.ipv6.conf.all.forwarding=1 (was 0)"},
		{
			[]Parameter{ra("default", "1"), ra("eth0", "1"), {"net/ipv6/conf/eth0.5/accept_ra", "1", "2"}, ra("eth1", "1"), ra("eth2", "1"), forward},
			"net.ipv6.conf.{default,eth0}.accept_ra=2 (was 1), net/ipv6/conf/eth0.5/accept_ra=2 (was 1), net.ipv6.conf.{eth1,eth2}.accept_ra=2 (was 1), net.ipv6.conf.all.forwarding=1 (was 0)",
		},
		{[]Parameter{ra("eth0", "1"), ra("eth1", "0")}, "net.ipv6.conf.eth0.accept_ra=2 (was 1), net.ipv6.conf.eth1.accept_ra=2 (was 0)"},
	} {
		if got := Assignments(test.changes, "was"); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}
