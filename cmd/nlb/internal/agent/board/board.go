//go:build linux

// Package board is where an agent pins what others may know of it. The agent writes,
// never waits, and has no trouble with who reads. Readers get values.
package board

// The board: services with the states of their backends, and how the agent is.

import (
	"context"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/metrics"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

// Board has what is known of an agent.
type Board struct {
	// Counts are what the agent counts of itself.
	Counts *metrics.Process

	table   string
	events  events
	shown   atomic.Pointer[edition]       // nil: nothing was applied yet
	changes atomic.Uint64                 // of what is shown
	turned  atomic.Pointer[chan struct{}] // is closed by the next change
	offload atomic.Pointer[engine.Offloading]
	status  atomic.Pointer[string]
	beat    atomic.Int64 // in ns

	looking sync.Mutex
	look    look
}

// edition has the services of one apply.
type edition struct {
	profiles []profile
	at       map[name]*service
	numbers  engine.Numbers
}

type profile struct {
	name     string
	services []service
}

// service is what is shown of one. tallies are what is counted of its backends, in their
// order, which no Update changes.
type service struct {
	now     atomic.Pointer[lb.Service]
	tallies []metrics.Tally
}

// name is that of a service.
type name struct{ profile, service string }

// New is an empty board about a table. counter reads the figures that are shown with
// it, which Snapshot uses; nil: there are none.
func New(table string, counter *engine.Counter) *Board {
	b := &Board{Counts: metrics.NewProcess(), table: table, look: look{counter: counter}}
	b.events.run, b.events.fresh = strconv.FormatInt(time.Now().UnixMilli(), 16), make(chan struct{})
	first := make(chan struct{})
	b.turned.Store(&first)
	return b
}

// Offload shows what holds of the wishes to be offloaded, from the next snapshot on;
// nil: there are none.
func (b *Board) Offload(o *engine.Offloading) { b.offload.Store(o) }

// Set shows profiles, with the states of their backends. They must not change any
// more.
func (b *Board) Set(profiles []*lb.Profile, numbers engine.Numbers) {
	old := b.shown.Load()
	e := &edition{at: map[name]*service{}, numbers: numbers}
	for _, p := range slices.SortedFunc(slices.Values(profiles), func(a, b *lb.Profile) int { return strings.Compare(a.Name, b.Name) }) {
		one := profile{p.Name, make([]service, len(p.Services))}
		services := make([]*lb.Service, len(p.Services))
		for i := range p.Services {
			services[i] = asHeld(&p.Services[i])
		}
		slices.SortFunc(services, func(a, b *lb.Service) int { return strings.Compare(a.Name, b.Name) })
		for i, s := range services {
			at := &one.services[i]
			at.now.Store(s)
			at.tallies = make([]metrics.Tally, len(s.Backends))
			for k := range s.Backends {
				if before := old.tally(lb.BackendID{Profile: p.Name, Service: s.Name, Address: s.Backends[k].Address}); before != nil {
					at.tallies[k].Add(before)
				}
			}
			e.at[name{p.Name, s.Name}] = at
		}
		e.profiles = append(e.profiles, one)
	}
	b.shown.Store(e)
	b.turn()
}

// Update shows services anew that Set has shown. They must not change any more.
func (b *Board) Update(part []*lb.Profile) {
	e := b.shown.Load()
	if e == nil {
		return
	}
	for p, s := range lb.Services(part) {
		if at := e.at[name{p.Name, s.Name}]; at != nil {
			at.now.Store(asHeld(s))
		}
	}
	b.turn()
}

// turn counts a change of what is shown, and tells those who wait for one.
func (b *Board) turn() {
	b.changes.Add(1)
	next := make(chan struct{})
	close(*b.turned.Swap(&next))
}

// Changes is how often what is shown has changed.
func (b *Board) Changes() uint64 { return b.changes.Load() }

// Await returns how often what is shown has changed, as soon as that is another number
// than the one that is known, or ctx ends.
func (b *Board) Await(ctx context.Context, known uint64) uint64 {
	for {
		fresh := *b.turned.Load()
		if n := b.changes.Load(); n != known || ctx.Err() != nil {
			return n
		}
		select {
		case <-fresh:
		case <-ctx.Done():
		}
	}
}

// asHeld is a service as it is read from the kernel: listens and backends in the order
// of their addresses, SNAT as lb.Service.MembersSNAT, the log that all backends have,
// and affinity of their families. One that is so, as nearly all are, is itself.
func asHeld(s *lb.Service) *lb.Service {
	out := *s
	out.Listen = sorted(s.Listen, func(a, b lb.Listen) int { return a.Prefix.Compare(b.Prefix) })
	out.Backends = sorted(s.Backends, func(a, b lb.Backend) int { return a.Address.Compare(b.Address) })
	same := len(s.Listen) == 0 || &out.Listen[0] == &s.Listen[0]
	if len(out.Backends) == 0 {
		out.SNAT, out.Affinity = lb.SNAT{}, nil
		return &out
	}
	same = same && &out.Backends[0] == &s.Backends[0] && s.Affinity == nil
	if s.Affinity != nil { // of the families that have backends
		a := *s.Affinity
		if out.Affinity = &a; len(s.Of(lb.IPv4)) == 0 {
			a.Bits = 0
		}
		if len(s.Of(lb.IPv6)) == 0 {
			a.Bits6 = 0
		}
	}
	first := &out.Backends[0]
	out.SNAT, out.Log = out.MembersSNAT(), first.Log
	if slices.ContainsFunc(out.Backends, func(b lb.Backend) bool { return b.Log.String() != first.Log.String() }) {
		out.Log = nil
	}
	if same && out.SNAT.Equal(s.SNAT) && out.Log == s.Log {
		return s
	}
	return &out
}

// sorted are values in order. Those that are so, as nearly all are, need no copy.
func sorted[T any](values []T, compare func(a, b T) int) []T {
	if slices.IsSortedFunc(values, compare) {
		return values
	}
	return slices.SortedFunc(slices.Values(values), compare)
}

// Tally is what is counted of a backend; nil where it is not shown.
func (b *Board) Tally(id lb.BackendID) *metrics.Tally { return b.shown.Load().tally(id) }

func (e *edition) tally(id lb.BackendID) *metrics.Tally {
	if e == nil {
		return nil
	}
	s := e.at[name{id.Profile, id.Service}]
	if s == nil {
		return nil
	}
	backends := s.now.Load().Backends
	i := sort.Search(len(backends), func(i int) bool { return backends[i].Address.Compare(id.Address) >= 0 })
	if i >= min(len(backends), len(s.tallies)) || backends[i].Address != id.Address {
		return nil
	}
	return &s.tallies[i]
}

// services are those that are shown, and the numbers of their backends.
func (e *edition) services() []view.Services {
	out := make([]view.Services, len(e.profiles))
	for i := range e.profiles {
		p := &e.profiles[i]
		out[i] = view.Services{Profile: p.name, Services: make([]*lb.Service, len(p.services))}
		for k := range p.services {
			out[i].Services[k] = p.services[k].now.Load()
		}
	}
	return out
}

// Say shows how the agent is, in a sentence.
func (b *Board) Say(status string) { b.status.Store(&status) }

// Status is how the agent is, in a sentence; empty before it has begun.
func (b *Board) Status() string {
	if s := b.status.Load(); s != nil {
		return *s
	}
	return ""
}

// Trouble is Status, where files or the kernel are not as they should be; else empty.
func (b *Board) Trouble() string {
	if b.Counts.Astray.Load() || b.Counts.Keeps.Load() {
		return b.Status()
	}
	return ""
}

// Beat says that the agent goes on.
func (b *Board) Beat() { b.beat.Store(time.Now().UnixNano()) }

// Still is how long the agent has not gone on.
func (b *Board) Still() time.Duration { return time.Since(time.Unix(0, b.beat.Load())) }

// Ready reports whether something was applied, and the kernel is as it should be.
func (b *Board) Ready() bool { return b.shown.Load() != nil && !b.Counts.Astray.Load() }

// Health is how many backends of a profile are up, down, and not yet known; and how
// many services have too few up.
type Health struct{ Up, Down, New, Open int }

// Health counts by profiles.
func (b *Board) Health() map[string]Health {
	out := map[string]Health{}
	e := b.shown.Load()
	if e == nil {
		return out
	}
	for _, p := range e.services() {
		var h Health
		for _, s := range p.Services {
			for i := range s.Backends {
				switch v := s.Backends[i].Standing.Verdict; {
				case v == lb.VerdictDown:
					h.Down++
				case v == lb.VerdictNew && len(s.Health) > 0:
					h.New++
				default:
					h.Up++
				}
			}
			if s.IsOpen() {
				h.Open++
			}
		}
		out[p.Profile] = h
	}
	return out
}

// Draining is how many backends get no new connections, by their weight or an order,
// and have live ones. It asks the kernel only where there are such backends.
func (b *Board) Draining() (n int, err error) {
	e := b.shown.Load()
	if e == nil {
		return 0, nil
	}
	drains, some := func(b *lb.Backend) bool { return b.Weight == 0 || b.Standing.Order == lb.OrderDrain }, false
	for _, p := range e.services() {
		for _, s := range p.Services {
			for i := range s.Backends {
				some = some || drains(&s.Backends[i])
			}
		}
	}
	if !some {
		return 0, nil
	}
	s, err := b.Snapshot()
	if err != nil {
		return 0, err
	}
	for s := range (metrics.Filter{}).Services(s) {
		for i := range s.Backends {
			if one := &s.Backends[i]; drains(one.Backend) && one.Live != nil && *one.Live > 0 {
				n++
			}
		}
	}
	return n, nil
}
