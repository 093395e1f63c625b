package integration

// nlb lab as a process: what it says of the examples, and of profiles with a
// deliberate fault.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nlb/integration/lab"
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

// TestRehearsedExamples: all is as due in a rehearsal of every example; without -full,
// of some.
func TestRehearsedExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	users(t, func(t *testing.T, nobody bool) {
		for i, file := range files {
			if !*full && i%3 > 0 {
				continue
			}
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

// corners are right, and leave little room: to limits that all trials of a service meet,
// to backends that take the part of another one, to clients that may be anywhere.
const corners = `
profile: test
services:
  - {name: networks, listen: "203.0.113.1:80", protocol: [tcp, udp], limit: {new-per-source: 30/hour, prefix: 8}, backends: ["10.0.0.11:80", "10.0.0.12:80"]}
  - {name: slow, listen: "203.0.113.2:80", limit: {new: 1/day}, backends: ["10.0.0.11:80", "10.0.0.12:80"]}
  - {name: parts, listen: "203.0.113.3:80", protocol: [tcp, udp], limit: {new: 30/hour}, backends: ["10.0.0.11:80", "10.0.0.12:80"]}
  - {name: few, listen: "203.0.113.4:80", backends: ["10.0.0.11:80", {address: "10.0.0.12:80", max-connections: 3}]}
  - {name: family, listen: ["203.0.113.5:80", "[2001:db8::5]:80"], allow: "fd6e:6c62::/32", backends: ["10.0.0.11:80", "10.0.0.12:80", "[fd00::11]:80"]}
  - {name: dropped, listen: "203.0.113.6:80", protocol: udp, on-refuse: drop, limit: {connections-per-source: 3}, backends: ["10.0.0.11:80", "10.0.0.12:80"]}
  - {name: half-open, listen: ["203.0.113.7:80", "[2001:db8::7]:80"], limit: {half-open: 20}, backends: ["10.0.0.11:80", "[fd00::11]:80"]}
  - {name: neighbours, listen: "[::/0]:81", deny: "fd6e:6c62::/32", backends: ["[fd00::11]:80", "[fd00::12]:80"]}
  - {name: narrow, listen: "[2001:db8::/64]:82", backends: "[fd00::11]:80"}
  - {name: wide, listen: "[::/0]:82", backends: ["[fd00::12]:80", "[::]:8080"]}
  - {name: direct, mode: dsr, scheduler: hash, listen: "203.0.113.8:80", backends: [10.0.0.21, 10.0.0.22]}
  - {name: twice, listen: "203.0.113.9:80", health: tcp, backends: ["10.0.0.21:80", "10.0.0.22:80"]}
  - {name: here, listen: "203.0.113.12:80", interface: eth0, backends: "10.0.0.11:80"}
  - {name: elsewhere, listen: "203.0.113.12:80", backends: "10.0.0.12:80"}
`

// TestRehearsedCorners: nothing is wrong with them, and the rehearsal ends soon.
func TestRehearsedCorners(t *testing.T) {
	t.Parallel()
	// These are too many to be rehearsed.
	many := "  - {name: many, mode: dsr, scheduler: hash, listen: \"203.0.113.10:80\", backends: ["
	for i := range 65 {
		many += fmt.Sprintf("10.0.1.%d, ", i+1)
	}
	code, out, errs := rehearse(t, rehearsal(t, false, []byte(corners+many+"]}\n"), "30"))
	if code != 0 || !strings.Contains(out, "\nall as due: ") {
		t.Errorf("exit code %d, want 0 and all as due\n%s%s", code, out, errs)
	}
}

// outages has a service for each way to check that nothing but the network is needed
// for, with short intervals.
const outages = `
profile: test
services:
  - name: web
    listen: 203.0.113.10:80
    health: [{check: http, body: well, interval: 300ms, timeout: 150ms}, {check: http, path: /login, status: 401, interval: 300ms, timeout: 150ms}]
    backends: [{name: b1, address: "10.0.0.11:80"}, {name: b2, address: "10.0.0.12:80"}, {name: b3, address: "10.0.0.13:80", priority: 2}]
  - name: dns
    listen: 203.0.113.10:53
    protocol: udp
    scheduler: hash
    health: {check: dns, interval: 300ms, timeout: 150ms}
    backends: [{name: d1, address: 10.0.0.21}, {name: d2, address: 10.0.0.22}]
  - name: command
    listen: 203.0.113.10:81
    health: {check: exec, command: [true]}
    backends: ["10.0.0.31:80", "10.0.0.32:80"]
`

// failings rehearses outages, all of which must be as due, and returns them by
// service.
func failings(t *testing.T, nobody bool, flags ...string) (map[string][]lab.Failing, []string) {
	t.Helper()
	c := rehearsal(t, nobody, []byte(outages), "12")
	c.Args = append(c.Args, append(flags, "--json")...)
	code, out, errs := rehearse(t, c)
	var r lab.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || errs != "" {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, errs)
	}
	found := map[string][]lab.Failing{}
	for _, s := range r.Profiles[0].Services {
		found[s.Name] = s.Failings
	}
	return found, r.Notes
}

// TestRehearsedOutages: a real agent takes out whatever fails, and takes it back.
func TestRehearsedOutages(t *testing.T) {
	t.Parallel()
	all := func(t *testing.T, nobody bool) {
		found, notes := failings(t, nobody)
		for service, want := range map[string]string{"web": "b1 refuse, b2 silent, b1 slow, b2 flap", "dns": "d1 refuse, d2 silent, d1 slow, d2 flap", "command": ""} {
			var got []string
			for _, f := range found[service] {
				got = append(got, f.Backend+" "+f.Way)
				// One that flaps may be back before its third failure.
				if f.Way != "flap" && (f.Falls == 0 || f.Out == nil || f.OutDue == nil || f.Back == nil || f.BackDue == nil) || f.Connections == 0 {
					t.Errorf("%s: got %+v", service, f)
				}
			}
			if strings.Join(got, ", ") != want {
				t.Errorf("%s: got %v, want %s", service, got, want)
			}
		}
		if want := "test/command: its outages are not rehearsed, since its check exec runs a command, which no stand-in passes"; !slices.Contains(notes, want) {
			t.Errorf("got %q, want %q", notes, want)
		}
	}
	if *full {
		users(t, all)
	} else {
		all(t, false)
	}
}

// TestRehearsedPlan: one's own plan, also of several backends at a time.
func TestRehearsedPlan(t *testing.T) {
	t.Parallel()
	found, _ := failings(t, false, "--fail", "web/b1=silent@100ms,web/b1=back@3s", "--fail=test/web/b2=refuse@1500ms")
	var got []string
	for _, f := range found["web"] {
		got = append(got, f.Backend+" "+f.Way)
		if f.Falls != 1 || f.Back == nil {
			t.Errorf("got %+v", f)
		}
	}
	if want := "b1 silent, b2 refuse"; strings.Join(got, ", ") != want || len(found["dns"]) > 0 {
		t.Errorf("got %v, want %s\n%v", got, want, found)
	}
}
