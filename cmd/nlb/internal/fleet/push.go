package fleet

// Pushes: a plan into etcd, and the wait for the nodes to have it.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	etcd "go.etcd.io/etcd/client/v3"
)

// lookEvery is how often a push looks at the nodes where none says anything: those that
// are lost do not.
const lookEvery = 200 * time.Millisecond

// Commit writes a plan: blobs, then all pointers at once. An error is of etcd, or a
// *RefusedError that names who was faster.
func (s *Store) Commit(ctx context.Context, p *Plan) error {
	var conditions []etcd.Cmp
	for _, st := range p.Steps {
		if st.source == nil {
			continue
		}
		v, err := s.putBlob(ctx, st.source.Text)
		if err != nil {
			return err
		}
		st.Next.Chunks = v.Chunks
		// A prune may be under way. It removes the first chunk first.
		conditions = append(conditions, etcd.Compare(etcd.CreateRevision(chunkKey(v.Hash, 0)), ">", 0))
	}
	return s.point(ctx, p, conditions)
}

// point writes the pointers of a plan, if nobody has changed them meanwhile.
func (s *Store) point(ctx context.Context, p *Plan, conditions []etcd.Cmp) error {
	var ops []etcd.Op
	for _, st := range p.Steps {
		conditions = append(conditions, etcd.Compare(etcd.ModRevision(keyDesired+st.Profile), "=", st.had.Revision))
		ops = append(ops, put(keyDesired+st.Profile, &st.Next), put(historyKey(st.Profile, st.Next.Seq), &st.Next))
	}
	r, err := s.commit(ctx, conditions, ops...)
	if errors.Is(err, ErrRaced) {
		return s.raced(ctx, p)
	}
	if err != nil {
		return err
	}
	for _, st := range p.Steps {
		st.had.Revision = r.Header.Revision
	}
	return nil
}

func historyKey(profile string, seq uint64) string {
	return fmt.Sprintf("%s%s/%020d", keyHistory, profile, seq)
}

// raced says who was faster.
func (s *Store) raced(ctx context.Context, p *Plan) error {
	now, err := s.Wanted(ctx)
	if err != nil {
		return err
	}
	for _, st := range p.Steps {
		if e := now.Pointers[st.Profile]; e.Revision != st.had.Revision && e.Pointer != nil {
			return &RefusedError{
				fmt.Sprintf("%s has pushed sequence %d of %s meanwhile", Said(errors.New(e.By)), e.Seq, st.Profile),
				"nlb fleet shows it; push again if yours is still wanted",
			}
		}
	}
	return &RefusedError{"etcd has changed meanwhile", "push again"}
}

// Widen lets all nodes have what the canaries have. Errors are those of Commit.
func (s *Store) Widen(ctx context.Context, p *Plan) error {
	for _, st := range p.Steps {
		st.Next.Stage, st.Next.At = nil, time.Now().UTC().Truncate(time.Second)
	}
	return s.point(ctx, p, nil)
}

// Fault is why a node does not have what was pushed, or is not well with it.
type Fault struct {
	Node  string `json:"node"`
	Fault string `json:"fault"`
}

// Await waits until these nodes have what was pushed, at most so long; after that, it
// watches their health for soak. What it returns is wrong; nothing: all is well. An
// error is of etcd or ctx.
func (s *Store) Await(ctx context.Context, p *Plan, nodes []string, wait, soak time.Duration) ([]Fault, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return p.await(ctx, s.Known, s.client.Watch(ctx, keyNode, etcd.WithPrefix()), nodes, wait, soak)
}

func (p *Plan) await(ctx context.Context, known func(context.Context) (*Known, error), said etcd.WatchChan, nodes []string, wait, soak time.Duration) ([]Fault, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	have, late := false, false
	for {
		k, err := known(ctx)
		if ctx.Err() != nil || err != nil && late {
			return nil, errors.Join(ctx.Err(), err)
		}
		var faults []Fault
		missing := nodes
		if err == nil { // else the leader may be a new one in a moment
			faults, missing = p.examine(k, nodes)
		}
		switch {
		case len(faults) > 0:
			return faults, nil
		case len(missing) == 0 && (soak == 0 || have && late):
			return nil, nil
		case len(missing) == 0 && !have:
			have, late = true, false
			over.Reset(soak)
		case late:
			for _, n := range missing {
				faults = append(faults, Fault{n, fmt.Sprintf("does not have it after %s", wait)})
			}
			return faults, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-over.C:
			late = true
		case _, ok := <-said:
			if !ok {
				said = nil // the ticks go on
			}
		case <-tick.C:
		}
	}
}

