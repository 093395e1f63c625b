package integration

// Tables of two families in one batch.

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// TestTwoFamilies: a batch makes a table of family inet and one of family netdev,
// and both act on packets. What they print loads again, and is the same.
func TestTwoFamilies(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{80}, "10.2.0.11", "fd02::11")
	tables := []*ruleset.Ruleset{
		{Table: "one", Family: ruleset.Inet, Comment: "drops IPv4", Chains: []*ruleset.Chain{{
			Name: "in", Filter: true, Hook: ruleset.Prerouting(-150, "mangle"),
			Rules: []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.IPv4.Match(), ruleset.Drop()}}},
		}}},
		{Table: "two", Family: ruleset.Netdev, Comment: "drops UDP", Chains: []*ruleset.Chain{{
			Name: "in", Filter: true, Hook: ruleset.Ingress(0, "eth0"),
			Rules: []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.IsL4(17), ruleset.Drop()}}},
		}}},
	}
	answers := func(v4, tcp, udp bool) {
		t.Helper()
		for _, one := range []struct {
			network, to string
			want        bool
		}{{"tcp", "10.2.0.11:80", v4}, {"tcp", "[fd02::11]:80", tcp}, {"udp", "[fd02::11]:80", udp}} {
			c := b.From()
			c.Timeout = 300 * time.Millisecond
			if _, err := c.Exchange(t.Context(), one.network, netip.MustParseAddrPort(one.to)); (err == nil) != one.want {
				t.Errorf("%s to %s: %v", one.network, one.to, err)
			}
		}
	}
	answers(true, true, true)
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		generation, err := c.Generation()
		if err != nil {
			return err
		}
		batch := wire.NewBatch(generation)
		for _, r := range tables {
			m := &ruleset.Messages{Batch: batch, Family: r.Family, Table: r.Table, List: ruleset.MaxList}
			m.NewTable(r.Comment)
			for _, chain := range r.Chains {
				m.NewChain(chain)
				for _, rule := range chain.Rules {
					m.Rule(chain.Name, rule, 0)
				}
			}
		}
		_, err = c.Commit(batch, generation)
		return err
	})
	answers(false, true, false)
	listing := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	var script strings.Builder
	for _, r := range tables {
		script.WriteString(r.String())
	}
	b.NFT(b.Balancer, script.String())
	if again := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); again != listing {
		t.Errorf("netlink made\n%s\nthe text makes\n%s", listing, again)
	}
	answers(false, true, false)
}
