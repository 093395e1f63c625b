//go:build linux

package netlab

// Programs that run in a host.

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cmd is a program that runs in a host. Its Start, Run, Output and
// CombinedOutput are those of exec.Cmd. It is killed when the world is closed
// or this process dies.
type Cmd struct {
	*exec.Cmd
	host *Host
}

// Command prepares a program; ctx kills it.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{exec.CommandContext(ctx, name, args...), h}
}

// Start starts the program.
func (c *Cmd) Start() error {
	if c.SysProcAttr == nil {
		c.SysProcAttr = new(syscall.SysProcAttr)
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	s, err := c.host.world.start()
	if err != nil {
		return c.host.wrap(err, "")
	}
	return c.host.wrap(s.run(c.host, c.Cmd.Start), "run %s: ", c.Args[0])
}

// Run starts the program and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns its standard output. An exec.ExitError
// has the standard error, unless Stderr is set.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("stdout is already set")
	}
	var stdout, stderr bytes.Buffer
	c.Stdout = &stdout
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		exit.Stderr = stderr.Bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the program and returns its standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("stdout or stderr is already set")
	}
	var b bytes.Buffer
	c.Stdout, c.Stderr = &b, &b
	err := c.Run()
	return b.Bytes(), err
}

// starter is the thread that all programs of a world are started from. A
// parent-death signal comes when the thread that forked ends, not the process;
// a thread of Go's pool may end at any time, this one ends with the world.
type starter struct {
	jobs chan func()
	done chan struct{}
}

func (w *World) start() (*starter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errClosed
	}
	if w.starter == nil {
		w.starter = &starter{make(chan func()), make(chan struct{})}
		go w.starter.loop()
	}
	return w.starter, nil
}

func (s *starter) loop() {
	runtime.LockOSThread() // and never unlocks: the thread ends with the loop
	if unix.Gettid() == unix.Getpid() {
		// Go parks the main thread instead of ending it. While this goroutine
		// keeps it, another one is on another thread.
		go s.loop()
		<-s.done
		return
	}
	for {
		select {
		case job := <-s.jobs:
			job()
		case <-s.done:
			return
		}
	}
}

// run runs f in a host on the starter's thread.
func (s *starter) run(h *Host, f func() error) error {
	err := make(chan error, 1)
	job := func() {
		if e := h.world.enter(h.ns); e != nil {
			err <- e
			return
		}
		e := f()
		// No way back is no harm: every job enters its own host first.
		_ = unix.Setns(int(h.world.origin.Fd()), unix.CLONE_NEWNET)
		err <- e
	}
	select {
	case s.jobs <- job:
		return <-err
	case <-s.done:
		return errClosed
	}
}

func (s *starter) stop() { close(s.done) }
