package sysctl

// From what is there to what is needed, and back.

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Change is a parameter on its way from one value to another.
type Change struct {
	Name     string
	From, To string
}

// Silent reports whether the parameter has the value already. It is recorded
// because the kernel will not let it be when another is put back.
func (c Change) Silent() bool { return c.From == c.To }

// Plan returns what has to be written for all settings to hold, in this order.
// It is empty where they hold. A setting brings others with it, where the
// kernel changes them behind its back; see companions.
func (t Tree) Plan(settings []Setting) ([]Change, error) {
	var out []Change
	for _, s := range settings {
		found, err := t.Get(s.Name)
		if err != nil {
			return nil, err
		}
		if found == s.Value {
			continue
		}
		with, err := t.companions(s)
		if err != nil {
			return nil, err
		}
		out = append(append(out, with...), Change{s.Name, found, s.Value})
	}
	return out, nil
}

// Writable returns nil where Write would be allowed to make the changes, and
// writes nothing. In a container /proc/sys is often read-only.
func (t Tree) Writable(changes []Change) error {
	for _, c := range changes {
		if c.Silent() {
			continue
		}
		f, err := t.open(c.Name)
		if err != nil {
			return fmt.Errorf("set %s to %s: %w", c.Name, c.To, err)
		}
		f.Close()
	}
	return nil
}

// Write makes changes in order, up to the first that fails, and returns those
// that were made.
func (t Tree) Write(changes []Change) (done []Change, err error) {
	for _, c := range changes {
		if now, err := t.Get(c.Name); err != nil || now != c.To {
			if err := t.Set(c.Name, c.To); err != nil {
				return done, err
			}
		}
		done = append(done, c)
	}
	return done, nil
}

// Undo returns what takes changes back that were made at some time, for Write.
// A parameter that has another value by now is somebody else's: it is among
// the others, with From being the value that it has. One that is gone, as
// those of an interface go with it, is in neither.
func (t Tree) Undo(made []Change) (back, others []Change, err error) {
	for _, c := range made {
		now, err := t.Get(c.Name)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, nil, fmt.Errorf("put back: %w", err)
		case now != c.To:
			others = append(others, Change{c.Name, now, c.From})
		default:
			back = append(back, Change{c.Name, c.To, c.From})
		}
	}
	// Those first that change others.
	slices.SortStableFunc(back, func(a, b Change) int { return cmp.Compare(rank(a), rank(b)) })
	return back, others, nil
}

func rank(c Change) int {
	if c.Name == forward4 || c.Name == forward6 {
		return 0
	}
	return 1
}