// examine finds what is wrong with nodes, and those that do not have it yet.
func (p *Plan) examine(k *Known, nodes []string) (faults []Fault, missing []string) {
	for _, st := range p.Steps {
		if e := k.Pointers[st.Profile]; e.Pointer == nil || e.Seq != st.Next.Seq {
			return []Fault{{"", "something else was pushed of " + st.Profile + " meanwhile"}}, nil
		}
	}
	for _, n := range nodes {
		is := k.Nodes[n]
		if is == nil || !k.Alive[n] {
			faults = append(faults, Fault{n, "is lost"})
			continue
		}
		has := true
		for _, st := range p.Steps {
			h := is.Profiles[st.Profile]
			switch {
			case h != nil && h.Refused != nil && h.Refused.Seq == st.Next.Seq:
				faults = append(faults, Fault{n, fmt.Sprintf("refused %s: %s", st.Profile, h.Refused.Error)})
			case h == nil || h.Seq != st.Next.Seq:
				has = false
			default:
				if worse := h.Worse(p.Known.Nodes[n].health(st.Profile)); worse != "" {
					faults = append(faults, Fault{n, st.Profile + ": " + worse})
				}
			}
		}
		if !has {
			missing = append(missing, n)
		}
	}
	return faults, missing
}

func (s *Status) health(profile string) Health {
	if s == nil || s.Profiles[profile] == nil {
		return Health{}
	}
	return s.Profiles[profile].Health
}

// Worse says what is worse than it was before; empty: nothing.
func (h Health) Worse(before Health) string {
	var out []string
	if h.Down > before.Down {
		out = append(out, fmt.Sprintf("%d backends are down, and %d were", h.Down, before.Down))
	}
	if h.Open > before.Open {
		out = append(out, fmt.Sprintf("%d services have too few up, and %d had", h.Open, before.Open))
	}
	return strings.Join(out, "; ")
}

// There are the nodes that are alive, and those that are lost, sorted.
func (k *Known) There() (alive, lost []string) {
	for _, n := range slices.Sorted(maps.Keys(k.Nodes)) {
		if k.Alive[n] {
			alive = append(alive, n)
		} else {
			lost = append(lost, n)
		}
	}
	return alive, lost
}

// kept is how many old pointers of a profile stay in etcd.
const kept = 10

// Prune removes from etcd what no pointer leads to any more, the last ones of each
// profile excepted.
func (s *Store) Prune(ctx context.Context) error {
	r, err := s.commit(ctx, nil, etcd.OpGet(keyDesired, etcd.WithPrefix(), etcd.WithLimit(maxKeys)), etcd.OpGet(keyOut),
		etcd.OpGet(keyHistory, etcd.WithPrefix(), etcd.WithSort(etcd.SortByKey, etcd.SortDescend)),
		etcd.OpGet(keyBlob, etcd.WithPrefix(), etcd.WithKeysOnly()))
	if err != nil {
		return err
	}
	used := map[string]bool{}
	use := func(p *Pointer) {
		if used[p.Hash] = true; p.Previous != nil {
			used[p.Previous.Hash] = true
		}
	}
	for _, e := range wantedOf(r).Pointers {
		if e.Err != nil {
			return e.Err // perhaps a newer nlb can read it, and where it leads to
		}
		use(e.Pointer)
	}
	var ops []etcd.Op
	seen := map[string]int{}
	for _, kv := range r.Responses[2].GetResponseRange().Kvs { // the latest first
		profile, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), keyHistory), "/")
		p, err := parsePointer(kv.Value)
		if seen[profile]++; err == nil && seen[profile] <= kept {
			use(p)
		} else {
			ops = append(ops, etcd.OpDelete(string(kv.Key)))
		}
	}
	for _, kv := range r.Responses[3].GetResponseRange().Kvs {
		hash, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), keyBlob), "/")
		if !used[hash] {
			ops = append(ops, etcd.OpDelete(string(kv.Key)))
		}
	}
	if len(ops) == 0 {
		return nil
	}
	// The next push removes what is left.
	same := etcd.Compare(etcd.ModRevision(keyDesired), "<", r.Header.Revision+1).WithPrefix()
	_, err = s.commit(ctx, []etcd.Cmp{same}, ops[:min(len(ops), 100)]...)
	return err
}
