package plan

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/config"
)

func profiles(t *testing.T, texts ...string) []*lb.Profile {
	t.Helper()
	var out []*lb.Profile
	for _, text := range texts {
		p, err := config.Parse("test.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

const shop = `
profile: shop
services:
  - {name: web, listen: ["203.0.113.10:80", "[2001:db8::1]:80"], health: tcp, backends: [{name: b1, address: "10.0.0.11:80"}, {name: b2, address: "10.0.0.12:80"}, "[fd00::1]:80"]}
  - {name: api, listen: "203.0.113.10:81", health: tcp, backends: ["10.0.0.11:80"]}
  - {name: bare, listen: "203.0.113.10:82", backends: ["10.0.0.11:80"]}
`

const blog = `
profile: blog
services: [{name: web, listen: "203.0.113.20:80", health: tcp, backends: [{name: b1, address: "10.0.0.21:80"}]}]
`

func TestRead(t *testing.T) {
	got, err := Read([]string{"web/b2=back@3s", "web/b2=silent@2s", "shop/api/10.0.0.11:80=refuse", "web/[fd00::1]:80=slow@1m", "web/b1=flap@500ms"}, profiles(t, shop))
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{"shop", "api", "10.0.0.11:80", Refuse, 0},
		{"shop", "web", "b1", Flap, 500 * time.Millisecond},
		{"shop", "web", "b2", Silent, 2 * time.Second},
		{"shop", "web", "b2", Back, 3 * time.Second},
		{"shop", "web", "[fd00::1]:80", Slow, time.Minute},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got: %s", d)
	}
	if got, err := Read(nil, profiles(t, shop)); err != nil || got != nil {
		t.Errorf("no plan: got %v, %v", got, err)
	}
}

func TestReadErrors(t *testing.T) {
	both := profiles(t, shop, blog)
	for _, tt := range []struct {
		texts         []string
		message, hint string
	}{
		{[]string{"web"}, `--fail "web" has no =`, "want SERVICE/BACKEND=WAY@TIME, such as web/b2=silent@2s"},
		{[]string{"b1=silent"}, `--fail "b1=silent" names no backend`, "want SERVICE/BACKEND=WAY@TIME, such as web/b2=silent@2s"},
		{[]string{"api/b1=dead"}, `--fail api/b1=dead: unknown way "dead" to fail`, "want refuse, silent, slow, flap, back"},
		{[]string{"apis/b1=slow"}, "--fail apis/b1=slow: there is no service apis", "did you mean api?"},
		{[]string{"bare/b1=slow"}, "--fail bare/b1=slow: service bare has no health, so nobody takes its backends out", "say health: tcp, for example"},
		{[]string{"web/b1=slow"}, "--fail web/b1=slow: there are two services web", "say shop/web or blog/web"},
		{[]string{"shop/web/b3=slow"}, "--fail shop/web/b3=slow: service web has no backend b3", "it has b1, b2, [fd00::1]:80"},
		{[]string{"blog/web/b1=slow@2"}, `--fail blog/web/b1=slow@2: "2" is no time of a plan`, "want 0s to 10m0s"},
		{[]string{"blog/web/b1=slow@11m"}, `--fail blog/web/b1=slow@11m: "11m" is no time of a plan`, "want 0s to 10m0s"},
		{[]string{"blog/web/b1=slow@-1s"}, `--fail blog/web/b1=slow@-1s: "-1s" is no time of a plan`, "want 0s to 10m0s"},
		{[]string{"blog/web/b1=slow", "blog/web/b1=flap@0s"}, "--fail blog/web/b1=flap@0s: it has something to do at 0s already", "say another time"},
		{[]string{"blog/web/b1=back@1s", "blog/web/b1=flap@2s"}, "--fail: web/b1 comes back without having failed", "let it fail before"},
	} {
		_, err := Read(tt.texts, both)
		bad, ok := errors.AsType[*Error](err)
		if !ok || bad.Message != tt.message || bad.Hint != tt.hint {
			t.Errorf("%v: got %v, hint %v", tt.texts, err, bad)
		}
	}
}

// service is one with these checks.
func service(t *testing.T, health string) *lb.Service {
	t.Helper()
	p := profiles(t, `{profile: p, services: [{name: s, listen: "203.0.113.10:80", health: `+health+`, backends: ["10.0.0.1:80", "10.0.0.2:80"]}]}`)
	return &p[0].Services[0]
}

// TestPromises: what the settings come to, by hand.
func TestPromises(t *testing.T) {
	const never = "never"
	for _, tt := range []struct {
		health                string
		refuse, unheard       string // with and without clients that the kernel sees refused
		silent, slow          string
		back, again, lastHold string // after 1, 2, and 10 falls
	}{
		{"tcp", "at once", "1 s to 3.1 s", "3 s to 5.1 s", never, "0.5 s to 2.6 s", "1.5 s to 3.6 s", "32 s to 34 s"},
		{"{check: tcp, passive: false}", "1 s to 3.1 s", "1 s to 3.1 s", "3 s to 5.1 s", never, "0.5 s to 2.6 s", "1.5 s to 3.6 s", "32 s to 34 s"},
		{"{check: http, interval: 200ms, timeout: 50ms, fall: 2, rise: 1}", "at once", "0.1 s to 0.31 s", "0.15 s to 0.36 s", "0.15 s to 0.36 s", "at most 0.21 s", "0.1 s to 0.31 s", "3.1 s to 3.3 s"},
		{"icmp", never, never, "3 s to 5.1 s", never, "0.5 s to 2.6 s", "1.5 s to 3.6 s", "32 s to 34 s"},
		{"{check: exec, command: [x]}", never, never, never, never, "0.5 s to 2.6 s", "1.5 s to 3.6 s", "32 s to 34 s"},
		{"{check: agent, port: 99}", never, never, never, never, "0.5 s to 2.6 s", "1.5 s to 3.6 s", "32 s to 34 s"},
		// Of several the first that sees it takes it out, and the last brings it back.
		{"[icmp, {check: dns, interval: 1s, fall: 1}, {check: tcp, interval: 10s, rise: 1}]", "at once", "at most 1.1 s", "1 s to 2 s", "1 s to 2 s", "0.5 s to 10 s", "2.5 s to 13 s", "78 s to 88 s"},
	} {
		s := service(t, tt.health)
		say := func(way string, refused bool) string {
			due, sees := Out(s, way, refused)
			if !sees {
				return never
			}
			return due.String()
		}
		got := []string{
			say(Refuse, true), say(Refuse, false), say(Silent, true), say(Slow, true),
			Return(s, 1).String(), Return(s, 2).String(), Return(s, 10).String(),
		}
		if want := []string{tt.refuse, tt.unheard, tt.silent, tt.slow, tt.back, tt.again, tt.lastHold}; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", tt.health, got, want)
		}
	}
}

func TestUnplayable(t *testing.T) {
	for health, want := range map[string]string{
		"tcp":                                       "",
		"{check: exec, command: [x]}":               "runs a command",
		"{check: https, verify: system}":            "verifies a certificate",
		"{check: tcp, source: 192.0.2.1}":           "comes from an address of its own",
		"{check: tcp, expect: hello}":               "waits for a server that speaks first",
		"{check: tcp, expect: hello, port: 99}":     "",
		`{check: tcp, send: "hi", expect: hello}`:   "",
		"{check: agent, port: 80}":                  "waits for a server that speaks first",
		"{check: agent, port: 81}":                  "",
		"{check: http, status: 204}":                "wants a status without a text",
		`{check: http, status: "204,301", body: x}`: "",
	} {
		s := service(t, health)
		if got := Unplayable(s, &s.Health[0]); got != want {
			t.Errorf("%s: got %q, want %q", health, got, want)
		}
	}
}
