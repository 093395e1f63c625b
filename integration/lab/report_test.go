//go:build linux

package lab

// The JSON of a report, and how a rehearsal ends early.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

func TestJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(&Report{
		Problems: []string{"shop/web: something"},
		Profiles: []Profile{{Name: "shop", Services: []Service{{Name: "web", Trials: []Trial{{
			Backends: []Backend{{Name: "one"}, {Name: "two", Connections: 99, SourcesDue: "the client"}},
		}}}}}},
	})
	netlabtest.Must(t, err)
	var got struct {
		OK       bool     `json:"ok"`
		Problems []string `json:"problems"`
		Profiles []struct {
			Name     string `json:"name"`
			Services []struct {
				Trials []struct {
					Backends []struct {
						Weight, Connections int
						SourcesDue          string `json:"sources-due"`
					}
				}
			}
		}
	}
	netlabtest.Must(t, json.Unmarshal(b, &got))
	backend := got.Profiles[0].Services[0].Trials[0].Backends[1]
	if got.OK || len(got.Problems) != 1 || got.Profiles[0].Name != "shop" || backend.Connections != 99 || backend.SourcesDue != "the client" {
		t.Errorf("got %+v", got)
	}
	if b, err = json.Marshal(&Report{}); err != nil || !strings.HasPrefix(string(b), `{"ok":true,`) {
		t.Errorf("got %s, %v", b, err)
	}
}

// many is a profile of services, each over its own backends.
func many(services, backends int) *lb.Profile {
	p := &lb.Profile{Name: "many"}
	for i := range services {
		s := service(fmt.Sprint("s", i), []lb.Listen{listenAt(fmt.Sprintf("203.0.113.%d", i+1), 80)})
		for k := range backends {
			s.Backends = append(s.Backends, backendAt(fmt.Sprintf("10.%d.%d.%d:8080", i, k/250, k%250+1), 1))
		}
		p.Services = append(p.Services, s)
	}
	return p
}

func TestMany(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	for _, c := range []struct{ services, backends int }{{10, 3}, {1, 300}} {
		t.Run(fmt.Sprintf("%d of %d", c.services, c.backends), func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			r, err := rehearsed(t.Context(), []*lb.Profile{many(c.services, c.backends)}, &witness{t: t}, Options{})
			netlabtest.Must(t, err)
			if !r.OK() {
				t.Errorf("problems: %s", strings.Join(r.AllProblems(), "\n"))
			}
			t.Logf("%d connections in %s", r.Connections, time.Since(begin))
		})
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	for _, at := range []string{"building hosts", "applying many", "many/s0: IPv4 tcp", "many/s0: ending a backend"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var later []string
			_, err := rehearsed(ctx, []*lb.Profile{many(2, 2)}, &witness{t: t}, Options{Progress: func(what string) {
				if ctx.Err() != nil {
					later = append(later, what)
				} else if what == at {
					cancel()
				}
			}})
			if !errors.Is(err, context.Canceled) || len(later) > 1 { // the next phase notices
				t.Errorf("got %v, and then came %q", err, later)
			}
		})
	}
}

func TestNotApplied(t *testing.T) {
	t.Parallel()
	netlabtest.Packets(t)
	_, err := rehearsed(t.Context(), []*lb.Profile{many(1, 1)}, refusal{}, Options{})
	if want := "lab: apply many: no such kernel"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

type refusal struct{}

func (refusal) Apply(context.Context, []*lb.Profile) error { return errors.New("no such kernel") }

func TestDoors(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	p := many(1, 1)
	p.Services[0].Interface = "wan0"
	p.Services = append(p.Services, with(p.Services[0], func(s *lb.Service) { s.Name, s.Interface = "other", "lan*" }))
	l, err := New(t.Context(), []*lb.Profile{p}, &witness{t: t}, Options{})
	netlabtest.Must(t, err)
	defer l.Close()
	var b strings.Builder
	netlabtest.Must(t, l.WriteDoors(&b))
	for _, want := range []string{"balancer     nsenter", "clients-wan0 nsenter", "clients-lan0 nsenter", "backends     nsenter", fmt.Sprintf("--net=/proc/%d/fd/", os.Getpid())} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	r, err := l.Rehearse(t.Context())
	netlabtest.Must(t, err)
	if !r.OK() {
		t.Errorf("problems: %s", strings.Join(r.AllProblems(), "\n"))
	}
}

// Two profiles are rehearsed in one world.
func TestTwoProfiles(t *testing.T) {
	t.Parallel()
	requireNFT(t)
	a, b := *many(1, 2), *many(1, 3)
	a.Name, b.Name = "a", "b"
	b.Services[0].Listen = []lb.Listen{listenAt("203.0.113.200", 80)}
	b.Services[0].Allow = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("198.51.100.0/24")}
	r, err := rehearsed(t.Context(), []*lb.Profile{&a, &b}, &witness{t: t}, Options{Connections: 30})
	netlabtest.Must(t, err)
	if !r.OK() || len(r.Profiles) != 2 || len(r.Profiles[1].Services[0].Trials) != 1 {
		t.Errorf("got %+v", r)
	}
}
