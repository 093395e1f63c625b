//go:build linux

package metrics

// Families: which metrics there are. docs/agent.md lists them.

import (
	"cmp"
	"io"
	"iter"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/sysctl"
)

// Filter says what is left out.
type Filter struct {
	// Brief leaves out backends.
	Brief bool
	// Profile leaves out others; empty: none.
	Profile string
}

// Agent is what an agent knows beside a snapshot.
type Agent struct {
	*Process
	// Tally is what it counts of a backend; nil: nothing.
	Tally func(lb.BackendID) *Tally
}

// Write writes metrics of a snapshot, and of the agent, where there is one. It holds
// little of it at a time. format is one of text. Errors are those of w.
func Write(w io.Writer, format expfmt.Format, s *view.Snapshot, a *Agent, f Filter) error {
	few := prometheus.Gatherers{host()}
	if a != nil {
		few = append(few, a.registry)
	}
	families, err := few.Gather()
	out := newWriter(w, format)
	to := expfmt.NewEncoder(out, format)
	for _, family := range families {
		if err == nil {
			err = to.Encode(family)
		}
	}
	out.family("nlb_announced_address", gauge, "1: this host announces this address of services.")
	for _, a := range s.Announced {
		address, device, _ := strings.Cut(a, " on ")
		out.value(appendLabels(nil, "address", address, "device", device), 1)
	}
	out.services(s, f)
	if !f.Brief {
		out.backends(s, a, f)
	}
	if end, ok := to.(expfmt.Closer); ok && err == nil {
		err = end.Close()
	}
	return cmp.Or(err, out.Flush())
}

// host is what the program and this host are.
func host() *prometheus.Registry {
	version, golang, revision := "devel", "", ""
	if b, ok := debug.ReadBuildInfo(); ok {
		golang = b.GoVersion
		if b.Main.Version != "" && b.Main.Version != "(devel)" {
			version = b.Main.Version
		}
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	r := prometheus.NewRegistry()
	add := func(name, help string, v float64, labels prometheus.Labels) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
		g.Set(v)
		r.MustRegister(g)
	}
	add("nlb_build_info", "Which nlb this is.", 1, prometheus.Labels{"version": version, "revision": revision, "goversion": golang})
	for _, one := range []struct{ param, name, help string }{
		{"net.netfilter.nf_conntrack_count", "nlb_conntrack_entries", "Entries of conntrack in this network namespace, of all connections."},
		{"net.netfilter.nf_conntrack_max", "nlb_conntrack_entries_limit", "How many entries conntrack may have."},
	} {
		text, err := sysctl.Local.Get(one.param)
		if n, bad := strconv.ParseFloat(text, 64); err == nil && bad == nil {
			add(one.name, one.help, n, nil)
		}
	}
	return r
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (w *writer) services(s *view.Snapshot, f Filter) {
	each := func(name, kind, help string, value func(*view.ShownService) float64) {
		w.family(name, kind, help)
		for service := range f.Services(s) {
			w.value(appendLabels(nil, "profile", service.Profile, "service", service.Service.Name), value(service))
		}
	}
	each("nlb_service_backends", gauge, "Backends of a service.", func(s *view.ShownService) float64 { return float64(len(s.Backends)) })
	each("nlb_service_backends_up", gauge, "Backends of a service whose checks do not fail.", func(s *view.ShownService) float64 {
		up := 0.0
		for i := range s.Backends {
			up += one(s.Backends[i].Works())
		}
		return up
	})
	each("nlb_service_open", gauge, "1: too few backends are up, so that health is ignored.", func(s *view.ShownService) float64 { return one(s.Open != "") })
	each("nlb_service_refused_connections_total", counter, "Connections that allow, deny, limits and max-connections turned away.", func(s *view.ShownService) float64 { return float64(s.Refused) })
}

// Services are those of a snapshot that are not left out.
func (f Filter) Services(s *view.Snapshot) iter.Seq[*view.ShownService] {
	return func(yield func(*view.ShownService) bool) {
		for i := range s.Profiles {
			p := &s.Profiles[i]
			for k := range p.Services {
				if (f.Profile == "" || f.Profile == p.Name) && !yield(&p.Services[k]) {
					return
				}
			}
		}
	}
}

// figure is a value, where it is known.
func figure[T int | uint64](v *T) (float64, bool) {
	if v == nil {
		return 0, false
	}
	return float64(*v), true
}

// backend is one with its labels, which are written many times.
type backend struct {
	*view.ShownBackend
	labels []byte
	tally  *Tally // nil: nothing is counted
}

func backendsOf(services iter.Seq[*view.ShownService], a *Agent) []backend {
	n := 0
	for s := range services {
		n += len(s.Backends)
	}
	out := make([]backend, 0, n)
	labels := make([]byte, 0, 64*n)
	for s := range services {
		for i := range s.Backends {
			b := backend{ShownBackend: &s.Backends[i]}
			if a != nil {
				b.tally = a.Tally(lb.BackendID{Profile: s.Profile, Service: s.Service.Name, Address: b.Address})
			}
			begin := len(labels)
			labels = appendLabels(labels, "profile", s.Profile, "service", s.Service.Name, "backend", b.Name)
			b.labels = labels[begin:len(labels):len(labels)]
			out = append(out, b)
		}
	}
	return out
}

func (w *writer) backends(s *view.Snapshot, a *Agent, f Filter) {
	all := backendsOf(f.Services(s), a)
	each := func(name, kind, help string, value func(*backend) (v float64, known bool)) {
		w.family(name, kind, help)
		for i := range all {
			if v, known := value(&all[i]); known {
				w.value(all[i].labels, v)
			}
		}
	}
	w.family("nlb_backend_info", gauge, "Where a backend is.")
	for i := range all {
		w.value(appendLabels(append(all[i].labels, ','), "address", all[i].Address.String()), 1)
	}
	each("nlb_backend_up", gauge, "0: its checks fail.", func(b *backend) (float64, bool) { return one(b.Works()), true })
	each("nlb_backend_weight", gauge, "The weight that new connections meet; 0 while it is down, drained or stands by.", func(b *backend) (float64, bool) { return float64(b.Effective()), true })
	each("nlb_backend_live_connections", gauge, "Connections that conntrack holds now.", func(b *backend) (float64, bool) { return figure(b.Live) })
	each("nlb_backend_connections_total", counter, "New connections since the backend came.", func(b *backend) (float64, bool) { return float64(b.Connections), b.Packets == nil })
	each("nlb_backend_packets_total", counter, "Packets sent on, of services whose connections are not tracked.", func(b *backend) (float64, bool) { return figure(b.Packets) })
	each("nlb_backend_last_change_timestamp_seconds", gauge, "When its checks last found it up or down.", func(b *backend) (float64, bool) {
		return float64(b.Standing.Since.Unix()), !b.Standing.Since.IsZero()
	})
	count := func(name, help string, of func(*Tally) *atomic.Uint64) {
		each(name, counter, help, func(b *backend) (float64, bool) {
			if b.tally == nil {
				return 0, false
			}
			return float64(of(b.tally).Load()), true
		})
	}
	count("nlb_backend_refused_connections_total", "Connections that its server refused, as the kernel told since the agent began.", func(t *Tally) *atomic.Uint64 { return &t.Refusals })
	count("nlb_backend_check_failures_total", "Checks of it that failed since the agent began.", func(t *Tally) *atomic.Uint64 { return &t.Failures })
	count("nlb_backend_state_changes_total", "How often it went down or came up since the agent began.", func(t *Tally) *atomic.Uint64 { return &t.Changes })
}
