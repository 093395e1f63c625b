//go:build linux

package agent

// Requests: what the agent does for whoever asks through its socket; and orders where no
// agent runs, straight into the table.

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/lb/announce"
)

func (a *agent) answer(ctx context.Context, q Request) (any, error) {
	switch q.Ask {
	case AskStatus:
		return a.report(), nil
	case AskReload:
		a.Log.Info("told to reload", "by", q.By, "uid", q.UID)
		err := a.reread(ctx, "told to reload by "+q.By)
		if errors.Is(err, ErrUnsettled) {
			return Done{"reloads once the files are whole"}, nil
		}
		if err != nil {
			return nil, &RefusedError{Message: err.Error(), Hint: "what was read before stays; nlb check says more"}
		}
		return Done{"reloaded"}, nil
	case AskOrder:
		return a.obey(ctx, q)
	case AskBackend:
		_, _, b, err := find(a.wanted, q.Order)
		if err != nil {
			return nil, err
		}
		return a.know(q.Order.about(b)), nil
	case AskServing:
		health, found := announce.HealthOf(a.wanted, q.Order.Profile, a.serves)
		if !found {
			return nil, &RefusedError{Message: q.Order.Profile + " is not balanced here", Hint: "nlb show lists what is"}
		}
		return health, nil
	case AskService:
		return a.knowAll(q.Order.Profile, q.Order.Service), nil
	}
	return Done{"goes on"}, nil
}

func (a *agent) report() Status {
	s := Status{Table: a.Table, Namespace: namespace(), Status: a.sentence(), Trouble: a.board.Trouble(), Profiles: []string{}, AllowExec: a.AllowExec, Fleet: a.Fleet != nil, Groups: []int{os.Getegid()}, Program: program(), Changes: a.board.Changes()}
	s.Alone = len(a.wanted) > 0 && a.trouble == "" && a.engine.Alone()
	if more, err := os.Getgroups(); err == nil {
		s.Groups = append(s.Groups, more...)
	}
	for _, p := range a.wanted {
		s.Profiles = append(s.Profiles, p.Name)
	}
	slices.Sort(s.Profiles)
	return s
}

// knowAll is what is known of the backends of a service, by their names.
func (a *agent) knowAll(profile, service string) map[string]*view.Known {
	out := map[string]*view.Known{}
	for p, s := range lb.Services(a.wanted) {
		if p.Name != profile || s.Name != service {
			continue
		}
		for i := range s.Backends {
			out[s.Backends[i].Name] = a.know(lb.BackendID{Profile: profile, Service: service, Address: s.Backends[i].Address})
		}
	}
	return out
}

// know is what is known of a backend.
func (a *agent) know(id lb.BackendID) *view.Known {
	is, starting := a.roster.Standing(id)
	out := &view.Known{Verdict: is.Verdict.String(), Since: is.Since, Reason: is.Reason, Starting: starting, Checks: []view.Check{}}
	for _, c := range a.roster.Checks(id) {
		out.Checks = append(out.Checks, view.Check{
			Check: c.Kind.String(), At: c.At, Streak: c.Streak, Have: c.Have, Need: c.Need, Late: c.Late, Unable: c.Unable, Past: c.Past,
		})
	}
	return out
}

func (a *agent) obey(ctx context.Context, q Request) (any, error) {
	_, _, b, err := find(a.wanted, q.Order)
	if err != nil {
		return nil, err
	}
	given := q.Order.given(lb.Standing{}, q.By, time.Now())
	a.roster.Order(q.Order.about(b), given.Order, given.By, given.Until)
	a.noted()
	a.reconcile(ctx)
	a.Log.Info("order", "order", q.Order.String(), "by", q.By, "uid", q.UID)
	if !a.retry.IsZero() {
		return nil, errors.New(a.trouble + "; the order is tried again")
	}
	return Done{q.Order.String()}, nil
}

// find is the backend that an order is about. An error says what there is.
func find(profiles []*lb.Profile, o Order) (*lb.Profile, *lb.Service, *lb.Backend, error) {
	var there []string
	for p, s := range lb.Services(profiles) {
		for i := range s.Backends {
			b := &s.Backends[i]
			if p.Name == o.Profile && s.Name == o.Service && b.Name == o.Backend {
				return p, s, b, nil
			}
			there = append(there, p.Name+"/"+s.Name+"/"+b.Name)
		}
	}
	missing := o.Profile + "/" + o.Service + "/" + o.Backend
	err := &RefusedError{Message: "backend " + missing + " is not balanced here", Hint: "nlb show lists what is"}
	if best := lb.Nearest(missing, there); best != "" {
		err.Hint = "did you mean " + best + "?"
	}
	return nil, nil, nil, err
}

// about is the identity of a backend that an order is about.
func (o Order) about(b *lb.Backend) lb.BackendID {
	return lb.BackendID{Profile: o.Profile, Service: o.Service, Address: b.Address}
}

// Obey carries an order out on what the table holds. Nothing else of it changes.
// Errors: *RefusedError, *engine.Error.
func Obey(ctx context.Context, e *engine.Engine, o Order, begin func() error) (Done, error) {
	if o.For > 0 {
		return Done{}, &RefusedError{Message: "no agent is running, so nobody would take the order back", Hint: "give it without --for, and nlb enable later"}
	}
	state, err := e.State()
	if err != nil {
		return Done{}, err
	}
	p, s, b, err := find(state.Profiles, o)
	if err != nil {
		return Done{}, err
	}
	b.Standing = o.given(b.Standing, nameOf(uint32(os.Getuid())), time.Now())
	b.State = stateOf(s, b)
	p.Sysctl = lb.SysctlKeep // what the profile says of it is not known
	if _, err := e.Apply(ctx, []*lb.Profile{p}, engine.Options{Placed: true, Begin: begin}); err != nil {
		return Done{}, err
	}
	return Done{o.String()}, nil
}

// stateOf is the state of a backend with its order. The table does not say how
// backends are checked, so lb's Place cannot: the others keep their states.
func stateOf(s *lb.Service, b *lb.Backend) lb.BackendState {
	switch {
	case b.Standing.Order == lb.OrderDisable, b.Standing.Verdict == lb.VerdictDown:
		return lb.Down
	case b.Standing.Order == lb.OrderDrain:
		return lb.Draining
	}
	for i := range s.Backends {
		other := &s.Backends[i]
		if other.State == lb.Up && other.Weight > 0 && other.Priority < b.Priority && other.Address.Addr.Is4() == b.Address.Addr.Is4() {
			return lb.Standby
		}
	}
	return lb.Up
}
