package integration

// nlb lab as a process: what it says of the examples, and of profiles with a
// deliberate fault.

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nlb/integration/netlab/netlabtest"
)

// users are those as whom a test runs nlb lab: as this one, and where this one
// is root of the machine as nobody, too, who needs a user namespace for it.
func users(t *testing.T, f func(t *testing.T, nobody bool)) {
	t.Run("this user", func(t *testing.T) { f(t, false) })
	if netlabtest.RootOfMachine(t) {
		t.Run("nobody", func(t *testing.T) { f(t, true) })
	}
}

// rehearsal prepares nlb lab for a profile, which comes by stdin, since not
// every folder is open to nobody.
func rehearsal(t *testing.T, nobody bool, profile []byte, connections string) *exec.Cmd {
	t.Helper()
	netlabtest.Packets(t)
	nlb, err := built()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), nlb, "lab", "-", "--connections", connections)
	c.Stdin = bytes.NewReader(profile)
	if nobody {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return c
}

// rehearse runs it to its end.
func rehearse(t *testing.T, c *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Exited()) {
		t.Fatalf("nlb lab: %v\n%s", err, errs.String())
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestRehearsedExamples: all is as due in a rehearsal of every example.
func TestRehearsedExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	users(t, func(t *testing.T, nobody bool) {
		for _, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
				t.Parallel()
				profile, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				code, out, errs := rehearse(t, rehearsal(t, nobody, profile, "120"))
				if code != 0 || errs != "" || !strings.Contains(out, "\nall as due: ") {
					t.Errorf("exit code %d, want 0 and all as due\n%s%s", code, out, errs)
				}
			})
		}
	})
}

// TestRehearsedFaults: a profile with a fault, and nothing else in it, ends
// with 1, and the fault is named.
func TestRehearsedFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ services, want string }{
		"its own address": {
			`[{name: web, listen: "203.0.113.10:80-90", backends: ["203.0.113.10:85", "10.0.0.12:8080"]}]`,
			"test/web: backend 203.0.113.10:85 is what the service itself listens on: a connection is not balanced twice, so it ends on the balancer",
		},
		"another service's address": {
			`[{name: web, listen: "203.0.113.10:80", backends: ["203.0.113.20:80", "10.0.0.12:8080"]},
			  {name: other, listen: "203.0.113.20:80", backends: "10.0.0.12:8080"}]`,
			"test/web: backend 203.0.113.20:80 is what test/other listens on: a connection is not balanced twice, so it ends on the balancer",
		},
		"no snat in one network": {
			`[{name: web, listen: "203.0.113.10:80", snat: none, allow: 10.0.0.0/24, backends: ["10.0.0.11:8080", "10.9.0.12:8080"]}]`,
			"test/web: backend 10.0.0.11:8080 is in one network with clients 10.0.0.0/24, and snat is none: it answers them directly, " +
				"past the balancer, and they do not know the answer; use snat masquerade",
		},
		"loopback": {
			`[{name: web, listen: "203.0.113.10:80", backends: ["127.0.0.1:8080", "10.0.0.12:8080"]}]`,
			"test/web: backend 127.0.0.1:8080 is a loopback address: what comes from the network is not delivered there",
		},
		"link-local": {
			`[{name: web, listen: "[2001:db8::10]:80", backends: ["[fe80::11]:8080", "[fd00::12]:8080"]}]`,
			"test/web: backend [fe80::11]:8080 is a link-local address: it is not reached through a router",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // connections that nobody answers take their time
			code, out, errs := rehearse(t, rehearsal(t, false, []byte("profile: test\nservices: "+c.services), "4"))
			if code != 1 || !strings.Contains(errs, " in the rehearsal\n") {
				t.Errorf("exit code %d, want 1 and that there are problems\n%s", code, errs)
			}
			words := strings.Join(strings.Fields(out), " ") // as if on a wide screen
			if !strings.Contains(words, "problem: "+c.want) || strings.Count(words, "problem: test/") != 1 {
				t.Errorf("got\n%s\nwant the one problem %q", out, c.want)
			}
		})
	}
}
