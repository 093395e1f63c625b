//go:build linux

package board

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/view"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/lbtest"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

// lines are a value as JSON, line by line.
func lines(t *testing.T, v any) []string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "\t")
	netlabtest.Must(t, err)
	return strings.Split(string(b), "\n")
}

// TestSnapshotIsKernel: what the board shows is what is read from the kernel, whatever
// the profiles have.
func TestSnapshotIsKernel(t *testing.T) {
	t.Parallel()
	netlabtest.Packets(t)
	since := time.Date(2026, 11, 26, 4, 5, 6, 0, time.UTC)
	for i, p := range lbtest.Full() {
		host := netlabtest.NewHost(t, netlabtest.NewWorld(t), fmt.Sprint("host", i))
		p.Services = append(p.Services, lbtest.Fleet(2).Services...) // their names sort otherwise
		known := map[lb.BackendID]lb.Standing{}
		for k := range p.Services[0].Backends {
			id := lb.BackendID{Profile: p.Name, Service: p.Services[0].Name, Address: p.Services[0].Backends[k].Address}
			known[id] = []lb.Standing{
				{Verdict: lb.VerdictDown, Since: since, Reason: "tcp: refused"},
				{Verdict: lb.VerdictUp, Since: since, Reason: "tcp: connected"},
				{Verdict: lb.VerdictUp, Order: lb.OrderDrain, By: "root", Until: since.Add(time.Hour)},
			}[k]
		}
		profiles := lb.Overlay([]*lb.Profile{p}, known, func(lb.BackendID) uint8 { return 3 })
		var shown, held *view.Snapshot
		netlabtest.Must(t, host.Do(func() error {
			e, err := engine.Open("nlb")
			if err != nil {
				return err
			}
			defer e.Close()
			result, err := e.Apply(t.Context(), profiles, engine.Options{Placed: true})
			if err != nil {
				return err
			}
			state, err := e.State()
			if err != nil {
				return err
			}
			usage, err := e.Usage(state)
			if err != nil {
				return err
			}
			held = view.NewSnapshot(state, usage, func(s *lb.Service) view.Offloaded {
				by, note := e.Offloading(state.Profiles, state.Offload()).Of(s, state.Offload())
				return view.Offloaded{By: by, Note: note}
			})
			counter, err := e.Counter()
			if err != nil {
				return err
			}
			defer counter.Close()
			b := New("nlb", counter)
			if _, err := b.Snapshot(); err != ErrEmpty {
				t.Errorf("before anything was applied: got %v", err)
			}
			b.Offload(result.Offloading)
			b.Set([]*lb.Profile{p}, engine.NumbersOf(profiles))
			b.Update(profiles)
			shown, err = b.Snapshot()
			return err
		}))
		if d := cmp.Diff(lines(t, held), lines(t, shown)); d != "" {
			t.Errorf("profile %d (-kernel +board)\n%s", i, d)
		}
	}
}

// TestUpdate: what was looked at stays as it was; who looks again sees what is new, and
// what was counted stays for as long as the backend does.
func TestUpdate(t *testing.T) {
	b := New("nlb", nil)
	b.Update(lbtestFleet(lb.Up)) // before Set it is no news
	b.Set(lbtestFleet(lb.Up), engine.NumbersOf(nil))
	first := b.shown.Load().services()
	id := lb.BackendID{Profile: "shop", Service: "web", Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.1")}}
	b.Tally(id).Failures.Add(3)
	b.Update(lbtestFleet(lb.Down))
	if got := first[0].Services[0].Backends[0].State; got != lb.Up {
		t.Errorf("an update changes what was seen: %v", got)
	}
	if got := b.shown.Load().services()[0].Services[0].Backends[0].State; got != lb.Down {
		t.Errorf("after an update: %v", got)
	}
	b.Set(lbtestFleet(lb.Up), engine.NumbersOf(nil))
	if n := b.Tally(id).Failures.Load(); n != 3 {
		t.Errorf("failures after a reload: %d", n)
	}
	b.Set(nil, engine.NumbersOf(nil))
	if b.Tally(id) != nil {
		t.Error("a backend that is gone is counted")
	}
}

func lbtestFleet(state lb.BackendState) []*lb.Profile {
	return []*lb.Profile{{Name: "shop", Services: []lb.Service{{Name: "web", Backends: []lb.Backend{{Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.1")}, State: state}}}}}}
}

// TestEvents: lines of the log are events; whoever was away hears of those after the
// one that it knows.
func TestEvents(t *testing.T) {
	b := New("nlb", nil)
	var text strings.Builder
	log := b.Log(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelWarn})))
	_, fresh := b.Events("")
	log.Debug("not to be heard")
	log.With("backend", "shop/web/b1").Warn("down", "reason", "tcp: refused", "n", 3)
	select {
	case <-fresh:
	default:
		t.Error("nobody is told of an event")
	}
	log.Info("up")
	all, _ := b.Events("")
	if len(all) != 2 || all[0].Event != "down" || all[0].Level != "warn" || all[1].Event != "up" {
		t.Fatalf("events: %+v", all)
	}
	if d := cmp.Diff(all[0].Fields, map[string]string{"backend": "shop/web/b1", "reason": "tcp: refused", "n": "3"}); d != "" {
		t.Error(d)
	}
	if got := text.String(); !strings.Contains(got, "msg=down backend=shop/web/b1 reason") || strings.Contains(got, "up") {
		t.Errorf("logged: %s", got)
	}
	for _, tt := range []struct {
		after string
		want  int
	}{{all[0].ID, 1}, {all[1].ID, 0}, {"0-1", 2}, {"nonsense", 2}, {b.events.run + "-99", 2}, {b.events.run + "--1", 2}} {
		if got, _ := b.Events(tt.after); len(got) != tt.want {
			t.Errorf("after %q: got %d, want %d", tt.after, len(got), tt.want)
		}
	}
	for range MostEvents {
		log.Info("more")
	}
	if all, _ = b.Events(all[0].ID); len(all) != MostEvents || all[0].Event != "more" {
		t.Errorf("%d events are kept, the first is %q", len(all), all[0].Event)
	}
}
