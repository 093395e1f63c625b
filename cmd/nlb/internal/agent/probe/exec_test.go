//go:build linux

package probe

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// shell is a check by a script, whose $1 is an empty file.
func shell(t *testing.T, script string) (c lb.Check, file string) {
	file = filepath.Join(t.TempDir(), "file")
	return lb.Check{Kind: lb.CheckExec, Command: []string{"/bin/sh", "-c", script, "sh", file}}, file
}

func TestExec(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	netlabtest.Must(t, os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600))
	for _, tt := range []struct {
		script string
		want   Outcome
	}{
		{"exit 0", Outcome{OK: true, Reason: "exec: exit 0"}},
		{"echo 3 replicas; echo more", Outcome{OK: true, Reason: "exec: 3 replicas"}},
		{"echo disk full; exit 1", Outcome{Reason: "exec: exit 1: disk full"}},
		{"echo unseen >&2; exit 200", Outcome{Reason: "exec: exit 200"}},
		{`printf 'a\033[2J\001"b"; drain\n'; exit 1`, Outcome{Reason: "exec: exit 1: a?[2J??b?? drain"}},
		{"yes | head -c 1000000; exit 3", Outcome{Reason: "exec: exit 3: y"}},
		{"head -c 1000000 /dev/zero | tr '\\0' x; exit 3", Outcome{Reason: "exec: exit 3: xxxxxxxxxxxxxxxxxxxxxxx..."}},
		{"kill -TERM $$", Outcome{Reason: "exec: signal: terminated"}},
		{`test "$(pwd)" = / && ! read x`, Outcome{OK: true, Reason: "exec: exit 0"}},
	} {
		c, _ := shell(t, tt.script)
		wantOutcome(t, carry(t, c, "127.0.0.1:80", generous), tt.want)
	}
	for want, command := range map[string][]string{
		"exec: no such file or directory": {"/nowhere"},
		"exec: not found in PATH":         {"nlb-nowhere"},
		"exec: permission denied":         {plain},
		"exec: no command":                nil,
	} {
		o := carry(t, lb.Check{Kind: lb.CheckExec, Command: command}, "127.0.0.1:80", generous)
		wantOutcome(t, o, Outcome{Ours: true, Reason: want})
	}
}

// TestFirstLine: of a line without an end only the beginning is kept.
func TestFirstLine(t *testing.T) {
	r := strings.NewReader(strings.Repeat("x", 1<<20))
	if got := len(firstLine(r)); got != maxLine || r.Len() != 0 {
		t.Errorf("%d bytes are kept, and %d were not read", got, r.Len())
	}
}

// TestExecEnvironment: the command knows five things, and none of the agent's.
func TestExecEnvironment(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	c, file := shell(t, "env >$1")
	target := Target{Check: &c, At: netip.MustParseAddrPort("[2001:db8::1]:443"), Service: "web/https", Backend: "b1"}
	if o := carryTarget(t, target, generous); !o.OK {
		t.Fatalf("%+v", o)
	}
	b, err := os.ReadFile(file)
	netlabtest.Must(t, err)
	got := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(line, "=")
		if name != "PWD" && name != "_" && name != "SHLVL" { // the shell's own
			got[strings.TrimSpace(line)] = true
		}
	}
	want := []string{"PATH=" + os.Getenv("PATH"), "NLB_ADDRESS=2001:db8::1", "NLB_PORT=443", "NLB_SERVICE=web/https", "NLB_BACKEND=b1"}
	for _, w := range want {
		if !got[w] {
			t.Errorf("%s is missing", w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the command has %v", got)
	}
}

// TestExecKilled: at the deadline the command ends with all its children, those
// too that ignore SIGTERM.
func TestExecKilled(t *testing.T) {
	t.Parallel()
	c, file := shell(t, `trap '' TERM; (trap '' TERM HUP; sleep 1000 & echo $$ $! >$1; wait) & wait`)
	wantOutcome(t, carry(t, c, "127.0.0.1:80", 2*time.Second), Outcome{Reason: "exec: timeout"})
	wantGone(t, file)
}

// TestExecLeftBehind: what a command leaves in its group when it ends is killed,
// and does not hold the check up.
func TestExecLeftBehind(t *testing.T) {
	t.Parallel()
	c, file := shell(t, `sleep 1000 & echo $! >$1; echo done`)
	wantOutcome(t, carry(t, c, "127.0.0.1:80", time.Hour), Outcome{OK: true, Reason: "exec: done"})
	wantGone(t, file)
}

// TestExecEscaped: what left the group is not found, but holds nothing up,
// whatever it goes on to say.
func TestExecEscaped(t *testing.T) {
	t.Parallel()
	netlabtest.Needs(t, "setsid")
	c, file := shell(t, `setsid sh -c 'trap "" PIPE; echo $$ >$0; n=0; while [ $n -lt 300000 ]; do n=$((n+1)); echo more; done' $1 & while ! test -s $1; do sleep 0.01; done; exit 0`)
	t.Cleanup(func() {
		for _, pid := range pids(t, file) {
			netlabtest.Must(t, unix.Kill(pid, unix.SIGKILL))
		}
	})
	if o := carry(t, c, "127.0.0.1:80", time.Hour); !o.OK {
		t.Errorf("%+v", o)
	}
}

// pids are the processes that a script has written down.
func pids(t *testing.T, file string) (out []int) {
	t.Helper()
	b, err := os.ReadFile(file)
	netlabtest.Must(t, err)
	for _, s := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(s)
		netlabtest.Must(t, err)
		out = append(out, pid)
	}
	if len(out) == 0 {
		t.Fatal("the script has written nothing")
	}
	return out
}

// wantGone: these processes, and all of the first one's group, end. Who has died
// may wait for its parent.
func wantGone(t *testing.T, file string) {
	t.Helper()
	runs := func(pid int) bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, state, ok := strings.Cut(string(b), ") ")
		return err == nil && ok && state[0] != 'Z' && state[0] != 'X'
	}
	for _, pid := range pids(t, file) {
		for i := 0; runs(pid); i++ {
			if i == 200 {
				t.Errorf("process %d still runs", pid)
				_ = unix.Kill(pid, unix.SIGKILL)
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}
