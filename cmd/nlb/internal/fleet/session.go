package fleet

// A session: what a node hears of and says while it is connected.

import (
	"context"
	"errors"
	"time"

	etcd "go.etcd.io/etcd/client/v3"
)

// Session is a node's time with etcd: its lease, and its watches.
type Session struct {
	store         *Store
	beats         <-chan *etcd.LeaseKeepAliveResponse
	pointers, out etcd.WatchChan
	last          int64 // revision that was heard of

	// Said is what the node said last, for its own use.
	Said string
}

// Join begins a session behind what was read. It ends with ctx.
func (s *Store) Join(ctx context.Context, w *Wanted) (*Session, error) {
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	lease, err := s.client.Grant(ask, int64(aliveTime.Seconds()))
	if err != nil {
		return nil, s.explain(err)
	}
	if _, err := s.commit(ctx, nil, etcd.OpPut(keyAlive+s.config.Name, "", etcd.WithLease(lease.ID))); err != nil {
		return nil, err
	}
	beats, err := s.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return nil, s.explain(err)
	}
	ctx = etcd.WithRequireLeader(ctx)
	return &Session{
		store: s, beats: beats, last: w.Revision,
		pointers: s.client.Watch(ctx, keyDesired, etcd.WithPrefix(), etcd.WithRev(w.Revision+1)),
		out:      s.client.Watch(ctx, keyOut, etcd.WithRev(w.Revision+1)),
	}, nil
}

// Say writes the status of the node.
func (s *Session) Say(ctx context.Context, status *Status) error {
	_, err := s.store.commit(ctx, nil, put(keyNode+s.store.config.Name, status))
	return err
}

// Next waits until what is wanted has changed, and notes that in w; or until there is
// a value in wake or tick. A key that is gone changes nothing. After an error, all is to be
// read again.
func (s *Session) Next(ctx context.Context, w *Wanted, wake <-chan struct{}, tick <-chan time.Time) (changed bool, err error) {
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-wake:
			return false, nil
		case <-tick:
			return false, nil
		case beat, ok := <-s.beats:
			if !ok {
				return false, errors.New("the lease has ended")
			}
			if beat.ResponseHeader != nil && beat.Revision < s.last {
				return false, errors.New("etcd has gone back in time: it was restored from a backup")
			}
		case r, ok := <-s.pointers:
			changed, err = s.hear(w, r, ok)
		case r, ok := <-s.out:
			changed, err = s.hear(w, r, ok)
		}
		if changed || err != nil {
			return changed, err
		}
	}
}

// hear takes what a watch says.
func (s *Session) hear(w *Wanted, r etcd.WatchResponse, ok bool) (changed bool, err error) {
	if !ok {
		return false, errors.New("the watch has ended")
	}
	if err := r.Err(); err != nil {
		return false, err // compacted, or there is no leader
	}
	s.last = max(s.last, r.Header.Revision)
	for _, e := range r.Events {
		if e.Type == etcd.EventTypePut {
			w.take(string(e.Kv.Key), e.Kv.Value, e.Kv.ModRevision)
			changed = true
		}
	}
	return changed, nil
}
