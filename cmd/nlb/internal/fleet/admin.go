package fleet

// What admins do: a push from its check to its last node, and nodes out and in.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

// ErrStopped ends a push that has said already why not all nodes have it.
var ErrStopped = errors.New("not all nodes have it")

// Pushed is what push prints as JSON.
type Pushed struct {
	Profiles []PushedProfile `json:"profiles"`
	Changes  []view.Change   `json:"changes"`
	Nodes    []string        `json:"nodes"`   // that have it
	Stopped  bool            `json:"stopped"` // not all nodes that are there have it
	Faults   []Fault         `json:"faults"`  // why
	Lost     []string        `json:"lost"`    // nodes that were not there
}

// PushedProfile is a step.
type PushedProfile struct {
	Profile string   `json:"profile"`
	Seq     uint64   `json:"seq"`
	Hash    string   `json:"hash"`
	Absent  bool     `json:"absent"`
	Stage   []string `json:"stage"` // where it was stopped; none: all nodes
}

// Push pushes what is asked, stage by stage. It waits so long for the nodes of each,
// and watches the health of the canaries for soak. begin is called before the first
// change. Errors: ErrStopped, those of Plan and Commit.
func Push(ctx context.Context, c *view.Console, s *Store, a Ask, wait, soak time.Duration, begin func() error) error {
	p, err := s.Plan(ctx, a)
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused
	} else if err != nil {
		return &failure{err, "nothing was changed", ""}
	}
	for _, n := range p.Notes {
		c.Notef("%s", n)
	}
	out := &Pushed{Profiles: []PushedProfile{}, Changes: []view.Change{}, Nodes: []string{}, Faults: []Fault{}}
	alive, lost := p.Known.There()
	out.Lost = append([]string{}, lost...)
	if len(p.Steps) == 0 {
		return c.Result(out, "nothing to push")
	}
	if err := begin(); err != nil {
		return err
	}
	if err := s.Commit(ctx, p); err != nil {
		if _, refused := errors.AsType[*RefusedError](err); refused {
			return err
		}
		return &failure{err, "it may have been pushed", "nlb fleet shows it"}
	}
	began := time.Now()
	counts := s.show(ctx, c, p, out) // while the nodes work
	if len(p.Canary) > 0 {
		c.Progress("waits for " + strings.Join(p.Canary, ", ") + ", and watches for " + soak.String())
		if err := s.stage(ctx, c, p, p.Canary, wait, soak, out); err != nil {
			return err
		}
		if err := s.Widen(ctx, p); err != nil {
			return &failure{err, "only " + strings.Join(p.Canary, ", ") + " were to have it so far", "nlb fleet shows what is wanted now"}
		}
	}
	c.Progress("waits for " + text.Count(len(alive), "node"))
	if err := s.stage(ctx, c, p, alive, wait, 0, out); err != nil {
		return err
	}
	if err := s.Prune(ctx); err != nil {
		c.Notef("old profiles stay in etcd until the next push: %v", err)
	}
	if len(lost) > 0 {
		c.Notef("%s lost, and will have it once back", strings.Join(lost, ", ")+map[bool]string{true: " is", false: " are"}[len(lost) == 1])
	}
	out.note(p)
	return c.Result(out, "pushed %s (%s): %s of %d, after %s", p.names(), counts, text.Count(len(out.Nodes), "node"), len(alive)+len(lost), time.Since(began).Round(10*time.Millisecond))
}

// show prints the changes of a plan, and counts them.
func (s *Store) show(ctx context.Context, c *view.Console, p *Plan, out *Pushed) (counts string) {
	if c.Quiet && !c.JSON {
		return ""
	}
	changes, notes := s.Changes(ctx, p)
	for _, n := range notes {
		c.Notef("%s", n)
	}
	out.Changes = view.Changes(changes)
	if !c.JSON {
		for _, change := range changes {
			c.PrintChange(change)
		}
	}
	return view.ChangeCounts(changes)
}

