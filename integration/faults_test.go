package integration

// Faults on the wire: whatever goes wrong between nlb and the kernel, what nlb
// says of it is true.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// deed is something that nlb does, from one state to another.
type deed struct {
	name          string
	before, after []string // profiles
	do            func(b *bed, c *wire.Conn, d *deed) error
	limit         int // of the socket; 0: what it takes
}

// options are those of all deeds.
var options = nft.Options{Table: "nlb", Prune: true, Settle: time.Millisecond, Record: true, Build: "test"}

func applies(b *bed, c *wire.Conn, d *deed) error {
	_, err := nft.Apply(b.T.Context(), c, b.all(d.after), options)
	return err
}

func flushes(names ...string) func(*bed, *wire.Conn, *deed) error {
	return func(b *bed, c *wire.Conn, d *deed) error {
		_, _, err := nft.Flush(b.T.Context(), c, names, options)
		return err
	}
}

// loads reads, and compares what was read.
func loads(b *bed, c *wire.Conn, d *deed) error {
	s, err := nft.Load(c, "nlb")
	if err != nil {
		return err
	}
	if changes := lb.Compare(s.Profiles, b.all(d.after)); len(changes) > 0 {
		b.T.Errorf("read as something else: %v", changes)
	}
	if drift := s.Drift(); len(drift) > 0 {
		b.T.Errorf("read as something else: %v", drift)
	}
	_, err = nft.ReadUsage(c)
	return err
}

func (b *bed) all(profiles []string) []*lb.Profile {
	var out []*lb.Profile
	for _, p := range profiles {
		out = append(out, b.Parse(p))
	}
	return out
}

const (
	// Between the two a UDP backend goes, a service passes to another chain and
	// to a map that is asked earlier, weights change and affinity comes.
	shopBefore = `profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", protocol: [tcp, udp], backends: ["10.2.0.11:8080", "10.2.0.12:8080"]}
  - {name: net, listen: "203.0.113.32/28:80-90", backends: ["10.2.0.11:8080"]}
  - {name: old, listen: "[2001:db8::10]:80", backends: ["[fd02::11]:8080"]}
`
	shopAfter = `profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", protocol: [tcp, udp], affinity: 1m, backends: [{address: "10.2.0.11:8080", weight: 2}, "10.2.0.13:8080"]}
  - {name: one, listen: "203.0.113.33:80", snat: [10.2.0.1], backends: ["10.2.0.12:8080"]}
  - {name: net, listen: "203.0.113.32/28:80-90", backends: ["10.2.0.11:8080"]}
`
	// A UDP backend goes and another one comes: no more is read than that.
	shopOtherBackends = `profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", protocol: [tcp, udp], backends: ["10.2.0.11:8080", "10.2.0.13:8080"]}
  - {name: net, listen: "203.0.113.32/28:80-90", backends: ["10.2.0.11:8080"]}
  - {name: old, listen: "[2001:db8::10]:80", backends: ["[fd02::11]:8080"]}
`
	otherShop = `profile: other
services:
  - {name: web, listen: "203.0.113.200:80", scheduler: hash, backends: ["10.2.0.11:8080", "10.2.0.12:8080"]}
`
)

var deeds = []deed{
	{name: "first apply", after: []string{shopBefore}, do: applies},
	{name: "apply", before: []string{shopBefore, otherShop}, after: []string{shopAfter, otherShop}, do: applies},
	{name: "apply of other backends", before: []string{shopBefore, otherShop}, after: []string{shopOtherBackends, otherShop}, do: applies},
	{name: "apply of the same", before: []string{shopBefore}, after: []string{shopBefore}, do: applies},
	{name: "apply in several batches", before: []string{shopBefore}, after: []string{shopAfter, otherShop}, do: applies, limit: 3 << 10},
	{name: "flush of one", before: []string{shopBefore, otherShop}, after: []string{otherShop}, do: flushes("shop")},
	{name: "flush", before: []string{shopBefore, otherShop}, do: flushes()},
	{name: "load", before: []string{shopBefore, otherShop}, after: []string{shopBefore, otherShop}, do: loads},
}

// verdicts count what nlb said.
type verdicts struct {
	trials, flaws                            int
	done, doneButFlows, not, part, uncertain int
}

// TestNothingLostFaults: in full, four kinds of faults at every call of every
// deed, one at a time; and then two at random.
func TestNothingLostFaults(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	singles, pairs := 4, 2
	if *full {
		singles, pairs = 1<<20, 60
	}
	for i := range deeds {
		d := &deeds[i]
		t.Run(d.name, func(t *testing.T) {
			b := b.with(t)
			var v verdicts
			calls := b.trial(d, nil, &v)
			var plans []map[int]int
			r := rand.New(rand.NewPCG(7, 1))
			for at, c := range calls {
				for _, n := range r.Perm(flawsOf(c))[:min(flawsOf(c), 4)] {
					plans = append(plans, map[int]int{at: n})
				}
			}
			r.Shuffle(len(plans), func(i, j int) { plans[i], plans[j] = plans[j], plans[i] })
			plans = plans[:min(len(plans), singles)]
			for range pairs {
				plans = append(plans, map[int]int{r.IntN(len(calls)): r.IntN(1 << 16), r.IntN(len(calls) + 10): r.IntN(1 << 16)})
			}
			for _, plan := range plans {
				b.trial(d, plan, &v)
				if t.Failed() {
					return
				}
			}
			figures(t, "%s: %d calls to the kernel, %d faults in %d trials: %d times done, %d done but for flows, %d nothing changed, %d partly, %d unknown; 0 false",
				d.name, len(calls), v.flaws, v.trials, v.done, v.doneButFlows, v.not, v.part, v.uncertain)
		})
	}
}

