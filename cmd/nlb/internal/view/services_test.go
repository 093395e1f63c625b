//go:build linux

package view

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
)

// A table as a person reads it: without what is not known, with a long list of
// destinations wrapped, and with colors on a terminal only.
func TestTable(t *testing.T) {
	vip := lb.SNAT{Mode: lb.SNATVIP}
	backend := func(name, address string, weight int) lb.Backend {
		e := netip.MustParseAddrPort(address)
		return lb.Backend{Name: name, Address: lb.Endpoint{Addr: e.Addr(), Port: e.Port()}, Weight: weight, SNAT: vip}
	}
	listen := func(prefix string, ports ...uint16) lb.Listen {
		l := lb.Listen{Prefix: netip.MustParsePrefix(prefix)}
		for _, port := range ports {
			l.Ports = append(l.Ports, lb.PortRange{First: port, Last: port})
		}
		return l
	}
	service := &lb.Service{
		Name:      "web",
		Listen:    []lb.Listen{listen("203.0.113.10/32", 80, 443), listen("203.0.113.11/32", 80), listen("2001:db8::1/128", 80)},
		Protocols: []lb.Protocol{lb.TCP}, Role: lb.RoleServer, SNAT: vip,
		Backends: []lb.Backend{
			backend("one", "10.0.0.11:8080", 1), backend("10.0.0.12:8080", "10.0.0.12:8080", 0), backend("[fd00::1]:80", "[fd00::1]:80", 1),
		},
	}
	text := func(width int, color bool) string {
		var b bytes.Buffer
		c := NewConsole("nlb", nil, &b, &b)
		c.Width, c.Out.Color = width, color
		s := ShownService{Profile: "shop", Service: service}
		for i := range 2 {
			b := &service.Backends[i]
			s.Backends = append(s.Backends, ShownBackend{Backend: b, of: service, Share: float64(b.Weight)})
		}
		s.Backends[0].Connections = 12345678
		c.PrintSnapshot(&Snapshot{Profiles: []ShownProfile{{"shop", []ShownService{s}}}})
		return b.String()
	}
	want := strings.Join([]string{
		"shop/web  tcp  round-robin  snat vip  role server",
		"  203.0.113.10:80,443 203.0.113.11:80",
		"  [2001:db8::1]:80",
		"  backend         address         weight   share  connections",
		"  one             10.0.0.11:8080       1  100.0%     12345678",
		"  10.0.0.12:8080                       0       -            0",
		"",
	}, "\n")
	if got := text(50, false); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := text(110, false); !strings.HasPrefix(got, "shop/web  203.0.113.10:80,443 203.0.113.11:80 [2001:db8::1]:80  tcp") {
		t.Errorf("got\n%s", got)
	}
	if got := text(50, true); !strings.HasPrefix(got, "\x1b[1mshop/web\x1b[0m  tcp") {
		t.Errorf("got\n%q", got)
	}
}

// now is when the snapshots of standing are taken.
var now = time.Date(2026, 11, 26, 14, 5, 7, 0, time.Local)

// standing is a snapshot of a service whose backends stand like this.
func standing(backends ...lb.Backend) *Snapshot {
	s := lb.Service{Name: "web", Protocols: []lb.Protocol{lb.TCP}, Listen: []lb.Listen{{Prefix: netip.MustParsePrefix("203.0.113.10/32"), Ports: []lb.PortRange{{First: 80, Last: 80}}}}}
	for i, b := range backends {
		if !b.Address.Addr.IsValid() {
			b.Address.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		}
		b.Name, b.Weight = fmt.Sprintf("b%d", i+1), max(b.Weight, 1)
		s.Backends = append(s.Backends, b)
	}
	one := serviceOf("shop", &s, now)
	for i := range one.Backends {
		one.Backends[i].Live = new(int)
	}
	return &Snapshot{Profiles: []ShownProfile{{"shop", []ShownService{one}}}}
}

// printed is a snapshot as text.
func printed(v *Snapshot, width int, color bool) string {
	var b bytes.Buffer
	c := NewConsole("nlb", nil, &b, &b)
	c.Width, c.Out.Color = width, color
	c.PrintSnapshot(v)
	return b.String()
}

