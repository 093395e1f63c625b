//go:build linux

// Package netlabtest is what packet tests have in common: TestMain, a bed of
// three machines, and checks.
//
// With -short no test makes namespaces, with -full tests do all that they can.
// A package that imports this one has the flag -full.
package netlabtest

// The process: its namespaces and its flags.

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

// Full is the flag -full: every case, and as many rounds as CI makes.
var Full = flag.Bool("full", false, "the tests at their full size, as CI runs them")

// Main runs a package's tests where they may make namespaces; it is all of a
// TestMain. What is to be done at the end comes last.
func Main(m *testing.M, cleanup ...func()) {
	Enter()
	code := m.Run()
	for _, f := range cleanup {
		f()
	}
	os.Exit(code)
}

// Enter is the first part of Main, for a TestMain with more to do: it parses the
// flags, and enters a user namespace where that is needed.
func Enter() {
	flag.Parse()
	// Packet tests mostly wait, so that more of them than there are processors
	// run side by side, unless -parallel says how many.
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		_ = flag.Set("test.parallel", fmt.Sprint(4*runtime.GOMAXPROCS(0)))
	}
	if testing.Short() {
		return
	}
	if err := netlab.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: packet tests cannot run:", err)
		os.Exit(1)
	}
}

// Must fails the test where there is an error.
func Must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Packets says that a test needs namespaces, which -short leaves out.
func Packets(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it makes network namespaces")
	}
}

// Needs skips a test whose program is not installed. CI installs them all, and
// counts a skipped test as a failure.
func Needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("SKIPPED, NOT PROVED: %s is not installed", program)
	}
}

// RootOfMachine reports whether this process is root, and not just of a user
// namespace, which has one user only.
func RootOfMachine(t testing.TB) bool {
	t.Helper()
	users, err := os.ReadFile("/proc/self/uid_map")
	Must(t, err)
	return strings.Fields(string(users))[2] != "1"
}

// NewWorld is a world that ends with the test.
func NewWorld(t testing.TB) *netlab.World {
	t.Helper()
	Packets(t)
	w, err := netlab.New()
	Must(t, err)
	t.Cleanup(func() { Must(t, w.Close()) })
	return w
}

// NewHost is a host of the world.
func NewHost(t testing.TB, w *netlab.World, name string) *netlab.Host {
	t.Helper()
	h, err := w.Host(name)
	Must(t, err)
	return h
}

// Resent is how many packets of a TCP connection were sent more than once. The
// kernel waits a second before it does so for the first packet, and a fifth of
// one for others.
func Resent(t testing.TB, c net.Conn) int {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	Must(t, err)
	var info *unix.TCPInfo
	Must(t, raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) }), err)
	return int(info.Total_retrans)
}
