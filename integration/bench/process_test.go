//go:build linux

package bench

// Processes as a whole: how long one runs, and how much memory it takes, in a
// namespace that nothing else was in.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// roles are what this program does when it runs itself again.
var roles = map[string]func([]string) error{"stopwatch": stopwatch, "decode": decode}

// usages are what a process took in several rounds.
type usages struct {
	Walls []time.Duration
	RSS   []int64 // the most memory that was resident, in bytes
}

// fresh runs f with a host that is made for it, once the kernel has taken down
// what was there before.
func fresh(b *testing.B, f func(h *netlab.Host)) {
	b.Helper()
	w, err := netlab.New()
	netlabtest.Must(b, err)
	defer w.Close()
	h := netlabtest.NewHost(b, w, "balancer")
	quiet()
	f(h)
}

// alone adds a run of a program in a fresh host.
func (u *usages) alone(b *testing.B, program ...string) {
	b.Helper()
	fresh(b, func(h *netlab.Host) { u.timed(b, h, program...) })
}

// timed adds a run of a program in a host. What it prints goes nowhere. It is
// started by a process of its own, the stopwatch: a program that this one
// starts would be told our memory as its own, since the kernel counts a
// process's memory from before its exec.
func (u *usages) timed(b *testing.B, h *netlab.Host, program ...string) {
	b.Helper()
	var one struct {
		Wall time.Duration
		RSS  int64
	}
	netlabtest.Must(b, json.Unmarshal([]byte(output(b, h, "", append([]string{"/proc/self/exe", "stopwatch"}, program...)...)), &one))
	u.Walls, u.RSS = append(u.Walls, one.Wall), append(u.RSS, one.RSS)
}

// stopwatch is the role that runs a program and measures it.
func stopwatch(program []string) error {
	c := exec.Command(program[0], program[1:]...)
	c.Stderr = os.Stderr
	began := time.Now()
	if err := c.Run(); err != nil {
		return err
	}
	took := time.Since(began)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"Wall": took, "RSS": int64(c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) << 10})
}

// decode is the role that decodes YAML and does nothing with it.
func decode(args []string) error {
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var all any
	return yaml.Unmarshal(text, &all)
}

// output runs a program in a host, unmeasured, and returns what it prints.
func output(b *testing.B, h *netlab.Host, stdin string, program ...string) string {
	b.Helper()
	c := h.Command(b.Context(), program[0], program[1:]...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(program, " "), err, exit.Stderr)
	}
	netlabtest.Must(b, err)
	return string(out)
}

const (
	quietFor  = 60 * time.Millisecond
	quietWait = 10 * time.Second
)

// quiet returns when the kernel's workers have nothing to do: they take down
// the namespaces and tables of the measurement before. On a machine where
// others keep them busy it gives up after a while.
func quiet() {
	for began := time.Now(); time.Since(began) < quietWait; {
		before := workerTicks()
		time.Sleep(quietFor)
		if workerTicks() == before {
			return
		}
	}
}

// workerTicks is the processor time of all kernel workers so far: fields 14
// and 15 of proc_pid_stat(5), in ticks.
func workerTicks() uint64 {
	var sum uint64
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		stat, err := os.ReadFile(file)
		at := bytes.LastIndexByte(stat, ')')
		if err != nil || at < 0 || !bytes.Contains(stat[:at], []byte("(kworker")) {
			continue
		}
		for _, f := range strings.Fields(string(stat[at+1:]))[11:13] {
			n, _ := strconv.ParseUint(f, 10, 64)
			sum += n
		}
	}
	return sum
}