// These are backends that stand in all the ways.
var (
	down     = lb.Standing{Verdict: lb.VerdictDown, Since: now.Add(-2 * time.Minute), Reason: "tcp: refused"}
	drained  = lb.Standing{Order: lb.OrderDrain, By: "root", Until: now.Add(28 * time.Minute)}
	disabled = lb.Standing{Order: lb.OrderDisable, Until: now.Add(72 * time.Hour)}
	both     = lb.Standing{Verdict: lb.VerdictDown, Since: now.Add(-50 * time.Hour), Order: lb.OrderDrain, By: "ann", Reason: "http: 503"}
)

// TestTrouble: what nlb run says of itself comes first, also where nothing is balanced.
func TestTrouble(t *testing.T) {
	var b strings.Builder
	c := &Console{Out: &Stream{W: &b}, Width: 80}
	c.PrintSnapshot(&Snapshot{Table: "nlb", Trouble: "Keeps what was read before: 1 error in web.yaml. Balances nothing."})
	const want = "nlb run: Keeps what was read before: 1 error in web.yaml. Balances nothing.\n\nnothing is balanced here (no table inet nlb)\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// TestStanding: what a table says of backends that are not up, and why.
func TestStanding(t *testing.T) {
	all := standing(
		lb.Backend{}, lb.Backend{Standing: down, State: lb.Down}, lb.Backend{Standing: drained, State: lb.Draining}, lb.Backend{Standing: disabled, State: lb.Down},
		lb.Backend{Standing: both, State: lb.Down}, lb.Backend{State: lb.Down}, lb.Backend{Share: 3}, lb.Backend{State: lb.Standby, Priority: 2},
	)
	const wide = `shop/web  203.0.113.10:80  3 of 8 up, 1 standby  tcp  round-robin  snat masquerade
  backend  address   state     weight  priority  share  connections  live
  b1       10.0.0.1  up             1         1  84.2%            0     0
  b2       10.0.0.2  down 2m        1         1   0.0%            0     0  tcp: refused
  b3       10.0.0.3  draining       1         1   0.0%            0     0  by root until 14:33
  b4       10.0.0.4  disabled       1         1   0.0%            0     0  until 2026-11-29 14:05
  b5       10.0.0.5  down 2d        1         1   0.0%            0     0  http: 503; drained by ann
  b6       10.0.0.6  down           1         1   0.0%            0     0  not found to work yet
  b7       10.0.0.7  up 3/16        1         1  15.8%            0     0
  b8       10.0.0.8  standby        1         2   0.0%            0     0
`
	if d := cmp.Diff(wide, printed(all, 100, false)); d != "" {
		t.Error(d)
	}
	const narrow = `
  b2       10.0.0.2  down 2m        1         1   0.0%            0     0
    tcp: refused
  b3 `
	if got := printed(all, 80, false); !strings.Contains(got, narrow) {
		t.Errorf("narrow:\n%s", got)
	}
	got := printed(all, 100, true)
	for _, want := range []string{"  \x1b[33m3 of 8 up, 1 standby\x1b[0m  ", "\n  b1 ", "\n\x1b[31m  b2 ", "\n\x1b[33m  b3 ", "\n\x1b[31m  b4 ", "\n  b7 ", "\n\x1b[2m  b8 "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%q", want, got)
		}
	}
}

// TestOpen: that health is ignored, or that nobody takes connections, is said; and
// nothing is where all are up.
func TestOpen(t *testing.T) {
	six := lb.Endpoint{Addr: netip.MustParseAddr("2001:db8::1")}
	for _, tt := range []struct {
		backends []lb.Backend
		want     string // of the second line
		title    string
	}{
		{[]lb.Backend{{}, {}}, "backend", "80  tcp"},
		{[]lb.Backend{{}, {Priority: 2, State: lb.Standby}}, "backend", "80  2 of 2 up, 1 standby  tcp"},
		{[]lb.Backend{{Standing: down}, {Standing: down}}, "too few backends are up: those that are down get connections, too", "80  \x1b[31m0 of 2 up\x1b[0m  tcp"},
		{[]lb.Backend{{Standing: down}, {Address: six}}, "too few backends are up", "1 of 2 up"},
		{[]lb.Backend{{Standing: down, State: lb.Down}, {Standing: drained, State: lb.Draining}}, "no backend takes connections: they are refused", "0 of 2 up"},
	} {
		lines := strings.Split(printed(standing(tt.backends...), 100, true), "\n")
		if !strings.Contains(lines[1], tt.want) || !strings.Contains(strings.ReplaceAll(lines[0], "\x1b[36m203.0.113.10:80\x1b[0m", "80"), tt.title) {
			t.Errorf("got\n%s\nwant %q, %q", strings.Join(lines, "\n"), tt.title, tt.want)
		}
	}
	v := standing(lb.Backend{Standing: down}, lb.Backend{})
	if s := &v.Profiles[0].Services[0]; !strings.Contains(s.Open, "too few") || s.Backends[0].Share != 0.5 {
		t.Errorf("got %q, share %v", s.Open, s.Backends[0].Share)
	}
}

