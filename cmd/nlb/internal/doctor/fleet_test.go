package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/config"
)

const goodVRRP = "global_defs {\n  vrrp_version 3\n}\nvrrp_instance a {\n  advert_int 0.1\n  track_file { nlb }\n  virtual_ipaddress { 203.0.113.10/32 }\n}\n"

// TestFleet: each way in which addresses or daemons are not as they should be is found,
// and nothing where they are.
func TestFleet(t *testing.T) {
	vip := netip.MustParseAddr("203.0.113.10")
	held := []Link{{Name: "lo", Loopback: true, Addrs: []Addr{{Prefix: netip.PrefixFrom(vip, 32)}}}}
	agent := Agent{Running: true, Profiles: []string{"shop"}}
	pair := func(keepalived, conntrackd string) map[string]Daemon {
		out := map[string]Daemon{"keepalived": {File: "k.conf", Config: keepalived}}
		if conntrackd != "" {
			out["conntrackd"] = Daemon{File: "c.conf", Config: conntrackd}
		}
		return out
	}
	const good = "Sync {\n Mode FTFW {\n DisableExternalCache On\n}\n}\n"
	for _, tt := range []struct {
		name     string
		host     Host
		announce bool
		want     string // check: problem; empty: none
	}{
		{"announced", Host{Links: held, Announced: []netip.Addr{vip}, Agent: agent}, true, ""},
		{"nobody wants it", Host{}, false, ""},
		{"nobody is up", Host{Agent: agent}, true, "announce: it is not announced"},
		{"without nlb run", Host{}, true, "announce: it is not announced"},
		{"left by a killed one", Host{Links: held, Announced: []netip.Addr{vip}}, true, "announce: it is announced, and nobody looks"},
		{"an admin's", Host{Links: held, Agent: agent}, true, "announce: it stays here, whoever is up"},
		{"a pair", Host{Daemons: pair(goodVRRP, good)}, false, ""},
		{"another pair", Host{Daemons: map[string]Daemon{"keepalived": {Config: "vrrp_instance a { virtual_ipaddress { 203.0.113.100/32 } }"}}}, false, ""},
		{"VRRP of version 2", Host{Daemons: pair(strings.Replace(goodVRRP, "vrrp_version 3", "# vrrp_version 3", 1), good)}, false, "keepalived: a host that dies is noticed after 3 seconds"},
		{"whole seconds", Host{Daemons: pair(strings.NewReplacer("vrrp_version 3", "", "0.1", "1").Replace(goodVRRP), good)}, false, ""},
		{"nothing is tracked", Host{Daemons: pair(strings.Replace(goodVRRP, "track_file { nlb }", "", 1), good)}, false, "keepalived: this host keeps the addresses"},
		{"without conntrackd", Host{Daemons: pair(goodVRRP, "")}, false, "keepalived: open connections end"},
		{"with a cache", Host{Daemons: pair(goodVRRP, "Sync {\n Mode FTFW {\n # DisableExternalCache On\n}\n}\n")}, false, "conntrackd: entries of other hosts wait"},
	} {
		text := "profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", snat: none, backends: 10.0.0.1}]\n"
		if tt.announce {
			text = "announce: lo\n" + text
		}
		p, err := config.Parse("shop.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		e := &exam{Ask: Ask{Profiles: []*lb.Profile{p}}, Host: &tt.host}
		for name, look := range map[string]func(*exam){"announce": (*exam).announced, "keepalived": (*exam).keepalived, "conntrackd": (*exam).conntrackd} {
			e.check = name
			look(e)
		}
		var got []string
		for _, f := range e.found {
			if f.Level != OK {
				got = append(got, f.Check+": "+f.Problem)
			}
		}
		if text := strings.Join(got, "\n"); len(got) > 1 || !strings.HasPrefix(text, tt.want) || (text == "") != (tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.name, text, tt.want)
		}
	}
}

// TestEntries: who needs conntrackd is told where it does not run, or shares nothing.
func TestEntries(t *testing.T) {
	missing, idle := map[string]Daemon{}, map[string]Daemon{"conntrackd": {File: "c.conf", Config: "General {\n}\n"}}
	for _, tt := range []struct {
		file, service string
		daemons       map[string]Daemon
		want          string // in what is found; empty: nothing is
	}{
		{"fleet: mesh", "", missing, "fleet: mesh, and conntrackd does not run"},
		{"fleet: mesh", "", idle, "this configuration has no Sync"},
		{"fleet: mesh", "", map[string]Daemon{"conntrackd": {Config: "Sync {\n DisableExternalCache On\n}\n"}}, ""},
		{"fleet: mesh", "scheduler: consistent, ", missing, ""},
		{"fleet: pair", "scheduler: consistent, ", missing, "fleet: pair, and conntrackd does not run"},
		{"fleet: pair", "", map[string]Daemon{"keepalived": {Config: goodVRRP}}, ""},
		{"fleet: none", "", idle, ""},
		{"fleet: anycast", "scheduler: consistent, ", missing, ""},
	} {
		p, err := config.Parse("shop.yaml", []byte(tt.file+"\nservices: [{name: web, listen: \"203.0.113.10:80\", snat: none, "+tt.service+"backends: 10.0.0.1}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		e := &exam{Ask: Ask{Profiles: []*lb.Profile{p}}, Host: &Host{Daemons: tt.daemons}, check: "conntrackd"}
		e.conntrackd()
		var got []string
		for _, f := range e.found {
			if f.Level != OK {
				got = append(got, f.Why)
			}
		}
		if text := strings.Join(got, "\n"); !strings.Contains(text, tt.want) || (text == "") != (tt.want == "") {
			t.Errorf("%s, %s: %q, want %q", tt.file, tt.service, text, tt.want)
		}
	}
}
