package integration

// Connections that come from another balancer after slots have changed: they go on with the
// backend that they had.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/fleet"
	"nlb/nft/wire"
)

// slotBed is a bed with a service of a fleet that draws by the client's port, and
// connections to it. Two clients with the same port have the same slot.
type slotBed struct {
	*bed
	kind, hash string
	backends   []string // the last part of the address, and keys of the backend
	down       int      // the place of one that is down, as the profile has them; -1: none
	conns      []*traffic.Conn
}

const slotClients = 40 // of each family

func newSlotBed(t *testing.T, kind string, backends ...string) *slotBed {
	b := &slotBed{bed: newBed(t), kind: kind, hash: "source-port", backends: backends, down: -1}
	b.Address(b.Client, "eth0", "10.1.0.9/24", "fd01::9/64")
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14", "fd02::11", "fd02::12", "fd02::13", "fd02::14")
	b.apply()
	b.conns = b.open("10.1.0.2", "fd01::2")
	return b
}

// apply applies the profile as it is now. It reads the service alone, where that is enough.
func (b *slotBed) apply() {
	b.T.Helper()
	var list []string
	for _, family := range []string{"10.2.0.%s:8080", "[fd02::%s]:8080"} {
		for _, s := range b.backends {
			last, keys, _ := strings.Cut(s, ",")
			if keys != "" {
				keys = ", " + keys
			}
			list = append(list, fmt.Sprintf("{address: %q%s}", fmt.Sprintf(family, last), keys))
		}
	}
	p := b.Parse("profile: shop\nfleet: " + b.kind + "\nservices:\n  - {name: web, scheduler: consistent, hash-by: " + b.hash +
		", snat: none, listen: [\"203.0.113.10:80\", \"[2001:db8::10]:80\"], backends: [" + strings.Join(list, ", ") + "]}\n")
	if b.down >= 0 {
		p = stand(stand(p, b.down, lb.Down, lb.Standing{}), b.down+len(b.backends), lb.Down, lb.Standing{})
	}
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		_, err := nft.Apply(b.T.Context(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Record: true})
		return err
	})
	b.undrifted("applied")
}

// open opens connections from these addresses, from the same ports each time.
func (b *slotBed) open(from ...string) (out []*traffic.Conn) {
	b.T.Helper()
	for i, a := range from {
		for n := range slotClients {
			client := traffic.Client{Host: b.Client, Source: netip.MustParseAddr(a), Port: uint16(20000 + n), Timeout: 5 * time.Second, Reset: true}
			c, err := client.Dial(b.T.Context(), "tcp", fleetVIPs[i])
			b.Check(err)
			b.T.Cleanup(func() { c.Close() })
			out = append(out, c)
		}
	}
	return out
}

// younger are connections of the second client.
func (b *slotBed) younger() []*traffic.Conn {
	b.T.Helper()
	return b.open("10.1.0.9", "fd01::9")
}

// drawn is where new connections with the same ports go.
func (b *slotBed) drawn() (backends []string) {
	b.T.Helper()
	for _, c := range b.younger() {
		backends = append(backends, c.Reply.Backend)
		c.Close()
	}
	return backends
}

// moved are the connections that would draw another backend.
func (b *slotBed) moved() (out []*traffic.Conn) {
	b.T.Helper()
	for i, backend := range b.drawn() {
		if backend != b.conns[i].Reply.Backend {
			out = append(out, b.conns[i])
		}
	}
	return out
}

// goOn has the connections come from another balancer. All are to go on but these.
func (b *slotBed) goOn(but ...*traffic.Conn) {
	b.T.Helper()
	b.move()
	gone := lost(b.conns, silent)
	if len(gone) != len(but) || slices.ContainsFunc(gone, func(c *traffic.Conn) bool { return !slices.Contains(but, c) }) {
		b.T.Errorf("%d of %d connections were lost, want the %d that have to be", len(gone), len(b.conns), len(but))
	}
	b.conns = slices.DeleteFunc(b.conns, func(c *traffic.Conn) bool { return slices.Contains(gone, c) })
}

// at are the connections to a backend.
func (b *slotBed) at(last string) (out []*traffic.Conn) {
	for _, c := range b.conns {
		if strings.HasSuffix(c.Reply.Backend, last) {
			out = append(out, c)
		}
	}
	return out
}

