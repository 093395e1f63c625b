package integration

// nlb lab, interrupted at random moments: nothing of it is left, neither a
// process nor a namespace, a mount, a rule, a link or a file.

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
)

// busy is a profile whose rehearsal is short and has every phase.
const busy = `
profile: busy
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    backends: ["10.0.0.11:8080", "10.0.0.12:8080", "[fd00::11]:8080"]
  - name: guarded
    listen: 203.0.113.10:443
    limit: {connections-per-source: 5}
    backends: 10.0.0.13
`

// checked makes it longer: its backends fail while an agent watches.
const checked = busy + `  - name: checked
    listen: 203.0.113.10:81
    health: {check: tcp, interval: 100ms, timeout: 50ms}
    backends: ["10.0.0.11:81", "10.0.0.12:81"]
`

// TestInterruptedRehearsals: a rehearsal that is interrupted leaves nothing behind.
func TestInterruptedRehearsals(t *testing.T) {
	t.Parallel()
	users(t, func(t *testing.T, nobody bool) {
		m := newMachine(t)
		before := m.state(t)
		profile, length := busy, time.Hour
		if *full {
			profile = checked
		}
		for range 2 {
			whole := m.rehearsal(t, nobody, profile)
			start := time.Now()
			if code, out, errs := rehearse(t, whole); code != 0 {
				t.Fatalf("exit code %d\n%s%s", code, out, errs)
			}
			length = min(length, time.Since(start))
		}
		// So many moments are tried, and more where too few of them hit.
		interruptions := 5
		if *full {
			interruptions = 30
		}
		tried, amid := 0, 0
		for ; tried < interruptions || amid < interruptions/5 && tried < 10*interruptions; tried++ {
			t.Run(fmt.Sprint(tried), func(t *testing.T) {
				if m.interrupt(t, nobody, profile, rand.N(length), before) {
					amid++
				}
			})
		}
		m.interrupt(t, nobody, checked, length+rand.N(time.Second), before)
		t.Logf("a rehearsal took %v; of %d, %d were cut short while they had namespaces", length, tried, amid)
		if amid < interruptions/5 {
			t.Errorf("%d of %d were cut short while they had namespaces", amid, tried)
		}
	})
}

// interrupt starts a rehearsal, interrupts it, and compares all that it could
// have left with what was there before. It reports whether the rehearsal was
// cut short while it had namespaces.
func (m *machine) interrupt(t *testing.T, nobody bool, profile string, moment time.Duration, before string) bool {
	mark := fmt.Sprintf("NLB_TEST_MARK=%d-%d", os.Getpid(), time.Now().UnixNano())
	c := m.rehearsal(t, nobody, profile)
	c.Env = append(c.Environ(), mark)
	c.WaitDelay = 5 * time.Second // for what it may have left behind with its output
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(moment)
	had := namespacesOf(marked(mark))
	for ns := range namespacesOf([]string{fmt.Sprint(m.holder.Process.Pid)}) {
		delete(had, ns)
	}
	// While a namespace is open here, the kernel gives its number to no other.
	for ns, where := range had {
		if held, err := os.Open(where); err == nil {
			defer held.Close()
		} else { // it has ended
			delete(had, ns)
		}
	}
	_ = c.Process.Signal(os.Interrupt) // it may have come to its end
	limit := time.AfterFunc(20*time.Second, func() {
		t.Errorf("after %v: it did not end in 20 s", moment)
		_ = c.Process.Kill()
	})
	err := c.Wait()
	limit.Stop()

	if !endedWell(c, err, out.String()) {
		t.Errorf("after %v: it ended with %v\n%s", moment, err, out.String())
	}
	for _, p := range marked(mark) {
		command, _ := os.ReadFile("/proc/" + p + "/cmdline")
		t.Errorf("after %v: process %s is left: %q", moment, p, command)
	}
	others := func() []string {
		return slices.DeleteFunc(processes(), func(p string) bool { return p == fmt.Sprint(os.Getpid()) })
	}
	left := map[string]string{}
	for again := range 20 { // what another test starts has our files for a moment
		left = namespacesOf(others())
		maps.DeleteFunc(left, func(ns, _ string) bool { return had[ns] == "" })
		if len(left) == 0 {
			break
		}
		time.Sleep(time.Duration(again) * time.Millisecond)
	}
	if len(left) > 0 {
		t.Errorf("after %v: namespaces are left: %v", moment, left)
	}
	if after := m.state(t); after != before {
		t.Errorf("after %v: the machine is\n%s\nand was\n%s", moment, after, before)
	}
	return len(had) > 0 && c.ProcessState.ExitCode() != 0
}

