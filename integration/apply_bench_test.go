package integration

// Benchmarks against the kernel: applying and reading back. Package bench
// measures whole processes beside their yardsticks.

import (
	"fmt"
	"net/netip"
	"testing"

	"nlb/integration/netlab"
	"nlb/lb"
	"nlb/lb/lbtest"
	"nlb/nft"
	"nlb/nft/wire"
)

var benchSizes = []int{10, 1_000, 10_000}

// benchFleet is services of three backends each; the first backend of the last
// service is another one for each edition.
func benchFleet(services int, edition byte) *lb.Profile {
	p := lbtest.Fleet(services)
	e := lb.Endpoint{Addr: netip.AddrFrom4([4]byte{100, 127, 0, edition}), Port: 8080}
	p.Services[services-1].Backends[0] = lb.Backend{Name: e.String(), Address: e, Weight: 1}
	return p
}

// benchKernel runs a benchmark for each size, with a conversation with the
// kernel of a host that has nothing else to do.
func benchKernel(b *testing.B, f func(b *testing.B, c *wire.Conn, services int)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w, err := netlab.New()
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close()
			h, err := w.Host("balancer")
			var c *wire.Conn
			if err == nil {
				err = h.Do(func() (err error) { c, err = wire.Dial(); return err })
			}
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			b.ReportAllocs()
			f(b, c, n)
		})
	}
}

func benchApply(b *testing.B, c *wire.Conn, p *lb.Profile, record bool) *nft.Result {
	b.Helper()
	r, err := nft.Apply(b.Context(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Record: record})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func BenchmarkApplyCold(b *testing.B) {
	benchKernel(b, func(b *testing.B, c *wire.Conn, services int) {
		p := benchFleet(services, 1)
		for b.Loop() {
			benchApply(b, c, p, false)
			b.StopTimer()
			if _, _, err := nft.Flush(b.Context(), c, nil, nft.Options{Table: "nlb"}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

// BenchmarkApplyUnchanged reads everything back to find that nothing changed.
func BenchmarkApplyUnchanged(b *testing.B) { benchUnchanged(b, false) }

// BenchmarkApplyRecorded finds so by the record of the apply before.
func BenchmarkApplyRecorded(b *testing.B) { benchUnchanged(b, true) }

func benchUnchanged(b *testing.B, record bool) {
	benchKernel(b, func(b *testing.B, c *wire.Conn, services int) {
		p := benchFleet(services, 1)
		benchApply(b, c, p, record)
		for b.Loop() {
			if r := benchApply(b, c, p, record); r.Batches != 0 {
				b.Fatalf("%d batches for no change", r.Batches)
			}
		}
	})
}

func BenchmarkApplyOneBackend(b *testing.B) {
	benchKernel(b, func(b *testing.B, c *wire.Conn, services int) {
		editions := []*lb.Profile{benchFleet(services, 1), benchFleet(services, 2)}
		benchApply(b, c, editions[0], true)
		for i := 1; b.Loop(); i++ {
			if r := benchApply(b, c, editions[i%2], true); r.Batches != 1 {
				b.Fatalf("%d batches for one change", r.Batches)
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	benchKernel(b, func(b *testing.B, c *wire.Conn, services int) {
		benchApply(b, c, benchFleet(services, 1), false)
		for b.Loop() {
			s, err := nft.Load(c, "nlb")
			if err != nil {
				b.Fatal(err)
			}
			if n := len(s.Profiles[0].Services); n != services {
				b.Fatalf("%d services", n)
			}
		}
	})
}
