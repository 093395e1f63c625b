//go:build linux

package member

// The status of the node, which is written where it has changed.

import (
	"context"
	"encoding/json"
	"time"

	"nlb/cmd/nlb/internal/fleet"
)

// tell writes the status, if it is another than was written last, and tells the agent.
// look says that health is to be counted before.
func (m *Member) tell(ctx context.Context, s *fleet.Session, look bool) error {
	m.mu.Lock()
	b := m.board
	m.mu.Unlock()
	if b != nil && look {
		health := b.Health()
		for name, h := range m.status.Profiles {
			h.Health = fleet.Health(health[name])
		}
		n, err := b.Draining()
		if err == nil {
			m.status.Draining = n
		} else if m.drained == nil || err.Error() != m.drained.Error() {
			m.log.Warn("nobody can tell whether backends still drain", "error", err)
		}
		m.drained = err
	}
	m.status.Fit()
	m.say()
	m.status.At = time.Time{}
	now, err := json.Marshal(m.status)
	if err != nil {
		return err
	}
	if string(now) == s.Said {
		return nil
	}
	m.status.At = m.now().UTC().Truncate(time.Second)
	if err := s.Say(ctx, &m.status); err != nil {
		return err
	}
	s.Said = string(now)
	return nil
}
