package nft_test

// A table that stays open, in the kernel.

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/lb"
	"nlb/lb/lbtest"
	"nlb/nft"
	nftables "nlb/nft/ruleset"
	"nlb/nft/wire"
)

func TestMain(m *testing.M) {
	if err := netlab.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a network namespace of its own, with so many conversations.
func host(t testing.TB, n int) (*netlab.Host, []*wire.Conn) {
	t.Helper()
	w, err := netlab.New()
	must(t, err)
	t.Cleanup(func() { w.Close() })
	h, err := w.Host("host")
	must(t, err)
	conns := make([]*wire.Conn, n)
	for i := range conns {
		must(t, h.Do(func() (err error) { conns[i], err = wire.Dial(); return err }))
		t.Cleanup(func() { conns[i].Close() })
	}
	return h, conns
}

var recorded = nft.Options{Table: "nlb", Record: true, Build: "test", Settle: time.Millisecond}

// standing is a profile of a service whose first backend stands so.
func standing(p *lb.Profile, service int, state lb.BackendState, s lb.Standing) []*lb.Profile {
	out := *p
	out.Services = slices.Clone(p.Services[service : service+1])
	out.Services[0].Backends = slices.Clone(out.Services[0].Backends)
	out.Services[0].Backends[0].State, out.Services[0].Backends[0].Standing = state, s
	return []*lb.Profile{&out}
}

var down = lb.Standing{Verdict: lb.VerdictDown, Since: time.Date(2026, 11, 26, 4, 5, 6, 0, time.UTC), Reason: "tcp: refused"}

// commits commits in another table, on and on.
func commits(t testing.TB, c *wire.Conn, every time.Duration) (stop func()) {
	t.Helper()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(every):
			}
			b := wire.NewBatch(wire.AnyGeneration)
			m := &nftables.Messages{Batch: b, Family: nftables.Inet, Table: "other", List: nftables.MaxList}
			m.NewTable("another program's")
			m.DeleteTable()
			before, err := c.Generation()
			if err == nil {
				_, err = c.Commit(b, before)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// cpuTime is what this thread has worked: other programs do not count.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUpdate takes backends down, and up again, and waits for the commit.
func BenchmarkUpdate(b *testing.B) {
	for _, bench := range []struct {
		name            string
		services, count int
		beside          time.Duration
	}{
		{"1of10", 10, 1, 0},
		{"1of1000", 1000, 1, 0},
		{"1of10000", 10_000, 1, 0},
		{"1of10000beside50/s", 10_000, 1, 20 * time.Millisecond},
		{"500of10000", 10_000, 500, 0},
		{"10000of10000", 10_000, 10_000, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			h, conns := host(b, 2)
			must(b, h.Do(func() error {
				p := lbtest.Fleet(bench.services)
				t := nft.Open(conns[0], "nlb")
				defer t.Close()
				_, err := t.Apply(b.Context(), []*lb.Profile{p}, recorded)
				must(b, err)
				if bench.beside > 0 {
					defer commits(b, conns[1], bench.beside)()
				}
				round, slowest, busy := 0, time.Duration(0), time.Duration(0)
				for b.Loop() {
					state, s := lb.Down, down
					if round%2 == 1 {
						state, s = lb.Up, lb.Standing{}
					}
					part := &lb.Profile{Name: p.Name}
					for i := range bench.count {
						at := (i*(bench.services/bench.count) + round/2*7) % bench.services
						part.Services = append(part.Services, standing(p, at, state, s)[0].Services...)
					}
					begin, before := time.Now(), cpuTime()
					r, err := t.Update(b.Context(), []*lb.Profile{part})
					must(b, err)
					slowest = max(slowest, time.Since(begin))
					busy += cpuTime() - before
					if r.Cleanup != nil {
						b.StopTimer()
						_, err := r.Cleanup.Run(b.Context())
						must(b, err)
						b.StartTimer()
					}
					round++
				}
				b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
				b.ReportMetric(float64(busy.Microseconds())/1000/float64(b.N), "cpu-ms/op")
				return nil
			}))
		})
	}
}
