//go:build linux

// Package metrics writes what monitoring reads, as Prometheus and OpenMetrics have
// it: of a snapshot, and of what an agent counts of itself.
package metrics

// What an agent counts of itself. All of it may be counted and read at the same time.

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nlb/lb"
)

// Process is what an agent counts of itself.
type Process struct {
	Reloaded, NotReloaded prometheus.Counter  // readings of the files that were applied, and that were not
	Keeps                 atomic.Bool         // what was read before, since the last reading was not applied
	Astray                atomic.Bool         // the kernel is not as it should be
	Applies, Updates      prometheus.Observer // seconds, of all services, and of those that changed
	Repairs               prometheus.Counter  // of what others had changed
	Lost                  prometheus.Counter  // times that the kernel had more to tell than could be heard
	Unresolved            prometheus.Counter  // answers of the DNS that were none

	registry *prometheus.Registry
	checks   *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

// bounds are those of all histograms, in seconds: from a check of a near server to the
// longest apply.
var bounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// NewProcess has counted nothing.
func NewProcess() *Process {
	p := &Process{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		p.registry.MustRegister(v)
		return v
	}
	durations := func(name, help, label string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds}, []string{label})
		p.registry.MustRegister(v)
		return v
	}
	yes := func(name, help string, is func() bool) {
		p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return one(is()) }))
	}
	reloads := counter("nlb_reloads_total", "Readings of the files, since the agent began.", "result")
	p.Reloaded, p.NotReloaded = reloads.WithLabelValues("applied"), reloads.WithLabelValues("refused")
	yes("nlb_reload_last_successful", "1: the files were applied as they were read last. 0: what was read before is kept.", func() bool { return !p.Keeps.Load() })
	yes("nlb_kernel_in_sync", "1: the kernel is as it should be. 0: it could not be changed.", func() bool { return !p.Astray.Load() })
	applies := durations("nlb_apply_duration_seconds", "How long it took to bring services into the kernel: all of them, or those that changed.", "services")
	p.Applies, p.Updates = applies.WithLabelValues("all"), applies.WithLabelValues("changed")
	p.Repairs = counter("nlb_repairs_total", "Repairs of what others had changed in the table.").WithLabelValues()
	p.Lost = counter("nlb_lost_events_total", "Times that the kernel had more to tell of refused connections than could be heard.").WithLabelValues()
	p.Unresolved = counter("nlb_resolver_failures_total", "Names that the DNS could not be asked for, or only in part.").WithLabelValues()
	p.checks = counter("nlb_checks_total", "Checks of servers. late: they failed, with this host being late; unable: it could not make them.", "check", "result")
	p.took = durations("nlb_check_duration_seconds", "How long checks took.", "check")
	return p
}

// Check counts one check: how long it took, and what came of it.
func (p *Process) Check(kind lb.CheckKind, took time.Duration, passed, late, unable bool) {
	result := "failed"
	switch {
	case unable:
		result = "unable"
	case passed:
		result = "passed"
	case late:
		result = "late"
	}
	for _, r := range []string{"passed", "failed", "late", "unable"} { // all are there from the first check on
		if n := p.checks.WithLabelValues(kind.String(), r); r == result {
			n.Inc()
		}
	}
	if !unable {
		p.took.WithLabelValues(kind.String()).Observe(took.Seconds())
	}
}

// Tally is what an agent counts of a backend.
type Tally struct {
	Refusals atomic.Uint64 // connections that the server refused, as the kernel told
	Failures atomic.Uint64 // of checks
	Changes  atomic.Uint64 // of the verdict
}

// Add adds what another one has counted.
func (t *Tally) Add(other *Tally) {
	t.Refusals.Add(other.Refusals.Load())
	t.Failures.Add(other.Failures.Load())
	t.Changes.Add(other.Changes.Load())
}
