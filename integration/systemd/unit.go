//go:build linux

package main

// The unit: what systemd and the kernel say of it, and what an upgrade replaces.

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	unit    = "nlb-agent.service"
	program = "/usr/sbin/nlb"
)

// properties are those that phases ask for.
var properties = []string{"ActiveState", "SubState", "Result", "Type", "StatusText", "MainPID", "NRestarts"}

// state is what systemd says of the unit now.
func state(ctx context.Context) (map[string]string, error) {
	out, err := command(ctx, "systemctl", "show", unit, "--property="+strings.Join(properties, ","))
	now := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		now[name] = value
	}
	return now, err
}

// settled waits until the unit is active and says this of itself.
func settled(ctx context.Context, status string) (now map[string]string, err error) {
	err = soon(ctx, func() (err error) {
		now, err = state(ctx)
		if err == nil && (now["ActiveState"] != "active" || now["SubState"] != "running" || now["StatusText"] != status) {
			err = fmt.Errorf("the unit is %v, want it active with %q", now, status)
		}
		return err
	})
	return now, err
}

func pid(now map[string]string) int {
	n, _ := strconv.Atoi(now["MainPID"])
	return n
}

// confined demands that the unit's process has one capability and can get no other.
func confined(now map[string]string) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid(now)))
	if err != nil {
		return err
	}
	const netAdmin = "0000000000001000"
	has := strings.Fields(string(data))
	value := func(key string) string {
		i := slices.Index(has, key+":")
		if i < 0 || i+1 == len(has) {
			return ""
		}
		return has[i+1]
	}
	for key, want := range map[string]string{"CapEff": netAdmin, "CapPrm": netAdmin, "CapBnd": netAdmin, "NoNewPrivs": "1", "Seccomp": "2"} {
		if got := value(key); got != want {
			return fmt.Errorf("%s of the agent is %s, want %s", key, got, want)
		}
	}
	if uid := value("Uid"); uid == "0" || uid == "" {
		return fmt.Errorf("the agent is user %q", uid)
	}
	return nil
}

// logged waits until the journal has a line of the unit's, or about it, of at least
// this priority and with these words.
func logged(ctx context.Context, priority, words string) error {
	return soon(ctx, func() error {
		out, err := command(ctx, "journalctl", "--no-pager", "-b", "-o", "cat", "-u", unit, "-p", priority)
		if err == nil && !strings.Contains(out, words) {
			err = fmt.Errorf("the journal does not say %q with priority %s", words, priority)
		}
		return err
	})
}

// replace puts a new file in the place of the program.
func replace() error {
	from, err := os.Open(program)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(program+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if e := to.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(to.Name(), program)
	}
	return err
}

// runs reports whether the unit's process runs the program that is there now.
func runs(now map[string]string) bool {
	old, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid(now)))
	if err != nil {
		return false
	}
	is, err := os.Stat(program)
	return err == nil && os.SameFile(old, is)
}

// dropIn changes a setting of the unit's service.
func dropIn(ctx context.Context, setting string) error {
	file := "/etc/systemd/system/" + unit + ".d/lab.conf"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte("[Service]\n"+setting+"\n"), 0o644); err != nil {
		return err
	}
	_, err := command(ctx, "systemctl", "daemon-reload")
	return err
}
