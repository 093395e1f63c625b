//go:build linux

// Package metrics writes what monitoring reads, as Prometheus and OpenMetrics have
// it: of a snapshot, and of what an agent counts of itself.
package metrics

// What an agent counts of itself. All of it may be counted and read at the same time.

import (
	"slices"
	"sync/atomic"
	"time"

	"nlb/lb"
)

// Process is what an agent counts of itself. The zero Process has counted nothing.
type Process struct {
	Reloaded, NotReloaded atomic.Uint64 // readings of the files that were applied, and that were not
	Keeps                 atomic.Bool   // what was read before, since the last reading was not applied
	Astray                atomic.Bool   // the kernel is not as it should be
	Applies, Updates      Histogram     // of all services, of those that changed
	Repairs               atomic.Uint64 // of what others had changed
	Lost                  atomic.Uint64 // times that the kernel had more to tell than could be heard
	Unresolved            atomic.Uint64 // answers of the DNS that were none
	Checks                [lb.CheckAgent + 1]Checks
}

// Checks counts checks of one kind, by their results.
type Checks struct {
	Passed, Failed atomic.Uint64
	Late           atomic.Uint64 // that failed, with this host being late
	Unable         atomic.Uint64 // that this host could not make
	Took           Histogram
}

// Count counts one check: how long it took, and what came of it.
func (c *Checks) Count(took time.Duration, passed, late, unable bool) {
	switch {
	case unable:
		c.Unable.Add(1)
		return
	case passed:
		c.Passed.Add(1)
	case late:
		c.Late.Add(1)
	default:
		c.Failed.Add(1)
	}
	c.Took.Observe(took)
}

// Tally is what an agent counts of a backend.
type Tally struct {
	Refusals atomic.Uint64 // connections that the server refused, as the kernel told
	Failures atomic.Uint64 // of checks
	Changes  atomic.Uint64 // of the verdict
}

// Tallies are those of the backends of a service, by their addresses.
type Tallies map[lb.Endpoint]*Tally

// bounds are those of all histograms, in seconds: from a check of a near server to the
// longest apply.
var bounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Histogram counts durations.
type Histogram struct {
	buckets [15]atomic.Uint64 // each alone; the last one has no bound
	sum     atomic.Int64      // in ns
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration) {
	i, _ := slices.BinarySearch(bounds, d.Seconds())
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}
