package integration

// The record of the last apply: it spares reading everything back, and only
// where nothing has changed.

import (
	"strings"
	"testing"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// counting is a transport that counts what is sent.
type counting struct {
	wire.Transport
	sent int
}

func (c *counting) Send(b []byte) error {
	c.sent++
	return c.Transport.Send(b)
}

func TestRecordOfLastApply(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	apply := func(profile string) (*nft.Result, int) {
		t.Helper()
		var count *counting
		var r *nft.Result
		b.Check(b.Balancer.Do(func() error {
			transport, err := wire.Open()
			if err != nil {
				return err
			}
			count = &counting{Transport: transport}
			c := wire.NewConn(count)
			defer c.Close()
			r, err = nft.Apply(t.Context(), c, []*lb.Profile{b.Parse(profile)}, nft.Options{Table: "nlb", Record: true})
			return err
		}))
		return r, count.sent
	}
	one, two := web+backends(80, -1, -1), web+backends(80, -1, -1, -1)
	apply(one)
	if r, sent := apply(one); r.Messages != 0 || sent != 2 {
		t.Errorf("applied again, it sent %d requests and %d messages", sent, r.Messages)
	}
	// Somebody else's change makes it look, and find that all is well.
	b.Witness(b.Balancer, "add table ip other\n", "nft", "-f", "-")
	if r, sent := apply(one); r.Messages != 0 || sent <= 2 {
		t.Errorf("after somebody else's change it sent %d requests and %d messages", sent, r.Messages)
	}
	// A change of ours is found and repaired, whatever the record says.
	if r, _ := apply(two); len(r.Changes) != 1 {
		t.Errorf("another profile: %v", r.Changes)
	}
	b.Witness(b.Balancer, "flush chain inet nlb shop/web\n", "nft", "-f", "-")
	if r, _ := apply(two); !r.Repaired && len(r.Changes) == 0 {
		t.Errorf("a chain that somebody emptied was left so: %+v", r)
	}
	// What a backend leaves behind is looked after again.
	apply(one)
	if _, sent := apply(one); sent <= 2 {
		t.Errorf("after a backend went, the next apply sent %d requests only", sent)
	}
	// A ruleset that was saved and loaded again has no record.
	apply(two)
	saved := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	b.Witness(b.Balancer, "flush ruleset\n"+saved, "nft", "-f", "-")
	if _, sent := apply(two); sent <= 2 {
		t.Errorf("after nft has loaded it, an apply sent %d requests only", sent)
	}
}

// An apply that takes two batches leaves its record with the second one: it may
// be stopped between them, and then somebody else's commit makes the generation
// that it would have made.
func TestRecordOfHalfAnApply(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	listen := func(to string) string {
		return "profile: shop\nservices: [{name: web, listen: \"203.0.113.10:" + to + "\", backends: [10.2.0.11:80]}]\n"
	}
	one, wide := listen("80"), listen("80-89")
	halves := 0
	for step := 0; ; step++ {
		b.within(func(c *wire.Conn) error {
			_, _, err := nft.Flush(t.Context(), c, nil, nft.Options{Table: "nlb"})
			return err
		})
		b.applySoon(one)
		stopped := b.stopAt(step, 0, wide)
		retired := func() bool {
			return strings.Contains(b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "nlb"), `comment "retired"`)
		}
		if retired() {
			halves++
		}
		b.Witness(b.Balancer, "add table ip other\n", "nft", "-f", "-")
		b.applySoon(wide)
		b.repaired(b.Parse(wide))
		if retired() {
			t.Errorf("stopped at %d of %d: what was retired stays", step, stopped.steps)
		}
		b.Witness(b.Balancer, "delete table ip other\n", "nft", "-f", "-")
		if stopped.steps < step {
			break
		}
	}
	if halves == 0 {
		t.Error("it was never stopped between the batches")
	}
}
