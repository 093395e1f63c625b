//go:build linux

// Package member makes an agent a node of a fleet: it has the agent apply what the
// fleet wants, and tells the fleet what came of it. Whatever happens to etcd, the agent
// goes on with what it has.
package member

// The member: sessions with etcd, one after the other, and the status of the node, which
// is written where it has changed.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/fleet"
)

const (
	// shortest and longest are between two tries to speak with etcd.
	shortest = 500 * time.Millisecond
	longest  = 30 * time.Second
	// tickEvery is how often it looks for what nobody tells: drained backends that have
	// become quiet, a disk that has room again.
	tickEvery = 5 * time.Second
	// gather is how long changes of health come together in one status.
	gather = 500 * time.Millisecond
	// retryEvery is when what was refused is tried again, if nothing is pushed before: it
	// may fit by then.
	retryEvery = 30 * time.Second
	// clockOff is how many seconds a clock may be off before that is said.
	clockOff = 30
)

// Member is a node of a fleet.
type Member struct {
	config *fleet.Config
	log    *slog.Logger

	folder    *folder
	status    fleet.Status
	offers    chan agent.Offer
	sentences chan string
	turns     chan agent.Turn
	wake      chan struct{}
	now       func() time.Time

	mu        sync.Mutex
	board     *board.Board // nil: the agent has applied nothing yet
	gathering bool         // a value in wake is due

	alone   time.Time // since when etcd was not to be spoken with; zero: it is
	reason  string    // why, as it was logged
	stored  bool      // the folder has all that was applied
	retry   time.Time // of what was refused; zero: nothing was
	drained error     // why nobody knows what drains, as it was logged
}

// Join makes this agent a node of the fleet that a file tells of; an empty name: of
// none. leave ends that. Errors are those of fleet.ReadConfig and Open.
func Join(ctx context.Context, file, version string, log *slog.Logger) (f *agent.Fleet, leave func(), err error) {
	if file == "" {
		return nil, func() {}, nil
	}
	c, err := fleet.ReadConfig(file)
	if err != nil {
		return nil, nil, err
	}
	m, err := Open(c, version, log)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	f = m.Fleet()
	go func() { defer close(done); m.Run(ctx) }()
	return f, func() { cancel(); <-done }, nil
}

// Open reads what a node held last. An error says that its folder cannot be used.
func Open(c *fleet.Config, version string, log *slog.Logger) (*Member, error) {
	m := &Member{
		config: c, log: log,
		offers: make(chan agent.Offer), sentences: make(chan string, 1), turns: make(chan agent.Turn), wake: make(chan struct{}, 1), now: time.Now, stored: true,
	}
	var err error
	if m.folder, err = openFolder(c.State, log); err != nil {
		return nil, err
	}
	m.status = fleet.Status{Version: version, Out: m.folder.out, Profiles: map[string]*fleet.Held{}}
	for name, h := range m.folder.held {
		m.status.Profiles[name] = &fleet.Held{Version: h.Version, Seen: h.Seen, Since: h.Since}
	}
	return m, nil
}

// Fleet is what the agent is told by.
func (m *Member) Fleet() *agent.Fleet {
	return &agent.Fleet{First: m.folder.sources(), Out: m.folder.out, Offers: m.offers, Sentences: m.sentences, Turns: m.turns, Changed: m.changed}
}

// changed is told when health may have changed.
func (m *Member) changed(b *board.Board) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.board = b
	if !m.gathering {
		m.gathering = true
		time.AfterFunc(gather, func() {
			m.mu.Lock()
			m.gathering = false
			m.mu.Unlock()
			select {
			case m.wake <- struct{}{}:
			default:
			}
		})
	}
}

// Run takes part in the fleet until ctx ends.
func (m *Member) Run(ctx context.Context) {
	pause := shortest
	for ctx.Err() == nil {
		began := time.Now()
		err := m.session(ctx)
		if ctx.Err() != nil {
			return
		}
		m.lost(err)
		if time.Since(began) > longest {
			pause = shortest
		}
		// Not all nodes at once: half of it at least, by chance.
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, longest)
	}
}

// lost says that the node is on its own.
func (m *Member) lost(err error) {
	if m.alone.IsZero() {
		m.alone = m.now().UTC().Truncate(time.Second)
	}
	if reason := err.Error(); reason != m.reason {
		m.reason = reason
		m.log.Warn("the fleet cannot be reached; what was applied last stays", "since", m.alone, "error", err)
	}
	m.say()
}

