//go:build linux

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/agent/resolve"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/view"
	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

// bed is a running agent on a host of its own, with a folder of profiles.
type bed struct {
	t      *testing.T
	host   *netlab.Host
	dir    string // has the folder etc
	socket string
	lookup resolve.Options
	reload chan os.Signal
	told   func() string
	stop   func() error
	guard  time.Duration
	fleet  *Fleet

	mu  sync.Mutex
	log bytes.Buffer
}

func (b *bed) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *bed) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// start runs an agent that keeps the folder etc.
func start(t *testing.T) *bed {
	t.Helper()
	t.Parallel()
	b := newBed(t, netlabtest.NewHost(t, netlabtest.NewWorld(t), "host"))
	b.begin()
	return b
}

// startUnderSystemd is start with a manager, which the environment names, so that no
// other test may run beside it.
func startUnderSystemd(t *testing.T) *bed {
	t.Helper()
	netlabtest.Packets(t)
	told := listenForAgent(t, time.Minute)
	b := newBed(t, netlabtest.NewHost(t, netlabtest.NewWorld(t), "host"))
	b.told = told
	b.begin()
	return b
}

func newBed(t *testing.T, h *netlab.Host) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a path that fits a socket
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Mkdir(dir+"/etc", 0o755))
	return &bed{t: t, host: h, dir: dir, reload: make(chan os.Signal, 1), socket: dir + "/run/nlb.sock"}
}

func (b *bed) begin() {
	b.t.Helper()
	must(b.t, b.profile("shop", 80, "10.0.0.11", "10.0.0.12"))
	b.run()
	b.await("shop 10.0.0.11 10.0.0.12")
}

// run starts the agent.
func (b *bed) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.host.Do(func() error {
			return Run(ctx, Config{
				Table: "nlb", Args: []string{b.dir + "/etc"}, Socket: b.socket, Reload: b.reload, Lookup: b.lookup,
				Fleet: b.fleet, guardEvery: b.guard, Log: slog.New(slog.NewTextHandler(b, nil)),
			})
		})
	}()
	b.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	b.t.Cleanup(func() { _ = b.stop() })
}

// profile writes a profile of one service over these servers.
func (b *bed) profile(name string, port int, servers ...string) error {
	text := fmt.Sprintf("profile: %s\nservices: [{name: web, listen: \"203.0.113.10:%d\", protocol: udp, backends: [%s]}]\n", name, port, strings.Join(servers, ", "))
	return b.put(name+".yaml", text)
}

// put puts a whole file into the folder.
func (b *bed) put(name, text string) error {
	return errors.Join(os.WriteFile(b.dir+"/etc/.new", []byte(text), 0o644), os.Rename(b.dir+"/etc/.new", b.dir+"/etc/"+name))
}

// state is what the kernel holds.
func (b *bed) state() (state *nft.State) {
	b.t.Helper()
	must(b.t, b.host.Do(func() error {
		e, err := engine.Open("nlb")
		if err != nil {
			return err
		}
		defer e.Close()
		state, err = e.State()
		return err
	}))
	return state
}

// kernel is what the kernel balances: profiles with their backends, each with its
// state unless it is up.
func (b *bed) kernel() string {
	b.t.Helper()
	var out []string
	for p, s := range lb.Services(b.state().Profiles) {
		out = append(out, p.Name)
		for i := range s.Backends {
			out = append(out, s.Backends[i].Address.Addr.String())
			if state := s.Backends[i].State; state != lb.Up {
				out = append(out, state.String())
			}
		}
	}
	return strings.Join(out, " ")
}

// await waits until the kernel balances this.
func (b *bed) await(want string) {
	b.t.Helper()
	b.until(func() bool { return b.kernel() == want }, func() string { return "the kernel has " + b.kernel() + ", want " + want })
}

// until waits until something is so.
func (b *bed) until(so func() bool, otherwise func() string) {
	b.t.Helper()
	for deadline := time.Now().Add(bound); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s\n%s", otherwise(), b.logged())
		}
	}
}

func (b *bed) status() (s Status) {
	b.t.Helper()
	must(b.t, Dial(b.socket).Status(b.t.Context(), &s))
	return s
}

