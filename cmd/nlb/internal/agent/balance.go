//go:build linux

package agent

// Balance: connections are counted, beside all else, for the shares of services with
// least-connections.

import (
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
)

// counter counts connections, one look after the other.
type counter struct {
	due     *time.Timer
	running bool            // a look is due, or under way
	look    *engine.Counter // nil: none yet
	figures chan figures
	cost    time.Duration // of updates since the last look
	trouble string        // why the last look failed
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

// startCounting has the connections counted from now on, where a service asks for it.
func (a *agent) startCounting() {
	if !a.counter.running && a.roster.Balances() {
		a.counter.running = true
		a.counter.due.Reset(0)
	}
}

// count has the connections counted, while the agent goes on.
func (a *agent) count() {
	c := &a.counter
	if c.running = a.roster.Balances(); !c.running {
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
		c.due.Reset(max(countEvery, countPart*(f.took+c.cost+time.Since(began))))
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
	stats := make(map[lb.BackendID]nft.Stats, len(f.by))
	for mark, s := range f.by {
		if id, ok := a.engine.Owner(mark); ok {
			sum := stats[id]
			stats[id] = nft.Stats{Connections: sum.Connections + s.Connections, Live: sum.Live + s.Live}
		}
	}
	a.roster.Balance(stats, time.Now())
	a.noted()
}
