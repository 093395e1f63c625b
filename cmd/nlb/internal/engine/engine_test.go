//go:build linux

package engine

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/engine/vip"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/sysctl"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// on runs f with an engine of a new host.
func on(t *testing.T, f func(e *Engine)) {
	t.Helper()
	must(t, netlabtest.NewHost(t, netlabtest.NewWorld(t), "host").Do(func() error {
		e, err := Open("nlb")
		if err != nil {
			return err
		}
		defer e.Close()
		f(e)
		return nil
	}))
}

func shop(backends ...string) []*lb.Profile {
	s := lb.Service{
		Name: "web", Protocols: []lb.Protocol{lb.UDP}, // needs forwarding, and no more
		Listen: []lb.Listen{{Prefix: netip.MustParsePrefix("203.0.113.10/32"), Ports: []lb.PortRange{{First: 80, Last: 80}}}},
	}
	for _, b := range backends {
		s.Backends = append(s.Backends, lb.Backend{Name: b, Address: lb.Endpoint{Addr: netip.MustParseAddr(b)}, Weight: 1})
	}
	return []*lb.Profile{{Name: "shop", Services: []lb.Service{s}}}
}

func profilesIn(t *testing.T, e *Engine) int {
	t.Helper()
	state, err := e.State()
	must(t, err)
	return len(state.Profiles)
}

// TestApply: rules and parameters are one act, which a flush takes back.
func TestApply(t *testing.T) {
	on(t, func(e *Engine) {
		forward := []sysctl.Change{{Name: "net.ipv4.ip_forward", From: "0", To: "1"}}
		visible := func(changes []sysctl.Change) []sysctl.Change {
			return slices.DeleteFunc(slices.Clone(changes), sysctl.Change.Silent)
		}
		plan, err := e.Plan(t.Context(), shop("10.0.0.1", "10.0.0.2"))
		must(t, err)
		if len(plan.Changes) != 3 || !slices.Equal(visible(plan.Parameters), forward) || plan.Refused != nil {
			t.Errorf("the plan is %+v, %+v", plan, plan.Result)
		}
		dry, err := e.Apply(t.Context(), shop("10.0.0.1"), Options{DryRun: true, Begin: func() error { return errors.New("a dry run begins nothing") }})
		must(t, err)
		if dry.Batches != 1 || profilesIn(t, e) != 0 {
			t.Errorf("a dry run: %+v", dry)
		}
		begun := 0
		begin := func() error { begun++; return nil }
		done, err := e.Apply(t.Context(), shop("10.0.0.1"), Options{Begin: begin})
		must(t, err)
		if begun != 1 || len(done.Changes) != 2 || !slices.Equal(visible(done.Parameters), forward) || profilesIn(t, e) != 1 {
			t.Errorf("begun %d times, %+v", begun, done)
		}
		again, err := e.Apply(t.Context(), shop("10.0.0.1"), Options{Begin: begin})
		must(t, err)
		if begun != 1 || again.Batches != 0 || again.Generation != done.Generation {
			t.Errorf("begun %d times, and again: %+v", begun, again.Result)
		}
		gone, err := e.Flush(t.Context(), []string{"shop", "mail"}, FlushOptions{Restore: true, Begin: begin})
		must(t, err)
		if begun != 2 || !slices.Equal(gone.Removed, []string{"shop"}) || !slices.Equal(gone.Missing, []string{"mail"}) || len(gone.Restored) == 0 {
			t.Errorf("begun %d times, flushed %+v", begun, gone)
		}
		if v, err := e.params.Get("net.ipv4.ip_forward"); err != nil || v != "0" {
			t.Errorf("net.ipv4.ip_forward is %s, %v", v, err)
		}
	})
}

// TestGate: nothing is changed where the caller has given up, or must not begin.
func TestGate(t *testing.T) {
	on(t, func(e *Engine) {
		refusal := errors.New("not now")
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		planned, stop := context.WithCancel(t.Context())
		for name, c := range map[string]struct {
			ctx   context.Context
			begin func() error
			want  error
		}{
			"refused":                       {t.Context(), func() error { return refusal }, refusal},
			"given up":                      {canceled, nil, context.Canceled},
			"given up while it was planned": {planned, func() error { stop(); return planned.Err() }, context.Canceled},
		} {
			_, err := e.Apply(c.ctx, shop("10.0.0.1"), Options{Begin: c.begin})
			said, ok := errors.AsType[*Error](err)
			if !ok || !errors.Is(err, c.want) || said.Outcome != "nothing was changed" {
				t.Errorf("%s: got %v", name, err)
			}
			if n := profilesIn(t, e); n != 0 {
				t.Errorf("%s: %d profiles are there", name, n)
			}
		}
		_, err := e.Apply(t.Context(), shop("10.0.0.1"), Options{})
		must(t, err)
		if _, err := e.Flush(t.Context(), nil, FlushOptions{Begin: func() error { return refusal }}); !errors.Is(err, refusal) {
			t.Errorf("flush: %v", err)
		}
		if n := profilesIn(t, e); n != 1 {
			t.Errorf("after a flush that was refused: %d profiles are there", n)
		}
	})
}

