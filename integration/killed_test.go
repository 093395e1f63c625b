package integration

// Killed: whenever an apply is cut off, the kernel holds the old state or the
// new one, and the next apply repairs what else was left.

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// killedFleet is a profile of services that have one backend each from the
// edition, and of one for UDP whose flows have to move.
func killedFleet(services, edition int) string {
	var b strings.Builder
	b.WriteString("profile: fleet\nservices:\n")
	fmt.Fprintf(&b, "  - {name: dns, listen: \"203.0.113.10:53\", protocol: udp, backends: [\"10.2.0.11:53\", \"10.2.0.%d:53\"]}\n", 11+edition)
	for i := range services {
		fmt.Fprintf(&b, "  - {name: s%d, listen: \"198.18.%d.%d:80\", backends: [\"100.64.0.1:80\", \"100.64.%d.2:80\"]}\n", i, i/250, i%250, edition)
	}
	return b.String()
}

// TestNothingLostKilled ends the process with SIGKILL at random moments.
func TestNothingLostKilled(t *testing.T) {
	t.Parallel()
	kills, services := 8, 500
	if *full {
		kills, services = 200, 2000
	}
	b := newBed(t)
	b.Serve([]int{53}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	texts := []string{killedFleet(services, 1), killedFleet(services, 2)}
	oldProfile, newProfile := b.Parse(texts[0]), b.Parse(texts[1])
	file := b.write("fleet.yaml", texts[1])
	// reset makes the state that an apply begins with, flows included.
	reset := func() {
		b.Check(b.Balancer.Forward())
		b.drop()
		b.Apply(texts[0])
		b.Row("udp", "203.0.113.10:53", 4)
		b.unset()
	}
	reset()
	before, nlb := b.listing(), b.command()
	begin := time.Now()
	b.Witness(b.Balancer, "", nlb, "apply", file)
	whole := time.Since(begin)
	after := b.listing()
	if before == after {
		t.Fatal("nothing to compare")
	}

	draw := rand.New(rand.NewPCG(3, 4))
	outcomes := map[string]int{}
	held := after
	for i := range kills {
		if held != before {
			reset()
		}
		c := b.Balancer.Command(t.Context(), nlb, "apply", file)
		committed := b.nextCommit()
		b.Check(c.Start())
		// More often near the beginning: the last half second is spent waiting.
		moment := time.Duration(draw.Float64() * draw.Float64() * 1.1 * float64(whole))
		if i%5 == 4 { // or as soon as anything was committed
			began := time.Now()
			committed()
			moment = time.Since(began)
		} else {
			time.Sleep(moment)
		}
		_ = c.Process.Kill()
		ended := c.Wait() == nil
		moving := b.moving()
		held = b.listing()
		outcome := "the old state"
		if held == after {
			outcome = "the new state"
		}
		switch s := b.Load(); {
		case held != before && held != after:
			t.Errorf("killed after %s: neither the old nor the new ruleset", moment)
		case held == before && !holds(s, oldProfile), held == after && !holds(s, newProfile):
			t.Errorf("killed after %s: it is not read as %s", moment, outcome)
		case ended:
			outcome = "ended before"
		case moving:
			outcome = "the new state, flows on their way"
		}
		outcomes[outcome]++
		if held == before {
			continue // the next one begins here
		}
		b.Witness(b.Balancer, "", nlb, "apply", file)
		b.repaired(newProfile)
		for _, p := range needed {
			if v, err := b.Balancer.Sysctl(p.name); v != p.set || err != nil {
				t.Errorf("killed after %s: %s is %s after the next apply (%v)", moment, p.name, v, err)
			}
		}
	}
	figures(t, "%d kills of an apply of %d services that takes %s: %v", kills, services, whole.Round(time.Millisecond), outcomes)
}

// within talks to the balancer's kernel on a thread that is there, as the
// command does.
func (b *bed) within(f func(c *wire.Conn) error) {
	b.T.Helper()
	b.Check(b.Balancer.Do(func() error {
		c, err := wire.Dial()
		if err != nil {
			return err
		}
		return errors.Join(f(c), c.Close())
	}))
}

// nextCommit returns a function that waits until the balancer's ruleset is
// another than now.
func (b *bed) nextCommit() (wait func()) {
	b.T.Helper()
	generation := func() (g uint32) {
		b.Kernel(b.Balancer, func(c *wire.Conn) (err error) { g, err = c.Generation(); return err })
		return g
	}
	before := generation()
	return func() {
		for begin := time.Now(); generation() == before && time.Since(begin) < 10*time.Second; {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// drop deletes the balancer's table. Flows stay, unlike with a flush, which
// takes longer.
func (b *bed) drop() {
	b.T.Helper()
	b.Witness(b.Balancer, "add table inet nlb\ndelete table inet nlb\n", "nft", "-f", "-")
}

// flush removes profiles from the balancer, all of them where none is named.
func (b *bed) flush(profiles ...string) {
	b.T.Helper()
	b.within(func(c *wire.Conn) error {
		_, _, err := nft.Flush(b.T.Context(), c, profiles, nft.Options{Table: "nlb"})
		return err
	})
}

// holds reports whether a state is one profile.
func holds(s *nft.State, p *lb.Profile) bool {
	return len(lb.Compare(s.Profiles, []*lb.Profile{p})) == 0
}

// moving reports whether flows are on their way to another backend.
func (b *bed) moving() bool {
	b.T.Helper()
	return strings.Contains(b.Witness(b.Balancer, "", "nft", "list", "chains"), "chain moving")
}

// repaired fails where the balancer holds something else than the profile, or
// something besides.
func (b *bed) repaired(p *lb.Profile) {
	b.T.Helper()
	s := b.Load()
	if !holds(s, p) {
		b.T.Errorf("the next apply did not repair it: %v", lb.Compare(s.Profiles, []*lb.Profile{p}))
	}
	if drift := s.Drift(); len(drift) > 0 {
		b.T.Errorf("after the next apply: %v", drift)
	}
	if b.moving() {
		b.T.Error("flows are on their way for ever")
	}
	var live nft.Usage
	b.Kernel(b.Balancer, func(c *wire.Conn) (err error) { live, err = nft.ReadUsage(c, s); return err })
	strays := 0
	for _, n := range nft.Orphans(live, s).Live {
		strays += n
	}
	if strays > 0 {
		b.T.Errorf("%d flows of backends that are gone were left", strays)
	}
}

// listing is the table as nft lists it, without handles and counters, elements
// in order, and without what moves flows.
func (b *bed) listing() string {
	b.T.Helper()
	var all struct{ Nftables []map[string]map[string]any }
	b.Check(json.Unmarshal([]byte(b.Witness(b.Balancer, "", "nft", "-j", "list", "table", "inet", "nlb")), &all))
	var out []string
	for _, object := range all.Nftables {
		for kind, o := range object {
			name, _ := o["name"].(string)
			if chain, ok := o["chain"].(string); ok {
				name = chain
			}
			if kind == "metainfo" || strings.HasPrefix(name, "moving") {
				continue
			}
			delete(o, "handle")
			elements, _ := o["elem"].([]any)
			delete(o, "elem")
			out = append(out, kind+" "+name+" "+jsonOf(o))
			var lines []string
			for _, e := range elements {
				lines = append(lines, kind+" "+name+" element "+jsonOf(uncounted(e)))
			}
			slices.Sort(lines)
			out = append(out, lines...)
		}
	}
	return strings.Join(out, "\n")
}

// uncounted takes the counters out of an element.
func uncounted(e any) any {
	switch e := e.(type) {
	case []any:
		for i := range e {
			e[i] = uncounted(e[i])
		}
	case map[string]any:
		delete(e, "counter")
		for k := range e {
			e[k] = uncounted(e[k])
		}
	}
	return e
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
