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
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/netutil"

	"nlb/cmd/nlb/internal/web"
	"nlb/lb"
)

// nothing is shown beside what the owner answers.
func nothing(web.Ask) http.Handler { return http.NotFoundHandler() }

// serve makes a socket whose owner answers by a function.
func serve(t *testing.T, answer func(Request) Reply) (path string, s *Socket) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "nlb.sock")
	s, err := Listen(path, nothing, slog.New(slog.DiscardHandler))
	must(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { close(done); s.Close() })
	go func() {
		for {
			select {
			case q := <-s.Requests:
				q.Reply <- answer(q)
			case <-done:
				return
			}
		}
	}()
	return path, s
}

func TestSocket(t *testing.T) {
	want := Order{Profile: "shop", Service: "web", Backend: "[2001:db8::1]:80", Order: lb.OrderDrain, For: 30 * time.Minute}
	status := Status{Table: "nlb", Namespace: "net:[1]", Profiles: []string{"shop"}, Status: "Balances shop."}
	path, _ := serve(t, func(q Request) Reply {
		if q.UID != uint32(os.Getuid()) || q.By != nameOf(q.UID) {
			t.Errorf("asked by %d %q", q.UID, q.By)
		}
		switch {
		case q.Ask == AskStatus:
			return Reply{Value: status}
		case q.Ask == AskReload:
			return Reply{Err: errors.New("the disk burns")}
		case q.Ask == AskOrder && q.Order == want:
			return Reply{Value: Done{"as you wish"}}
		case q.Ask == AskOrder:
			return Reply{Err: &RefusedError{Message: "no such backend", Hint: "look again"}}
		}
		return Reply{Value: Done{"goes on"}}
	})
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("the mode is %v", info.Mode())
	}
	c := Dial(path)
	must(t, c.do(t.Context(), http.MethodGet, "/healthz", nil, &Done{}))
	if done, err := c.Order(t.Context(), want); err != nil || done.Done != "as you wish" {
		t.Errorf("order: got %v, %v", done, err)
	}
	_, err = c.Order(t.Context(), Order{Profile: "shop", Service: "web", Backend: "b"})
	if e, ok := errors.AsType[*RefusedError](err); !ok || *e != (RefusedError{Message: "no such backend", Hint: "look again"}) {
		t.Errorf("refused: got %#v", err)
	}
	if _, err := reload(t, c); err == nil || !strings.HasSuffix(err.Error(), ": the disk burns") {
		t.Errorf("failed: got %v", err)
	}
	var got Status
	must(t, c.Status(t.Context(), &got))
	if got.Status != status.Status || got.Profiles[0] != "shop" {
		t.Errorf("got %+v", got)
	}
}

// TestSocketHostile: what is no request is refused with a reason, and never
// reaches the owner.
func TestSocketHostile(t *testing.T) {
	path, _ := serve(t, func(q Request) Reply {
		t.Errorf("the owner got %+v", q)
		return Reply{}
	})
	const order = `{"profile": "shop", "service": "web", "backend": "b1", "order": "drain"`
	for _, tt := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"POST", "/v1/orders", "", 400, "no order: EOF"},
		{"POST", "/v1/orders", order, 400, "no order: unexpected EOF"},
		{"POST", "/v1/orders", order + "} {}", 400, "something follows"},
		{"POST", "/v1/orders", order + `, "force": true}`, 400, `unknown field \"force\"`},
		{"POST", "/v1/orders", order + `, "for": "3 days"}`, 400, "is no time"},
		{"POST", "/v1/orders", order + `, "for": "-1s"}`, 400, "is no time"},
		{"POST", "/v1/orders", order + `, "for": "9000h"}`, 400, "is no time"},
		{"POST", "/v1/orders", order + `, "for": 30}`, 400, "no order"},
		{"POST", "/v1/orders", strings.Replace(order, "drain", "halt", 1) + `}`, 400, `unknown order \"halt\"`},
		{"POST", "/v1/orders", strings.Replace(order, "drain", "enable", 1) + `, "for": "30m"}`, 400, "takes no time"},
		{"POST", "/v1/orders", strings.Replace(order, "b1", "", 1) + `}`, 400, "is no backend"},
		{"POST", "/v1/orders", order + `, "for": "` + strings.Repeat("0", maxBody) + `1s"}`, 400, "cannot be read"},
		{"POST", "/v1/reload", "now", 400, "takes no body"},
		{"GET", "/v1/backend", "", 400, "is no backend"},
		{"GET", "/v1/backend?name=shop/web/", "", 400, "is no backend"},
		{"GET", "/v1/backend?name=shop/web/b1", order + "}", 400, "takes no body"},
		{"POST", "/v1/backend?name=shop/web/b1", "", 405, ""},
		{"GET", "/v1/reload", "", 404, ""},
		{"GET", "/v1/orders", "", 404, ""},
		{"GET", "/", "", 404, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, "http://nlb"+tt.path, strings.NewReader(tt.body))
		must(t, err)
		answer, err := Dial(path).http.Do(r)
		must(t, err)
		b, err := io.ReadAll(answer.Body)
		must(t, err, answer.Body.Close())
		if answer.StatusCode != tt.code || !strings.Contains(string(b), tt.says) {
			t.Errorf("%s %s %.80s: got %d %s", tt.method, tt.path, tt.body, answer.StatusCode, b)
		}
	}
}

