//go:build linux

package engine

// Counter: the figures of backends, read beside all else.

import (
	"errors"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/compile"
	"nlb/nft/wire"
)

// Counter reads figures of the backends of a table, in a conversation of its own.
type Counter struct {
	conn  *wire.Conn
	table string
}

// Counter opens one, in the calling thread's network namespace.
func (e *Engine) Counter() (*Counter, error) {
	conn, err := wire.Dial()
	if err != nil {
		return nil, withHint(err)
	}
	return &Counter{conn, e.table}, nil
}

// Read reads the figures of all backends, by a mark of each (Owner). It takes about
// a second for 700,000 connections.
func (c *Counter) Read() (stats map[uint32]nft.Stats, err error) {
	for range 5 {
		if stats, err = nft.ReadStats(c.conn, c.table); !errors.Is(err, wire.ErrInterrupted) {
			break // else the table was changed meanwhile
		}
	}
	if err != nil {
		return nil, withHint(err)
	}
	return stats, nil
}

// Numbers are what the kernel knows the backends and services of some profiles by.
type Numbers struct{ of *compile.Numbers }

// NumbersOf numbers the backends and services of all profiles of a table, in the
// calling thread's network namespace.
func NumbersOf(profiles []*lb.Profile) Numbers {
	kept, _ := KeptBits() // as Apply has it
	return Numbers{compile.NewNumbers(kept, profiles)}
}

// Figures are what the kernel has counted, at one moment.
type Figures struct {
	// Generation is the number of the ruleset.
	Generation uint32

	numbers *compile.Numbers
	stats   map[uint32]nft.Stats // by the numbers of backends
	refused map[uint32]uint64    // by marks
}

// Figures reads the figures of backends and services that have these numbers.
func (c *Counter) Figures(n Numbers) (*Figures, error) {
	by, err := c.Read()
	if err != nil {
		return nil, err
	}
	out := &Figures{numbers: n.of, stats: make(map[uint32]nft.Stats, len(by))}
	for mark, s := range by {
		number := mark & compile.NumberMask &^ n.of.Owners.Kept
		sum := out.stats[number]
		out.stats[number] = nft.Stats{Connections: sum.Connections + s.Connections, Live: sum.Live + s.Live, Packets: sum.Packets + s.Packets}
	}
	if out.refused, err = nft.ReadRefused(c.conn, c.table); err != nil {
		return nil, withHint(err)
	}
	if out.Generation, err = c.conn.Generation(); err != nil {
		return nil, withHint(err)
	}
	return out, nil
}

// Of are the figures of a backend.
func (f *Figures) Of(profile string, s *lb.Service, b *lb.Backend) nft.Stats {
	return f.stats[f.numbers.Backend(compile.ChainOf(profile, s.Name), b.Address)]
}

// Refused counts what allow, deny, limits and max-connections of a service have turned
// away since it came.
func (f *Figures) Refused(profile string, s *lb.Service) uint64 {
	sum := f.refused[f.numbers.Guard(profile, s)] // nothing has the mark 0
	for i := range s.Backends {
		if b := &s.Backends[i]; b.MaxConnections > 0 {
			sum += f.refused[compile.FullMark(f.numbers.Backend(compile.ChainOf(profile, s.Name), b.Address))]
		}
	}
	return sum
}

// Close ends the conversation.
func (c *Counter) Close() error { return c.conn.Close() }