// TestAgentFiles: the kernel follows the files; a profile whose file goes, goes;
// what others applied stays; a mistake changes nothing.
func TestAgentFiles(t *testing.T) {
	b := startUnderSystemd(t)
	other := &lb.Profile{Name: "other", Services: []lb.Service{{
		Name: "web", Protocols: []lb.Protocol{lb.UDP}, Backends: []lb.Backend{{Name: "b", Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.99")}, Weight: 1}},
		Listen: []lb.Listen{{Prefix: netip.MustParsePrefix("203.0.113.99/32"), Ports: []lb.PortRange{{First: 80, Last: 80}}}},
	}}}
	apply := func() {
		must(t, b.host.Do(func() error {
			e, err := engine.Open("nlb")
			if err != nil {
				return err
			}
			defer e.Close()
			_, err = e.Apply(t.Context(), []*lb.Profile{other}, engine.Options{})
			return err
		}))
	}
	apply()
	must(t, b.profile("mail", 25, "10.0.0.13"))
	b.await("mail 10.0.0.13 other 10.0.0.99 shop 10.0.0.11 10.0.0.12")
	if got := b.status(); strings.Join(got.Profiles, " ") != "mail shop" || got.Table != "nlb" || got.Status != "Balances mail, shop: 2 services, 3 backends." {
		t.Errorf("status: %+v", got)
	}
	must(t, os.Remove(b.dir+"/etc/mail.yaml"))
	b.await("other 10.0.0.99 shop 10.0.0.11 10.0.0.12")
	// Another profile takes over what a profile that goes has.
	must(t, os.WriteFile(b.dir+"/etc/.new", []byte("profile: store\nservices: [{name: web, listen: \"203.0.113.10:80\", protocol: udp, backends: 10.0.0.14}]\n"), 0o644))
	must(t, os.Remove(b.dir+"/etc/shop.yaml"), os.Rename(b.dir+"/etc/.new", b.dir+"/etc/store.yaml"))
	b.await("other 10.0.0.99 store 10.0.0.14")
	must(t, os.WriteFile(b.dir+"/etc/wrong.yaml", []byte("services: 1\n"), 0o644))
	b.until(func() bool {
		return strings.HasPrefix(b.status().Status, "Keeps what was read before: 1 error in "+b.dir+"/etc/wrong.yaml")
	}, func() string { return b.status().Status })
	b.await("other 10.0.0.99 store 10.0.0.14")
	// Who looks learns it, whether the agent is asked for the rest or the kernel.
	must(t, b.host.Do(func() error {
		l := NewLooker(b.socket, "nlb")
		defer l.Close()
		snapshot, _, err := l.Snapshot(t.Context())
		if want := "Keeps what was read before: 1 error in " + b.dir + "/etc/wrong.yaml. Balances store: 1 service, 1 backend."; err == nil && snapshot.Trouble != want {
			t.Errorf("show has %q, want %q", snapshot.Trouble, want)
		}
		return err
	}))
	// A repair does not mend the files.
	repairs := func() int { return strings.Count(b.logged(), "something else has changed the table") }
	before := repairs()
	other.Services[0].Backends[0].Weight = 2
	apply()
	b.until(func() bool { return repairs() > before }, func() string { return "it does not see what others change" })
	if got := b.status().Status; !strings.HasPrefix(got, "Keeps what was read before: 1 error in "+b.dir+"/etc/wrong.yaml. Balances store") {
		t.Errorf("after a repair: %s", got)
	}
	said := b.told()
	must(t, os.Remove(b.dir+"/etc/wrong.yaml"))
	b.until(func() bool {
		said += "; " + b.told()
		return strings.HasPrefix(said[max(0, strings.LastIndex(said, "STATUS=")):], "STATUS=Balances store: 1 service, 1 backend.")
	}, func() string { return "systemd was told " + said })
	if got := b.logged(); !strings.Contains(got, "msg=changed op=+ service=mail/web") || !strings.Contains(got, `reason="files changed"`) || !strings.Contains(got, b.dir+"/etc/wrong.yaml:1:") {
		t.Errorf("logged:\n%s", got)
	}
	must(t, b.stop())
	b.await("other 10.0.0.99 store 10.0.0.14") // and nothing else
	if _, err := os.Stat(b.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
	if got := said + "; " + b.told(); !strings.HasPrefix(got, "STATUS=Balances shop: 1 service, 2 backends.; READY=1|STATUS=Balances shop: 1 service, 2 backends.") || !strings.HasSuffix(got, "STOPPING=1") {
		t.Errorf("systemd was told %s", got)
	}
}

// TestAgentOrders: an order holds until it is taken back or its time is over,
// whatever the files say meanwhile.
func TestAgentOrders(t *testing.T) {
	b := start(t)
	c := Dial(b.socket)
	order := func(word, backend, duration string) {
		t.Helper()
		o, err := NewOrder(word, "shop/web/"+backend, duration)
		must(t, err)
		done, err := c.Order(t.Context(), o)
		must(t, err)
		if done.Done != o.String() {
			t.Errorf("%s: done %q", o, done.Done)
		}
	}
	order("drain", "10.0.0.11", "")
	b.await("shop 10.0.0.11 draining 10.0.0.12")
	order("disable", "10.0.0.12", "1h")
	b.await("shop 10.0.0.11 draining 10.0.0.12 down")
	must(t, b.profile("shop", 80, "10.0.0.11", "10.0.0.12", "10.0.0.13"))
	b.await("shop 10.0.0.11 draining 10.0.0.12 down 10.0.0.13")
	order("enable", "10.0.0.11", "")
	b.await("shop 10.0.0.11 10.0.0.12 down 10.0.0.13")
	order("disable", "10.0.0.12", "1s") // in place of the other one
	b.await("shop 10.0.0.11 10.0.0.12 10.0.0.13")
	o, err := NewOrder("drain", "shop/web/10.0.0.1", "")
	must(t, err)
	_, err = c.Order(t.Context(), o)
	if e, ok := errors.AsType[*RefusedError](err); !ok || e.Hint != "did you mean shop/web/10.0.0.11?" {
		t.Errorf("an unknown backend: got %#v", err)
	}
	if got := b.logged(); !strings.Contains(got, `order="disable shop/web/10.0.0.12 for 1h0m0s" by=`) || !strings.Contains(got, `msg="the time of an order is over" order=disable backend=shop/web/10.0.0.12`) {
		t.Errorf("logged:\n%s", got)
	}
}

// TestRefusedOffer: what a fleet wanted to go with an offer that was refused stays.
func TestRefusedOffer(t *testing.T) {
	t.Parallel()
	b := newBed(t, netlabtest.NewHost(t, netlabtest.NewWorld(t), "host"))
	profile := func(name, listen, server string) source.Source {
		p, err := config.Parse(name, []byte(fmt.Sprintf("profile: %s\nservices: [{name: web, listen: %q, protocol: udp, backends: [%s]}]\n", name, listen, server)))
		must(t, err)
		return source.Source{File: name, Profile: p}
	}
	must(t, b.host.Do(func() error {
		e, err := engine.Open("nlb")
		if err != nil {
			return err
		}
		defer e.Close()
		_, err = e.Apply(t.Context(), []*lb.Profile{profile("old", "203.0.113.20:80", "10.0.0.9").Profile}, engine.Options{})
		return err
	}))
	offers := make(chan Offer)
	shop := profile("shop", "203.0.113.10:80", "10.0.0.11")
	b.fleet = &Fleet{First: []source.Source{shop}, Offers: offers, Changed: func(*board.Board) {}}
	b.run()
	b.await("old 10.0.0.9 shop 10.0.0.11")
	offer := func(absent []string, profiles ...source.Source) error {
		reply := make(chan error, 1)
		offers <- Offer{profiles, absent, reply}
		return <-reply
	}
	if err := offer([]string{"old"}, shop, profile("twin", "203.0.113.10:80", "10.0.0.12")); err == nil {
		t.Error("two profiles with one listen were taken")
	}
	must(t, offer(nil, profile("shop", "203.0.113.10:80", "10.0.0.13")))
	b.await("old 10.0.0.9 shop 10.0.0.13")
}

// TestKnownOf: an agent tells what it knows of a backend, or it is said why not.
func TestKnownOf(t *testing.T) {
	b := start(t)
	must(t, b.put("checked.yaml", "services: [{name: web, listen: \"203.0.113.11:80\", health: {check: tcp, interval: 100ms}, backends: [{name: one, address: \":1\"}]}]\n"))
	ask := func(socket, backend string) (known *view.Known, unknown string) {
		must(t, b.host.Do(func() error {
			known, unknown = KnownOf(t.Context(), socket, "nlb", backend)
			return nil
		}))
		return known, unknown
	}
	var known *view.Known
	b.until(func() bool {
		known, _ = ask(b.socket, "checked/web/one")
		return known != nil && known.Verdict == "down"
	}, func() string { return fmt.Sprintf("it is known as %+v", known) })
	if c := known.Checks; known.Reason != "tcp: refused" || known.Since.IsZero() || known.Starting || len(c) != 1 || c[0].Check != "tcp" || c[0].At != "127.0.0.1:1" || c[0].Streak > -3 {
		t.Errorf("it is known as %+v", known)
	}
	if known, _ := ask(b.socket, "shop/web/10.0.0.11"); known == nil || len(known.Checks) > 0 {
		t.Errorf("one that is not checked: %+v", known)
	}
	for _, tt := range []struct{ socket, backend, want string }{
		{b.socket, "checked/web/two", "nlb run does not keep it"},
		{b.dir + "/nosuch.sock", "checked/web/one", "no agent is running"},
	} {
		if known, unknown := ask(tt.socket, tt.backend); known != nil || unknown != tt.want {
			t.Errorf("%+v: got %+v, %q", tt, known, unknown)
		}
	}
}

// TestAgentShows: the socket also has what nlb show prints, with what was found since,
// and events.
func TestAgentShows(t *testing.T) {
	b := start(t)
	must(t, b.put("checked.yaml", "services: [{name: web, listen: \"203.0.113.11:80\", health: {check: tcp, interval: 100ms}, backends: [{name: one, address: \":1\"}]}]\n"))
	get := func(path string) (string, int) {
		answer, err := Dial(b.socket).http.Get("http://nlb" + path)
		must(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		must(t, err)
		return string(text), answer.StatusCode
	}
	has := func(path string, want ...string) {
		t.Helper()
		var text string
		b.until(func() bool {
			text, _ = get(path)
			return !slices.ContainsFunc(want, func(s string) bool { return !strings.Contains(text, s) })
		}, func() string { return path + " has " + text })
	}
	has("/v1/show/checked/web/one", `"verdict":"down"`, `"reason":"tcp: refused"`, `"past":"---`)
	has("/v1/show", `"name":"shop"`, `"name":"checked"`, `"state":"up","verdict":"down"`, `"open":true`)
	has("/v1/events", `"event":"down","fields":{"backend":"checked/web/one"`, `"event":"too few backends are up, so all get connections"`)
	has("/readyz", "Balances checked, shop: 2 services, 3 backends; 1 backend down, 1 service with too few up.")
	o, err := NewOrder("drain", "shop/web/10.0.0.11", "")
	must(t, err)
	_, err = Dial(b.socket).Order(t.Context(), o)
	must(t, err)
	has("/v1/show/shop", `"state":"draining"`) // at once, however old the figures are
	if _, code := get("/v1/show/shop/mail"); code != http.StatusNotFound {
		t.Errorf("a service that is not there: %d", code)
	}
}

// TestAgentDocument: what the socket alone answers has the fields of the document that
// the agent serves, and takes those of an order.
func TestAgentDocument(t *testing.T) {
	b := start(t)
	fields := func(method, path, body string) []string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://nlb"+path, strings.NewReader(body))
		must(t, err)
		answer, err := Dial(b.socket).http.Do(r)
		must(t, err)
		defer answer.Body.Close()
		var value map[string]any
		must(t, json.NewDecoder(answer.Body).Decode(&value))
		return slices.Sorted(maps.Keys(value))
	}
	var d struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	answer, err := Dial(b.socket).http.Get("http://nlb/v1/openapi.json")
	must(t, err)
	defer answer.Body.Close()
	must(t, json.NewDecoder(answer.Body).Decode(&d))
	order, err := json.Marshal(orderValue{"shop", "web", "10.0.0.11", "drain", "1h"})
	must(t, err)
	var sent map[string]any
	must(t, json.Unmarshal(order, &sent))
	for schema, got := range map[string][]string{
		"Status":  fields("GET", "/v1/status", ""),
		"Known":   fields("GET", "/v1/backend?name=shop/web/10.0.0.11", ""),
		"Order":   slices.Sorted(maps.Keys(sent)),
		"Done":    fields("POST", "/v1/orders", string(order)),
		"Refused": fields("GET", "/v1/backend?name=shop/web/10.0.0.1", ""),
	} {
		if want := slices.Sorted(maps.Keys(d.Components.Schemas[schema].Properties)); !slices.Equal(got, want) {
			t.Errorf("%s has %q, in the document %q", schema, got, want)
		}
	}
}

// direct gives an order where no agent runs.
func (b *bed) direct(word, target, duration string) error {
	b.t.Helper()
	o, err := NewOrder(word, target, duration)
	must(b.t, err)
	return b.host.Do(func() error {
		e, err := engine.Open("nlb")
		if err != nil {
			return err
		}
		defer e.Close()
		_, err = Obey(b.t.Context(), e, o, nil)
		return err
	})
}

// TestDirect: where no agent runs, orders are carried out as well, and change
// nothing else; an agent that begins knows them.
func TestDirect(t *testing.T) {
	b := start(t)
	must(t, b.profile("mail", 25, "10.0.0.11"))
	b.await("mail 10.0.0.11 shop 10.0.0.11 10.0.0.12")
	must(t, b.stop())
	must(t, b.direct("drain", "shop/web/10.0.0.11", ""))
	b.await("mail 10.0.0.11 shop 10.0.0.11 draining 10.0.0.12")
	must(t, b.direct("disable", "shop/web/10.0.0.12", ""))
	b.await("mail 10.0.0.11 shop 10.0.0.11 draining 10.0.0.12 down")
	must(t, b.direct("enable", "shop/web/10.0.0.12", ""))
	for _, tt := range []struct{ target, duration, says string }{
		{"shop/web/10.0.0.13", "", "is not balanced here"},
		{"shop/web/10.0.0.12", "1h", "nobody would take the order back"},
	} {
		err := b.direct("drain", tt.target, tt.duration)
		if e, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(e.Message, tt.says) {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
	b.run()
	b.until(func() bool { return Dial(b.socket).do(t.Context(), http.MethodGet, "/healthz", nil, &Done{}) == nil }, func() string { return "it does not begin again" })
	b.await("mail 10.0.0.11 shop 10.0.0.11 draining 10.0.0.12")
	if got := b.status().Status; !strings.HasSuffix(got, "; 1 order in force.") {
		t.Errorf("status: %s", got)
	}
	must(t, b.stop(), b.direct("enable", "shop/web/10.0.0.11", ""))
	b.await("mail 10.0.0.11 shop 10.0.0.11 10.0.0.12")
}

// TestStateOf: a backend that is enabled stays out where it was out for another
// reason.
func TestStateOf(t *testing.T) {
	at := func(a string) lb.Endpoint { return lb.Endpoint{Addr: netip.MustParseAddr(a)} }
	first := lb.Backend{Address: at("10.0.0.1"), Weight: 1, Priority: 1}
	second := lb.Backend{Address: at("10.0.0.2"), Weight: 1, Priority: 2}
	gone := first
	gone.State = lb.Down
	for _, tt := range []struct {
		other   lb.Backend
		backend lb.Backend
		is      lb.Standing
		want    lb.BackendState
	}{
		{first, first, lb.Standing{}, lb.Up},
		{first, first, lb.Standing{Verdict: lb.VerdictDown}, lb.Down},
		{first, first, lb.Standing{Order: lb.OrderDrain}, lb.Draining},
		{first, first, lb.Standing{Order: lb.OrderDisable}, lb.Down},
		{first, first, lb.Standing{Order: lb.OrderDrain, Verdict: lb.VerdictDown}, lb.Down},
		{first, second, lb.Standing{}, lb.Standby},
		{gone, second, lb.Standing{}, lb.Up},
		{second, first, lb.Standing{}, lb.Up},
		{first, lb.Backend{Address: at("2001:db8::2"), Weight: 1, Priority: 2}, lb.Standing{}, lb.Up},
	} {
		tt.backend.Standing = tt.is
		s := &lb.Service{Backends: []lb.Backend{tt.other, tt.backend}}
		if got := stateOf(s, &s.Backends[1]); got != tt.want {
			t.Errorf("%v beside %v, %+v: got %v, want %v", tt.backend.Address, tt.other.Address, tt.is, got, tt.want)
		}
	}
}

// TestAgentReload: SIGHUP and the socket have the files read at once, and whoever
// asked learns what came of it.
func TestAgentReload(t *testing.T) {
	b := startUnderSystemd(t)
	told := b.told()
	b.reload <- syscall.SIGHUP
	b.until(func() bool {
		told += "; " + b.told()
		return strings.Contains(told, "RELOADING=1|MONOTONIC_USEC=") && strings.Count(told, "READY=1") == 2
	}, func() string { return told })
	c := Dial(b.socket)
	done, err := reload(t, c)
	must(t, err)
	if done.Done != "reloaded" {
		t.Errorf("got %q", done.Done)
	}
	if got := b.logged(); strings.Count(got, `msg=applied profiles=shop size="1 service, 2 backends" reason="told to reload`) != 2 {
		t.Errorf("two reloads without a change, logged:\n%s", got)
	}
	must(t, os.WriteFile(b.dir+"/etc/shop.yaml", []byte("services: 1\n"), 0o644))
	b.until(func() bool { _, err = reload(t, c); return err != nil }, func() string { return "a mistake is reloaded" })
	if err.Error() != "1 error in "+b.dir+"/etc/shop.yaml" {
		t.Errorf("got %v", err)
	}
	if _, again := reload(t, c); again == nil || strings.Count(b.logged(), "what was read last stays") != 1 {
		t.Errorf("again: %v; the same mistake is said once, not so:\n%s", again, b.logged())
	}
	must(t, Dial(b.socket).do(t.Context(), http.MethodGet, "/healthz", nil, &Done{}))
}

// TestAgentBegins: what is wrong at the beginning is an error, and changes nothing.
func TestAgentBegins(t *testing.T) {
	b := start(t)
	run := func(c Config) error {
		return b.host.Do(func() error {
			c.Table, c.Log = "other", slog.New(slog.DiscardHandler)
			return Run(t.Context(), c)
		})
	}
	if err := run(Config{Args: []string{b.dir + "/etc"}, Socket: b.socket}); !errors.Is(err, ErrRunning) {
		t.Errorf("beside another agent: got %v", err)
	}
	if err := run(Config{Args: []string{"-"}, Socket: b.dir + "/x.sock"}); err == nil {
		t.Error("it reads stdin")
	}
	if err := run(Config{Args: []string{b.dir + "/nosuch"}, Socket: b.dir + "/x.sock"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its files: got %v", err)
	}
}

// TestAgentTwice: an agent says that another one keeps its table. When that has ended, it
// says nothing.
func TestAgentTwice(t *testing.T) {
	const warning = "another agent keeps this table"
	one := start(t)
	run := func() *bed {
		other := newBed(t, one.host)
		other.begin()
		other.until(func() bool { return strings.Contains(other.logged(), "msg=applied") }, func() string { return "it does not begin" })
		must(t, other.stop())
		return other
	}
	if got := run().logged(); !strings.Contains(got, warning) {
		t.Errorf("beside another one, it logs:\n%s", got)
	}
	must(t, one.stop())
	if got := run().logged() + one.logged(); strings.Contains(got, warning) {
		t.Errorf("alone, it logs:\n%s", got)
	}
}

// TestAgentLooks: a table that somebody else removes is back before the guard, which
// looks at all that the agent keeps, has its turn.
func TestAgentLooks(t *testing.T) {
	t.Parallel()
	b := newBed(t, netlabtest.NewHost(t, netlabtest.NewWorld(t), "host"))
	b.guard = time.Hour
	b.begin()
	for range 2 {
		must(t, b.host.Do(func() error {
			e, err := engine.Open("nlb")
			if err != nil {
				return err
			}
			defer e.Close()
			_, err = e.Flush(t.Context(), nil, engine.FlushOptions{})
			return err
		}))
		b.await("shop 10.0.0.11 10.0.0.12")
	}
}

// TestAgentParameters: a kernel parameter that the services need is put back.
func TestAgentParameters(t *testing.T) {
	b := start(t)
	forwards := func() string {
		value, err := b.host.Sysctl("net.ipv4.ip_forward")
		must(t, err)
		return value
	}
	for range 2 {
		must(t, b.host.SetSysctl("net.ipv4.ip_forward", "0"))
		b.until(func() bool { return forwards() == "1" }, func() string { return "net.ipv4.ip_forward is " + forwards() })
	}
	if got := b.logged(); !strings.Contains(got, "something else has changed a kernel parameter") {
		t.Errorf("logged:\n%s", got)
	}
}

// TestForbidden: commands are run only where that was allowed.
func TestForbidden(t *testing.T) {
	check := func(kind lb.CheckKind) []source.Source {
		return []source.Source{{File: "shop.yaml", Profile: &lb.Profile{Services: []lb.Service{{Name: "web", Pos: lb.Pos{File: "shop.yaml", Line: 2, Column: 5}, Health: []lb.Check{{Kind: lb.CheckTCP}, {Kind: kind}}}}}}}
	}
	for _, tt := range []struct {
		allow bool
		kind  lb.CheckKind
		want  string
	}{
		{false, lb.CheckTCP, "[]"},
		{true, lb.CheckExec, "[]"},
		{false, lb.CheckExec, "[shop.yaml:2:5: service web has a check that runs a command]"},
	} {
		a := &agent{Config: Config{AllowExec: tt.allow}}
		if got := fmt.Sprint([]*lb.Error(a.forbidden(check(tt.kind)))); got != tt.want {
			t.Errorf("%v %v: got %s", tt.allow, tt.kind, got)
		}
	}
}