// TestBackend: one backend tells why it gets what it gets.
func TestBackend(t *testing.T) {
	for _, tt := range []struct {
		backend lb.Backend
		known   *Known
		want    string
	}{
		{lb.Backend{}, nil, `it gets connections as its weight says
  state        up
  share        50.0% of the new connections; by its weight 50.0%
  weight       1
  priority     1
  connections  0, 0 live
  checks       not known: no agent is running
`},
		{lb.Backend{Standing: both, State: lb.Down, Priority: 2, Weight: 3, Share: 2}, &Known{Verdict: "down", Since: both.Since, Reason: "http: 503", Checks: []Check{
			{Check: "http", At: "10.0.0.1:80", Streak: -7, Late: 2}, {Check: "tcp", At: "10.0.0.1:80", Streak: 6, Have: 6, Need: 8}, {Check: "icmp", At: "10.0.0.1", Unable: "no\x1bping"},
		}}, `it gets no new connections: it was drained by ann, and its checks fail
  state        down
  verdict      down since 2026-11-24 12:05:07 (2d): http: 503
  order        drained by ann
  share        0.0% of the new connections; by its weight 75.0%
  weight       3
  priority     2
  connections  0, 0 live
  check        http 10.0.0.1:80: failed 7 in a row, 2 late
  check        tcp 10.0.0.1:80: passed 6 in a row, held, since it fell too often: 6 of 8
  check        icmp 10.0.0.1: cannot be made: no?ping
`},
		{lb.Backend{Standing: disabled, State: lb.Down}, nil, "it gets no new connections: it was disabled until 2026-11-29 14:05\n"},
		{lb.Backend{Standing: down, State: lb.Down}, nil, "it gets no new connections: its checks fail\n"},
		{lb.Backend{Standing: down}, nil, "it gets connections although its checks fail: too few backends are up\n"},
		{lb.Backend{State: lb.Down}, &Known{Verdict: "new", Checks: []Check{{Check: "tcp", At: "10.0.0.1:80"}}}, "it was not found to work yet, and others were\n  state        down\n  verdict      new\n"},
		{lb.Backend{State: lb.Standby}, nil, "it stands by, as enough backends of a better priority are up\n"},
		{lb.Backend{Share: 8}, nil, "it gets a part of its weight: it starts slowly, or its agent check says so\n"},
		{lb.Backend{Share: 8}, &Known{Starting: true}, "it has come up, and starts slowly\n"},
		{lb.Backend{Share: 8}, &Known{}, "weight       1, of which it has 8/16\n"},
		{lb.Backend{Share: 8}, &Known{}, "checks       none\n"},
	} {
		v := standing(tt.backend, lb.Backend{})
		if err := v.Select("shop/web/b1"); err != nil {
			t.Fatal(err)
		}
		v.Know(tt.known, "no agent is running")
		if got := printed(v, 80, false); !strings.HasPrefix(got, "shop/web/b1  10.0.0.1\n  ") || !strings.Contains(got, tt.want) {
			t.Errorf("got\n%swant\n%s", got, tt.want)
		}
	}
	least := lb.Service{Name: "web", Scheduler: lb.LeastConnections, Backends: []lb.Backend{{Share: 24, Weight: 1}}}
	if got := serviceOf("shop", &least, now).Backends[0].Reasoning(); got != "it gets more or less than its weight says, as its live connections are few or many" {
		t.Errorf("got %s", got)
	}
	v := standing(lb.Backend{})
	if err := v.Select("shop/web/b2"); err == nil || err.Error() != "backend shop/web/b2 is not in the kernel" {
		t.Errorf("got %v", err)
	}
}

// TestStateChanges: a watch says what a backend was before.
func TestStateChanges(t *testing.T) {
	was, is := standing(lb.Backend{}, lb.Backend{}), standing(lb.Backend{Standing: down, State: lb.Down}, lb.Backend{})
	is.Since(was, time.Second)
	if got := printed(is, 120, false); strings.Count(got, "was up") != 1 || !strings.Contains(got, "  tcp: refused; was up\n") {
		t.Errorf("got\n%s", got)
	}
}