// TestFlushWithdraws: an address that was announced goes only where the flush may begin,
// and a flush that fails afterwards says that it is gone.
func TestFlushWithdraws(t *testing.T) {
	on(t, func(e *Engine) {
		announced := netip.MustParseAddr("203.0.113.10")
		_, err := vip.Set([]vip.VIP{{Addr: announced, Device: "lo"}})
		must(t, err)
		there := func() bool {
			all, err := vip.List()
			must(t, err)
			return slices.ContainsFunc(all, func(a vip.Address) bool { return a.Addr == announced })
		}
		refusal := errors.New("not now")
		if _, err := e.Flush(t.Context(), nil, FlushOptions{Begin: func() error { return refusal }}); !errors.Is(err, refusal) || !there() {
			t.Errorf("a flush that was refused: %v, the address is there: %t", err, there())
		}
		e.conn.Close()
		_, err = e.Flush(t.Context(), nil, FlushOptions{})
		if said, ok := errors.AsType[*Error](err); !ok || said.Outcome != "addresses withdrawn: 1; beside that, nothing was changed" || there() {
			t.Errorf("a flush that fails: %v, %+v, the address is there: %t", err, said, there())
		}
	})
}

// stand is the shop with states that follow from what is known of its backends.
func stand(known map[string]lb.Standing, backends ...string) []*lb.Profile {
	p := shop(backends...)
	p[0].Services[0].Health = []lb.Check{{Kind: lb.CheckUDP, Send: "x"}}
	all := map[lb.BackendID]lb.Standing{}
	for address, s := range known {
		all[lb.BackendID{Profile: "shop", Service: "web", Address: lb.Endpoint{Addr: netip.MustParseAddr(address)}}] = s
	}
	return lb.Overlay(p, all, nil)
}

// TestHonoursHealth: an apply without an agent keeps to what one has found, unless
// it is to forget that.
func TestHonoursHealth(t *testing.T) {
	on(t, func(e *Engine) {
		since := time.Date(2026, 11, 26, 4, 5, 6, 0, time.UTC)
		known := map[string]lb.Standing{
			"10.0.0.1": {Verdict: lb.VerdictDown, Since: since, Reason: "udp: no answer"},
			"10.0.0.2": {Order: lb.OrderDrain, By: "admin", Until: time.Now().Add(time.Hour).UTC().Truncate(time.Second)},
			"10.0.0.3": {Order: lb.OrderDisable, Until: since},
		}
		backends := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}
		states := func() (out []string) {
			s, err := e.State()
			must(t, err)
			for _, b := range s.Profiles[0].Services[0].Backends {
				out = append(out, b.State.String())
			}
			return out
		}
		_, err := e.Apply(t.Context(), stand(known, backends...), Options{Placed: true})
		must(t, err)
		if got := states(); !slices.Equal(got, []string{"down", "draining", "down", "up"}) {
			t.Errorf("as it was found: %v", got)
		}
		wanted := stand(nil, backends...)
		plan, err := e.Plan(t.Context(), wanted)
		must(t, err)
		r, err := e.Apply(t.Context(), wanted, Options{})
		must(t, err)
		if want := (Health{Down: 1, Ordered: 1, Newest: since}); r.Health != want || plan.Health != want {
			t.Errorf("held: %+v, planned: %+v", r.Health, plan.Health)
		}
		if got := states(); !slices.Equal(got, []string{"down", "draining", "up", "up"}) || r.Repaired {
			t.Errorf("the order that has run out: %v, repaired: %v", got, r.Repaired)
		}
		again, err := e.Apply(t.Context(), wanted, Options{})
		must(t, err)
		if again.Batches > 0 || again.Health != r.Health {
			t.Errorf("again: %+v, %+v", again.Result, again.Health)
		}
		forgotten, err := e.Apply(t.Context(), wanted, Options{ForgetHealth: true})
		must(t, err)
		if got := states(); !slices.Equal(got, []string{"up", "draining", "up", "up"}) || forgotten.Health != (Health{Ordered: 1, Forgotten: 1}) {
			t.Errorf("forgotten: %v, held %+v", got, forgotten.Health)
		}
	})
}