// TestPickedUpBefore: connections go on with their backends where their slots lead to
// others by now, and new ones draw these.
func TestPickedUpBefore(t *testing.T) {
	t.Parallel()
	three, four := []string{"11", "12", "13"}, []string{"11", "12", "13", "14"}
	for _, tt := range []struct {
		name      string
		kind      string
		was, then []string
		hash      string // then; empty: as before
		least     int    // of the 80 new connections draw another backend
	}{
		{name: "added", was: three, then: four, least: 5},
		{name: "added, and slots", was: three[:2], then: three, least: 20},
		{name: "added, with its weight", kind: "mesh", was: three, then: []string{"11", "12", "13", "14, weight: 5"}, least: 20},
		{name: "weight", was: three, then: []string{"11, weight: 5", "12", "13"}, least: 5},
		{name: "drained", was: three, then: []string{"11, weight: 0", "12", "13"}, least: 5},
		{name: "hash", was: three, then: three, hash: "[destination-port, source-port]", least: 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newSlotBed(t, cmp.Or(tt.kind, "anycast"), tt.was...)
			b.backends, b.hash = tt.then, cmp.Or(tt.hash, b.hash)
			b.apply()
			if n := len(b.moved()); n < tt.least {
				t.Errorf("%d of %d new connections draw another backend, want %d at least", n, len(b.conns), tt.least)
			}
			b.conns = append(b.conns, b.younger()...)
			b.goOn()
			// as it was saved
			b.NFT(b.Balancer, "flush ruleset\n"+b.Witness(b.Balancer, "", "nft", "list", "ruleset"))
			b.apply()
			b.goOn()
		})
	}
	t.Run("removed", func(t *testing.T) {
		t.Parallel()
		b := newSlotBed(t, "anycast", four...)
		theirs := b.at("12")
		b.backends = []string{"11", "13", "14"}
		b.apply()
		if n := len(b.moved()); n < len(theirs) || len(theirs) < 5 {
			t.Errorf("%d connections have a backend that is removed, and %d draw another one", len(theirs), n)
		}
		b.goOn(theirs...)
	})
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		b := newSlotBed(t, "anycast", three...)
		b.backends = four
		b.apply()
		b.conns = append(b.conns, b.younger()...)
		b.goOn()
		theirs := b.at("14")
		b.backends = three // as it was
		b.apply()
		b.goOn(theirs...)
	})
	t.Run("in steps", func(t *testing.T) {
		t.Parallel()
		b := newSlotBed(t, "anycast", three...)
		b.backends = four
		b.apply()
		b.backends = []string{"11", "12, weight: 5", "13", "14"}
		b.apply()
		b.goOn()
	})
	t.Run("noted, and removed", func(t *testing.T) {
		t.Parallel()
		b := newSlotBed(t, "anycast", "11", "12", "13", "14, weight: 5")
		b.backends = four
		b.apply()
		b.conns = b.younger()
		theirs := b.at("14")
		b.backends = three
		b.apply()
		b.backends = []string{"11", "12", "13, weight: 2"} // nothing is left of what was removed
		b.apply()
		b.goOn(theirs...)
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		b := newSlotBed(t, "anycast", three...)
		first := b.conns
		b.down = 1
		b.NFT(b.Balancer, "table inet dead { chain c { type filter hook forward priority 0; ip daddr 10.2.0.12 drop; ip6 daddr fd02::12 drop; }; }")
		b.apply()
		b.conns = b.younger() // while it is down others take over, and keep theirs
		if n := len(b.at("12")); n > 0 {
			t.Errorf("%d connections have a backend that is down", n)
		}
		b.goOn()
		b.NFT(b.Balancer, "delete table inet dead")
		b.down, b.conns = -1, append(b.conns, first...) // it is up again, and so are its connections
		b.apply()
		b.goOn()
	})
}

// TestPickedUpBeforeEnds: after a while all draw as new connections do. It changes how long
// that is, so nothing runs beside it.
func TestPickedUpBeforeEnds(t *testing.T) {
	defer func(d time.Duration) { fleet.BeforeTime = d }(fleet.BeforeTime)
	fleet.BeforeTime = 200 * time.Millisecond
	b := newSlotBed(t, "anycast", "11", "12", "13")
	b.backends = append(b.backends, "14")
	b.apply()
	moved := b.moved()
	b.eventually("nothing is noted any more", func() bool {
		all := b.Witness(b.Balancer, "", "nft", "list", "map", "inet", "nlb", "shop/web/before4") + b.Witness(b.Balancer, "", "nft", "list", "map", "inet", "nlb", "shop/web/before6")
		return !strings.Contains(all, "elements")
	})
	b.goOn(moved...)
	b.backends = b.backends[1:] // and slots can be noted again
	fleet.BeforeTime = time.Minute
	theirs := b.at("11")
	b.apply()
	b.goOn(theirs...)
}