// TestSocketTaken: one agent at a time; a dead one leaves nothing that is in the
// way, and what is no socket is not removed.
func TestSocketTaken(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	path, s := serve(t, func(Request) Reply { return Reply{Value: Done{}} })
	if _, err := Listen(path, nothing, log); !errors.Is(err, ErrRunning) {
		t.Errorf("beside a live one: got %v", err)
	}
	must(t, Dial(path).do(t.Context(), http.MethodGet, "/healthz", nil, &Done{}), s.Close())
	if err := Dial(path).do(t.Context(), http.MethodGet, "/healthz", nil, &Done{}); !errors.Is(err, ErrNoAgent) {
		t.Errorf("after its end: got %v", err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	// One that lives, and holds no lock.
	if _, err := Listen(path, nothing, log); !errors.Is(err, ErrRunning) {
		t.Errorf("beside another program: got %v", err)
	}
	dead.SetUnlinkOnClose(false)
	must(t, dead.Close())
	if err := Dial(path).do(t.Context(), http.MethodGet, "/healthz", nil, &Done{}); !errors.Is(err, ErrNoAgent) {
		t.Errorf("at a dead one: got %v", err)
	}
	again, err := Listen(path, nothing, log)
	must(t, err)
	must(t, again.Close())
	must(t, os.WriteFile(path, []byte("mine"), 0o600))
	if _, err := Listen(path, nothing, log); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("at a file: got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("the file: got %q, %v", b, err)
	}
}

// TestSocketStops: whoever waits for an owner that does not answer is told when
// the agent ends, and has not to wait.
func TestSocketStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nlb.sock")
	s, err := Listen(path, nothing, slog.New(slog.DiscardHandler))
	must(t, err)
	failed := make(chan error, 1)
	go func() { failed <- Dial(path).do(t.Context(), http.MethodGet, "/healthz", nil, &Done{}) }()
	<-s.Requests // and no answer
	must(t, s.Close())
	select {
	case err := <-failed:
		if err == nil {
			t.Error("an agent that has ended goes on")
		}
	case <-time.After(bound):
		t.Error("nobody was told")
	}
}

// TestSocketBound: no more than so many connections are open, and the next one gets
// its turn.
func TestSocketBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nlb.sock")
	l, err := listen(path)
	must(t, err)
	defer l.Close()
	b := netutil.LimitListener(listener{l}, 2)
	const all = 8
	var open, most atomic.Int64
	accepted := make(chan net.Conn, all)
	go func() {
		for range all {
			c, err := b.Accept()
			if err != nil {
				return
			}
			most.Store(max(most.Load(), open.Add(1)))
			accepted <- c
		}
	}()
	for range all {
		c, err := net.Dial("unix", path)
		must(t, err)
		defer c.Close()
	}
	for range all {
		select {
		case c := <-accepted:
			time.Sleep(time.Millisecond) // room for one too many
			open.Add(-1)
			c.Close()
			c.Close() // a second time frees nothing
		case <-time.After(bound):
			t.Fatal("a connection never got its turn")
		}
	}
	if n := most.Load(); n > 2 {
		t.Errorf("%d connections were open", n)
	}
}

// TestSilentAgent: of one that is stopped, or waits for a disk, or whose socket is
// others', the error says so in plain words.
func TestSilentAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nlb.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	brief := Dial(path)
	brief.http.Timeout = 10 * time.Millisecond
	for _, err := range []error{Dial(path).do(ctx, http.MethodGet, "/healthz", nil, &Done{}), brief.do(t.Context(), http.MethodGet, "/healthz", nil, &Done{})} {
		if err == nil || err.Error() != path+": the agent does not answer in time" {
			t.Errorf("got %v", err)
		}
	}
	denied := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}
	if got := cause(&url.Error{Op: "Get", URL: "http://nlb/", Err: denied}); got.Error() != "permission denied; root may use it, and the group of the socket" {
		t.Errorf("got %v", got)
	}
}

