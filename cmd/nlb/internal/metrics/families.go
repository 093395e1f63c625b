//go:build linux

package metrics

// Families: which metrics there are. docs/agent.md lists them.

import (
	"io"
	"iter"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/sysctl"
)

// Filter says what is left out.
type Filter struct {
	// Services leaves out backends.
	Services bool
	// Profile leaves out others; empty: none.
	Profile string
}

// Agent is what an agent knows beside a snapshot.
type Agent struct {
	*Process
	// Tallies are what it counts of the backends of a service.
	Tallies func(profile, service string) Tallies
}

// Write writes metrics of a snapshot, and of the agent, where there is one. It holds
// little of it at a time. Errors are those of w.
func Write(w io.Writer, format Format, s *view.Snapshot, a *Agent, f Filter) error {
	out := &writer{w: w, format: format, buffer: make([]byte, 0, mostBuffered+4096)}
	out.host()
	if a != nil {
		out.process(a.Process)
	}
	out.services(s, f)
	if !f.Services {
		out.backends(s, a, f)
	}
	return out.end()
}

// host is what the program and this host are.
func (w *writer) host() {
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
	w.family("nlb_build", info, "Which nlb this is.")
	w.sample("")
	w.label("version", version)
	w.label("revision", revision)
	w.label("goversion", golang)
	w.value(1)
	for _, one := range []struct{ param, name, help string }{
		{"net.netfilter.nf_conntrack_count", "nlb_conntrack_entries", "Entries of conntrack in this network namespace, of all connections."},
		{"net.netfilter.nf_conntrack_max", "nlb_conntrack_entries_limit", "How many entries conntrack may have."},
	} {
		if text, err := sysctl.Local.Get(one.param); err == nil {
			if n, err := strconv.ParseFloat(text, 64); err == nil {
				w.single(one.name, gauge, one.help, n)
			}
		}
	}
}

// process is what an agent counts of itself.
func (w *writer) process(p *Process) {
	w.family("nlb_reloads", counter, "Readings of the files, since the agent began.")
	w.results([]result{{"applied", p.Reloaded.Load()}, {"refused", p.NotReloaded.Load()}})
	w.single("nlb_reload_last_successful", gauge, "1: the files were applied as they were read last. 0: what was read before is kept.", one(!p.Keeps.Load()))
	w.single("nlb_kernel_in_sync", gauge, "1: the kernel is as it should be. 0: it could not be changed.", one(!p.Astray.Load()))
	w.family("nlb_apply_duration_seconds", histogram, "How long it took to bring services into the kernel: all of them, or those that changed.")
	w.histogram(&p.Applies, "services", "all")
	w.histogram(&p.Updates, "services", "changed")
	w.single("nlb_repairs", counter, "Repairs of what others had changed in the table.", float64(p.Repairs.Load()))
	w.single("nlb_lost_events", counter, "Times that the kernel had more to tell of refused connections than could be heard.", float64(p.Lost.Load()))
	w.single("nlb_resolver_failures", counter, "Names that the DNS could not be asked for, or only in part.", float64(p.Unresolved.Load()))
	w.family("nlb_checks", counter, "Checks of servers. late: they failed, with this host being late; unable: it could not make them.")
	for kind := range p.Checks {
		c := &p.Checks[kind]
		for _, r := range []result{{"passed", c.Passed.Load()}, {"failed", c.Failed.Load()}, {"late", c.Late.Load()}, {"unable", c.Unable.Load()}} {
			if c.any() {
				w.sample("")
				w.label("check", lb.CheckKind(kind).String())
				w.label("result", r.word)
				w.value(float64(r.n))
			}
		}
	}
	w.family("nlb_check_duration_seconds", histogram, "How long checks took.")
	for kind := range p.Checks {
		if c := &p.Checks[kind]; c.any() {
			w.histogram(&c.Took, "check", lb.CheckKind(kind).String())
		}
	}
}

// any reports whether there was any check of this kind.
func (c *Checks) any() bool {
	return c.Passed.Load()+c.Failed.Load()+c.Late.Load()+c.Unable.Load() > 0
}

type result struct {
	word string
	n    uint64
}

