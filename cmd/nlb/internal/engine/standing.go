//go:build linux

package engine

// Standing: what the table knows of its backends goes on to hold where an apply
// comes without an agent.

import (
	"errors"
	"slices"
	"time"

	"nlb/lb"
	"nlb/nft"
)

// Health counts backends that get no new connections because of what is known of
// them.
type Health struct {
	// Down are out by a verdict of checks, Ordered by an admin's order. Forgotten
	// are those whose verdict was forgotten.
	Down, Ordered, Forgotten int
	// Newest is the time of the newest verdict among those of Down; the zero Time
	// where there is none.
	Newest time.Time
}

// overlay puts what the table knows of backends on profiles, without verdicts where
// they are to be forgotten. Orders that have run out are dropped.
func (e *Engine) overlay(profiles []*lb.Profile, forget bool) ([]*lb.Profile, Health, error) {
	known, err := e.standings(time.Now())
	if err != nil {
		return nil, Health{}, err
	}
	forgotten := 0
	if forget {
		forgotten = heldIn(lb.Overlay(profiles, known, nil)).Down
		for id, is := range known {
			known[id] = is.WithoutVerdict()
		}
	}
	if len(known) == 0 && !slices.ContainsFunc(profiles, hasPriorities) {
		return profiles, Health{}, nil
	}
	profiles = lb.Overlay(profiles, known, nil)
	held := heldIn(profiles)
	held.Forgotten = forgotten
	return profiles, held, nil
}

// standings are those that the table has, without orders that have run out.
func (e *Engine) standings(now time.Time) (map[lb.BackendID]lb.Standing, error) {
	if some, err := nft.HasStandings(e.conn, e.table); err == nil && !some {
		return nil, nil // most tables have none, and are not read for it
	}
	state, err := nft.Load(e.conn, e.table)
	if errors.Is(err, nft.ErrLayout) {
		return nil, nil // it will be replaced
	}
	if err != nil {
		return nil, err
	}
	out := map[lb.BackendID]lb.Standing{}
	for p, s := range lb.Services(state.Profiles) {
		for i := range s.Backends {
			standing := s.Backends[i].Standing
			if !standing.Until.IsZero() && !now.Before(standing.Until) {
				standing.Order, standing.By, standing.Until = lb.NoOrder, "", time.Time{}
			}
			if standing != (lb.Standing{}) {
				out[lb.BackendID{Profile: p.Name, Service: s.Name, Address: s.Backends[i].Address}] = standing
			}
		}
	}
	return out, nil
}

// hasPriorities reports whether a profile has a backend whose priority says when it
// gets connections.
func hasPriorities(p *lb.Profile) bool {
	return slices.ContainsFunc(p.Services, func(s lb.Service) bool {
		return slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.Priority > 1 })
	})
}

func heldIn(profiles []*lb.Profile) (held Health) {
	for _, s := range lb.Services(profiles) {
		for i := range s.Backends {
			switch b := &s.Backends[i]; {
			case b.State != lb.Down && b.State != lb.Draining:
			case b.Standing.Order != lb.NoOrder:
				held.Ordered++
			case b.Standing.Verdict == lb.VerdictDown:
				held.Down++
				if b.Standing.Since.After(held.Newest) {
					held.Newest = b.Standing.Since
				}
			}
		}
	}
	return held
}