// say tells the agent how the fleet is.
func (m *Member) say() {
	s := ""
	if !m.alone.IsZero() {
		s += fmt.Sprintf("Alone in its fleet since %s: %s. ", m.alone.Format(time.RFC3339), m.reason)
	}
	for _, name := range slices.Sorted(maps.Keys(m.status.Profiles)) {
		if r := m.status.Profiles[name].Refused; r != nil {
			s += fmt.Sprintf("Refused sequence %d of %s. ", r.Seq, name)
		}
	}
	if m.status.Trouble != "" {
		s += m.status.Trouble + ". "
	}
	if m.status.Out {
		s += "Out, by order. "
	}
	select { // the last one counts
	case <-m.sentences:
	default:
	}
	m.sentences <- s
}

// session reads everything, and follows it until something is wrong.
func (m *Member) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	store, err := fleet.Dial(m.config)
	if err != nil {
		return err
	}
	defer store.Close()
	w, err := store.Wanted(ctx)
	if err != nil {
		return err
	}
	s, err := store.Join(ctx, w)
	if err != nil {
		return err
	}
	if !m.alone.IsZero() {
		m.log.Info("the fleet is there again", "alone-for", time.Since(m.alone).Round(time.Second))
	}
	m.alone, m.reason = time.Time{}, ""
	for _, key := range w.Strange {
		m.log.Warn("a key of etcd is not nlb's", "key", key)
	}
	if err := m.tell(ctx, s, false); err != nil { // it may take a while until it has what is wanted
		return err
	}
	return m.follow(ctx, store, s, w)
}

// follow applies what is wanted, until the session ends.
func (m *Member) follow(ctx context.Context, store *fleet.Store, s *fleet.Session, w *fleet.Wanted) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	fresh, again := false, true
	for {
		if err := m.converge(ctx, store, w, fresh, again); err != nil {
			return err
		}
		m.keep()
		if err := m.tell(ctx, s, true); err != nil {
			return err
		}
		changed, err := s.Next(ctx, w, m.wake, tick.C)
		if err != nil {
			return err
		}
		fresh, again = changed, changed || !m.retry.IsZero() && time.Now().After(m.retry)
	}
}

// converge does what is wanted and not done yet. fresh says that it was pushed just
// now, and again that what was refused is tried once more. An error ends the session;
// what is wrong with what is wanted is noted.
func (m *Member) converge(ctx context.Context, store *fleet.Store, w *fleet.Wanted, fresh, again bool) error {
	if fresh {
		m.compareClock(w)
	}
	if again {
		m.retry = time.Time{}
		defer rush()()
	}
	if w.Out != nil {
		if err := m.order(ctx, w.Out.Node == m.config.Name); err != nil {
			return err
		}
	}
	news, err := m.news(ctx, store, w, again)
	if err != nil {
		return err
	}
	return m.apply(ctx, news)
}

// compareClock compares this host's clock with that of who has pushed last.
func (m *Member) compareClock(w *fleet.Wanted) {
	var last fleet.Entry
	for _, e := range w.Pointers {
		if e.Pointer != nil && e.Revision > last.Revision {
			last = e
		}
	}
	if last.Pointer == nil {
		return
	}
	off := int(m.now().Sub(last.At) / time.Second)
	if -clockOff < off && off < clockOff {
		off = 0
	}
	if off != 0 && m.status.Clock == 0 {
		m.log.Warn("this clock is not that of who has pushed", "seconds-ahead", off, "by", fleet.Said(errors.New(last.By)))
	}
	m.status.Clock = off
}

// order takes the node out, or brings it in, and notes that it is.
func (m *Member) order(ctx context.Context, out bool) error {
	if out == m.folder.out {
		return nil
	}
	done := make(chan struct{})
	select {
	case m.turns <- agent.Turn{Out: out, Done: done}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	m.folder.out, m.status.Out, m.stored = out, out, false
	m.log.Info(map[bool]string{true: "ordered out", false: "ordered in"}[out])
	return nil
}

// keep writes what is held into the folder, where that has changed or failed before.
func (m *Member) keep() {
	if m.stored {
		return
	}
	err := m.folder.write()
	m.stored = err == nil
	trouble := ""
	if err != nil {
		trouble = fleet.Said(fmt.Errorf("what was applied cannot be kept for the next start: %w", err))
	}
	if trouble != m.status.Trouble && err != nil {
		m.log.Error("what was applied cannot be kept for the next start", "error", err)
	}
	m.status.Trouble = trouble
}

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
