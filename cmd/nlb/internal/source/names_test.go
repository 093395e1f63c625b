package source

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/cmd/nlb/internal/agent/resolve"
	"nlb/cmd/nlb/internal/agent/resolve/resolvetest"
	"nlb/lb"
	"nlb/lb/config"
)

// TestNames: what a name stands for, what is said of it, and what becomes of one
// that nobody knows.
func TestNames(t *testing.T) {
	answer, err := resolvetest.Zone("web.example. 60 IN A 10.0.0.1", "many.example. 60 IN A 10.1.0.1", "many.example. 60 IN A 10.1.0.2",
		"many.example. 60 IN A 10.1.0.3", "many.example. 60 IN A 10.1.0.4", "many.example. 60 IN A 10.1.0.5", "many.example. 60 IN A 10.1.0.6",
		"many.example. 60 IN A 10.1.0.7", "_x._tcp.example. 60 IN SRV 0 0 81 web.example.", "_x._tcp.example. 60 IN SRV 0 0 82 gone.example.")
	if err != nil {
		t.Fatal(err)
	}
	s, err := resolvetest.Listen("127.0.0.1:0", answer)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer func(o resolve.Options) { Lookup = o }(Lookup)
	Lookup = resolve.Options{Conf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts"), Port: s.Port()}
	profile := func(backends string) *lb.Profile {
		p, err := config.Parse("p.yaml", []byte("services:\n  - {name: s, listen: '203.0.113.10:80', backends: ["+backends+"]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	held := func() []*lb.Profile { return []*lb.Profile{profile("10.0.0.9, 10.0.0.8")} }
	const nobody = "no such name, or no addresses"
	var unresolved []string
	for _, tt := range []struct {
		name, backends string
		names          Names
		want, said     string
		err            string
	}{
		{name: "no names", backends: "10.0.0.1", want: "10.0.0.1"},
		{name: "found", backends: "web.example", want: "10.0.0.1", said: "web.example is 10.0.0.1 now; nlb run follows it"},
		{
			name: "many", backends: "many.example", want: "10.1.0.1 10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6 10.1.0.7",
			said: "many.example is 10.1.0.1, 10.1.0.2, 10.1.0.3, 10.1.0.4, 10.1.0.5 and 2 more now; nlb run follows it",
		},
		{
			name: "in part", backends: "srv:_x._tcp.example", want: "10.0.0.1:81",
			said: "srv:_x._tcp.example is 10.0.0.1:81 now (gone.example: " + nobody + "); nlb run follows it",
		},
		{
			name: "held", backends: "gone.example, 10.0.0.9", names: Names{Held: held}, want: "10.0.0.8 10.0.0.9",
			said: "gone.example stays 10.0.0.8 (" + nobody + ")",
		},
		{name: "held by another profile", backends: "gone.example", names: Names{Held: func() []*lb.Profile { return nil }}, err: "gone.example: " + nobody},
		{
			name: "missing", backends: "gone.example, away.example, web.example",
			said: "web.example is 10.0.0.1 now; nlb run follows it", err: "gone.example: " + nobody + " and away.example: " + nobody,
		},
		{name: "not to be missed", backends: "gone.example, 10.0.0.1", names: Names{Unresolved: func(names []string) { unresolved = names }}, want: "10.0.0.1"},
		{
			name: "stand-ins", backends: "gone.example, web.example, 'srv:away.example'", names: Names{StandIns: true}, want: "198.18.0.1 10.0.0.1 198.18.0.3:80",
			said: "gone.example is taken to be 198.18.0.1 and 2001:2::1 (" + nobody + ")\nweb.example is 10.0.0.1 now; nlb run follows it\n" +
				"srv:away.example is taken to be 198.18.0.3:80 and [2001:2::3]:80 (" + nobody + ")\n" +
				"p/s: gone.example: backend 2001:2::1 is IPv6, and no listen is; it is left out\n" +
				"p/s: srv:away.example: backend [2001:2::3]:80 is IPv6, and no listen is; it is left out",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var said []string
			tt.names.Note = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
			out, err := tt.names.Resolve(t.Context(), []*lb.Profile{profile(tt.backends)})
			if missing, _ := errors.AsType[*MissingError](err); (err != nil) != (tt.err != "") || err != nil && (missing == nil || err.Error() != tt.err) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
			var got []string
			for _, s := range lb.Services(out) {
				for _, b := range s.Backends {
					got = append(got, b.Address.String())
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if d := cmp.Diff(tt.said, strings.Join(said, "\n")); d != "" {
				t.Error(d)
			}
		})
	}
	if want := []string{"gone.example: " + nobody}; !slices.Equal(unresolved, want) {
		t.Errorf("%q are told, want %q", unresolved, want)
	}
}

// TestStandIns: they are addresses that packets can be sent to, however many.
func TestStandIns(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for i := range 10_000 {
		for _, r := range standIns(i, lb.Host{}) {
			if is, _ := lb.CheckAddr(r.Addr); is != "" || seen[r.Addr] {
				t.Fatalf("%d: %v %s", i, r.Addr, is)
			}
			seen[r.Addr] = true
		}
	}
}
