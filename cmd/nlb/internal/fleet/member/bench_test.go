//go:build linux

package member

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/fleet"
	"nlb/integration/netlab/netlabtest"
)

// crew are nodes whose agents do nothing, and say so at once.
func crew(b *testing.B, e *cluster, n int) {
	states, err := os.MkdirTemp("/dev/shm", "nlb") // 50 nodes have 50 disks
	netlabtest.Must(b, err)
	b.Cleanup(func() { os.RemoveAll(states) })
	for i := range n {
		c := e.Config(fmt.Sprintf("n%d", i+1))
		c.State = filepath.Join(states, c.Name)
		m, err := Open(c, "test", slog.New(slog.NewTextHandler(io.Discard, nil)))
		netlabtest.Must(b, err)
		ctx, cancel := context.WithCancel(context.Background())
		b.Cleanup(cancel)
		f := m.Fleet()
		go m.Run(ctx)
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-f.Sentences:
				case t := <-f.Turns:
					close(t.Done)
				case o := <-f.Offers:
					o.Reply <- nil
				}
			}
		}()
	}
}

// BenchmarkFifty is when the last of 50 nodes, whose agents are made up, has a small
// profile, and says so, after a push has begun; and how long it takes 50 nodes to fetch
// and verify one of 10,000 x 3 at once. To parse that is the work of one processor
// each, of which these 50 have two together.
func BenchmarkFifty(b *testing.B) {
	e := startEtcd(b, 3, false)
	crew(b, e, 50)
	a := newAdmin(b, e)
	await(b, a, 50)
	quiet := fleet.Ask{Read: these(sourceOf(b, "wide", wide(1))), Canary: "n1"} // only its blob is wanted
	plan, err := a.store.Plan(b.Context(), quiet)
	netlabtest.Must(b, err, a.store.Commit(b.Context(), plan))
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		a.pushes("shop", yaml("shop", shopAt, fmt.Sprintf("10.2.0.%d", i%250+1)))
		b.ReportMetric(time.Since(began).Seconds(), "small-s")
		began = time.Now()
		var fetching sync.WaitGroup
		for n := range 50 {
			fetching.Go(func() {
				s, err := fleet.Dial(e.Config(fmt.Sprintf("n%d", n+1)))
				if err == nil {
					defer s.Close()
					_, err = s.Blob(b.Context(), &plan.Steps[0].Next.Version)
				}
				if err != nil {
					b.Error(err)
				}
			})
		}
		fetching.Wait()
		b.ReportMetric(time.Since(began).Seconds(), "fetch-wide-s")
	}
}

// BenchmarkRestart is how long after all three members of etcd were killed, and
// started two seconds later, a push is in, and then with all of 50 nodes.
func BenchmarkRestart(b *testing.B) {
	e := startEtcd(b, 3, false)
	crew(b, e, 50)
	a := newAdmin(b, e)
	await(b, a, 50)
	for i := 0; b.Loop(); i++ {
		for m := range 3 {
			e.Kill(m)
		}
		time.Sleep(2 * time.Second)
		for m := range 3 {
			e.Begin(m)
		}
		began := time.Now()
		for {
			plan, err := a.store.Plan(b.Context(), fleet.Ask{Read: these(sourceOf(b, "shop", yaml("shop", shopAt, fmt.Sprintf("10.2.0.%d", i%250+1))))})
			if err == nil {
				err = a.store.Commit(b.Context(), plan)
			}
			if err == nil {
				b.ReportMetric(time.Since(began).Seconds(), "push-s")
				alive, _ := plan.Known.There()
				faults, err := a.store.Await(b.Context(), plan, alive, bound, 0)
				if err != nil || len(faults) > 0 || len(alive) != 50 {
					b.Fatal(len(alive), faults, err)
				}
				b.ReportMetric(time.Since(began).Seconds(), "all-s")
				break
			}
		}
	}
}

func await(b *testing.B, a *admin, n int) {
	for deadline := time.Now().Add(bound); ; time.Sleep(50 * time.Millisecond) {
		k, err := a.store.Known(b.Context())
		if err == nil && len(k.Alive) == n && len(k.Nodes) == n {
			return
		}
		if time.Now().After(deadline) {
			b.Fatal("not all nodes are there", err)
		}
	}
}
