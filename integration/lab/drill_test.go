//go:build linux

package lab

// Drills with agents that do too little.

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/integration/lab/plan"
	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// idle is an agent that applies profiles, and then looks at nothing.
type idle struct {
	witness
	applied chan []*lb.Profile
	fails   error
}

func (a *idle) Run(ctx context.Context, h *netlab.Host, profiles []*lb.Profile) error {
	if a.fails != nil {
		return a.fails
	}
	if err := h.Do(func() error { return a.Apply(ctx, profiles) }); err != nil {
		return err
	}
	a.applied <- profiles
	<-ctx.Done()
	return nil
}

func (a *idle) Known() ([]*lb.Profile, error) {
	select {
	case profiles := <-a.applied:
		a.applied <- profiles
		return profiles, nil
	default:
		return nil, nil
	}
}

// checked is a service with health in short intervals.
var checked = with(web, func(s *lb.Service) {
	s.Health = []lb.Check{{Kind: lb.CheckTCP, Interval: 100 * time.Millisecond, Timeout: 50 * time.Millisecond, Rise: 2, Fall: 2, Passive: true}}
})

func TestIdleAgent(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	a := &idle{witness: witness{t: t}, applied: make(chan []*lb.Profile, 1)}
	r, err := rehearsed(t.Context(), []*lb.Profile{{Name: "p", Services: []lb.Service{checked}}}, a, Options{Connections: 12, Agent: a})
	netlabtest.Must(t, err)
	var ways []string
	for _, f := range r.Profiles[0].Services[0].Failings {
		ways = append(ways, f.Way)
		if f.Out != nil || f.Lost+f.Late == 0 {
			t.Errorf("nobody took it out, and every third connection met it: %+v", f)
		}
	}
	if want := []string{plan.Refuse, plan.Silent, plan.Flap}; !slices.Equal(ways, want) {
		t.Errorf("got %v, want %v", ways, want)
	}
	all := strings.Join(r.AllProblems(), "\n")
	for _, want := range []string{"p/web: 10.0.0.11:8080=refuse: it was not out after ", "p/web: 10.0.0.12:8080=silent: it was not out after ", "=flap: it was not out after "} {
		if !strings.Contains(all, want) {
			t.Errorf("got\n%s\nwant %q", all, want)
		}
	}
	if want := "p/web: no check sees a backend that answers slowly, so none does here"; !slices.Contains(r.Notes, want) {
		t.Errorf("got %q, want %q", r.Notes, want)
	}
}

// TestAgentThatEnds: there is no rehearsal without an agent.
func TestAgentThatEnds(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	a := &idle{witness: witness{t: t}, fails: errors.New("it ended")}
	_, err := rehearsed(t.Context(), []*lb.Profile{{Name: "p", Services: []lb.Service{checked}}}, a, Options{Connections: 12, Agent: a})
	if !errors.Is(err, a.fails) {
		t.Errorf("got %v", err)
	}
}

// TestLeftOut: what cannot be tried is said.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	for _, tt := range []struct {
		change func(*lb.Service)
		want   string
	}{
		{func(s *lb.Service) { s.Health[0].Kind = lb.CheckExec }, "its outages are not rehearsed, since its check exec runs a command, which no stand-in passes"},
		{func(s *lb.Service) { s.Backends = s.Backends[:1] }, "its outages are not rehearsed, since no backend could take over from another"},
		{func(s *lb.Service) { s.Backends[1].Address = lb.Endpoint{Addr: s.Backends[0].Address.Addr, Port: 9} }, "its outages are not rehearsed, since 10.0.0.11:8080 and 10.0.0.12:8080 are on one server"},
		{func(s *lb.Service) { s.Limit.New = lb.Rate{Events: 20, Per: time.Second} }, "its outages are not rehearsed, since its limit would turn away clients that come all the time"},
		{func(s *lb.Service) { s.Protocols, s.Backends[1].MaxConnections = []lb.Protocol{lb.TCP, lb.UDP}, 10 }, "its outages are not rehearsed, since clients that come all the time would be too many flows for 10.0.0.12:8080"},
		{func(s *lb.Service) { s.Health[0].Interval, s.Health[0].Timeout = time.Minute, time.Minute }, "no backend falls silent here, since that may take 262 s; --fail asks for it"},
	} {
		s := checked
		s.Health, s.Backends = slices.Clone(s.Health), slices.Clone(s.Backends)
		tt.change(&s)
		a := &idle{witness: witness{t: t}, fails: errors.New("an agent ran")}
		r, err := rehearsed(t.Context(), []*lb.Profile{{Name: "p", Services: []lb.Service{s}}}, a, Options{Connections: 12, Agent: a})
		if err != nil {
			t.Errorf("%s: %v", tt.want, err)
		} else if !slices.Contains(r.Notes, "p/web: "+tt.want) {
			t.Errorf("got %q, want %q", r.Notes, tt.want)
		}
	}
}

// TestSharedServer: a plan cannot have a server fail for one service, and work for
// another.
func TestSharedServer(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	other := with(checked, func(s *lb.Service) { s.Name, s.Listen = "other", []lb.Listen{listenAt("203.0.113.10", 81)} })
	a := &idle{witness: witness{t: t}, fails: errors.New("an agent ran")}
	steps := []plan.Step{{Profile: "p", Service: "web", Backend: web.Backends[0].Name, Way: plan.Refuse}, {Profile: "p", Service: "other", Backend: web.Backends[1].Name, Way: plan.Refuse}}
	_, err := rehearsed(t.Context(), []*lb.Profile{{Name: "p", Services: []lb.Service{checked, other}}}, a, Options{Connections: 12, Agent: a, Plan: steps})
	if err == nil || !strings.Contains(err.Error(), "p/web and p/other have a server in common") {
		t.Errorf("got %v", err)
	}
}
