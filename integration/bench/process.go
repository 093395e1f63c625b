//go:build linux

package main

// Processes as a whole: how long one runs, what it uses, in a namespace that
// nothing else was in.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

// usage is what one process took.
type usage struct {
	Wall time.Duration
	CPU  time.Duration // user and system
	RSS  int64         // the most memory that was resident, in bytes
}

// usages are those of several rounds.
type usages []usage

func (u usages) walls() []time.Duration {
	return each(u, func(u usage) time.Duration { return u.Wall })
}

func (u usages) wall() time.Duration { return median(u.walls()) }

func (u usages) rss() int64 { return median(each(u, func(u usage) int64 { return u.RSS })) }

// each is a field of all elements.
func each[S ~[]E, E, T any](s S, field func(E) T) []T {
	out := make([]T, len(s))
	for i, e := range s {
		out[i] = field(e)
	}
	return out
}

// fresh runs f with a host that is made for it, and waits before until the
// kernel has taken down what was there.
func (b *bench) fresh(f func(h *netlab.Host) error) error {
	w, err := netlab.New()
	if err != nil {
		return err
	}
	h, err := w.Host("balancer")
	if err == nil {
		quiet()
		err = f(h)
	}
	return errors.Join(err, w.Close())
}

// timed runs a program in a host under the stopwatch. What it prints goes
// nowhere.
func (b *bench) timed(h *netlab.Host, program ...string) (usage, error) {
	var u usage
	return u, b.role(h, &u, "stopwatch", program...)
}

// alone is timed in a fresh host.
func (b *bench) alone(program ...string) (u usage, err error) {
	err = b.fresh(func(h *netlab.Host) error {
		u, err = b.timed(h, program...)
		return err
	})
	return u, err
}

// output runs a program in a host, unmeasured, and returns what it prints.
func (b *bench) output(h *netlab.Host, program ...string) (string, error) {
	out, err := h.Command(b.ctx, program[0], program[1:]...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(program, " "), err, exit.Stderr)
	}
	return string(out), err
}

// role runs this program again in a host, in one of its roles, and reads the
// answer. A process of its own starts with an empty heap, and the program that
// it starts in turn is not told our memory as its own (the kernel counts a
// process's memory from before its exec).
func (b *bench) role(h *netlab.Host, answer any, role string, args ...string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	c := h.Command(b.ctx, "/proc/self/exe", append([]string{role}, args...)...)
	var stderr strings.Builder
	c.Stderr, c.ExtraFiles = &stderr, []*os.File{w}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // for hurry
	err = c.Start()
	w.Close()
	if err != nil {
		return err
	}
	bad := json.NewDecoder(r).Decode(answer)
	if err := c.Wait(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", role, strings.Join(args, " "), err, stderr.String())
	}
	return bad
}

// reply is how a role answers.
func reply(answer any) error { return json.NewEncoder(os.NewFile(3, "answer")).Encode(answer) }

// hurry gives this process, and what it starts, the highest priority of
// ordinary ones, so that others on the machine disturb less; what it is
// compared with gets the same. Where that is not allowed all stays as it is.
func hurry() error {
	const highest = -20
	// Where the kernel groups processes by session, a priority counts within
	// the group, and the group has one of its own (sched(7), autogroup).
	if err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(highest)), 0); err != nil {
		return nil
	}
	// The system call returns 20 minus the priority (getpriority(2)).
	if now, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || 20-now == highest {
		return err
	}
	// Priorities belong to threads, so the program begins again with one.
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, highest); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

// stopwatch is the role that runs a program and measures it.
func stopwatch(program []string) error {
	c := exec.Command(program[0], program[1:]...)
	c.Stderr = os.Stderr
	began := time.Now()
	if err := c.Run(); err != nil {
		return err
	}
	u := usage{Wall: time.Since(began), CPU: c.ProcessState.UserTime() + c.ProcessState.SystemTime()}
	if r, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.RSS = int64(r.Maxrss) << 10
	}
	return reply(u)
}
