package integration

// Postrouting: the chain that changes sources is there where a backend asks for it,
// and nobody notices when it comes or goes.

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// TestPostroutingIsThereWhereNeeded: it comes with the first backend that sees
// another source than the client, in the same commit. It stays for the apply that
// takes the last one away, since packets may be under way to it, and goes with a
// later one that has something to send. Live connections go on, those with a changed
// source too.
func TestPostroutingIsThereWhereNeeded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
	profile := func(name string, host int, snat, more string) *lb.Profile {
		return b.Parse(fmt.Sprintf(`profile: %s
services:
  - name: web
    listen: ["203.0.113.%[2]d:80", "[2001:db8::%[2]d]:80"]
    protocol: [tcp, udp]
    snat: %s
    backends: ["10.2.0.11:8080", "[fd02::11]:8080"%s]
`, name, host, snat, more))
	}
	var live []*traffic.Conn
	open := func(host int, v4, v6 string) {
		t.Helper()
		for to, want := range map[string]string{fmt.Sprintf("203.0.113.%d:80", host): v4, fmt.Sprintf("[2001:db8::%d]:80", host): v6} {
			for _, network := range []string{"tcp", "udp"} {
				c, err := b.From().Dial(t.Context(), network, netip.MustParseAddrPort(to))
				b.Check(err)
				t.Cleanup(func() { _ = c.Close() })
				live = append(live, c)
				if seen := c.Reply.Seen.Addr().String(); seen != want {
					t.Errorf("%s %s: the backend saw %s, want %s", network, to, seen, want)
				}
			}
		}
	}
	const third = `, "10.2.0.12:8080", "[fd02::12]:8080"`
	none := func(more string) *lb.Profile { return profile("plain", 10, "none", more) }
	for _, step := range []struct {
		name     string
		profiles []*lb.Profile
		there    bool
		open     func()
		before   string // what somebody does with nft
	}{
		{name: "snat none", profiles: []*lb.Profile{none("")}, there: false, open: func() { open(10, "10.1.0.2", "fd01::2") }},
		{name: "masquerade beside it", profiles: []*lb.Profile{none(""), profile("hidden", 20, "masquerade", "")}, there: true, open: func() {
			open(10, "10.1.0.2", "fd01::2")
			open(20, "10.2.0.1", "fd02::1")
		}},
		{name: "the other profile alone", profiles: []*lb.Profile{profile("plain", 10, "none", third)}, there: true, open: func() {}},
		{
			name: "somebody deleted it", before: "delete chain inet nlb postrouting",
			profiles: []*lb.Profile{none("")}, there: true, open: func() { open(20, "10.2.0.1", "fd02::1") },
		},
		{name: "the address of the service", profiles: []*lb.Profile{none(""), profile("hidden", 20, "vip", "")}, there: true, open: func() {
			open(20, "203.0.113.20", "2001:db8::20")
		}},
		{name: "none again", profiles: []*lb.Profile{none(""), profile("hidden", 20, "none", "")}, there: true, open: func() { open(20, "10.1.0.2", "fd01::2") }},
		{name: "nothing to send", profiles: []*lb.Profile{none(""), profile("hidden", 20, "none", "")}, there: true, open: func() {}},
		{name: "a service more", profiles: []*lb.Profile{none(""), profile("hidden", 20, "none", ""), profile("new", 30, "none", "")}, there: false, open: func() {
			open(20, "10.1.0.2", "fd01::2")
			open(30, "10.1.0.2", "fd01::2")
		}},
		{name: "a backend of its own", profiles: []*lb.Profile{none(`, {address: "10.2.0.12:8080", snat: vip}`), profile("hidden", 20, "none", ""), profile("new", 30, "none", "")}, there: true, open: func() {
			for range 2 {
				r := b.Ask("tcp", "203.0.113.10:80")
				want := map[string]string{"10.2.0.11": "10.1.0.2", "10.2.0.12": "203.0.113.10"}[r.Backend]
				if r.Seen.Addr().String() != want {
					t.Errorf("%s saw %s, want %s", r.Backend, r.Seen.Addr(), want)
				}
			}
		}},
		{name: "backends only", profiles: []*lb.Profile{none(third), profile("hidden", 20, "none", ""), profile("new", 30, "none", "")}, there: true, open: func() {}},
	} {
		if step.before != "" {
			b.NFT(b.Balancer, step.before)
		}
		b.applyAsCommand(step.profiles...)
		listed := b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "nlb")
		if there := strings.Contains(listed, "chain postrouting {"); there != step.there {
			t.Errorf("%s: postrouting is there: %v, want %v", step.name, there, step.there)
		}
		step.open()
		b.stillLive(live)
		b.undrifted(step.name)
	}
}
