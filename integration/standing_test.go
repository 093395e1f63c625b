package integration

// Standings: what is known of backends is kept in the table, and survives nft's
// save and load.

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/wire"
)

// stand gives a backend of a profile's first service a state and a standing.
func stand(p *lb.Profile, backend int, state lb.BackendState, s lb.Standing) *lb.Profile {
	out := *p
	out.Services = slices.Clone(p.Services)
	backends := slices.Clone(p.Services[0].Backends)
	backends[backend].State, backends[backend].Standing = state, s
	out.Services[0].Backends = backends
	return &out
}

func TestStandingIsKept(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	wanted := b.Parse(`profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", affinity: 10m, backends: [10.2.0.11, {address: 10.2.0.12, weight: 5, name: b2}, 10.2.0.13]}
  - {name: hashed, listen: "203.0.113.11:80", scheduler: hash, backends: [10.2.0.11, 10.2.0.12]}
`)
	apply := func(p *lb.Profile) (result *nft.Result) {
		b.Kernel(b.Balancer, func(c *wire.Conn) (err error) {
			result, err = nft.Apply(t.Context(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Settle: time.Millisecond})
			return err
		})
		return result
	}
	since := time.Date(2026, 11, 26, 4, 5, 6, 0, time.UTC)
	standing := lb.Standing{
		Verdict: lb.VerdictDown, Since: since, Reason: strings.Repeat("r", lb.MaxReason),
		Order: lb.OrderDisable, By: strings.Repeat("b", lb.MaxBy), Until: since.Add(time.Hour),
	}
	down := stand(wanted, 1, lb.Down, standing)
	down.Services[0].Backends[0].Priority, down.Services[0].Backends[0].Share = 100, 31
	const loaded = "loaded by nft"
	has := func(when string, want *lb.Profile) {
		t.Helper()
		s := b.Load()
		for i, w := range want.Services[0].Backends {
			at := slices.IndexFunc(s.Profiles[0].Services[1].Backends, func(b lb.Backend) bool { return b.Address == w.Address })
			got := s.Profiles[0].Services[1].Backends[at]
			if got.Standing != w.Standing || got.State != w.State || got.Share != w.Share || got.Priority != max(w.Priority, 1) || got.Weight != w.Weight {
				t.Errorf("%s: backend %d is %+v, want %+v", when, i, got, w)
			}
		}
		if changes := lb.Compare(s.Profiles, []*lb.Profile{want}); len(changes) > 0 {
			t.Errorf("%s: changes %v", when, changes)
		}
		// What nft has loaded lacks nlb's fingerprints of rules.
		if drift := s.Drift(); len(drift) > 0 && when != loaded {
			t.Errorf("%s: drift %v", when, drift)
		}
	}
	apply(wanted)
	apply(down)
	has("applied", down)
	if r := apply(down); r.Batches > 0 {
		t.Errorf("the same again takes %d batches", r.Batches)
	}
	saved := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	b.Witness(b.Balancer, "flush ruleset\n"+saved, "nft", "-f", "-")
	has(loaded, down)
	if r := apply(down); r.Batches > 1 || len(r.Changes) > 0 {
		t.Errorf("after it was loaded again: %+v", r)
	}
	has("applied again", down)

	// The comment alone differs.
	standing.Reason = "tcp: timed out"
	apply(stand(down, 1, lb.Down, standing))
	has("for another reason", stand(down, 1, lb.Down, standing))

	// Somebody has edited it.
	mark := strings.Fields(b.Witness(b.Balancer, "", "sh", "-c", "nft list set inet nlb verdicts | grep -o '0x[0-9a-f]*'"))[0]
	b.Witness(b.Balancer, "delete element inet nlb verdicts { "+mark+" }\nadd element inet nlb verdicts { "+mark+" comment \"down now; ha\" }\n", "nft", "-f", "-")
	if got := b.Load().Profiles[0].Services[1].Backends[1].Standing; got != (lb.Standing{}) {
		t.Errorf("of what somebody wrote this was read: %+v", got)
	}
	apply(wanted)
	has("up again", wanted)
	if listing := b.Witness(b.Balancer, "", "nft", "list", "set", "inet", "nlb", "verdicts"); strings.Contains(listing, "elements") {
		t.Errorf("left behind:\n%s", listing)
	}
}

// cleanUp has the connections settled that a commit concerns, while the test goes on.
// The function that it returns ends the wait for answers, and says how many
// connections were ended.
func cleanUp(t *testing.T, r *nft.Result) (ended func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		n, err := r.Cleanup.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		done <- n
	}()
	return func() int { cancel(); return <-done }
}

