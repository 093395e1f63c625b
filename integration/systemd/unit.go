//go:build linux

package main

// The unit: what systemd and the kernel say of it, and what an upgrade replaces.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"nlb/integration/demand"
)

const (
	unit    = "nlb-agent.service"
	program = "/usr/sbin/nlb"
)

// properties are those that phases ask for.
var properties = []string{"ActiveState", "SubState", "Result", "Type", "StatusText", "MainPID", "NRestarts"}

// state is what systemd says of the unit now.
func state() map[string]string {
	now := map[string]string{}
	for line := range strings.Lines(command("systemctl", "show", unit, "--property="+strings.Join(properties, ","))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		now[name] = value
	}
	return now
}

// settled waits until the unit is active and says this of itself.
func settled(status string) (now map[string]string) {
	soon(func() {
		now = state()
		if now["ActiveState"] != "active" || now["SubState"] != "running" || now["StatusText"] != status {
			demand.Fail("the unit is %v, want it active with %q", now, status)
		}
	})
	return now
}

func pid(now map[string]string) int {
	n, _ := strconv.Atoi(now["MainPID"])
	return n
}

// confined demands that the unit's process has one capability and can get no other.
func confined(now map[string]string) {
	const netAdmin = "0000000000001000"
	has := strings.Fields(string(demand.Of(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid(now))))))
	value := func(key string) string {
		i := slices.Index(has, key+":")
		if i < 0 || i+1 == len(has) {
			return ""
		}
		return has[i+1]
	}
	for key, want := range map[string]string{"CapEff": netAdmin, "CapPrm": netAdmin, "CapBnd": netAdmin, "NoNewPrivs": "1", "Seccomp": "2"} {
		if got := value(key); got != want {
			demand.Fail("%s of the agent is %s, want %s", key, got, want)
		}
	}
	if uid := value("Uid"); uid == "0" || uid == "" {
		demand.Fail("the agent is user %q", uid)
	}
}

// logged waits until the journal has a line of the unit's, or about it, of at least
// this priority and with these words.
func logged(priority, words string) {
	soon(func() {
		if !strings.Contains(command("journalctl", "--no-pager", "-b", "-o", "cat", "-u", unit, "-p", priority), words) {
			demand.Fail("the journal does not say %q with priority %s", words, priority)
		}
	})
}

// replace puts a new file in the place of the program.
func replace() {
	demand.OK(os.WriteFile(program+".new", demand.Of(os.ReadFile(program)), 0o755))
	demand.OK(os.Rename(program+".new", program))
}

// renewed demands that the unit settles with another process than before, of the
// program that is there now.
func renewed(before map[string]string, status string) {
	after := settled(status)
	runs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid(after)))
	if err != nil || after["MainPID"] == before["MainPID"] || !os.SameFile(runs, demand.Of(os.Stat(program))) {
		demand.Fail("the program that runs is not the new one: %v", after)
	}
}

// dropIn changes a setting of the unit's service.
func dropIn(setting string) {
	file := "/etc/systemd/system/" + unit + ".d/lab.conf"
	demand.OK(os.MkdirAll(filepath.Dir(file), 0o755))
	demand.OK(os.WriteFile(file, []byte("[Service]\n"+setting+"\n"), 0o644))
	command("systemctl", "daemon-reload")
}
