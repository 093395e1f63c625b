package sysctl

// Changes over a folder that looks like /proc/sys.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes files of lines like net/ipv4/ip_forward=0. In it, port0 is a port
// of a bridge.
func tree(t *testing.T, settings ...string) Tree {
	t.Helper()
	root := t.TempDir()
	out := Tree{Sys: filepath.Join(root, "sys"), Ports: func() map[string]bool { return map[string]bool{"port0": true} }}
	write := func(path, content string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range append(settings, "net/ipv4/conf/all/accept_redirects=1", "net/ipv6/conf/all/proxy_ndp=0") {
		name, value, _ := strings.Cut(s, "=")
		if path := filepath.Join(out.Sys, name); !exists(path) {
			write(path, value+"\n")
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestPlan(t *testing.T) {
	const on4, on6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
	for _, test := range []struct {
		name  string
		tree  []string
		needs []Setting
		want  []Change
	}{
		{"holds", []string{"net/ipv4/ip_forward=1"}, []Setting{{on4, "1"}}, nil},
		{"IPv4", []string{"net/ipv4/ip_forward=0", "net/ipv4/conf/lo/forwarding=0"}, []Setting{{on4, "1"}}, []Change{{on4, "0", "1"}}},
		{
			"redirects are refused, one interface forwards",
			[]string{"net/ipv4/ip_forward=0", "net/ipv4/conf/all/accept_redirects=0", "net/ipv4/conf/eth0/forwarding=0", "net/ipv4/conf/eth0.5/forwarding=1", "net/ipv4/conf/all/forwarding=1"},
			[]Setting{{on4, "1"}},
			[]Change{{"net.ipv4.conf.all.accept_redirects", "0", "0"}, {"net/ipv4/conf/eth0.5/forwarding", "1", "1"}, {on4, "0", "1"}},
		},
		{
			"IPv6 and links that take advertisements",
			[]string{
				"net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=0", "net/ipv6/conf/all/accept_ra=1", "net/ipv6/conf/default/accept_ra=1",
				"net/ipv6/conf/lo/accept_ra=1", "net/ipv6/conf/eth0.5/accept_ra=1", "net/ipv6/conf/wlan0/accept_ra=1", "net/ipv6/conf/eth1/accept_ra=2",
				"net/ipv6/conf/eth2/accept_ra=0", "net/ipv6/conf/port0/accept_ra=1",
			},
			[]Setting{{on4, "1"}, {on6, "1"}},
			[]Change{
				{"net.ipv6.conf.default.accept_ra", "1", "2"},
				{"net/ipv6/conf/eth0.5/accept_ra", "1", "2"},
				{"net.ipv6.conf.wlan0.accept_ra", "1", "2"},
				{on6, "0", "1"},
			},
		},
		{
			"IPv6 is on",
			[]string{"net/ipv6/conf/all/forwarding=1", "net/ipv6/conf/wlan0/accept_ra=1"},
			[]Setting{{on6, "1"}},
			nil,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := tree(t, test.tree...).Plan(test.needs)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestMissingParameter(t *testing.T) {
	tr := tree(t)
	_, err := tr.Plan([]Setting{{"net.ipv6.conf.all.forwarding", "1"}})
	if !errors.Is(err, os.ErrNotExist) || err.Error() != "read net.ipv6.conf.all.forwarding: no such file or directory" {
		t.Errorf("got %v", err)
	}
	for _, c := range []Change{{"net.ipv4.nosuch", "0", "1"}, {"net/ipv4/no.such/x", "0", "1"}} {
		if err := tr.Writable([]Change{c}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v", c.Name, err)
		}
		if done, err := tr.Write([]Change{c}); !errors.Is(err, os.ErrNotExist) || done != nil {
			t.Errorf("%s: got %v, %v", c.Name, done, err)
		}
		if exists(tr.path(c.Name)) {
			t.Errorf("%s was created", c.Name)
		}
	}
}

func TestWriteAndUndo(t *testing.T) {
	tr := tree(t, "net/ipv4/ip_forward=0", "net/ipv6/conf/all/forwarding=0",
		"net/ipv6/conf/wlan0/accept_ra=1", "net/ipv6/conf/eth0.5/accept_ra=1", "net/ipv6/conf/eth2/accept_ra=1")
	plan, err := tr.Plan([]Setting{{"net.ipv4.ip_forward", "1"}, {"net.ipv6.conf.all.forwarding", "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Writable(plan); err != nil {
		t.Fatal(err)
	}
	for _, c := range plan {
		if got, _ := tr.Get(c.Name); got != c.From {
			t.Errorf("Writable made %s %s", c.Name, got)
		}
	}
	done, err := tr.Write(plan)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(plan, done); d != "" {
		t.Error(d)
	}
	for _, c := range plan {
		if got, _ := tr.Get(c.Name); got != c.To {
			t.Errorf("%s is %s, want %s", c.Name, got, c.To)
		}
	}

	// Somebody turns IPv4 forwarding off, and an interface goes away.
	if err := tr.Set("net.ipv4.ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(tr.Sys, "net/ipv6/conf/eth2")); err != nil {
		t.Fatal(err)
	}
	back, others, err := tr.Undo(done)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Change{
		{"net.ipv6.conf.all.forwarding", "1", "0"},
		{"net/ipv6/conf/eth0.5/accept_ra", "2", "1"},
		{"net.ipv6.conf.wlan0.accept_ra", "2", "1"},
	}, back); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Change{{"net.ipv4.ip_forward", "0", "0"}}, others); d != "" {
		t.Error(d)
	}
}

// What was made before a write failed is known.
func TestWriteFails(t *testing.T) {
	tr := tree(t, "net/ipv4/ip_forward=0")
	first := Change{"net.ipv4.ip_forward", "0", "1"}
	done, err := tr.Write([]Change{first, {"net.ipv4.nosuch", "0", "1"}})
	if d := cmp.Diff([]Change{first}, done); d != "" || err == nil {
		t.Error(d, err)
	}
}

func TestName(t *testing.T) {
	tr := Tree{Sys: "/proc/sys"}
	for name, path := range map[string]string{
		"net.ipv4.ip_forward":                      "/proc/sys/net/ipv4/ip_forward",
		join("net", "ipv6", "conf", "a", "x"):      "/proc/sys/net/ipv6/conf/a/x",
		join("net", "ipv6", "conf", "eth0.5", "x"): "/proc/sys/net/ipv6/conf/eth0.5/x",
	} {
		if got := tr.path(name); got != path {
			t.Errorf("%s: got %s, want %s", name, got, path)
		}
	}
}