// TestDownLosesNobody: who meets a server that is silent, as it goes down, comes
// to another one by the client's own retransmission, before the answers that are
// under way are waited for; its open connections are ended if the service says so,
// and not by an order.
func TestDownLosesNobody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{80, 81}, "10.2.0.11", "10.2.0.12")
	wanted := b.Parse(`profile: shop
services:
  - {name: cut, listen: "203.0.113.10:80", backends: ["10.2.0.11:80", "10.2.0.12:80"]}
  - {name: keep, listen: "203.0.113.10:81", backends: ["10.2.0.11:81", "10.2.0.12:81"]}
`)
	for i := range wanted.Services {
		wanted.Services[i].Health = []lb.Check{{Kind: lb.CheckTCP}}
	}
	wanted.Services[0].OnDown = lb.CutConnections
	known := map[lb.BackendID]lb.Standing{}
	verdict := func(s lb.Standing) []*lb.Profile {
		for _, service := range wanted.Services {
			known[lb.BackendID{Profile: "shop", Service: service.Name, Address: service.Backends[1].Address}] = s
		}
		return lb.Overlay([]*lb.Profile{wanted}, known, nil)
	}
	b.Check(b.Balancer.Do(func() error {
		c, err := wire.Dial()
		b.Check(err)
		defer c.Close()
		table := nft.Open(c, "nlb", wire.Dial)
		defer table.Close()
		_, err = table.Apply(t.Context(), verdict(lb.Standing{}), nft.Options{Table: "nlb", Record: true, Settle: time.Hour})
		b.Check(err)
		update := func(s lb.Standing) (cleanup func() (ended int)) {
			r, err := table.Update(t.Context(), verdict(s))
			b.Check(err)
			if r.Cleanup == nil {
				return func() int { return 0 }
			}
			return cleanUp(t, r)
		}
		open := func(port string) *traffic.Conn {
			for {
				c, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:"+port))
				b.Check(err)
				if c.Reply.Backend == "10.2.0.12" {
					return c
				}
			}
		}
		goesOn := func(c *traffic.Conn) bool { _, err := c.Again(); return err == nil }
		down := lb.Standing{Verdict: lb.VerdictDown, Since: time.Unix(1, 0).UTC(), Reason: "tcp: timed out"}

		// An order cuts nobody.
		first, second := open("80"), open("81")
		cleanup := update(lb.Standing{Order: lb.OrderDisable})
		if got := count(b.Row("tcp", "203.0.113.10:80", 4)); got["10.2.0.12"] > 0 || !goesOn(first) {
			t.Errorf("disabled: shares %v, or the open connection ended", got)
		}
		if n := cleanup(); n > 0 {
			t.Errorf("an order ended %d connections", n)
		}
		update(lb.Standing{})()

		// A verdict does, where the service says so. Nobody waits for the settle time.
		b.Witness(b.Server, "table inet silent { chain input { type filter hook input priority 0; ip daddr 10.2.0.12 tcp flags syn drop; }; }\n", "nft", "-f", "-")
		met := make(chan error)
		for range 4 {
			go func() {
				_, err := b.patient().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
				met <- err
			}()
		}
		b.Check(<-met)
		b.Check(<-met) // the two that drew the other one
		b.awaitFlows(conntrack.Filter{Mark: compile.OursMark, Mask: compile.OursMask, Unanswered: true}, func(n int) bool { return n == 2 })
		cleanup = update(down)
		b.Check(<-met)
		b.Check(<-met)
		eventually(t, "the connection of the server that went down ended", func() bool { return !goesOn(first) })
		if !goesOn(second) {
			t.Error("a connection ended although its service keeps them")
		}
		if n := cleanup(); n < 3 {
			t.Errorf("%d connections ended, want 2 that nobody answered and 1 that was open", n)
		}
		return nil
	}))
}

// TestUpAgain: what is left to do about a server that went down does not concern
// the flows that it has once it is up again. Those of one that stays down are ended.
func TestUpAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{53}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	wanted := b.Parse(`profile: shop
services: [{name: dns, listen: "203.0.113.10:53", protocol: udp, backends: ["10.2.0.11:53", "10.2.0.12:53", "10.2.0.13:53"]}]
`)
	b.Check(b.Balancer.Do(func() error {
		c, err := wire.Dial()
		b.Check(err)
		defer c.Close()
		table := nft.Open(c, "nlb", wire.Dial)
		defer table.Close()
		_, err = table.Apply(t.Context(), []*lb.Profile{wanted}, nft.Options{Table: "nlb", Record: true, Settle: time.Hour})
		b.Check(err)
		flows := count(b.Row("udp", "203.0.113.10:53", 6))
		disabled := lb.Standing{Order: lb.OrderDisable}
		one := stand(wanted, 2, lb.Down, disabled)
		r, err := table.Update(t.Context(), []*lb.Profile{stand(one, 1, lb.Down, disabled)})
		b.Check(err)
		ended := cleanUp(t, r)
		_, err = table.Update(t.Context(), []*lb.Profile{one})
		b.Check(err)
		if got := count(b.Row("udp", "203.0.113.10:53", 4)); got["10.2.0.12"] != 2 {
			t.Errorf("up again, it has a share of %v", got)
		}
		if n := ended(); n == 0 || n != flows["10.2.0.13"] {
			t.Errorf("%d flows were ended, want those of the server that stays down; there are %v", n, flows)
		}
		return nil
	}))
}