// endedWell reports whether a rehearsal ended in a way that is right for one
// that was interrupted, maybe before it could catch the signal, or maybe too late.
func endedWell(c *exec.Cmd, err error, output string) bool {
	if errors.Is(err, exec.ErrWaitDelay) {
		return false
	}
	switch s := c.ProcessState.Sys().(syscall.WaitStatus); {
	case s.Signaled():
		return s.Signal() == syscall.SIGINT
	case s.ExitStatus() == 1:
		return output == "nlb: error: interrupted; nothing was changed\n"
	default:
		return s.ExitStatus() == 0 || s.ExitStatus() == 128+int(syscall.SIGINT)
	}
}

// machine is a network and a mount namespace that nobody else uses, so that
// all that changes there is the doing of what runs there.
type machine struct {
	holder    *exec.Cmd
	temporary string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	netlabtest.Packets(t)
	for _, name := range []string{"unshare", "nsenter", "nft"} {
		netlabtest.Needs(t, name)
	}
	m := &machine{temporary: t.TempDir()}
	for dir, mode := range map[string]os.FileMode{filepath.Dir(m.temporary): 0o755, m.temporary: 0o777} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	m.holder = exec.Command("unshare", "--net", "--mount", "sh", "-c", "echo; exec cat")
	stdin, err1 := m.holder.StdinPipe()
	stdout, err2 := m.holder.StdoutPipe()
	if err := errors.Join(err1, err2, m.holder.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := m.holder.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal("unshare: ", err)
	}
	// Somebody else's rules, which are to stay as they are.
	m.script(t, "nft add table inet filter && nft add chain inet filter forward '{ type filter hook forward priority 0; policy drop; }'")
	return m
}

// enter has a command run there, as nobody or as this user.
func (m *machine) enter(c *exec.Cmd, nobody bool) *exec.Cmd {
	args := []string{"--target", fmt.Sprint(m.holder.Process.Pid), "--net", "--mount"}
	if nobody {
		args = append(args, "--setuid=65534", "--setgid=65534")
	}
	inside := exec.Command("nsenter", slices.Concat(args, []string{"--", c.Path}, c.Args[1:])...)
	inside.Stdin = c.Stdin
	return inside
}

func (m *machine) rehearsal(t *testing.T, nobody bool, profile string) *exec.Cmd {
	t.Helper()
	c := m.enter(rehearsal(t, false, []byte(profile), "40"), nobody)
	c.Env = append(os.Environ(), "TMPDIR="+m.temporary)
	return c
}

func (m *machine) script(t *testing.T, script string) string {
	t.Helper()
	out, err := m.enter(exec.Command("sh", "-c", script), false).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// state is all that a program can change there. What has a name for ip netns
// is mounted.
func (m *machine) state(t *testing.T) string {
	t.Helper()
	return m.script(t, `set -e
		cat /proc/self/mountinfo
		nft list ruleset
		cut -d : -f 1 /proc/net/dev
		cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
		ls -A `+m.temporary)
}

// processes are all that can be seen, by their numbers.
func processes() []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for i := range dirs {
		dirs[i] = filepath.Base(dirs[i])
	}
	return dirs
}

// marked are the processes that have a variable in their environment, which
// they get from the one that started them.
func marked(mark string) []string {
	return slices.DeleteFunc(processes(), func(p string) bool {
		b, _ := os.ReadFile("/proc/" + p + "/environ") // "" of somebody else's
		return !slices.Contains(strings.Split(string(b), "\x00"), mark)
	})
}

// namespacesOf are the namespaces that processes are in, or have open, with the
// place in /proc that shows it.
func namespacesOf(processes []string) map[string]string {
	found := map[string]string{}
	for _, p := range processes {
		for _, pattern := range []string{"task/*/ns/*", "fd/*"} {
			paths, _ := filepath.Glob("/proc/" + p + "/" + pattern)
			for _, path := range paths {
				to, _ := os.Readlink(path)
				if kind, number, ok := strings.Cut(to, ":["); ok && strings.HasSuffix(number, "]") && kind != "socket" && kind != "pipe" && kind != "anon_inode" {
					found[to] = path
				}
			}
		}
	}
	return found
}
