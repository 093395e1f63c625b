//go:build linux

package netlab_test

// Isolate, as root and as nobody, and how worlds end: in helper processes that
// are this test binary again.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// helper is the environment variable with the task of a helper process.
const helper = "NLB_TEST_HELPER"

func help(task string) int {
	switch task {
	case "hold": // a world with a program in it, until killed
		names, err := hold()
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("holding", strings.Join(names, " "))
		time.Sleep(time.Minute)
	case "signal":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
		fmt.Println("waiting")
		s := <-c
		fmt.Println("got", s)
		return 7
	case "crash":
		fmt.Println("crashing")
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	}
	return 0
}

// hold makes a world and returns the names of its namespaces.
func hold() ([]string, error) {
	w, err := netlab.New()
	if err != nil {
		return nil, err
	}
	a, err1 := w.Host("a")
	b, err2 := w.Host("b")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := w.Link(a, "eth0", b, "eth0"); err != nil {
		return nil, err
	}
	err = errors.Join(
		a.AddAddress("eth0", netip.MustParsePrefix("10.1.0.1/24")),
		b.Command(context.Background(), "sleep", "60").Start())
	var names []string
	for _, h := range []*netlab.Host{a, b} {
		name, e := os.Readlink(h.Path())
		names, err = append(names, name), errors.Join(err, e)
	}
	return names, err
}

// users are those as whom the helpers run: as this one, and where this one is
// root of the machine also as nobody.
func users(t *testing.T, f func(t *testing.T, nobody bool)) {
	netlabtest.Packets(t)
	t.Run("this user", func(t *testing.T) { f(t, false) })
	if netlabtest.RootOfMachine(t) {
		t.Run("nobody", func(t *testing.T) { f(t, true) })
	}
}

// start starts a helper and returns its first line.
func start(t *testing.T, task string, nobody bool) (*exec.Cmd, *bufio.Reader, string) {
	t.Helper()
	// The path to the binary is closed to others, the binary is not.
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Env = append(os.Environ(), helper+"="+task)
	c.Stderr = os.Stderr
	if nobody {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := c.StdoutPipe()
	netlabtest.Must(t, err, c.Start())
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	netlabtest.Must(t, err)
	return c, r, strings.TrimSpace(line)
}

func TestSignal(t *testing.T) {
	t.Parallel()
	users(t, func(t *testing.T, nobody bool) {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			c, r, line := start(t, "signal", nobody)
			if line != "waiting" {
				t.Fatal(line)
			}
			netlabtest.Must(t, c.Process.Signal(s))
			rest, _ := io.ReadAll(r)
			err := c.Wait()
			if string(rest) != "got "+s.String()+"\n" || c.ProcessState.ExitCode() != 7 {
				t.Errorf("%s: got %q, %v", s, rest, err)
			}
		}
	})
}

func TestKilledInside(t *testing.T) {
	t.Parallel()
	users(t, func(t *testing.T, nobody bool) {
		c, _, _ := start(t, "crash", nobody)
		_ = c.Wait()
		want := -1
		if nobody {
			want = 128 + 9
		}
		if got := c.ProcessState.ExitCode(); got != want {
			t.Errorf("got exit code %d, want %d", got, want)
		}
	})
}

func TestKilled(t *testing.T) {
	t.Parallel()
	users(t, func(t *testing.T, nobody bool) {
		c, _, line := start(t, "hold", nobody)
		names := strings.Fields(line)
		if len(names) != 3 || names[0] != "holding" {
			t.Fatal(line)
		}
		for _, ns := range names[1:] {
			if holders(ns) == nil {
				t.Errorf("nobody holds %s of a living world", ns)
			}
		}
		netlabtest.Must(t, c.Process.Kill())
		_ = c.Wait()
		for _, ns := range names[1:] {
			var left []string
			for range 100 {
				if left = holders(ns); left == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if left != nil {
				t.Errorf("%s is still held by %s", ns, left)
			}
		}
	})
}

// holders are the files in /proc that keep a namespace: threads that are in it,
// and file descriptors.
func holders(ns string) []string {
	var found []string
	for _, pattern := range []string{"/proc/[0-9]*/task/*/ns/net", "/proc/[0-9]*/fd/*"} {
		paths, _ := filepath.Glob(pattern)
		for _, p := range paths {
			if to, err := os.Readlink(p); err == nil && to == ns {
				found = append(found, p)
			}
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), ns) {
		found = append(found, "a mount")
	}
	return slices.Clip(found)
}
