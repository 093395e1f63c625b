package integration

// Layouts: tables that an older or a later nlb has made, with live connections,
// under an apply of this one.

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// What each release has made of profiles that use everything, as nft lists it:
// N/*.nft, of N/*.yaml, for layout N.
const layouts = "../nft/testdata/layouts"

// applyAsCommand applies profiles with a digest and a build.
func (b *bed) applyAsCommand(profiles ...*lb.Profile) (r *nft.Result) {
	b.T.Helper()
	b.within(func(c *wire.Conn) (err error) {
		r, err = nft.Apply(b.T.Context(), c, profiles, asCommand)
		return err
	})
	return r
}

func TestOlderLayouts(t *testing.T) {
	t.Parallel()
	listings, err := filepath.Glob(layouts + "/*/*.nft")
	if err != nil || len(listings) == 0 {
		t.Fatalf("no listings in %s: %v", layouts, err)
	}
	for _, path := range listings {
		t.Run(strings.TrimPrefix(path, layouts+"/"), func(t *testing.T) {
			listing, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			yaml, err := os.ReadFile(strings.TrimSuffix(path, "nft") + "yaml")
			if err != nil {
				t.Fatal(err)
			}
			b := newBed(t)
			b.Witness(b.Balancer, string(listing), "nft", "-f", "-")
			p := b.Parse(string(yaml))
			before := b.Load()
			if changes := lb.Compare(before.Profiles, []*lb.Profile{p}); len(changes) > 0 {
				t.Fatalf("read otherwise: %v", changes)
			}
			if filepath.Base(path) == "traffic.nft" {
				b.trafficThrough(p)
			} else if r := b.applyAsCommand(p); len(r.Changes) > 0 || r.Repaired || r.Replaced || r.Messages == 0 {
				t.Errorf("%+v", r)
			}
			b.undrifted("brought over")
			for range 2 { // the first one may sweep
				if r := b.applyAsCommand(p); len(r.Changes) > 0 || r.Repaired || r.Messages > 0 {
					t.Errorf("applied again: %+v", r)
				}
			}
			// nft can still save and load it.
			b.Witness(b.Balancer, "flush ruleset\n"+b.Witness(b.Balancer, "", "nft", "list", "ruleset"), "nft", "-f", "-")
			if changes := lb.Compare(b.Load().Profiles, []*lb.Profile{p}); len(changes) > 0 {
				t.Errorf("saved and loaded: %v", changes)
			}
		})
	}
}

// openTraffic opens connections to each service of the profile traffic.
func (b *bed) openTraffic() (out []*traffic.Conn) {
	b.T.Helper()
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12")
	for _, to := range []string{
		"203.0.113.10:80", "[2001:db8::10]:80", "203.0.113.11:80", "203.0.113.12:85", "203.0.113.13:80",
		"203.0.113.66:80", "203.0.113.14:80", "203.0.113.15:80", "203.0.113.16:80",
	} {
		for _, network := range []string{"tcp", "udp", "tcp", "udp"} {
			c, err := b.From().Dial(b.T.Context(), network, netip.MustParseAddrPort(to))
			b.Check(err)
			b.T.Cleanup(func() { _ = c.Close() })
			out = append(out, c)
		}
	}
	return out
}

// stillLive checks that each connection goes on, to the same backend.
func (b *bed) stillLive(conns []*traffic.Conn) {
	b.T.Helper()
	for _, c := range conns {
		was := c.Reply.Backend
		if r, err := c.Again(); err != nil || r.Backend != was {
			b.T.Errorf("a connection to %s at %s: %v, then %v, %v", c.RemoteAddr(), was, was, r.Backend, err)
		}
	}
}

