package integration

// Affinity: who keeps which backend, whatever map remembers it.

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft/compile"
)

// clientsOf names the maps of the clients of a service.
func (b *bed) clientsOf(chain string, vip netip.Addr) compile.Clients {
	b.T.Helper()
	listing := b.Witness(b.Balancer, "", "nft", "list", "chain", "inet", "nlb", chain)
	_, comment, _ := strings.Cut(listing, "comment \"affinity "+lb.FamilyOf(vip).String())
	key, ok := compile.ReadClientsKey("affinity " + comment)
	if !ok {
		b.T.Fatalf("no key of %s:\n%s", chain, listing)
	}
	return compile.ClientsAt(chain, compile.FamilyOf(lb.FamilyOf(vip)), key)
}

// crowd is how many clients a test has, each with addresses of its own.
const crowd = 8

// newCrowd is a bed with these clients, and with servers at port 80.
func newCrowd(t *testing.T, servers ...string) *bed {
	t.Helper()
	b := newBed(t)
	b.Serve([]int{80}, servers...)
	for i := range crowd {
		b.Address(b.Client, "eth0", fmt.Sprintf("10.1.0.%d/24", 100+i), fmt.Sprintf("fd01::%x/64", 0x100+i))
	}
	return b
}

// remembering is a profile of two servers, of which the first has this weight.
func remembering(weight int, snat string) string {
	return fmt.Sprintf("profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", affinity: 10m, snat: %s, backends: [{address: \"10.2.0.11:80\", weight: %d}, \"10.2.0.12:80\"]}]\n", snat, weight)
}

// crowdAt says whom each of them meets.
func (b *bed) crowdAt(to string) (who []string) {
	b.T.Helper()
	for i := range crowd {
		c := b.From()
		c.Source = ofFamily(netip.MustParseAddrPort(to).Addr(), fmt.Sprintf("10.1.0.%d", 100+i), fmt.Sprintf("fd01::%x", 0x100+i))
		r, err := c.Exchange(b.T.Context(), "tcp", netip.MustParseAddrPort(to))
		b.Check(err)
		who = append(who, r.Backend)
	}
	return who
}

// neighbours are two names by which services share their maps of clients.
func neighbours(chain string) (one, other string) {
	seen := map[compile.Clients]string{}
	for i := 0; ; i++ {
		name := fmt.Sprintf("s%d", i)
		at := compile.ClientsAt(fmt.Sprintf(chain, name), compile.Families[0], 1)
		if one, ok := seen[at]; ok {
			return one, name
		}
		seen[at] = name
	}
}

// TestAffinityStays: clients stay with their backends whatever becomes of their service,
// and nobody comes to a backend of another service that shares the maps.
func TestAffinityStays(t *testing.T) {
	t.Parallel()
	b := newCrowd(t, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12")
	one, other := neighbours("shop/%s")
	profile := func(a, at, affinity, snat, b, bAt string) string {
		return fmt.Sprintf(`profile: shop
services:
  - {name: %s, listen: [%s, "[2001:db8::10]:80"], affinity: %s, snat: %s, scheduler: random, backends: ["10.2.0.11:80", "10.2.0.12:80", "[fd02::11]:80", "[fd02::12]:80"]}
  - {name: %s, listen: %q, affinity: 10m, backends: ["10.2.0.13:80"]}
`, a, at, affinity, snat, b, bAt)
	}
	const web, second, third, v6 = "203.0.113.10:80", "203.0.113.10:81", "203.0.113.10:82", "[2001:db8::10]:80"
	b.Apply(profile(one, `"`+web+`"`, "10m", "masquerade", other, second))
	was, was6 := b.crowdAt(web), b.crowdAt(v6)
	b.crowdAt(second)
	for _, step := range []struct{ what, profile, at, others string }{
		{"nothing", profile(one, `"`+web+`"`, "10m", "masquerade", other, second), web, second},
		{"the destinations change places", profile(one, `"`+second+`"`, "10m", "masquerade", other, web), second, web},
		{"a second destination", profile(one, `"`+second+`", "`+third+`"`, "10m", "masquerade", other, web), third, web},
		{"another source", profile(one, `"`+web+`"`, "10m", "vip", other, second), web, second},
		{"the first source again", profile(one, `"`+web+`"`, "10m", "masquerade", other, second), web, second},
		{"another timeout", profile(one, `"`+web+`"`, "20m", "masquerade", other, second), web, second},
		{"another name", profile("renamed", `"`+web+`"`, "20m", "masquerade", other, second), web, second},
		{"the name of the other one", profile(other, `"`+web+`"`, "20m", "masquerade", one, second), web, second},
	} {
		b.Apply(step.profile)
		if got := b.crowdAt(step.at); !slices.Equal(got, was) {
			t.Errorf("%s: clients went from %v to %v", step.what, was, got)
		}
		if got := b.crowdAt(v6); !slices.Equal(got, was6) {
			t.Errorf("%s: clients went from %v to %v", step.what, was6, got)
		}
		for _, who := range b.crowdAt(step.others) {
			if who != "10.2.0.13" {
				t.Errorf("%s: %s, which is of another service, answered", step.what, who)
			}
		}
		b.undrifted(step.what)
		// What nft lists, it loads, with the clients in it.
		b.Witness(b.Balancer, "flush ruleset\n"+b.Witness(b.Balancer, "", "nft", "list", "ruleset"), "nft", "-f", "-")
		if got := b.crowdAt(step.at); !slices.Equal(got, was) {
			t.Errorf("%s, saved and loaded: clients went from %v to %v", step.what, was, got)
		}
	}
}

// TestAffinityOfDrained: a backend that takes no new connections lets go of its clients, also
// where its mark changes meanwhile; and they do not go back.
func TestAffinityOfDrained(t *testing.T) {
	t.Parallel()
	b := newCrowd(t, "10.2.0.11", "10.2.0.12")
	const web = "203.0.113.10:80"
	b.Apply(remembering(1, "masquerade"))
	if got := count(b.crowdAt(web)); len(got) != 2 {
		t.Fatalf("all clients met %v", got)
	}
	for _, step := range []struct {
		weight int
		snat   string
	}{{0, "masquerade"}, {0, "vip"}, {1, "vip"}, {1, "masquerade"}} {
		b.Apply(remembering(step.weight, step.snat))
		if got := count(b.crowdAt(web)); got["10.2.0.12"] != crowd {
			t.Errorf("%+v: clients met %v", step, got)
		}
	}
}

// TestAffinityOfAPart: clients stay where only backends change, of which a part of the
// table is enough, and where one goes on under another mark, of which it is not.
func TestAffinityOfAPart(t *testing.T) {
	t.Parallel()
	b := newCrowd(t, "10.2.0.11", "10.2.0.12")
	apply := func(backend string) (all bool) {
		t.Helper()
		_, all = b.applyWatched(b.Parse(fmt.Sprintf("profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", affinity: 10m, scheduler: random, backends: [%s, \"10.2.0.12:80\"]}]\n", backend)))
		return all
	}
	apply(`"10.2.0.11:80"`)
	was := b.crowdAt("203.0.113.10:80")
	for _, step := range []struct {
		backend string
		all     bool
	}{
		{`{address: "10.2.0.11:80", weight: 3}`, false},
		{`{address: "10.2.0.11:80", weight: 3, snat: vip}`, true},
		{`{address: "10.2.0.11:80", snat: vip}`, false},
		{`{address: "10.2.0.11:80", name: same}, {address: "10.2.0.11:81", weight: 0}`, true},
	} {
		if all := apply(step.backend); all != step.all {
			t.Errorf("%s: all of the table was read: %v", step.backend, all)
		}
		if got := b.crowdAt("203.0.113.10:80"); !slices.Equal(got, was) {
			t.Errorf("%s: clients went from %v to %v", step.backend, was, got)
		}
	}
	b.undrifted("in the end")
}

// TestAffinityWithoutRoom: where a map is full, an apply forgets the clients that it would
// carry over, and is not refused.
func TestAffinityWithoutRoom(t *testing.T) {
	t.Parallel()
	b := newCrowd(t, "10.2.0.11", "10.2.0.12")
	b.Apply(remembering(1, "masquerade"))
	b.crowdAt("203.0.113.10:80")
	listing := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	at := b.clientsOf("shop/web", netip.IPv4Unspecified())
	head, tail, _ := strings.Cut(listing, "map "+at.Set+" {")
	full := head + "map " + at.Set + " {" + strings.Replace(tail, "size 1048576", fmt.Sprintf("size %d", crowd+1), 1)
	if full == listing {
		t.Fatalf("no size of %s:\n%s", at.Set, listing)
	}
	b.Witness(b.Balancer, "flush ruleset\n"+full, "nft", "-f", "-")
	b.Apply(remembering(1, "vip"))
	if got := count(b.crowdAt("203.0.113.10:80")); got["10.2.0.11"]+got["10.2.0.12"] != crowd {
		t.Errorf("clients met %v", got)
	}
	b.undrifted("afterwards")
}

// TestAffinityGoesWithItsServices: a map that services share stays for those of other
// profiles, and goes with the last.
func TestAffinityGoesWithItsServices(t *testing.T) {
	t.Parallel()
	b := newCrowd(t, "10.2.0.11", "10.2.0.12")
	one, other := neighbours("%s/web")
	profile := func(name, at, affinity string) string {
		return fmt.Sprintf("profile: %s\nservices: [{name: web, listen: %q%s, scheduler: random, backends: [\"10.2.0.11:80\", \"10.2.0.12:80\"]}]\n", name, at, affinity)
	}
	const first, second = "203.0.113.10:80", "203.0.113.11:80"
	at := compile.ClientsAt(one+"/web", compile.Families[0], 1)
	shared := func() int {
		listing := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
		return strings.Count(listing, "map "+at.Set+" {") + strings.Count(listing, "map "+at.Open+" {")
	}
	b.Apply(profile(one, first, ", affinity: 10m"))
	b.Apply(profile(other, second, ", affinity: 10m"))
	was := b.crowdAt(second)
	b.Apply(profile(one, first, ""))
	if got := b.crowdAt(second); shared() != 2 || !slices.Equal(got, was) {
		t.Errorf("of two maps that another profile needs %d are there; its clients went from %v to %v", shared(), was, got)
	}
	b.undrifted("one service left")
	b.Apply(profile(other, second, ""))
	if shared() != 0 {
		t.Error("maps stay that nobody needs")
	}
	b.undrifted("both left")
}

// TestAffinityOfAnOlderTable: clients stay with their backends where an older nlb
// remembered them in other maps.
func TestAffinityOfAnOlderTable(t *testing.T) {
	t.Parallel()
	listing, err := os.ReadFile(layouts + "/2/affinity.nft")
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := os.ReadFile(layouts + "/2/affinity.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b := newCrowd(t, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
	b.Witness(b.Balancer, string(listing), "nft", "-f", "-")
	if r := b.applyAsCommand(b.Parse(string(yaml))); r.Batches != 1 {
		t.Errorf("%+v", r)
	}
	for _, to := range []string{"203.0.113.10:80", "203.0.113.10:443", "203.0.113.11:80", "203.0.113.12:80", "[2001:db8::10]:80"} {
		if got := count(b.crowdAt(to)); got["10.2.0.12"]+got["fd02::12"] != crowd {
			t.Errorf("clients of 10.2.0.12 and fd02::12 met %v at %s", got, to)
		}
	}
	if listing := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); strings.Contains(listing, "map shop/web/affinity4") {
		t.Errorf("the older map is still there:\n%s", listing)
	}
	b.undrifted("taken over")
}

// loyal is a service with affinity, and a client of each of two networks.
type loyal struct {
	network, listen string
	near, far       netip.Prefix
	server          string // with the place of its number
}

// yaml is the service with these servers, of which one takes no new connections.
func (l *loyal) yaml(servers []int, drained int) string {
	var list []string
	for _, s := range servers {
		weight := 1
		if s == drained {
			weight = 0
		}
		list = append(list, fmt.Sprintf("{address: \"%s\", weight: %d}", fmt.Sprintf(l.server, s), weight))
	}
	return fmt.Sprintf("  - {name: %s-%d, listen: %q, protocol: %s, timeouts: {udp-idle: 2s}, affinity: {timeout: 5s, prefix: 24, prefix6: 64}, backends: [%s]}\n",
		l.network, l.near.Bits(), l.listen, l.network, strings.Join(list, ", "))
}

// meets is the backend that a client meets.
func (l *loyal) meets(b *bed, source netip.Addr) string {
	b.T.Helper()
	r, err := traffic.Client{Host: b.Client, Source: source}.Exchange(b.T.Context(), l.network, netip.MustParseAddrPort(l.listen))
	b.Check(err)
	return r.Backend
}

// keeps demands that the near client meets this backend again.
func (l *loyal) keeps(b *bed, backend string) {
	b.T.Helper()
	for range 3 {
		if got := l.meets(b, l.near.Addr()); got != backend {
			b.T.Errorf("%s %s: the client met %s, then %s", l.network, l.listen, backend, got)
		}
	}
}

// TestAffinity: a client keeps its backend for the timeout, through an apply
// that adds a backend, and not after it; one whose backend goes is balanced
// anew.
func TestAffinity(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12", "fd02::13")
	var all []*loyal
	for _, network := range []string{"tcp", "udp"} {
		all = append(all,
			&loyal{network, "203.0.113.10:80", netip.MustParsePrefix("10.1.0.77/24"), netip.MustParsePrefix("10.1.1.77/24"), "10.2.0.%d:8080"},
			&loyal{network, "[2001:db8::10]:80", netip.MustParsePrefix("fd01::77/64"), netip.MustParsePrefix("fd01:0:0:1::77/64"), "[fd02::%d]:8080"})
	}
	for _, l := range all[:2] {
		b.Address(b.Client, "eth0", l.near.String(), l.far.String())
		b.Check(b.Balancer.AddLinkRoute(l.far.Masked(), "eth0"))
	}
	each := func(do func(l *loyal) string) (met []string) {
		for _, l := range all {
			met = append(met, do(l))
		}
		return met
	}
	apply := func(servers func(i int) []int, drained func(i int) int) {
		text := "profile: shop\nservices:\n"
		for i, l := range all {
			text += l.yaml(servers(i), drained(i))
		}
		b.Apply(text)
	}
	keep := func(met []string) {
		t.Helper()
		for i, l := range all {
			l.keeps(b, met[i])
		}
	}
	near := func(l *loyal) string { return l.meets(b, l.near.Addr()) }

	none := func(int) int { return 0 }
	three := func(int) []int { return []int{11, 12, 13} }
	apply(func(int) []int { return []int{11, 12} }, none)
	first := each(near)
	keep(first)
	for i, l := range all {
		if other := l.meets(b, l.far.Addr()); other == first[i] {
			t.Errorf("%s %s: a client of another network meets %s too: the round does not go on", l.network, l.listen, other)
		}
		if got := l.meets(b, ofFamily(l.near.Addr(), "10.1.0.2", "fd01::2")); got != first[i] {
			t.Errorf("%s %s: a neighbour meets %s, want %s", l.network, l.listen, got, first[i])
		}
	}
	apply(three, none)
	keep(first)
	// Each connection makes the time begin again.
	for range 3 {
		time.Sleep(2 * time.Second)
		keep(first)
	}
	// Afterwards it is balanced anew: over four timeouts a round of three
	// backends cannot always come to the same.
	met := make([]map[string]bool, len(all))
	for range 3 {
		time.Sleep(5500 * time.Millisecond)
		for i, backend := range each(near) {
			if met[i] == nil {
				met[i] = map[string]bool{}
			}
			met[i][backend] = true
		}
	}
	for i, l := range all {
		if len(met[i]) < 2 {
			t.Errorf("%s %s: after the timeout the client still meets only %v", l.network, l.listen, met[i])
		}
	}
	// Drained to nothing, then gone: the client lets go of it.
	last := each(near)
	at := func(i int) int {
		return slices.IndexFunc(three(i), func(s int) bool { return strings.Contains(fmt.Sprintf(all[i].server, s), last[i]) })
	}
	apply(three, func(i int) int { return three(i)[at(i)] })
	next := each(near)
	for i := range all {
		if next[i] == last[i] {
			t.Errorf("%s %s: a drained backend keeps its client", all[i].network, all[i].listen)
		}
	}
	keep(next)
	apply(func(i int) []int { return slices.Delete(three(i), at(i), at(i)+1) }, none)
	keep(next)
}
