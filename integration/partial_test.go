package integration

// A change of backends alone is planned from the record, without reading back
// what stays; and it comes to the same as when everything is read.

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

// mixed has services of all sorts, and others beside them that stay.
const mixed = `profile: shop
services:
  - name: web
    listen: 203.0.113.10:80
    backends: [10.2.0.11:80]
  - name: dns
    listen: ["203.0.113.10:53", "[2001:db8::10]:53"]
    protocol: [udp, tcp]
    scheduler: random
    backends: [10.2.0.11:53, "[fd02::11]:53"]
  - name: sticky
    listen: 203.0.113.11:80
    affinity: 10m
    backends: [10.2.0.12:80]
  - name: guarded
    listen: 203.0.113.12:80-90
    deny: [198.51.100.0/24]
    allow: [10.0.0.0/8, 198.51.0.0/16]
    limit: {new: 1000/second, connections-per-source: 100}
    snat: vip
    backends: [10.2.0.13]
  - name: hashed
    listen: "203.0.113.13:*"
    scheduler: hash
    snat: none
    log: {prefix: "hashed "}
    backends: [10.2.0.11]
  - name: consistent
    listen: ["203.0.113.15:80", "[2001:db8::15]:80"]
    scheduler: consistent
    affinity: 10m
    backends: [10.2.0.11:80, "[fd02::11]:80"]
  - name: own
    role: server
    listen: ":8080"
    backends: [10.2.0.11:80]
  - name: stays
    listen: 203.0.113.14:80
    affinity: 1h
    deny: [192.0.2.0/24]
    backends:
      - 10.2.0.14:80
      - {address: "10.2.0.15:80", max-connections: 5}
`

// asCommand are options as `nlb apply` has them: by the record a later apply
// knows the profiles.
var asCommand = nft.Options{Table: "nlb", Record: true, Build: "test"}

// applyWatched applies profiles as the command does, and reports whether everything
// was read.
func (b *bed) applyWatched(profiles ...*lb.Profile) (r *nft.Result, all bool) {
	b.T.Helper()
	b.Check(b.Balancer.Do(func() error {
		transport, err := wire.Open()
		if err != nil {
			return err
		}
		a := &wiretest.Asking{Transport: transport}
		c := wire.NewConn(a)
		defer c.Close()
		r, err = nft.Apply(b.T.Context(), c, profiles, asCommand)
		all = a.All
		return err
	}))
	return r, all
}

// reshuffle gives a service other backends of its families.
func reshuffle(r *rand.Rand, s *lb.Service) {
	old := s.Backends
	s.Backends = nil
	for _, f := range s.Families() {
		hosts := r.Perm(5)[:r.IntN(5)]
		for _, h := range hosts {
			text := fmt.Sprintf("10.2.0.%d", 11+h)
			if f == lb.IPv6 {
				text = fmt.Sprintf("fd02::%d", 11+h)
			}
			b := lb.Backend{Address: lb.Endpoint{Addr: netip.MustParseAddr(text), Port: old[0].Address.Port}, Weight: r.IntN(4), SNAT: s.SNAT, Log: s.Log}
			if i := slices.IndexFunc(old, func(o lb.Backend) bool { return o.Address == b.Address }); i >= 0 && r.IntN(2) == 0 {
				b = old[i]
			}
			b.Name = b.Address.String()
			if r.IntN(4) == 0 {
				b.Name = fmt.Sprintf("host-%s-%d", strings.ToLower(f.String()), h)
			}
			if r.IntN(4) == 0 {
				b.MaxConnections = uint32(1 + r.IntN(9))
			}
			if r.IntN(6) == 0 {
				b.Log = &lb.Log{Prefix: "one ", Level: lb.LogInfo}
			}
			s.Backends = append(s.Backends, b)
		}
	}
	if len(s.Backends) == 0 {
		s.Backends = old
	}
}

func TestPartialLoadComesToTheSame(t *testing.T) {
	t.Parallel()
	const steps = 60
	b := newBed(t)
	r := rand.New(rand.NewPCG(1, 2))
	p := b.Parse(mixed)
	other := b.Parse("profile: other\nservices: [{name: web, listen: 203.0.113.20:80, backends: [10.2.0.11:80]}]\n")
	b.applyWatched(p, other)
	partial := 0
	for i := range steps {
		next := *p
		next.Services = slices.Clone(p.Services)
		var named []string
		for range 1 + r.IntN(2) {
			s := &next.Services[r.IntN(len(next.Services)-1)] // the last one stays
			reshuffle(r, s)
			named = append(named, s.Name)
		}
		before := b.Load()
		result, all := b.applyWatched(&next, other)
		after := b.Load()
		if changes := lb.Compare(after.Profiles, []*lb.Profile{&next, other}); len(changes) > 0 {
			t.Fatalf("step %d (%v): what is there differs: %v", i, named, changes)
		}
		if drift := after.Drift(); len(drift) > 0 {
			t.Fatalf("step %d (%v): %v", i, named, drift)
		}
		if want := lb.Compare(before.Profiles, []*lb.Profile{&next, other}); !slices.Equal(result.Changes, want) || result.Repaired {
			t.Fatalf("step %d: said %v (repaired: %v), want %v", i, result.Changes, result.Repaired, want)
		}
		if !all {
			partial++
		}
		p = &next
	}
	t.Logf("%d of %d applies did not read everything", partial, steps)
	if partial < steps*2/3 {
		t.Error("that is too few")
	}
}

// Where flows had to move, further commits follow that of the plan.
func TestPartialLoadAfterFlowsMoved(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{53}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	dns := func(weights ...int) *lb.Profile {
		return b.Parse("profile: shop\nservices:\n  - name: dns\n    listen: 203.0.113.10:53\n    protocol: udp\n" + backends(53, weights...))
	}
	b.applyWatched(dns(1, 1, 1))
	for range 3 {
		b.Ask("udp", "203.0.113.10:53")
	}
	if r, all := b.applyWatched(dns(1, 1)); all || r.Ended == 0 {
		t.Errorf("%d flows of the removed backend were ended; everything was read: %v", r.Ended, all)
	}
	if _, all := b.applyWatched(dns(2, 1)); all {
		t.Error("the apply after it read everything")
	}
	if got := count(b.Row("udp", "203.0.113.10:53", 9)); got["10.2.0.11"] != 6 || got["10.2.0.12"] != 3 {
		t.Errorf("shares %v", got)
	}
}