// trafficThrough applies the profile traffic to a table of an older layout, with
// live connections.
func (b *bed) trafficThrough(p *lb.Profile) {
	b.T.Helper()
	conns := b.openTraffic()
	before := b.Load()
	r := b.applyAsCommand(p)
	if len(r.Changes) > 0 || r.Repaired || r.Replaced || r.Ended > 0 {
		b.T.Errorf("%+v", r)
	}
	b.stillLive(conns)
	after := b.Load()
	counted := uint64(0)
	for _, s := range p.Services {
		for _, backend := range s.Backends {
			was, is := before.Stats(p.Name, s.Name, backend.Address, nil), after.Stats(p.Name, s.Name, backend.Address, nil)
			counted += was.Connections
			if is.Connections != was.Connections {
				b.T.Errorf("%s/%s counted %d connections, then %d", s.Name, backend.Name, was.Connections, is.Connections)
			}
		}
	}
	if counted < uint64(len(conns)) {
		b.T.Errorf("%d connections counted, of %d", counted, len(conns))
	}
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 9)), map[string]int{"10.2.0.11": 6, "10.2.0.12": 3})
	b.WantShares(count(b.Row("udp", "203.0.113.12:90", 8)), map[string]int{"10.2.0.11": 4, "10.2.0.12": 4})
	b.WantShares(count(b.Row("tcp", "[2001:db8::10]:80", 8)), map[string]int{"fd02::11": 4, "fd02::12": 4})
	if kept := count(b.Row("tcp", "203.0.113.11:80", 6)); len(kept) != 1 {
		b.T.Errorf("a client with affinity came to %v", kept)
	}
}

// A table of a later nlb cannot be read. An apply replaces it in one batch, with
// live connections that go on, and a flush removes it.
func TestLaterLayout(t *testing.T) {
	t.Parallel()
	yaml, err := os.ReadFile(layouts + "/1/traffic.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	p := b.Parse(string(yaml))
	options := asCommand
	options.Params = []nft.Param{{Name: "net.ipv4.ip_forward", Value: "0"}}
	b.within(func(c *wire.Conn) error {
		_, err := nft.Apply(t.Context(), c, []*lb.Profile{p}, options)
		return err
	})
	listing := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	later := strings.Replace(listing, "; layout ", "; layout 99", 1) + "add map inet nlb later { type mark : verdict; }\nadd chain inet nlb web-2\n"
	if later == listing {
		t.Fatal("the table has no number of a layout")
	}
	load := func() { b.Witness(b.Balancer, "flush ruleset\n"+later, "nft", "-f", "-") }
	load()
	conns := b.openTraffic()
	b.within(func(c *wire.Conn) error {
		if _, err := nft.Load(c, "nlb"); err == nil {
			t.Error("it was read")
		}
		r, err := nft.Diff(c, []*lb.Profile{p}, options)
		if err == nil && (!r.Replaced || len(r.Changes) == 0) {
			t.Errorf("diff: %+v", r)
		}
		return err
	})
	before := b.generation()
	if r := b.applyAsCommand(p); !r.Replaced || r.Repaired || r.Batches != 1 || r.Generation != before+1 {
		t.Errorf("%+v", r)
	}
	b.stillLive(conns)
	state := b.Load()
	if params := state.Params(); len(params) != 1 || params[0] != options.Params[0] {
		t.Errorf("the kernel parameters %v", params)
	}
	if drift := state.Drift(); len(drift) > 0 || strings.Contains(b.Witness(b.Balancer, "", "nft", "list", "ruleset"), "later") {
		t.Errorf("something was left: %v", drift)
	}
	if r := b.applyAsCommand(p); r.Messages > 0 || r.Replaced {
		t.Errorf("applied again: %+v", r)
	}
	load()
	b.within(func(c *wire.Conn) error {
		had, _, err := nft.Flush(t.Context(), c, nil, nft.Options{Table: "nlb"})
		if err == nil && len(had.Params()) != 1 {
			t.Errorf("a flush gave the parameters %v", had.Params())
		}
		return err
	})
	if left := b.Load().Profiles; len(left) > 0 || strings.Contains(b.Witness(b.Balancer, "", "nft", "list", "ruleset"), "later") {
		t.Errorf("a flush left %v", left)
	}
	b.stillLive(conns)
}
