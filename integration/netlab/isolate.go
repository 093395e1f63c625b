//go:build linux

package netlab

// Becoming able to make worlds without being root: the program runs again in a
// user namespace of its own.

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// marker is set in the environment of the program that Isolate started.
const marker = "NLB_WORLD_ISOLATED"

var isolated atomic.Bool

// Isolate returns nil at once where this process can make network namespaces.
// Elsewhere it runs this program again, with the same arguments, files and
// environment, in a new user and network namespace in which the caller is
// root; it passes signals on, and ends this process with the exit code of the
// other. It is meant for the first line of a main function or TestMain, and
// returns an error, which names the setting to blame, only where user
// namespaces are not allowed.
//
// The program that runs again is killed when this one dies.
func Isolate() error {
	inside := os.Getenv(marker) != ""
	os.Unsetenv(marker) // not for the programs that this one starts
	isolated.Store(inside)
	err := probe()
	if err == nil && inside {
		err = loopbackUp() // as it is where the caller comes from
	}
	if err == nil {
		return nil
	}
	if inside {
		return forbidden(readFile, err, true)
	}
	runtime.LockOSThread() // the parent-death signal is tied to this thread

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		runtime.UnlockOSThread()
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			err = errno // its path would be /proc/self/exe, which misleads
		}
		return forbidden(readFile, err, false)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // cmd.ProcessState says all
		close(ended)
	}()
	for {
		select {
		case s := <-signals:
			pass(cmd.Process, s, ended)
		case <-ended:
			os.Exit(exitCode(cmd.ProcessState))
		}
	}
}

// keyboardDelay is how long a signal that may have come from the keyboard is
// held back.
const keyboardDelay = 300 * time.Millisecond

// pass sends a signal on. A terminal sends Ctrl-C to the other process as
// well, and a second one might mean "at once" to it; whether the signal came
// from there cannot be seen, so it is sent only where the other process still
// runs a moment later.
func pass(p *os.Process, s os.Signal, ended <-chan struct{}) {
	if (s == unix.SIGINT || s == unix.SIGQUIT) && inForeground() {
		select {
		case <-ended:
			return
		case <-time.After(keyboardDelay):
		}
	}
	_ = p.Signal(s) // an error means that it has ended
}

// inForeground reports whether this process is one that the keyboard of its
// terminal sends signals to.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// exitCode is the code that a shell would show.
func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// probe makes a network namespace and turns its loopback on, which is gone
// when it returns.
func probe() error {
	home, err := currentNamespace()
	if err != nil {
		return err
	}
	defer home.Close()
	return onThread(home, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return loopbackUp()
	})
}

// loopbackUp turns the loopback of this thread's network namespace on.
func loopbackUp() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

func readFile(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// forbidden says why there is no network namespace to be had: from the
// kernel's answer, and from the settings that read returns ("" for one that
// is not there). inside: there is a user namespace, but it has no powers.
func forbidden(read func(path string) string, cause error, inside bool) error {
	return fmt.Errorf("network namespaces are not allowed here: %w: %s", cause, blame(read, cause, inside))
}
