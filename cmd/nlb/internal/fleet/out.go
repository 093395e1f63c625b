package fleet

// Out: the node that is out of service by order, as for an upgrade. One at a time.

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

// TakeOut orders a node out. It is refused while another one is out or lost, and while
// a backend drains: its connections would be lost. Errors: *RefusedError, those of etcd.
func (s *Store) TakeOut(ctx context.Context, node, by string) error {
	k, err := s.Known(ctx)
	if err != nil {
		return err
	}
	alive, lost := k.There()
	others := slices.DeleteFunc(lost, func(n string) bool { return n == node })
	switch {
	case k.Nodes[node] == nil:
		return k.noNode(node)
	case k.Out != nil && k.Out.Node == node:
		return nil
	case k.Out != nil && k.Out.Node != "":
		return &RefusedError{fmt.Sprintf("%s is out, by %s since %s; one node at a time", k.Out.Node, Said(errors.New(k.Out.By)), k.Out.At.Format(time.RFC3339)), "nlb fleet in " + k.Out.Node}
	case len(others) > 0:
		return &RefusedError{strings.Join(others, ", ") + " is lost; one node at a time", "bring it back, or nlb fleet forget it if it will not come again"}
	case !slices.ContainsFunc(alive, func(n string) bool { return n != node }):
		return &RefusedError{node + " is the last node", "another one has to be there first"}
	}
	for _, n := range alive {
		if d := k.Nodes[n].Draining; d > 0 {
			return &RefusedError{fmt.Sprintf("%d backends drain on %s: their connections would be lost", d, n), "wait until nlb show says that they have none, or nlb enable them"}
		}
		if n != node && k.Nodes[n].Out {
			return &RefusedError{n + " is still out; one node at a time", "nlb fleet shows when it is in"}
		}
	}
	return s.order(ctx, k, Out{Node: node, By: by, At: time.Now().UTC().Truncate(time.Second)})
}

// BringIn orders a node in again. Errors are those of TakeOut.
func (s *Store) BringIn(ctx context.Context, node, by string) error {
	k, err := s.Known(ctx)
	switch {
	case err != nil:
		return err
	case k.Nodes[node] == nil:
		return k.noNode(node)
	case k.Out != nil && k.Out.Node != node && k.Out.Node != "":
		return &RefusedError{node + " is not out; " + k.Out.Node + " is", "nlb fleet in " + k.Out.Node}
	}
	return s.order(ctx, k, Out{By: by, At: time.Now().UTC().Truncate(time.Second)})
}

// order writes an order, unless somebody else was faster.
func (s *Store) order(ctx context.Context, k *Known, o Out) error {
	_, err := s.commit(ctx, []etcd.Cmp{etcd.Compare(etcd.ModRevision(keyOut), "=", k.outAt)}, put(keyOut, &o))
	if errors.Is(err, ErrRaced) {
		return &RefusedError{"somebody else has ordered a node out or in meanwhile", "nlb fleet shows it"}
	}
	return err
}

// AwaitOut waits until a node says that it is out, or in.
func (s *Store) AwaitOut(ctx context.Context, node string, out bool, wait time.Duration) error {
	over := time.After(wait)
	for {
		k, err := s.Known(ctx)
		if err != nil {
			return err
		}
		if is := k.Nodes[node]; is != nil && k.Alive[node] && is.Out == out {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return fmt.Errorf("%s has not obeyed after %s; the order stands", node, wait)
		case <-time.After(lookEvery):
		}
	}
}

// Forget removes what is known of a node that is gone for good.
func (s *Store) Forget(ctx context.Context, node string) error {
	k, err := s.Known(ctx)
	switch {
	case err != nil:
		return err
	case k.Nodes[node] == nil:
		return k.noNode(node)
	case k.Alive[node]:
		return &RefusedError{node + " is there", "stop its nlb run first, and wait until it is lost"}
	}
	ops := []etcd.Op{etcd.OpDelete(keyNode + node)}
	if k.Out != nil && k.Out.Node == node {
		ops = append(ops, put(keyOut, &Out{At: time.Now().UTC().Truncate(time.Second)}))
	}
	_, err = s.commit(ctx, []etcd.Cmp{etcd.Compare(etcd.CreateRevision(keyAlive+node), "=", 0)}, ops...)
	return err
}

// noNode says which nodes there are.
func (k *Known) noNode(name string) error {
	return &RefusedError{name + " is no node of the fleet", hintOf(slices.Collect(maps.Keys(k.Nodes)), "no node has ever been there")}
}
