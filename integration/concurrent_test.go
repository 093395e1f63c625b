package integration

// Concurrent: several applies at once, beside another program that changes a
// table of its own all the time.

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

// rival is a profile that is applied beside others.
type rival struct {
	profile string
	file    string
	// alike are those that have the same name, or that claim the same: one of
	// them is there in the end.
	alike string
	// refused: of those that are alike, those after the first end with an error.
	refused bool
}

// rivals are 8 profiles: 3 that have nothing to do with each other, 3 editions
// of one, and 2 that claim the same address.
func rivals(round int) []*rival {
	profile := func(name, address string, edition int) string {
		s := fmt.Sprintf("profile: %s\nservices:\n", name)
		for i := range 20 {
			s += fmt.Sprintf("  - {name: s%d, listen: \"%s:%d\", protocol: [tcp, udp], backends: [\"10.3.0.1:80\", \"10.2.%d.%d:80\"]}\n", i, address, 1000+i, edition, round)
		}
		return s
	}
	var out []*rival
	for i, name := range []string{"a", "b", "c"} {
		out = append(out, &rival{profile: profile(name, fmt.Sprintf("203.0.113.%d", i), 1), alike: name})
	}
	for i := range 3 {
		out = append(out, &rival{profile: profile("shared", "203.0.113.10", i), alike: "shared"})
	}
	for i := range 2 {
		out = append(out, &rival{profile: profile(fmt.Sprintf("claim%d", i), "203.0.113.20", 1), alike: "claim", refused: true})
	}
	return out
}

func TestNothingLostConcurrent(t *testing.T) {
	t.Parallel()
	rounds := 3
	if *full {
		rounds = 30
	}
	b := newBed(t)
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	var other int
	wait.Go(func() {
		if err := b.Balancer.Do(func() (err error) { other, err = commitAlways(ctx); return err }); err != nil {
			t.Error(err)
		}
	})
	applied, refused := 0, 0
	var longest time.Duration
	for round := range rounds {
		b.flush("claim0", "claim1")
		all := rivals(1 + round)
		ok := map[string]int{}
		var mu sync.Mutex
		var each sync.WaitGroup
		for i, r := range all {
			r.file = b.write(fmt.Sprintf("rival%d.yaml", i), r.profile)
			each.Go(func() {
				begin := time.Now()
				code, stderr := b.process("apply", r.file)
				mu.Lock()
				defer mu.Unlock()
				longest = max(longest, time.Since(begin))
				switch {
				case code == 0:
					ok[r.alike]++
					applied++
				case r.refused && strings.Contains(stderr, "conflict") && strings.Contains(stderr, "nothing was changed"):
					refused++
				default:
					t.Errorf("round %d, %s: exit code %d: %s", round, r.alike, code, stderr)
				}
			})
		}
		each.Wait()
		if ok["claim"] != 1 {
			t.Errorf("round %d: %d profiles got the same address", round, ok["claim"])
		}
		b.isOneOrder(round, all)
	}
	stop()
	wait.Wait()
	// The other program's table is as that program left it.
	if text := b.Witness(b.Balancer, "", "nft", "list", "table", "ip", "other"); strings.Count(text, "counter") != 1 {
		t.Errorf("the other program's table:\n%s", text)
	}
	figures(t, "%d rounds of 8 applies at once beside %d commits of another program: %d applied, %d refused with a conflict, none lost; the longest took %s",
		rounds, other, applied, refused, longest.Round(time.Millisecond))
}

// isOneOrder fails where no order of the applies gives what the kernel holds.
func (b *bed) isOneOrder(round int, all []*rival) {
	b.T.Helper()
	var s *nft.State
	b.within(func(c *wire.Conn) (err error) { s, err = nft.Load(c, "nlb"); return err })
	left := map[string][]*lb.Profile{}
	for _, r := range all {
		left[r.alike] = append(left[r.alike], b.Parse(r.profile))
	}
	for _, have := range s.Profiles {
		for alike, candidates := range left {
			if slices.ContainsFunc(candidates, func(p *lb.Profile) bool {
				return p.Name == have.Name && len(lb.Compare([]*lb.Profile{have}, []*lb.Profile{p})) == 0
			}) {
				delete(left, alike)
			}
		}
	}
	if len(left) > 0 || len(s.Profiles) != 5 {
		var names []string
		for _, p := range s.Profiles {
			names = append(names, p.Name)
		}
		b.T.Errorf("round %d: no order of the applies gives %v; missing: %v", round, names, left)
	}
	if drift := s.Drift(); len(drift) > 0 {
		b.T.Errorf("round %d: %v", round, drift)
	}
}

// process runs the command in the balancer.
func (b *bed) process(args ...string) (code int, stderr string) {
	c := b.Balancer.Command(b.T.Context(), b.command(), args...)
	var text bytes.Buffer
	c.Stderr = &text
	if err := c.Run(); c.ProcessState == nil {
		return -1, err.Error()
	}
	return c.ProcessState.ExitCode(), text.String()
}

// commitAlways changes a table of its own thousands of times a second, until the
// context ends, and returns how often.
func commitAlways(ctx context.Context) (commits int, err error) {
	c, err := wire.Dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	const table, chain = "other", "chain"
	for ; ctx.Err() == nil; commits++ {
		if commits%16 == 0 {
			time.Sleep(100 * time.Microsecond)
		}
		err := wiretest.Send(c, func(b *wire.Batch) {
			wiretest.AddTable(b, unix.NFPROTO_IPV4, table)
			wiretest.AddChain(b, unix.NFPROTO_IPV4, table, chain)
			wiretest.FlushChain(b, unix.NFPROTO_IPV4, table, chain)
			wiretest.AddCounter(b, unix.NFPROTO_IPV4, table, chain)
		})
		if err != nil {
			return commits, err
		}
	}
	return commits, nil
}