func (w *writer) results(all []result) {
	for _, r := range all {
		w.sample("")
		w.label("result", r.word)
		w.value(float64(r.n))
	}
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
		for service := range f.services(s) {
			w.sample("")
			w.label("profile", service.Profile)
			w.label("service", service.Service.Name)
			w.value(value(service))
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
	each("nlb_service_refused_connections", counter, "Connections that allow, deny, limits and max-connections turned away.", func(s *view.ShownService) float64 { return float64(s.Refused) })
}

// services are those that are not left out.
func (f Filter) services(s *view.Snapshot) iter.Seq[*view.ShownService] {
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

// backend is one with its labels, which are written many times.
type backend struct {
	*view.ShownBackend
	labels []byte
	tally  *Tally // nil: nothing is counted
}

// backendsOf are those of services.
func backendsOf(services iter.Seq[*view.ShownService], a *Agent) []backend {
	n := 0
	for s := range services {
		n += len(s.Backends)
	}
	out := make([]backend, 0, n)
	labels := make([]byte, 0, 64*n)
	for s := range services {
		var tallies Tallies
		if a != nil {
			tallies = a.Tallies(s.Profile, s.Service.Name)
		}
		for i := range s.Backends {
			b := backend{ShownBackend: &s.Backends[i], tally: tallies[s.Backends[i].Address]}
			begin := len(labels)
			labels = append(appendLabel(labels, "profile", s.Profile), ',')
			labels = append(appendLabel(labels, "service", s.Service.Name), ',')
			labels = appendLabel(labels, "backend", b.Name)
			b.labels = labels[begin:len(labels):len(labels)]
			out = append(out, b)
		}
	}
	return out
}

func (w *writer) backends(s *view.Snapshot, a *Agent, f Filter) {
	all := backendsOf(f.services(s), a)
	each := func(name, kind, help string, value func(*backend) (v float64, known bool)) {
		w.family(name, kind, help)
		for i := range all {
			if v, known := value(&all[i]); known {
				w.labelled(all[i].labels, v)
			}
		}
	}
	w.family("nlb_backend", info, "Where a backend is.")
	for i := range all {
		w.sample("")
		w.prelabel(all[i].labels)
		w.label("address", all[i].Address.String())
		w.value(1)
	}
	each("nlb_backend_up", gauge, "0: its checks fail.", func(b *backend) (float64, bool) { return one(b.Works()), true })
	each("nlb_backend_weight", gauge, "The weight that new connections meet; 0 while it is down, drained or stands by.", func(b *backend) (float64, bool) { return float64(b.Effective()), true })
	each("nlb_backend_live_connections", gauge, "Connections that conntrack holds now.", func(b *backend) (float64, bool) {
		if b.Live == nil {
			return 0, false
		}
		return float64(*b.Live), true
	})
	each("nlb_backend_connections", counter, "New connections since the backend came.", func(b *backend) (float64, bool) { return float64(b.Connections), b.Packets == nil })
	each("nlb_backend_packets", counter, "Packets sent on, of services whose connections are not tracked.", func(b *backend) (float64, bool) {
		if b.Packets == nil {
			return 0, false
		}
		return float64(*b.Packets), true
	})
	each("nlb_backend_last_change_timestamp_seconds", gauge, "When its checks last found it up or down.", func(b *backend) (float64, bool) {
		return float64(b.Standing.Since.Unix()), !b.Standing.Since.IsZero()
	})
	if a == nil {
		return
	}
	count := func(name, help string, of func(*Tally) *atomic.Uint64) {
		each(name, counter, help, func(b *backend) (float64, bool) {
			if b.tally == nil {
				return 0, false
			}
			return float64(of(b.tally).Load()), true
		})
	}
	count("nlb_backend_refused_connections", "Connections that its server refused, as the kernel told since the agent began.", func(t *Tally) *atomic.Uint64 { return &t.Refusals })
	count("nlb_backend_check_failures", "Checks of it that failed since the agent began.", func(t *Tally) *atomic.Uint64 { return &t.Failures })
	count("nlb_backend_state_changes", "How often it went down or came up since the agent began.", func(t *Tally) *atomic.Uint64 { return &t.Changes })
}
