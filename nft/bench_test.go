package nft

// Benchmarks of what is pure: from profiles to messages, and from objects to
// profiles. integration has those that ask the kernel.

import (
	"fmt"
	"io"
	"testing"

	"nlb/lb"
	"nlb/lb/lbtest"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// benchSizes are numbers of services, of three backends each.
var benchSizes = []int{10, 1_000, 10_000}

// benchEach runs a benchmark for each size. It is given a fleet, and the
// objects that a kernel has after the fleet was applied.
func benchEach(b *testing.B, f func(b *testing.B, p *lb.Profile, o *objects)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, o := lbtest.Fleet(n), emptyObjects()
			if err := o.run(benchPlan(b, newState("nlb", o), p)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			f(b, p, o)
		})
	}
}

func benchPlan(b *testing.B, have *State, p *lb.Profile) *plan {
	b.Helper()
	plan, _, err := planFor(have, []*lb.Profile{p}, Options{Table: "nlb"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return plan
}

func BenchmarkCompile(b *testing.B) {
	benchEach(b, func(b *testing.B, p *lb.Profile, _ *objects) {
		for b.Loop() {
			compile.Profiles("nlb", []*lb.Profile{p})
		}
	})
}

func BenchmarkText(b *testing.B) {
	benchEach(b, func(b *testing.B, p *lb.Profile, _ *objects) {
		r := compile.Profiles("nlb", []*lb.Profile{p})
		for b.Loop() {
			if _, err := r.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkState turns objects into profiles.
func BenchmarkState(b *testing.B) {
	benchEach(b, func(b *testing.B, _ *lb.Profile, o *objects) {
		for b.Loop() {
			newState("nlb", o)
		}
	})
}

// BenchmarkPlanCold compiles and compares with nothing.
func BenchmarkPlanCold(b *testing.B) {
	benchEach(b, func(b *testing.B, p *lb.Profile, _ *objects) {
		have := newState("nlb", emptyObjects())
		for b.Loop() {
			benchPlan(b, have, p)
		}
	})
}

// BenchmarkPlanUnchanged compiles and compares with the same.
func BenchmarkPlanUnchanged(b *testing.B) {
	benchEach(b, func(b *testing.B, p *lb.Profile, o *objects) {
		have := newState("nlb", o)
		for b.Loop() {
			if plan := benchPlan(b, have, p); !plan.empty() {
				b.Fatalf("a plan for no change:\n%s", plan)
			}
		}
	})
}

// BenchmarkPlanOneBackend compiles and compares where one backend is another.
func BenchmarkPlanOneBackend(b *testing.B) {
	benchEach(b, func(b *testing.B, p *lb.Profile, o *objects) {
		have := newState("nlb", o)
		p.Services[len(p.Services)/2].Backends[0] = backend("10.0.0.1:80", 1)
		for b.Loop() {
			if plan := benchPlan(b, have, p); plan.empty() {
				b.Fatal("no plan for a change")
			}
		}
	})
}

// BenchmarkEncode writes the messages of a cold apply.
func BenchmarkEncode(b *testing.B) {
	benchEach(b, func(b *testing.B, p *lb.Profile, _ *objects) {
		plan := benchPlan(b, newState("nlb", emptyObjects()), p)
		for b.Loop() {
			batch := wire.NewBatch(1)
			encode(&ruleset.Messages{Batch: batch, Family: ruleset.Inet, Table: plan.table, List: ruleset.MaxList}, plan.ops())
			b.SetBytes(int64(batch.Size()))
		}
	})
}
