package integration

// Standings: what is known of backends is kept in the table, and survives nft's
// save and load.

import (
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/lb"
	"nlb/nft"
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
