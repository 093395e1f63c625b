package daemons

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/config"
)

var update = flag.Bool("update", false, "rewrite testdata")

const shop = `profile: shop
announce: {interface: vips}
services:
  - {name: web, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], snat: none, backends: ["10.2.0.11", "fd02::11"]}
  - {name: dns, listen: "203.0.113.11:53", protocol: udp, snat: 10.2.0.9, backends: 10.2.0.11}
  - {name: own, listen: ":8080", role: server, snat: none, backends: 192.0.2.5}
`

func parse(t *testing.T, text string) []*lb.Profile {
	t.Helper()
	p, err := config.Parse("shop.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return []*lb.Profile{p}
}

var whereabouts = []string{
	"self=10.9.0.2", "peer=10.9.0.3", "as=65001", "front=10.9.0.1/65000", "front=2001:db8:9::1/65000", "back=10.8.0.1/65002",
	"interface=eth0", "back-interface=eth1", "back-address=10.2.0.1/24", "back-address=fd02::1/64", "vrid=254",
}

// TestWrite: the files are those in testdata. integration has the daemons load them.
func TestWrite(t *testing.T) {
	for _, daemon := range append([]string{"conntrackd mesh"}, Names...) {
		name, mesh, _ := strings.Cut(daemon, " ")
		with := whereabouts
		if mesh != "" {
			with = append([]string{"peer=10.9.0.4"}, with...)
		}
		got, _, err := Write(name, parse(t, shop), with)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", strings.ReplaceAll(daemon, " ", "-")+".conf")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-want +got)\n%s", file, d)
		}
	}
}

// TestNotes: what a file cannot know, or what does not go together, is said.
func TestNotes(t *testing.T) {
	silent := strings.Replace(shop, "announce: {interface: vips}\n", "", 1)
	for _, tt := range []struct {
		daemon, profile string
		with            []string
		want            string // in the notes; empty: there are none
	}{
		{"bird", shop, nil, "examples stand for self, as and front: say --with self=…, or edit it"},
		{"bird", shop, whereabouts, ""},
		{"bird", silent, whereabouts, "no profile has announce"},
		{"frr", shop, []string{"front=10.9.0.1/65000"}, "those of ipv6 are not announced"},
		{"keepalived", silent, whereabouts, ""},
		{"keepalived", shop, whereabouts, "nlb run gives its addresses to both hosts"},
		{"keepalived", strings.Replace(silent, "snat: none, ", "", 1), whereabouts, "their connections end at a handover"},
		{"conntrackd", shop, whereabouts, ""},
	} {
		_, notes, err := Write(tt.daemon, parse(t, tt.profile), tt.with)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(notes, "\n"); !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") {
			t.Errorf("%s with %v: %q, want %q", tt.daemon, tt.with, got, tt.want)
		}
	}
}

// TestMistakes: what nobody could load is refused.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		daemon, with, want string
	}{
		{"quagga", "", "want one of bird, frr, keepalived, conntrackd"},
		{"bird", "slef=10.0.0.1", "is no setting"},
		{"bird", "self", "is no setting"},
		{"bird", "self=10.0.0.256", "want an address of this host"},
		{"bird", "self=fe80::1%eth0", "it has a zone"},
		{"bird", "front=10.0.0.1", "it has no AS number"},
		{"bird", "front=10.0.0.1/0", "0 is none"},
		{"bird", "as=4294967296", "out of range"},
		{"keepalived", "interface=eth0 }", "cannot be a name"},
		{"keepalived", "interface=eth*", "more than one"},
		{"keepalived", "vrid=255", "out of range"},
		{"keepalived", "track-file=/run/a\nb", "plain characters"},
		{"keepalived", "back-interface=eth1", "go together"},
		{"keepalived", "peer=fd00::1", "of one family"},
		{"conntrackd", "self=fd00::1", "of one family"},
		{"conntrackd", "self=fd00::1\x00peer=fd00::2\x00peer=fd00::3", "want an IPv4 address"},
		{"conntrackd", "group=10.0.0.1", "want an IPv4 multicast address"},
	} {
		_, _, err := Write(tt.daemon, parse(t, shop), strings.Split(tt.with, "\x00"))
		if tt.with == "" {
			_, _, err = Write(tt.daemon, parse(t, shop), nil)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s --with %q: %v, want %q", tt.daemon, tt.with, err, tt.want)
		}
	}
	if _, _, err := Write("bird", parse(t, "services: []"), nil); err == nil {
		t.Error("there is nothing to announce")
	}
	six := "services: [{name: web, listen: \"[2001:db8::10]:80\", snat: none, backends: \"fd02::11\"}]"
	if _, _, err := Write("keepalived", parse(t, six), nil); err == nil || !strings.Contains(err.Error(), "no service listens on an IPv4 address") {
		t.Errorf("VRRP by IPv4 for IPv6 alone: %v", err)
	}
	if _, _, err := Write("keepalived", parse(t, six), []string{"self=fd00::1", "peer=fd00::2"}); err != nil {
		t.Error(err)
	}
}
