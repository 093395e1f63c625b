//go:build linux

package web

// History: connections per second over the last minutes, counted for as long as
// somebody looks at the page.

import (
	"sync"
	"time"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

const (
	sampleEvery = 5 * time.Second
	mostSamples = 60
	// lookedFor is how long samples are taken after somebody has looked last.
	lookedFor = 10 * time.Minute
)

// history has samples of services.
type history struct {
	board *board.Board

	mu      sync.Mutex
	running bool
	closed  bool
	looked  time.Time
	last    sample
	rates   map[serviceName][]float32 // new connections a second, the newest last
	each    map[lb.BackendID]float32  // of the last sample
}

// sample is a snapshot and when it was taken.
type sample struct {
	at time.Time
	of *view.Snapshot // nil: none
}

type serviceName struct{ profile, service string }

// look says that somebody looks.
func (h *history) look() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looked = time.Now()
	if !h.running && !h.closed {
		h.running = true
		go h.run()
	}
}

func (h *history) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// run takes samples until nobody looks any more.
func (h *history) run() {
	for h.goesOn() {
		if s, err := h.board.Snapshot(); err == nil {
			h.add(sample{time.Now(), s})
		}
		time.Sleep(sampleEvery)
	}
}

func (h *history) goesOn() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running = !h.closed && time.Since(h.looked) < lookedFor; !h.running {
		h.last, h.rates, h.each = sample{}, nil, nil
	}
	return h.running
}

// add takes a sample: rates are the difference to the last one.
func (h *history) add(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last.of == s.of {
		return // of many connections there is none that often
	}
	before := map[lb.BackendID]uint64{}
	if h.last.of != nil {
		for id, b := range backendsIn(h.last.of) {
			before[id] = b.Connections
		}
	}
	seconds := s.at.Sub(h.last.at).Seconds()
	rates := make(map[serviceName][]float32, len(h.rates))
	h.each = make(map[lb.BackendID]float32, len(h.each))
	sums := map[serviceName]float32{}
	for id, b := range backendsIn(s.of) {
		if n, there := before[id]; there && b.Packets == nil && b.Connections >= n {
			h.each[id] = float32(float64(b.Connections-n) / seconds)
			sums[serviceName{id.Profile, id.Service}] += h.each[id]
		}
	}
	for name, sum := range sums {
		rates[name] = append(h.rates[name], sum)
		if n := len(rates[name]); n > mostSamples {
			rates[name] = append([]float32(nil), rates[name][n-mostSamples:]...)
		}
	}
	h.rates, h.last = rates, s
}

// backendsIn yields all backends of a snapshot.
func backendsIn(s *view.Snapshot) func(yield func(lb.BackendID, *view.ShownBackend) bool) {
	return func(yield func(lb.BackendID, *view.ShownBackend) bool) {
		for service := range servicesIn(s) {
			for i := range service.Backends {
				b := &service.Backends[i]
				if !yield(lb.BackendID{Profile: service.Profile, Service: service.Service.Name, Address: b.Address}, b) {
					return
				}
			}
		}
	}
}

// servicesIn yields all services of a snapshot.
func servicesIn(s *view.Snapshot) func(yield func(*view.ShownService) bool) {
	return func(yield func(*view.ShownService) bool) {
		for i := range s.Profiles {
			for k := range s.Profiles[i].Services {
				if !yield(&s.Profiles[i].Services[k]) {
					return
				}
			}
		}
	}
}

// service is how many new connections a service had a second, the newest last.
func (h *history) service(profile, service string) []float32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]float32(nil), h.rates[serviceName{profile, service}]...)
}

// backend is how many a backend had a second at last; false: it is not known.
func (h *history) backend(id lb.BackendID) (float32, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.each[id]
	return v, ok
}
