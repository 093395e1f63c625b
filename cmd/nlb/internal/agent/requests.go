//go:build linux

package agent

// Requests: what the agent does for whoever asks through its socket.

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/lb/announce"
)

// answer does what is asked.
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

// report is how the agent is.
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
	return &view.Known{Verdict: is.Verdict.String(), Since: is.Since, Reason: is.Reason, Starting: starting, Checks: a.roster.Checks(id)}
}

// obey carries an order out.
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