// trial does a deed while calls go wrong as planned, and compares what nlb says
// with what the kernel holds. It returns the calls that were made.
func (b *bed) trial(d *deed, plan map[int]int, v *verdicts) []call {
	b.T.Helper()
	b.begin(d)
	before := b.generation()
	f := &flaws{at: plan, limit: d.limit}
	var err error
	b.Check(b.Balancer.Do(func() error {
		t, e := wire.Open()
		if e != nil {
			return e
		}
		c := wire.NewConn(&flawed{Transport: t, flaws: f})
		defer c.Close()
		err = d.do(b, c, d)
		return nil
	}))
	v.trials++
	v.flaws += len(f.hit)
	fail := func(format string, args ...any) {
		b.T.Helper()
		b.T.Errorf("%v\nnlb said: %v\nbut %s", strings.Join(f.hit, "; "), err, fmt.Sprintf(format, args...))
	}
	if b.T.Failed() {
		fail("see above")
	}
	_, partly := errors.AsType[*nft.PartialError](err)
	_, flows := errors.AsType[*nft.FlowsError](err)
	unchanged := b.generation() == before
	switch {
	case err == nil || flows:
		if wrong := b.differs(d.after); wrong != "" {
			fail("%s", wrong)
		}
		if gone := b.flowsOfGone(); !flows && gone > 0 {
			fail("%d flows of removed backends are there", gone)
		}
		if flows {
			v.doneButFlows++
		} else {
			v.done++
		}
	case partly:
		v.part++
		if unchanged {
			fail("nothing was committed")
		}
	case errors.Is(err, wire.ErrUnknown):
		v.uncertain++
		if len(f.hit) == 1 && !f.shut {
			fail("it could have read back what came of it")
		}
	default:
		v.not++
		if !unchanged {
			fail("something was committed")
		}
	}
	return f.calls
}

// TestNothingLostBrokenDumps: a dump of many datagrams breaks off anywhere. It is
// read again, over a socket for which the kernel does not go on with the first.
func TestNothingLostBrokenDumps(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	fleet := killedFleet(3000, 1)
	profiles := b.all([]string{fleet, otherShop})
	b.Apply(fleet)
	dump := func(at int) (calls []call) {
		f := &flaws{at: map[int]int{at: 0}} // no room for an answer
		b.Check(b.Balancer.Do(func() error {
			transport, err := wire.Open()
			if err != nil {
				return err
			}
			c := wire.NewConn(&flawed{Transport: transport, flaws: f})
			defer c.Close()
			if _, err = nft.Apply(t.Context(), c, profiles, nft.Options{Table: "nlb", DryRun: true}); err != nil {
				t.Errorf("%v: %v", f.hit, err)
			}
			return nil
		}))
		return f.calls
	}
	broken, step := 0, 9
	if *full {
		step = 1
	}
	calls := dump(-1)
	for at, c := range calls[:len(calls)-1] { // the last one is the answer to the batch
		if at%step == 0 && c == receives {
			dump(at)
			broken++
		}
	}
	if broken < 5 {
		t.Errorf("%d dumps were broken off", broken)
	}
	figures(t, "dumps of 3,000 services broken off at any datagram: %d, and read again each time", broken)
}

// begin makes the balancer hold what a deed begins with, over a clean
// connection, with flows: once over whatever is there, to see that this mends
// it, and once from nothing, so that all trials begin with the same.
func (b *bed) begin(d *deed) {
	b.T.Helper()
	b.Check(b.Balancer.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		_, err := nft.Apply(b.T.Context(), c, b.all(d.before), options)
		return err
	})
	if wrong := b.differs(d.before); wrong != "" && len(d.before) > 0 {
		b.T.Fatalf("the next apply does not mend it: %s", wrong)
	}
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		_, _, err := nft.Flush(b.T.Context(), c, nil, nft.Options{Table: "nlb"})
		if err == nil && len(d.before) > 0 {
			_, err = nft.Apply(b.T.Context(), c, b.all(d.before), options)
		}
		return err
	})
	if slices.Contains(d.before, shopBefore) {
		b.Row("udp", "203.0.113.10:80", 2) // a flow to each backend
	}
}

func (b *bed) generation() (g uint32) {
	b.T.Helper()
	b.Kernel(b.Balancer, func(c *wire.Conn) (err error) { g, err = c.Generation(); return err })
	return g
}

// differs compares what the kernel holds with profiles; empty: it is the same.
func (b *bed) differs(profiles []string) string {
	b.T.Helper()
	s := b.Load()
	if changes := lb.Compare(s.Profiles, b.all(profiles)); len(changes) > 0 {
		return fmt.Sprintf("the kernel differs: %v", changes)
	}
	if drift := s.Drift(); len(drift) > 0 {
		return fmt.Sprintf("the kernel differs: %+v", drift)
	}
	if s.Exists() != (len(profiles) > 0) {
		return fmt.Sprintf("the table is there: %v", s.Exists())
	}
	return ""
}

// flowsOfGone counts UDP flows of backends that are not there.
func (b *bed) flowsOfGone() (n int) {
	b.T.Helper()
	s := b.Load()
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		census, err := nft.ReadUsage(c)
		n = nft.Orphans(census, s).Entries[lb.UDP]
		return err
	})
	return n
}
