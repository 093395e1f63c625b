package nft_test

// A table that stays open, in the kernel.

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/lbtest"
	"nlb/nft"
	"nlb/nft/compile"
	nftables "nlb/nft/ruleset"
	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Short() {
		if err := netlab.Isolate(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a network namespace of its own, with so many conversations.
func host(t testing.TB, n int) (*netlab.Host, []*wire.Conn) {
	t.Helper()
	if testing.Short() {
		t.Skip("it makes network namespaces")
	}
	w, err := netlab.New()
	must(t, err)
	t.Cleanup(func() { w.Close() })
	h, err := w.Host("host")
	must(t, err)
	conns := make([]*wire.Conn, n)
	for i := range conns {
		must(t, h.Do(func() (err error) { conns[i], err = wire.Dial(); return err }))
		t.Cleanup(func() { conns[i].Close() })
	}
	return h, conns
}

var recorded = nft.Options{Table: "nlb", Record: true, Build: "test", Settle: time.Millisecond}

// standing is a profile of a service whose first backend stands so.
func standing(p *lb.Profile, service int, state lb.BackendState, s lb.Standing) []*lb.Profile {
	out := *p
	out.Services = slices.Clone(p.Services[service : service+1])
	out.Services[0].Backends = slices.Clone(out.Services[0].Backends)
	out.Services[0].Backends[0].State, out.Services[0].Backends[0].Standing = state, s
	return []*lb.Profile{&out}
}

var down = lb.Standing{Verdict: lb.VerdictDown, Since: time.Date(2026, 11, 26, 4, 5, 6, 0, time.UTC), Reason: "tcp: refused"}

// commits commits in another table, on and on.
func commits(t testing.TB, c *wire.Conn, every time.Duration) (stop func()) {
	t.Helper()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(every):
			}
			b := wire.NewBatch(wire.AnyGeneration)
			m := &nftables.Messages{Batch: b, Family: nftables.Inet, Table: "other", List: nftables.MaxList}
			m.NewTable("another program's")
			m.DeleteTable()
			before, err := c.Generation()
			if err == nil {
				_, err = c.Commit(b, before)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// cpuTime is what this thread has worked: other programs do not count.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUpdate takes backends down, and up again, and waits for the commit.
func BenchmarkUpdate(b *testing.B) {
	for _, bench := range []struct {
		name            string
		services, count int
		beside          time.Duration
		scheduler       lb.Scheduler
	}{
		{"1of10", 10, 1, 0, 0},
		{"1of1000", 1000, 1, 0, 0},
		{"1of1000consistent", 1000, 1, 0, lb.Consistent},
		{"1of10000", 10_000, 1, 0, 0},
		{"1of10000beside50/s", 10_000, 1, 20 * time.Millisecond, 0},
		{"500of10000", 10_000, 500, 0, 0},
		{"10000of10000", 10_000, 10_000, 0, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			h, conns := host(b, 2)
			must(b, h.Do(func() error {
				p := lbtest.Fleet(bench.services)
				for i := range p.Services {
					s := &p.Services[i]
					if s.Scheduler = bench.scheduler; s.Scheduler.Hashes() {
						s.HashBy = []lb.HashField{lb.SourceAddress}
					}
				}
				t := nft.Open(conns[0], "nlb", wire.Dial)
				defer t.Close()
				_, err := t.Apply(b.Context(), []*lb.Profile{p}, recorded)
				must(b, err)
				if bench.beside > 0 {
					defer commits(b, conns[1], bench.beside)()
				}
				round, slowest, busy := 0, time.Duration(0), time.Duration(0)
				for b.Loop() {
					state, s := lb.Down, down
					if round%2 == 1 {
						state, s = lb.Up, lb.Standing{}
					}
					part := &lb.Profile{Name: p.Name}
					for i := range bench.count {
						at := (i*(bench.services/bench.count) + round/2*7) % bench.services
						part.Services = append(part.Services, standing(p, at, state, s)[0].Services...)
					}
					begin, before := time.Now(), cpuTime()
					r, err := t.Update(b.Context(), []*lb.Profile{part})
					must(b, err)
					slowest = max(slowest, time.Since(begin))
					busy += cpuTime() - before
					if r.Cleanup != nil {
						b.StopTimer()
						_, err := r.Cleanup.Run(b.Context())
						must(b, err)
						b.StartTimer()
					}
					round++
				}
				b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
				b.ReportMetric(float64(busy.Microseconds())/1000/float64(b.N), "cpu-ms/op")
				return nil
			}))
		})
	}
}

// mixed has services of all sorts.
const mixed = `profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", backends: [10.2.0.11:80, {address: "10.2.0.12:80", weight: 5}, 10.2.0.13:80]}
  - {name: dns, listen: ["203.0.113.10:53", "[2001:db8::10]:53"], protocol: [udp, tcp], scheduler: random, backends: [10.2.0.11:53, 10.2.0.12, "[fd02::11]:53"]}
  - {name: sticky, listen: 203.0.113.11:80, affinity: 10m, backends: [10.2.0.12:80, {address: "10.2.0.13:80", max-connections: 7}]}
  - {name: pool, listen: 203.0.113.12:80, snat: [192.0.2.1, 192.0.2.2], backends: [10.2.0.12:80, {address: "10.2.0.13:80", snat: vip}]}
  - {name: hashed, listen: "203.0.113.13:*", scheduler: hash, deny: [192.0.2.0/24], backends: [10.2.0.11, 10.2.0.12, {address: 10.2.0.13, weight: 3}]}
  - {name: consistent, listen: ["203.0.113.14:80", "[2001:db8::14]:80"], scheduler: consistent, backends: [10.2.0.11:80, {address: "10.2.0.12:80", weight: 3}, "[fd02::11]:80"]}
  - {name: own, listen: ":8080", backends: [10.2.0.11:80, 10.2.0.12:80]}
`

// open calls f with a table that stays open, in a namespace of its own, and with
// further conversations.
func open(t *testing.T, f func(table *nft.Table, asked *wiretest.Asking, c, other *wire.Conn)) {
	t.Helper()
	h, conns := host(t, 2)
	must(t, h.Do(func() error {
		transport, err := wire.Open()
		must(t, err)
		asked := &wiretest.Asking{Transport: transport}
		c := wire.NewConn(asked)
		defer c.Close()
		table := nft.Open(c, "nlb", wire.Dial)
		defer table.Close()
		f(table, asked, conns[0], conns[1])
		return nil
	}))
}

func parse(t *testing.T, text string) *lb.Profile {
	t.Helper()
	p, err := config.Parse("test.yaml", []byte(text))
	must(t, err)
	return p
}

// holds fails where the table does not hold the profile, states and standings
// included.
func holds(t *testing.T, c *wire.Conn, want *lb.Profile) {
	t.Helper()
	s, err := nft.Load(c, "nlb")
	must(t, err)
	if changes := lb.Compare(s.Profiles, []*lb.Profile{want}); len(changes) > 0 {
		t.Errorf("what is there differs: %v", changes)
	}
	if drift := s.Drift(); len(drift) > 0 {
		t.Errorf("drift: %v", drift)
	}
	have := map[string]lb.Backend{}
	for p, s := range lb.Services(s.Profiles) {
		for _, b := range s.Backends {
			have[p.Name+s.Name+b.Address.String()] = b
		}
	}
	for _, s := range want.Services {
		for _, b := range s.Backends {
			h := have[want.Name+s.Name+b.Address.String()]
			if h.State != b.State || h.Share != b.Share || h.Standing != b.Standing {
				t.Errorf("%s %s is %s, share %d, %+v; want %s, %d, %+v", s.Name, b.Name, h.State, h.Share, h.Standing, b.State, b.Share, b.Standing)
			}
		}
	}
}

func update(t *testing.T, table *nft.Table, part ...*lb.Profile) *nft.Result {
	t.Helper()
	r, err := table.Update(t.Context(), part)
	must(t, err)
	if r.Cleanup != nil {
		_, err := r.Cleanup.Run(t.Context())
		must(t, err)
	}
	return r
}

// whole is update of all.
func whole(t *testing.T, table *nft.Table, profiles ...*lb.Profile) {
	t.Helper()
	r, err := table.Apply(t.Context(), profiles, recorded)
	must(t, err)
	if r.Cleanup != nil {
		_, err := r.Cleanup.Run(t.Context())
		must(t, err)
	}
}

func touched(t *testing.T, table *nft.Table, want bool) {
	t.Helper()
	if got, err := table.Touched(); err != nil || got != want {
		t.Errorf("touched: %v, %v; want %v", got, err, want)
	}
}

// TestUpdateComesToTheSame: many updates beside another program come to what is
// wanted, and none of them reads everything.
func TestUpdateComesToTheSame(t *testing.T) {
	t.Parallel()
	open(t, func(table *nft.Table, asked *wiretest.Asking, c, other *wire.Conn) {
		p := parse(t, mixed)
		_, err := table.Apply(t.Context(), []*lb.Profile{p}, recorded)
		must(t, err)
		defer commits(t, other, 2*time.Millisecond)()
		r := rand.New(rand.NewPCG(1, 2))
		for step := range 120 {
			part := &lb.Profile{Name: p.Name}
			for range 1 + r.IntN(3) {
				s := &p.Services[r.IntN(len(p.Services))]
				s.Backends = slices.Clone(s.Backends)
				b := &s.Backends[r.IntN(len(s.Backends))]
				b.State, b.Share, b.Standing = lb.BackendState(r.IntN(4)), uint8(r.IntN(4)*8), lb.Standing{}
				if b.State == lb.Down {
					b.Standing = down
				}
				if r.IntN(4) == 0 {
					b.Weight = r.IntN(5)
				}
				part.Services = append(part.Services, *s)
			}
			asked.All = false
			if r := update(t, table, part); r.Repaired {
				t.Errorf("step %d: repaired %+v", step, r)
			}
			if asked.All {
				t.Errorf("step %d read everything", step)
			}
			touched(t, table, false)
			if holds(t, c, p); t.Failed() {
				t.Fatalf("step %d", step)
			}
		}
	})
}

// TestUpdateKeepsWhatIsFixed: which maps there are is asked once, and again after an
// update that has made some.
func TestUpdateKeepsWhatIsFixed(t *testing.T) {
	open(t, func(table *nft.Table, asked *wiretest.Asking, c, _ *wire.Conn) {
		p := parse(t, "profile: shop\nservices:\n  - {name: web, listen: 203.0.113.10:80, backends: [10.2.0.11:80, 10.2.0.12:80]}\n  - {name: api, listen: 203.0.113.11:80, backends: [10.2.0.11:80, 10.2.0.12:80]}\n")
		_, err := table.Apply(t.Context(), []*lb.Profile{p}, recorded)
		must(t, err)
		for i, step := range []struct {
			service int
			change  func(b *lb.Backend)
			asks    bool
		}{
			{0, func(b *lb.Backend) { b.State, b.Standing = lb.Down, down }, true}, // makes the set of verdicts
			{0, func(b *lb.Backend) { b.State, b.Standing = lb.Up, lb.Standing{} }, true},
			{1, func(b *lb.Backend) { b.State, b.Standing = lb.Down, down }, false},
			{1, func(b *lb.Backend) { b.MaxConnections = 7 }, false}, // makes several
			{1, func(b *lb.Backend) { b.State, b.Standing = lb.Up, lb.Standing{} }, true},
			{0, func(b *lb.Backend) { b.MaxConnections = 9 }, false},
			{0, func(b *lb.Backend) { b.State, b.Standing = lb.Down, down }, false},
		} {
			s := &p.Services[step.service]
			s.Backends = slices.Clone(s.Backends)
			step.change(&s.Backends[0])
			asked.All, asked.Maps = false, false
			update(t, table, &lb.Profile{Name: p.Name, Services: []lb.Service{*s}})
			if asked.All || asked.Maps != step.asks {
				t.Errorf("step %d read everything: %v; the maps: %v, want %v", i, asked.All, asked.Maps, step.asks)
			}
			holds(t, c, p)
		}
	})
}

// TestCounted: the limit of a backend is the same where somebody else counts its
// connections, and the kernel counts again after an apply of somebody who does not.
func TestCounted(t *testing.T) {
	open(t, func(table *nft.Table, _ *wiretest.Asking, c, other *wire.Conn) {
		p := parse(t, "profile: shop\nservices: [{name: web, listen: 203.0.113.10:80, backends: [{address: 10.2.0.11:80, max-connections: 2001}, 10.2.0.12:80]}]\n")
		counted := recorded
		counted.Counted = true
		for _, o := range []nft.Options{recorded, counted, recorded} {
			_, err := table.Apply(t.Context(), []*lb.Profile{p}, o)
			must(t, err)
			s, err := nft.Load(c, "nlb")
			must(t, err)
			if got := s.Profiles[0].Services[0].Backends[0].MaxConnections; got != 2001 {
				t.Errorf("counted %v: max-connections %d", o.Counted, got)
			}
			if drift := s.Drift(); drift != nil {
				t.Errorf("counted %v: drift %v", o.Counted, drift)
			}
			if r, err := nft.Diff(c, []*lb.Profile{p}, nft.Options{Table: "nlb"}); err != nil || r.Repaired || len(r.Changes) > 0 {
				t.Errorf("counted %v: diff %+v, %v", o.Counted, r, err)
			}
			if o.Counted {
				must(t, table.Saturate([]uint32{0x4e000001}, time.Minute))
			}
			if touched, err := table.Touched(); touched || err != nil {
				t.Errorf("counted %v: touched %v, %v", o.Counted, touched, err)
			}
			if o.Counted { // what somebody else applies beside it leaves it alone
				_, err := nft.Apply(t.Context(), other, []*lb.Profile{parse(t, "profile: store\nservices: [{name: w, listen: 203.0.113.99:80, backends: [10.9.9.9:80]}]\n")}, recorded)
				must(t, err)
				must(t, table.Saturate(nil, time.Minute))
			}
		}
	})
}

// TestSlotsAreUsedAgain: one of many updates gets slots that an earlier one had, once
// no packet is under way to these any more.
func TestSlotsAreUsedAgain(t *testing.T) {
	open(t, func(table *nft.Table, _ *wiretest.Asking, c, _ *wire.Conn) {
		p := parse(t, mixed)
		whole(t, table, p)
		highest := slotsEnd(t, c)
		for step := range 200 {
			state := lb.Down
			if step%2 == 1 {
				state = lb.Up
			}
			update(t, table, standing(p, 2, state, lb.Standing{})...) // it does not translate inline
			end := slotsEnd(t, c)
			switch {
			case end <= highest && step == 0:
				t.Fatal("no slots were taken")
			case end <= highest:
				return
			}
			highest = end
		}
		t.Errorf("slots up to %d", highest)
	})
}

// slotsEnd is above the number of every slot that the kernel holds.
func slotsEnd(t *testing.T, c *wire.Conn) (end uint32) {
	t.Helper()
	var of wire.Encoder
	of.Text(unix.NFTA_SET_ELEM_LIST_TABLE, "nlb")
	of.Text(unix.NFTA_SET_ELEM_LIST_SET, "slots")
	must(t, c.Dump(wire.MsgType(unix.NFT_MSG_GETSETELEM), nftables.Inet, of.Bytes(), func(b []byte) error {
		for _, e := range wire.Attrs(wire.Attr(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			key := wire.Attr(wire.Attr(e, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
			end = max(end, binary.NativeEndian.Uint32(key)+1)
		}
		return nil
	}))
	return end
}

// TestUnknownService: an update that is refused is not applied later.
func TestUnknownService(t *testing.T) {
	open(t, func(table *nft.Table, _ *wiretest.Asking, c, other *wire.Conn) {
		p := parse(t, mixed)
		_, err := table.Apply(t.Context(), []*lb.Profile{p}, recorded)
		must(t, err)
		part := standing(p, 0, lb.Down, down)
		part[0].Services = append(part[0].Services, lb.Service{Name: "nobody"})
		if _, err := table.Update(t.Context(), part); err == nil {
			t.Fatal("an update of a service that nobody applied")
		}
		meddle(t, other, aChain)
		update(t, table, standing(p, 1, lb.Up, lb.Standing{})...) // reads and applies everything
		holds(t, c, p)
	})
}

// TestPortOfCleanup: another program may get the port of a cleanup that has ended,
// and is noticed then.
func TestPortOfCleanup(t *testing.T) {
	h, conns := host(t, 1)
	must(t, h.Do(func() error {
		var ports []uint32
		table := nft.Open(conns[0], "nlb", func() (*wire.Conn, error) {
			s, err := wire.Open()
			must(t, err)
			ports = append(ports, s.Port())
			return wire.NewConn(s), nil
		})
		defer table.Close()
		p := parse(t, mixed)
		whole(t, table, p)
		update(t, table, standing(p, 0, lb.Down, down)...)
		touched(t, table, false)
		s, err := wire.Open()
		must(t, err)
		defer s.Close()
		same, err := s.Another(ports[0], 0)
		must(t, err)
		other := wire.NewConn(same)
		defer other.Close()
		meddle(t, other, aChain)
		touched(t, table, true)
		return nil
	}))
}

// TestRefusedApply: after an apply that was refused, an update is one of what was
// applied before.
func TestRefusedApply(t *testing.T) {
	open(t, func(table *nft.Table, _ *wiretest.Asking, c, other *wire.Conn) {
		p := parse(t, "profile: shop\nservices: [{name: web, listen: 203.0.113.10:80, backends: [10.2.0.11:80, 10.2.0.12:80]}]\n")
		_, err := table.Apply(t.Context(), []*lb.Profile{p}, recorded)
		must(t, err)
		rival := parse(t, "profile: rival\nservices: [{name: web, listen: 203.0.113.20:80, backends: [10.2.0.11:80]}]\n")
		_, err = nft.Apply(t.Context(), other, []*lb.Profile{rival}, recorded)
		must(t, err)
		more := parse(t, "profile: shop\nservices: [{name: mail, listen: 203.0.113.20:80, backends: [10.2.0.13:80]}]\n")
		if _, err := table.Apply(t.Context(), []*lb.Profile{more}, recorded); err == nil {
			t.Fatal("what somebody else listens on was given away")
		}
		p.Services[0].Backends[0].State = lb.Draining
		update(t, table, p)
		s, err := nft.Load(c, "nlb")
		must(t, err)
		if len(s.Profiles) != 2 || s.Profiles[1].Services[0].Backends[0].State != lb.Draining {
			t.Errorf("the update came to %v", lb.Compare(s.Profiles, []*lb.Profile{rival, p}))
		}
	})
}

// TestOwner: the backend of a mark is found, also one that came with an update.
func TestOwner(t *testing.T) {
	open(t, func(table *nft.Table, _ *wiretest.Asking, c, other *wire.Conn) {
		p := parse(t, "profile: shop\nservices: [{name: web, listen: 203.0.113.10:80, backends: [10.2.0.11:80]}]\n")
		_, err := table.Apply(t.Context(), []*lb.Profile{p}, recorded)
		must(t, err)
		owned := func(want ...string) {
			t.Helper()
			stats, err := nft.ReadStats(c, "nlb")
			must(t, err)
			var got []string
			for mark := range stats {
				if id, ok := table.Owner(mark); ok {
					got = append(got, id.Profile+"/"+id.Service+"/"+id.Address.String())
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("marks are of %q, want %q", got, want)
			}
		}
		owned("shop/web/10.2.0.11:80")
		more := parse(t, "profile: shop\nservices: [{name: web, listen: 203.0.113.10:80, backends: [10.2.0.11:80, 10.2.0.12:80]}]\n")
		update(t, table, more)
		owned("shop/web/10.2.0.11:80", "shop/web/10.2.0.12:80")
		// A backend of another nlb's profile that has the number of one of ours.
		theirs := parse(t, "profile: a\nservices: [{name: web, listen: 203.0.113.11:80, backends: [10.183.144.191:80]}]\n")
		ours := compile.BackendKey{Chain: "shop/web", Address: more.Services[0].Backends[0].Address}
		if rival := (compile.BackendKey{Chain: "a/web", Address: theirs.Services[0].Backends[0].Address}); rival.FirstNumber() != ours.FirstNumber() {
			t.Fatal("no rival")
		}
		_, err = nft.Apply(t.Context(), other, []*lb.Profile{theirs}, recorded)
		must(t, err)
		_, err = table.Apply(t.Context(), []*lb.Profile{more}, recorded)
		must(t, err)
		owned("a/web/10.183.144.191:80", "shop/web/10.2.0.11:80", "shop/web/10.2.0.12:80")
	})
}

// TestUpdateLeavesARecord: a one-shot apply of the same finds nothing to do.
func TestUpdateLeavesARecord(t *testing.T) {
	open(t, func(table *nft.Table, asked *wiretest.Asking, c, other *wire.Conn) {
		p := parse(t, mixed)
		_, err := table.Apply(t.Context(), []*lb.Profile{p}, recorded)
		must(t, err)
		for _, state := range []lb.BackendState{lb.Down, lb.Up, lb.Draining} {
			part := standing(p, 0, state, lb.Standing{Verdict: lb.VerdictUp, Since: down.Since})
			p.Services[0] = part[0].Services[0]
			update(t, table, part...)
		}
		again := &wiretest.Asking{}
		again.Transport, err = wire.Open()
		must(t, err)
		one := wire.NewConn(again)
		defer one.Close()
		r, err := nft.Apply(t.Context(), one, []*lb.Profile{p}, recorded)
		if err != nil || again.All || r.Batches > 0 {
			t.Errorf("%+v, %v; everything was read: %v", r, err, again.All)
		}
		touched(t, table, false)
	})
}

// meddle changes nlb's table as another program.
func meddle(t *testing.T, c *wire.Conn, write func(m *nftables.Messages)) {
	t.Helper()
	must(t, wiretest.Send(c, func(b *wire.Batch) {
		write(&nftables.Messages{Batch: b, Family: nftables.Inet, Table: "nlb", List: nftables.MaxList})
	}))
}

// hearing notes how many watches are open while large batches are sent.
type hearing struct {
	wire.Transport
	open    int
	batches []int
}

func (h *hearing) Another(port, groups uint32) (wire.Transport, error) {
	t, err := h.Transport.Another(port, groups)
	if err != nil || groups == 0 {
		return t, err
	}
	h.open++
	return &heard{t, h}, nil
}

func (h *hearing) Send(b []byte) error {
	if len(b) > 64<<10 {
		h.batches = append(h.batches, h.open)
	}
	return h.Transport.Send(b)
}

type heard struct {
	wire.Transport
	by *hearing
}

func (h *heard) Close() error { h.by.open--; return h.Transport.Close() }

// TestLargeCommitIsNotHeard: nobody listens to a large commit, and what others change
// behind it is noticed.
func TestLargeCommitIsNotHeard(t *testing.T) {
	h, conns := host(t, 1)
	must(t, h.Do(func() error {
		transport, err := wire.Open()
		must(t, err)
		hears := &hearing{Transport: transport}
		c := wire.NewConn(hears)
		defer c.Close()
		table := nft.Open(c, "nlb", wire.Dial)
		defer table.Close()
		p := lbtest.Fleet(1000)
		_, err = table.Apply(t.Context(), []*lb.Profile{p}, recorded)
		must(t, err)
		touched(t, table, false)
		part := &lb.Profile{Name: p.Name}
		for i := range p.Services {
			part.Services = append(part.Services, standing(p, i, lb.Down, down)[0].Services...)
		}
		update(t, table, part)
		touched(t, table, false)
		if !slices.Equal(hears.batches, []int{0, 0}) || hears.open != 1 {
			t.Errorf("watches that were open at each large batch: %v, now: %d", hears.batches, hears.open)
		}
		meddle(t, conns[0], aChain)
		touched(t, table, true)
		return nil
	}))
}

// aChain adds a chain, and removes it.
func aChain(m *nftables.Messages) {
	m.NewChain(&nftables.Chain{Name: "theirs"})
	m.DeleteChain("theirs")
}

// TestTouched: what others change is noticed, and put back; what they change
// elsewhere is not.
func TestTouched(t *testing.T) {
	open(t, func(table *nft.Table, asked *wiretest.Asking, c, other *wire.Conn) {
		p := parse(t, mixed)
		touched(t, table, true) // nothing was applied
		if _, err := table.Update(t.Context(), standing(p, 0, lb.Down, down)); err == nil {
			t.Error("an update of what was never applied")
		}
		apply := func() {
			t.Helper()
			_, err := table.Apply(t.Context(), []*lb.Profile{p}, recorded)
			must(t, err)
			touched(t, table, false)
		}
		apply()
		meddle(t, other, func(m *nftables.Messages) { m.Table = "else"; m.NewTable("another program's") })
		touched(t, table, false)
		for what, change := range map[string]func(m *nftables.Messages){
			"a chain":   aChain,
			"the table": func(m *nftables.Messages) { m.DeleteTable() },
		} {
			meddle(t, other, change)
			touched(t, table, true)
			touched(t, table, true)
			part := standing(p, 0, lb.Down, down)
			if asked.All = false; update(t, table, part...) == nil || !asked.All && what != "the table" {
				t.Errorf("%s: an update over somebody else's change read a part only", what)
			}
			changed := *p
			changed.Services = append(slices.Clone(part[0].Services), p.Services[1:]...)
			holds(t, c, &changed)
			touched(t, table, false)
			apply()
		}
		// A profile of another nlb is one, too.
		_, err := nft.Apply(t.Context(), c, []*lb.Profile{parse(t, "profile: b\nservices: [{name: w, listen: 203.0.113.99:80, backends: [10.9.9.9:80]}]\n")}, recorded)
		must(t, err)
		touched(t, table, true)
		apply()
	})
}
