package integration

// Affinity: who keeps which backend, whatever map remembers it.

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// affinityProfile has the service a over two backends, and b over another one.
func affinityProfile(a, b, affinity string) string {
	return fmt.Sprintf(`profile: shop
services:
  - {name: a, listen: [%s], affinity: %s, scheduler: random, backends: ["10.2.0.11:80", "10.2.0.12:80"]}
  - {name: b, listen: [%s], affinity: 10m, backends: ["10.2.0.13:80"]}
`, a, affinity, b)
}

// TestAffinityMoves: clients stay with their backends while their service changes where
// it listens, its timeout, or both, and so the map that remembers them; and nobody
// comes to a backend that the service which has the destination now does not have.
func TestAffinityMoves(t *testing.T) {
	t.Parallel()
	const clients = 8
	b := newBed(t)
	b.Serve([]int{80}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	for i := range clients {
		b.Address(b.Client, "eth0", fmt.Sprintf("10.1.0.%d/24", 100+i))
	}
	ask := func(to string) (who [clients]string) {
		t.Helper()
		for i := range who {
			c := b.From()
			c.Source = netip.AddrFrom4([4]byte{10, 1, 0, byte(100 + i)})
			r, err := c.Exchange(t.Context(), "tcp", netip.MustParseAddrPort(to))
			b.Check(err)
			who[i] = r.Backend
		}
		return who
	}
	const one, other, more = "203.0.113.10:80", "203.0.113.10:81", "203.0.113.10:82"
	quote := func(to ...string) string { return `"` + strings.Join(to, `", "`) + `"` }
	b.Apply(affinityProfile(quote(one), quote(other), "10m"))
	was := ask(one)
	if got := ask(one); got != was {
		t.Fatalf("nothing was changed, and clients went from %v to %v", was, got)
	}
	for _, step := range []struct{ what, profile, at, others string }{
		{"the destinations change places", affinityProfile(quote(other), quote(one), "10m"), other, one},
		{"a second destination", affinityProfile(quote(other, more), quote(one), "10m"), more, one},
		{"one alone", affinityProfile(quote(more), quote(one), "10m"), more, one},
		{"the first one again", affinityProfile(quote(one), quote(more), "10m"), one, more},
		{"another timeout", affinityProfile(quote(one), quote(more), "20m"), one, more},
	} {
		b.Apply(step.profile)
		if got := ask(step.at); got != was {
			t.Errorf("%s: clients went from %v to %v", step.what, was, got)
		}
		for _, who := range ask(step.others) {
			if who != "10.2.0.13" {
				t.Errorf("%s: %s, which is of another service, answered", step.what, who)
			}
		}
		for _, d := range b.Load().Drift() {
			t.Errorf("%s: %+v", step.what, d)
		}
		// What nft lists, it loads, with the clients in it.
		b.Witness(b.Balancer, "flush ruleset\n"+b.Witness(b.Balancer, "", "nft", "list", "ruleset"), "nft", "-f", "-")
		if got := ask(step.at); got != was {
			t.Errorf("%s, saved and loaded: clients went from %v to %v", step.what, was, got)
		}
	}
	// A backend that gets no connections lets go of its clients.
	b.Apply(strings.Replace(affinityProfile(quote(one), quote(more), "20m"), `"10.2.0.11:80"`, `{address: "10.2.0.11:80", weight: 0}`, 1))
	for _, who := range ask(one) {
		if who != "10.2.0.12" {
			t.Errorf("%s answered, which takes no new connections", who)
		}
	}
	b.Apply(affinityProfile(quote(one), quote(more), "20m"))
	for _, who := range ask(one) {
		if who != "10.2.0.12" {
			t.Errorf("a client went back to %s, which it had lost", who)
		}
	}
	// Nothing is left of a map that nobody needs.
	if listing := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); strings.Contains(listing, "map shop/a/affinity4") || !strings.Contains(listing, "map affinity4-32-1200 {") {
		t.Errorf("maps of clients:\n%s", listing)
	}
}

// TestAffinityGoesWithItsProfile: what services share stays for those of other
// profiles, and goes with the last.
func TestAffinityGoesWithItsProfile(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{80}, "10.2.0.11", "10.2.0.12")
	profile := func(name, at, affinity string) string {
		return fmt.Sprintf("profile: %s\nservices: [{name: web, listen: %q%s, backends: [\"10.2.0.11:80\", \"10.2.0.12:80\"]}]\n", name, at, affinity)
	}
	shared := func() bool {
		return strings.Contains(b.Witness(b.Balancer, "", "nft", "list", "ruleset"), "affinity4-32-600")
	}
	b.Apply(profile("one", "203.0.113.10:80", ", affinity: 10m"))
	b.Apply(profile("two", "203.0.113.11:80", ", affinity: 10m"))
	b.Apply(profile("one", "203.0.113.10:80", ""))
	if !shared() {
		t.Error("the map that another profile needs is gone")
	}
	if got := count(b.Row("tcp", "203.0.113.11:80", 4)); len(got) != 1 {
		t.Errorf("one client met %v", got)
	}
	b.Apply(profile("two", "203.0.113.11:80", ""))
	if shared() {
		t.Error("the map stays, and nobody needs it")
	}
	for _, d := range b.Load().Drift() {
		t.Errorf("%+v", d)
	}
}

// TestAffinityOfAnOlderTable: clients stay with their backends where an older nlb
// remembered them in another map.
func TestAffinityOfAnOlderTable(t *testing.T) {
	t.Parallel()
	listing, err := os.ReadFile(layouts + "/1/affinity.nft")
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := os.ReadFile(layouts + "/1/affinity.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	b.Serve([]int{80}, "10.2.0.11", "10.2.0.12")
	const client = "add element inet nlb affinity/web/affinity4 { 10.1.0.0 timeout 90m : 0x4ed801b8 }\n"
	b.Witness(b.Balancer, string(listing)+client, "nft", "-f", "-")
	b.applyAsCommand(b.Parse(string(yaml)))
	if got := count(b.Row("tcp", "203.0.113.10:80", 5)); got["10.2.0.12"] != 5 {
		t.Errorf("a client of 10.2.0.12 met %v", got)
	}
	if listing := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); strings.Contains(listing, "map affinity/web/affinity4") {
		t.Errorf("the older map is still there:\n%s", listing)
	}
}
