//go:build linux

package web

// History: connections per second over the last minutes, counted for as long as
// somebody looks at the page.

import (
	"slices"
	"sync"
	"time"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/metrics"
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
	counts  map[lb.BackendID]uint64   // connections of the last sample
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
		h.last, h.counts, h.rates, h.each = sample{}, nil, nil, nil
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
	seconds := s.at.Sub(h.last.at).Seconds()
	counts := make(map[lb.BackendID]uint64, len(h.counts))
	rates := make(map[serviceName][]float32, len(h.rates))
	h.each = make(map[lb.BackendID]float32, len(h.each))
	for service := range (metrics.Filter{}).Services(s.of) {
		name, sum, known := serviceName{service.Profile, service.Service.Name}, float32(0), false
		for i := range service.Backends {
			b := &service.Backends[i]
			id := lb.BackendID{Profile: name.profile, Service: name.service, Address: b.Address}
			counts[id] = b.Connections
			if n, there := h.counts[id]; there && b.Packets == nil && b.Connections >= n {
				h.each[id] = float32(float64(b.Connections-n) / seconds)
				sum, known = sum+h.each[id], true
			}
		}
		if known {
			all := append(h.rates[name], sum)
			rates[name] = slices.Clone(all[max(0, len(all)-mostSamples):])
		}
	}
	h.counts, h.rates, h.last = counts, rates, s
}

// service is how many new connections a service had a second, the newest last.
func (h *history) service(profile, service string) []float32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.rates[serviceName{profile, service}])
}

// backend is how many a backend had a second at last; false: it is not known.
func (h *history) backend(id lb.BackendID) (float32, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.each[id]
	return v, ok
}
