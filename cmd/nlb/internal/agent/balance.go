//go:build linux

package agent

// Balance: connections are counted, beside all else, for the shares of services with
// least-connections, and for limits that would cost the kernel too much.

import (
	"math"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/lb"
	"nlb/nft"
)

const (
	// countEvery is how often the connections are counted. That and what follows
	// takes no more than a twentieth of the time: where it takes longer than 50 ms,
	// the next look waits.
	countEvery = time.Second
	countPart  = 20
	// staleLooks is after how many looks that fail a backend is not full any more.
	staleLooks = 5
)

// counter counts connections, one look after the other.
type counter struct {
	due     *time.Timer
	running bool            // a look is due, or under way
	look    *engine.Counter // nil: none yet
	figures chan figures
	cost    time.Duration // of updates since the last look
	trouble string        // why the last look failed
	// limits are the most connections of backends that the agent counts, and full is
	// how many marks of these had as many at the last look.
	limits map[lb.BackendID]int
	full   int
}

// figures are what a look has found.
type figures struct {
	by   map[uint32]nft.Stats // by marks of backends
	took time.Duration
	err  error
}

func newCounter() counter {
	due := time.NewTimer(0)
	due.Stop()
	return counter{due: due, figures: make(chan figures, 1)}
}

func (c *counter) close() {
	if c.look != nil {
		_ = c.look.Close()
		c.look = nil
	}
}

// limitsOf are the most live connections of backends that the kernel leaves to be
// counted.
func limitsOf(profiles []*lb.Profile) map[lb.BackendID]int {
	out := map[lb.BackendID]int{}
	for p, s := range lb.Services(profiles) {
		for _, b := range s.Backends {
			if nft.Countable(b) {
				out[lb.BackendID{Profile: p.Name, Service: s.Name, Address: b.Address}] = int(min(b.MaxConnections, math.MaxInt32))
			}
		}
	}
	return out
}

// counts reports whether somebody asks for connections to be counted.
func (a *agent) counts() bool { return a.roster.Balances() || len(a.counter.limits) > 0 }

// startCounting has the connections counted from now on, where a service asks for it.
func (a *agent) startCounting() {
	a.counter.limits = limitsOf(a.wanted)
	if !a.counter.running && a.counts() {
		a.counter.running = true
		a.counter.due.Reset(0)
	}
}

// count has the connections counted, while the agent goes on.
func (a *agent) count() {
	c := &a.counter
	if c.running = a.counts(); !c.running {
		return
	}
	if c.look == nil {
		var err error
		if c.look, err = a.engine.Counter(); err != nil {
			a.balance(figures{err: err})
			return
		}
	}
	go func(look *engine.Counter) {
		began := time.Now()
		by, err := look.Read()
		c.figures <- figures{by, time.Since(began), err}
	}(c.look)
}

// balance makes shares of what a look has found, and says when the next one is due.
func (a *agent) balance(f figures) {
	c, began := &a.counter, time.Now()
	defer func() {
		c.due.Reset(c.pause(f, began))
		c.cost = 0
	}()
	if f.err != nil {
		c.close()
		if text := f.err.Error(); c.trouble != text {
			c.trouble = text
			a.Log.Warn("connections cannot be counted, so shares stay as they are", "error", f.err)
		}
		return
	}
	c.trouble = ""
	stats, marks := make(map[lb.BackendID]nft.Stats, len(f.by)), map[lb.BackendID][]uint32{}
	for mark, s := range f.by {
		if id, ok := a.engine.Owner(mark); ok {
			sum := stats[id]
			stats[id] = nft.Stats{Connections: sum.Connections + s.Connections, Live: sum.Live + s.Live}
			if c.limits[id] > 0 {
				marks[id] = append(marks[id], mark)
			}
		}
	}
	a.saturate(stats, marks, staleLooks*c.pause(f, began))
	a.roster.Balance(stats, time.Now())
	a.noted()
}

// pause is how long the next look waits.
func (c *counter) pause(f figures, began time.Time) time.Duration {
	return max(countEvery, countPart*(f.took+c.cost+time.Since(began)))
}

// saturate tells the kernel which backends have as many connections as they may.
func (a *agent) saturate(stats map[lb.BackendID]nft.Stats, marks map[lb.BackendID][]uint32, d time.Duration) {
	var full []uint32
	for id, most := range a.counter.limits {
		if stats[id].Live >= most {
			full = append(full, marks[id]...)
		}
	}
	if len(full) == 0 && a.counter.full == 0 || !a.applied {
		return
	}
	if err := a.engine.Saturate(full, d); err != nil {
		a.Log.Warn("backends that are full cannot be passed over", "error", err)
		return
	}
	a.counter.full = len(full)
}