// stage waits for some nodes, and says what is wrong with them.
func (s *Store) stage(ctx context.Context, c *view.Console, p *Plan, nodes []string, wait, soak time.Duration, out *Pushed) error {
	faults, err := s.Await(ctx, p, nodes, wait, soak)
	c.Progress("")
	stays := "the stage stays at " + strings.Join(p.Steps[0].Next.Stage, ", ")
	if len(p.Steps[0].Next.Stage) == 0 {
		stays = "it stays pushed to all nodes"
	}
	if err != nil {
		return &failure{err, stays, "nlb fleet shows who has it"}
	}
	if len(faults) == 0 {
		out.Nodes = nodes
		return nil
	}
	out.Stopped, out.Faults = true, faults
	out.note(p)
	for _, f := range faults {
		c.Errorf("%s", strings.TrimSpace(f.Node+" "+f.Fault))
	}
	if c.JSON {
		if err := c.Value(out); err != nil {
			return err
		}
	}
	c.Errorf("stopped; %s; %s", stays, p.back())
	return ErrStopped
}

// back says which commands take a push back: a profile that was not there before can
// only be removed.
func (p *Plan) back() string {
	var undo, remove string
	for _, st := range p.Steps {
		if st.Next.Previous != nil {
			undo += " --undo " + st.Profile
		} else {
			remove += " --remove " + st.Profile
		}
	}
	switch {
	case remove == "":
		return "nlb push" + undo + " takes it back"
	case undo == "":
		return "nlb push" + remove + " takes it back"
	}
	return "nlb push" + undo + " and nlb push" + remove + " take it back"
}

// failure is an error of a push, what that has changed, and what helps further.
type failure struct {
	error
	outcome, hint string
}

func (e *failure) Unwrap() error                   { return e.error }
func (e *failure) Explain() (outcome, hint string) { return e.outcome, e.hint }

func (out *Pushed) note(p *Plan) {
	for _, st := range p.Steps {
		n := &st.Next
		out.Profiles = append(out.Profiles, PushedProfile{st.Profile, n.Seq, n.Hash, n.Absent, append([]string{}, n.Stage...)})
	}
}

// names are the profiles with their sequences.
func (p *Plan) names() string {
	var out []string
	for _, st := range p.Steps {
		out = append(out, fmt.Sprintf("%s, sequence %d", st.Profile, st.Next.Seq))
	}
	return strings.Join(out, "; ")
}

// orders are the words that are about a node, and what is done then.
var orders = map[string]string{"out": "ordered out", "in": "ordered in", "forget": "forgotten"}

// IsOrder reports whether a word is one that Do carries out.
func IsOrder(word string) bool { return orders[word] != "" }

// Do carries out what follows nlb fleet: out NODE, in NODE, forget NODE. Where wait is
// not 0, it waits so long for the node to obey.
func Do(ctx context.Context, c *view.Console, s *Store, word, node, by string, wait time.Duration) error {
	if lb.CheckName(node) != "" {
		return &RefusedError{fmt.Sprintf("%.100q is no name of a node", node), "want " + lb.NameForm}
	}
	var err error
	done := orders[word]
	switch word {
	case "out":
		err = s.TakeOut(ctx, node, by)
	case "in":
		err = s.BringIn(ctx, node, by)
	case "forget":
		err = s.Forget(ctx, node)
	}
	if err == nil && wait > 0 && word != "forget" {
		err, done = s.AwaitOut(ctx, node, word == "out", wait), word
	}
	if err != nil {
		return err
	}
	return c.Result(struct {
		Node string `json:"node"`
		Done string `json:"done"`
	}{node, done}, "%s: %s", node, done)
}

// Whoami is who pushes, for people: alice@ops.
func Whoami() string {
	name := fmt.Sprintf("uid%d", os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return name + "@" + host
}