// TestStay: an engine that stays changes states by an update, and notices others.
func TestStay(t *testing.T) {
	on(t, func(e *Engine) {
		if _, err := e.Update(t.Context(), shop("10.0.0.1")); err == nil {
			t.Error("an update without a table that was kept open")
		}
		e.Stay()
		touched := func(want bool) {
			t.Helper()
			if got, err := e.Touched(); err != nil || got != want {
				t.Errorf("touched: %v, %v", got, err)
			}
		}
		backends := []string{"10.0.0.1", "10.0.0.2"}
		wanted := stand(nil, backends...)
		_, err := e.Apply(t.Context(), wanted, Options{Placed: true})
		must(t, err)
		touched(false)
		down := map[string]lb.Standing{"10.0.0.1": {Verdict: lb.VerdictDown, Since: time.Unix(1, 0).UTC()}}
		r, err := e.Update(t.Context(), stand(down, backends...))
		must(t, err)
		if r.Batches != 1 || len(r.Changes) > 0 || r.Cleanup == nil {
			t.Errorf("an update: %+v", r.Result)
		}
		cleaned := make(chan error)
		go func() {
			_, err := r.Cleanup.Run(t.Context())
			cleaned <- err
		}()
		_, err = e.Update(t.Context(), wanted) // while that one is at it
		must(t, err)
		must(t, <-cleaned)
		touched(false)
		state, err := e.State()
		must(t, err)
		if b := state.Profiles[0].Services[0].Backends[0]; b.State != lb.Up || b.Standing.Verdict != lb.VerdictNew {
			t.Errorf("up again: %+v", b)
		}
		r, err = e.Update(t.Context(), stand(down, backends...))
		must(t, err)
		_, err = e.Flush(t.Context(), nil, FlushOptions{})
		must(t, err)
		touched(true)
		_, err = e.Apply(t.Context(), wanted, Options{Placed: true})
		must(t, err)
		if !r.Cleanup.Idle() {
			t.Error("after a flush, a cleanup of before goes on with backends that are up again")
		}
	})
}

// TestOffload: a kernel that cannot offload refuses those who insist, and goes without
// for those who do not; one that can, offloads.
func TestOffload(t *testing.T) {
	on(t, func(e *Engine) {
		wish := func(way lb.Offload) []*lb.Profile {
			p := shop("10.0.0.1")
			p[0].Services[0].Offload, p[0].Services[0].Devices = way, []string{"eth7"}
			return p
		}
		lacks := e.offload.kernelLacks()
		for _, way := range []lb.Offload{lb.OffloadSoftware, lb.OffloadHardware} {
			_, err := e.Apply(t.Context(), wish(way), Options{})
			if said, _ := errors.AsType[*Error](err); (lacks != nil) != (said != nil && strings.Contains(said.Error(), "needs Linux >= 5.14") && said.Hint != "") {
				t.Errorf("%s: the kernel lacks %v, and the error is %v", way, lacks, err)
			}
			if n := profilesIn(t, e); lacks != nil && n != 0 {
				t.Errorf("%s: refused, and %d profiles are there", way, n)
			}
		}
		for _, devices := range [][]string{{"eth7"}, nil} {
			p := wish(lb.OffloadAuto)
			p[0].Services[0].Devices = devices
			result, err := e.Apply(t.Context(), p, Options{})
			must(t, err)
			if notes := result.Offloading.Notes(); len(notes) == 0 || !strings.HasPrefix(notes[0], "offload: auto is off: ") {
				t.Errorf("auto on %v, with no such device: %v", devices, notes)
			}
			state, err := e.State()
			must(t, err)
			if s := state.Profiles[0].Services[0]; s.Offload != lb.OffloadAuto || len(s.Devices) != len(devices) {
				t.Errorf("read back: offload %s on %v", s.Offload, s.Devices)
			}
			again, err := e.Apply(t.Context(), p, Options{})
			must(t, err)
			if again.Batches != 0 || len(again.Changes) != 0 {
				t.Errorf("again: %+v", again.Result)
			}
			by, note := result.Offloading.Of(&p[0].Services[0], state.Offload())
			if by != "" || note == "" {
				t.Errorf("it is offloaded by %q: %s", by, note)
			}
		}
	})
}
