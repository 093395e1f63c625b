//go:build linux

package bench

// Applying: where nothing is, where the same is, and where one backend differs.

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
	"nlb/nft/wire"
)

// cold is what it takes to apply a profile in a fresh namespace, and what it
// takes nft to load the same rules.
type cold struct {
	nlb, nft usages
	// netlink is the part that talks to the kernel, bare the kernel's own time
	// for the same bytes.
	netlink, bare []time.Duration
}

// round measures each once.
func (c *cold) round(b *testing.B, profile, script string) {
	c.nlb.alone(b, *program, "apply", profile)
	c.nft.alone(b, "nft", "-f", script)
	w := &watch{keep: true}
	fresh(b, func(h *netlab.Host) { w.apply(b, h, profile) })
	c.netlink = append(c.netlink, w.ended.Sub(w.began))
	fresh(b, func(h *netlab.Host) { c.bare = append(c.bare, w.replay(b, h)) })
}

// BenchmarkColdApply is beside nft -f of the same rules, and beside the kernel
// alone.
func BenchmarkColdApply(b *testing.B) {
	prepare(b)
	var few, many cold
	sizes := []int{size(10_000), size(64_000)}
	var files [2][2]string
	for i, n := range sizes {
		profile := save(b, fmt.Sprintf("fleet%d.yaml", n), fleet("fleet", 0, n))
		files[i] = [2]string{profile, render(b, profile)}
	}
	for b.Loop() {
		few.round(b, files[0][0], files[0][1])
		many.round(b, files[1][0], files[1][1])
	}
	small, large := grouped(sizes[0])+" x 3", grouped(sizes[1])+" x 3"
	const alone = "the kernel alone, same bytes"
	compare(b, "cold apply, "+small, few.nlb.Walls, "nft -f", few.nft.Walls, 0.6)
	compare(b, "netlink part of it", few.netlink, alone, few.bare, 1.3)
	compare(b, "cold apply, "+large, many.nlb.Walls, "that of "+small, few.nlb.Walls, 7)
	compare(b, "the kernel alone, "+large, many.bare, "that of "+small, few.bare, 0)
	compare(b, "cold apply, "+large, many.nlb.Walls, "nft -f", many.nft.Walls, 0)
	compare(b, "netlink part of it", many.netlink, alone, many.bare, 1.3)
	compareSizes(b, many.nlb.RSS, "nft -f", many.nft.RSS, 0)
}

// BenchmarkChange applies again: the same, one changed backend, and the same
// after another program's commit, for which everything is read back.
func BenchmarkChange(b *testing.B) {
	prepare(b)
	n := size(10_000)
	as, to := save(b, "steady.yaml", fleet("fleet", 0, n)), save(b, "changed.yaml", changed("fleet", n))
	var first, again, reread, one usages
	var batch []time.Duration
	messages := 0
	for b.Loop() {
		fresh(b, func(h *netlab.Host) {
			// step fails unless it makes so many generations of the ruleset.
			step := func(to *usages, generations uint32, program ...string) {
				before := generation(b, h)
				quiet()
				to.timed(b, h, program...)
				if after := generation(b, h); after != before+generations {
					b.Fatalf("%s: generation %d, was %d, want %d more", strings.Join(program, " "), after, before, generations)
				}
			}
			step(&first, 1, *program, "apply", as)
			step(&again, 0, *program, "apply", as)
			step(&one, 1, *program, "apply", to)
			step(new(usages), 1, "nft", "add", "table", "inet", "other")
			step(&reread, 0, *program, "apply", to)
			// Back, and once more, watched.
			new(watch).apply(b, h, as)
			w := new(watch)
			messages = w.apply(b, h, to).Messages
			batch = append(batch, w.kernel)
		})
	}
	services := grouped(n) + " x 3"
	compare(b, "apply again, unchanged, "+services+"; nothing sent: same generation", again.Walls, "cold apply", first.Walls, 0.35)
	compare(b, "the same after another program's commit, so that all is read back", reread.Walls, "cold apply", first.Walls, 0)
	compare(b, "apply with one backend changed, "+services, one.Walls, "cold apply", first.Walls, 0.4)
	compare(b, fmt.Sprintf("the batch of that change, %d messages, in the kernel", messages), batch, "cold apply", first.Walls, 0)
}

// generation is the number of a host's ruleset.
func generation(b *testing.B, h *netlab.Host) (n uint32) {
	b.Helper()
	netlabtest.Must(b, h.Do(func() error {
		c, err := wire.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		n, err = c.Generation()
		return err
	}))
	return n
}

// watch is a transport that measures batches, and keeps a copy where asked.
type watch struct {
	wire.Transport
	keep      bool
	recording [][]byte
	began     time.Time // of writing the first batch
	ended     time.Time
	kernel    time.Duration // in which it worked on batches
}

// Reserve is asked first before a batch is written.
func (w *watch) Reserve(n int) (int, error) {
	if w.began.IsZero() {
		w.began = time.Now()
	}
	return w.Transport.Reserve(n)
}

func (w *watch) Send(b []byte) error {
	if !netlabtest.IsBatch(b) {
		return w.Transport.Send(b)
	}
	if w.keep {
		w.recording = append(w.recording, append([]byte{}, b...))
	}
	began := time.Now()
	err := w.Transport.Send(b)
	w.kernel += time.Since(began)
	return err
}

// Receive ends a batch: the last answer is that to the question behind it.
func (w *watch) Receive(b []byte) (int, error) {
	n, err := w.Transport.Receive(b)
	w.ended = time.Now()
	return n, err
}

// apply applies a profile as nlb apply does.
func (w *watch) apply(b *testing.B, h *netlab.Host, profile string) (r *nft.Result) {
	b.Helper()
	text, err := os.ReadFile(profile)
	netlabtest.Must(b, err)
	p, err := config.Parse(profile, text)
	netlabtest.Must(b, err, h.Do(func() (err error) { w.Transport, err = wire.Open(); return err }))
	c := wire.NewConn(w)
	defer c.Close()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // as the command has it
	r, err = nft.Apply(b.Context(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Record: true})
	netlabtest.Must(b, err)
	return r
}

// replay sends what was recorded into a fresh host, by a loop that does nothing
// else. A generation is part of a batch, and that of a fresh namespace is
// always the same.
func (w *watch) replay(b *testing.B, h *netlab.Host) (took time.Duration) {
	b.Helper()
	netlabtest.Must(b, h.Do(func() error {
		t, err := wire.Open()
		if err != nil {
			return err
		}
		defer t.Close()
		for _, batch := range w.recording {
			if limit, err := t.Reserve(len(batch)); err != nil || limit < len(batch) {
				return fmt.Errorf("no room for %d bytes: %d, %w", len(batch), limit, err)
			}
		}
		began := time.Now()
		for _, batch := range w.recording {
			if err := t.Send(batch); err != nil {
				return err
			}
		}
		took = time.Since(began)
		return nil
	}))
	if n := generation(b, h); n != uint32(len(w.recording))+1 {
		b.Fatalf("the kernel refused the recording: generation %d", n)
	}
	return took
}
