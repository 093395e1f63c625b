//go:build linux

package member

// What is wanted into the agent: read, verified, and applied, or refused with the
// reason.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/fleet"
	"nlb/cmd/nlb/internal/source"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
)

// news is a version that the node does not have yet.
type news struct {
	profile string
	*held
	revision int64 // of its pointer
}

// rush has the collector wait while something is applied, as it does in nlb apply: what
// is made meanwhile is soon of no use. The heap may grow to five times what is live, but by
// 256 MiB at most, and never by less than it may anyway. over ends that.
func rush() (over func()) {
	const percent, bytes = 400, 256 << 20
	now := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/gogc:percent"}}
	metrics.Read(now)
	live, usual := now[0].Value.Uint64(), now[1].Value.Uint64()
	was := debug.SetGCPercent(int(min(percent, max(usual, 100*bytes/(live+1)))))
	return func() { debug.SetGCPercent(was) }
}

// news are what is wanted and can be read, those pushed earlier first.
func (m *Member) news(ctx context.Context, store *fleet.Store, w *fleet.Wanted, again bool) ([]news, error) {
	var out []news
	for _, name := range slices.Sorted(maps.Keys(w.Pointers)) {
		e := w.Pointers[name]
		is := m.status.Profiles[name]
		if is == nil {
			is = &fleet.Held{}
			m.status.Profiles[name] = is
		}
		v, err := m.fits(name, e)
		switch {
		case err != nil:
			m.refuse(name, cmp.Or(e.Pointer, &fleet.Pointer{}).Seq, err) // of one that cannot be read, 0
			continue
		case v == nil:
			is.Refused = nil
			continue
		case is.Refused != nil && is.Refused.Seq == v.Seq && !again:
			continue
		}
		one := news{name, &held{Version: *v, Seen: e.Seq}, e.Revision}
		if !v.Absent {
			one.source, err = m.fetch(ctx, store, name, v)
			if _, unread := errors.AsType[*fleet.ReadError](err); unread {
				return nil, err
			}
			if err != nil {
				m.refuse(name, v.Seq, err)
				continue
			}
		}
		out = append(out, one)
	}
	slices.SortStableFunc(out, func(a, b news) int { return cmp.Compare(a.revision, b.revision) })
	return out, nil
}

// fits is the version of a pointer that the node is to have and does not; nil: there
// is none. An error says why it must not be taken.
func (m *Member) fits(name string, e fleet.Entry) (*fleet.Version, error) {
	if e.Err != nil {
		return nil, e.Err
	}
	v := e.For(m.config.Name)
	has := m.folder.held[name]
	switch {
	case has == nil:
		return v, nil
	case e.Seq < has.Seen:
		return nil, fmt.Errorf("it is older than sequence %d, which was here: etcd may have been restored from a backup; push again what is wanted", has.Seen)
	case v == nil:
		return nil, nil
	case v.Seq == has.Seq && !v.Same(&has.Version):
		return nil, fmt.Errorf("what was here as sequence %d has another content: etcd may have been restored from a backup; push again what is wanted", v.Seq)
	}
	if has.Seen != e.Seq {
		has.Seen, m.stored = e.Seq, false
		m.status.Profiles[name].Seen = e.Seq
	}
	if v.Seq == has.Seq {
		return nil, nil
	}
	return v, nil
}

// fetch is a version, whose text may be here already.
func (m *Member) fetch(ctx context.Context, store *fleet.Store, name string, v *fleet.Version) (*source.Source, error) {
	if has := m.folder.held[name]; has != nil && has.source != nil && has.Same(v) {
		return has.source, nil
	}
	text, err := store.Blob(ctx, v)
	if err != nil {
		return nil, err
	}
	return fleet.Parse(name, text)
}

func (m *Member) refuse(name string, seq uint64, err error) {
	why := fleet.Refuse(seq, errors.New(explain(err)))
	is := m.status.Profiles[name]
	if is.Refused == nil || is.Refused.Seq != seq || !strings.HasPrefix(why.Error, strings.TrimSuffix(is.Refused.Error, " ...")) {
		is.Refused = why
		m.log.Error("refused what was pushed; what was applied last stays", "profile", name, "seq", seq, "error", why.Error)
	}
	if m.retry.IsZero() {
		m.retry = time.Now().Add(retryEvery)
	}
}

// mostMistakes is how many mistakes of a profile are told.
const mostMistakes = 3

// explain is an error with the places of the mistakes that it is about.
func explain(err error) string {
	var errs lb.Errors
	if invalid, ok := errors.AsType[*source.InvalidError](err); ok {
		errs = invalid.Errors
	} else if conflict, ok := errors.AsType[*nft.ConflictError](err); ok {
		errs = conflict.Errors
	} else {
		return err.Error()
	}
	var out []string
	for i, e := range errs {
		if i == mostMistakes {
			out = append(out, fmt.Sprintf("and %d more mistakes", len(errs)-i))
			break
		}
		out = append(out, config.FormatError(e))
	}
	return strings.Join(out, "\n")
}

// apply has the agent apply news: all at once, or, where that does not do, one after
// the other, as they were pushed.
func (m *Member) apply(ctx context.Context, all []news) error {
	if len(all) == 0 {
		return nil
	}
	err := m.offer(ctx, all)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	if len(all) == 1 {
		m.refuse(all[0].profile, all[0].Seq, err)
		return nil
	}
	for _, one := range all {
		if err := m.offer(ctx, []news{one}); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.refuse(one.profile, one.Seq, err)
		}
	}
	return nil
}

// offer has the agent apply some news beside what is held, and notes that they are.
func (m *Member) offer(ctx context.Context, some []news) error {
	next := maps.Clone(m.folder.held)
	var o agent.Offer
	same := true
	for _, n := range some {
		if has := m.folder.held[n.profile]; has == nil || !has.Same(&n.Version) {
			same = false
		}
		n.Since = m.now().UTC().Truncate(time.Second)
		next[n.profile] = n.held
		if n.Absent {
			o.Absent = append(o.Absent, n.profile)
		}
	}
	if !same {
		o.Profiles = (&folder{held: next}).sources()
		if err := fleet.Conflicts(o.Profiles); err != nil {
			return err
		}
		reply := make(chan error, 1)
		o.Reply = reply
		select {
		case m.offers <- o:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case err := <-reply:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.folder.held, m.stored = next, false
	for _, n := range some {
		is := m.status.Profiles[n.profile]
		is.Version, is.Seen, is.Since, is.Refused = n.Version, n.Seen, n.Since, nil
		m.log.Info("has what was pushed", "profile", n.profile, "seq", n.Seq, "absent", n.Absent)
	}
	return nil
}