// reload has the files read again.
func reload(t *testing.T, c *Client) (Done, error) {
	return get[Done](t.Context(), c, http.MethodPost, "/v1/reload", nil)
}

// TestMayApply: the profiles of an agent of another table, or of another network
// namespace, are not ours.
func TestMayApply(t *testing.T) {
	profiles := []*lb.Profile{{Name: "web"}, {Name: "shop"}}
	for _, tt := range []struct {
		status Status
		want   string
		remove string
	}{
		{Status{Table: "nlb", Namespace: namespace(), Profiles: []string{"mail", "shop"}}, "nlb run keeps shop; reload it", "nlb run keeps shop, and would put it back"},
		{Status{Table: "nlb", Namespace: namespace(), Profiles: []string{"shop"}, Fleet: true}, "nlb run has shop from its fleet; push it", "nlb run has shop from its fleet, and would put it back"},
		{Status{Table: "nlb", Namespace: namespace(), Profiles: []string{"mail"}}, "", ""},
		{Status{Table: "other", Namespace: namespace(), Profiles: []string{"shop"}}, "", ""},
		{Status{Table: "nlb", Namespace: "net:[1]", Profiles: []string{"shop"}}, "", ""},
	} {
		path, _ := serve(t, func(Request) Reply { return Reply{Value: tt.status} })
		got := ""
		if err := MayApply(t.Context(), path, "nlb", profiles, false, t.Errorf); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.status, got, tt.want)
		}
		got = ""
		if err := MayFlush(t.Context(), path, "nlb", []string{"web", "shop"}, t.Errorf); err != nil {
			got = err.Error()
		}
		if got != tt.remove {
			t.Errorf("%+v: got %q, want %q", tt.status, got, tt.remove)
		}
		if free := Unkept(t.Context(), path, "nlb", profiles); free[0] != profiles[0] || len(free) == 2 != (tt.want == "") {
			t.Errorf("%+v: %d are free", tt.status, len(free))
		}
		_, _, err := Find(t.Context(), path, "nlb")
		if mine := tt.status.Table == "nlb" && tt.status.Namespace == namespace(); mine != (err == nil) || !mine && !errors.Is(err, ErrNoAgent) {
			t.Errorf("%+v: got %v", tt.status, err)
		}
	}
	must(t, MayApply(t.Context(), filepath.Join(t.TempDir(), "none.sock"), "nlb", profiles, true, t.Errorf))

	path, _ := serve(t, func(Request) Reply { return Reply{Err: errors.New("later")} })
	var noted []string
	note := func(format string, args ...any) { noted = append(noted, fmt.Sprintf(format, args...)) }
	must(t, MayApply(t.Context(), path, "nlb", profiles, true, note), MayFlush(t.Context(), path, "nlb", nil, note))
	want := "nlb run cannot be asked what it keeps, and may undo this: " + path + ": later"
	if !slices.Equal(noted, []string{want, want}) {
		t.Errorf("got %q, want %q twice", noted, want)
	}
}

// FuzzParseOrder: what is read as an order is one, and is written and read back as
// the same.
func FuzzParseOrder(f *testing.F) {
	for _, s := range []string{
		`{"profile":"shop","service":"web","backend":"b1","order":"drain","for":"30m"}`,
		`{"profile":"shop","service":"web","backend":"10.0.0.1:80","order":"enable"}`,
		`{"profile":"a/b","service":"","backend":"/","order":"disable","for":"1s"}`,
		`{"PROFILE":"x","profile":"y","service":"s","backend":"b","order":"drain"}`, `[]`, `null`, `{}`, `{"for":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOrder(b)
		if err != nil {
			if _, ok := errors.AsType[*RefusedError](err); !ok || err.Error() == "" {
				t.Fatalf("%q: %#v", b, err)
			}
			return
		}
		if o.Profile == "" || o.Service == "" || o.Backend == "" || o.For < 0 || o.For > MaxFor || o.For%time.Second != 0 {
			t.Fatalf("%q is read as %+v", b, o)
		}
		written, err := json.Marshal(o)
		must(t, err)
		again, err := ParseOrder(written)
		if err != nil || again != o {
			t.Fatalf("%q: %+v is written %s and read %+v, %v", b, o, written, again, err)
		}
		if bytes.ContainsAny(written, "\n") {
			t.Fatalf("%q: %s", b, written)
		}
	})
}
