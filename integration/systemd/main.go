//go:build linux

// Command systemd plays clients and servers around the unit of nlb's agent, and
// does with it what admins do with units. It is for a machine that is thrown away
// afterwards, whose systemd has the unit enabled and starts this command first, by
// nlb-lab.service:
//
//	client 192.168.56.10 --- 192.168.56.2 machine 192.168.57.2 --- 192.168.57.11 .12 .13 servers a, b, c
//
// Client and servers are network namespaces; nlb runs in that of the machine. The
// service is at 192.168.60.10. With the argument "package", the machine has no nlb
// yet, but its package in /root, and dpkg. The command prints a line for each phase, and ends
// with 0 if all of them showed what they are to show.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/mdlayher/sdnotify"
	"golang.org/x/sys/unix"

	"nlb/integration/demand"
)

func main() {
	code := 0
	if err := demand.Try(run); err != nil {
		fmt.Println(err)
		code = 1
	}
	fmt.Printf("nlb-lab: %s ended with %d\n", strings.Join(os.Args, " "), code)
	// Who powers the machine off does not wait for a slow console.
	_ = unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, 1)
	os.Exit(code)
}

func run() {
	s := build()
	defer s.world.Close()
	s.write(shop(1))
	manager, err := sdnotify.New()
	if err != nil {
		demand.Fail("this is for systemd to start: %w", err)
	}
	demand.OK(errors.Join(manager.Notify(sdnotify.Ready), manager.Close(), os.Unsetenv(sdnotify.Socket)))
	version, _, _ := strings.Cut(command("systemctl", "--version"), "\n")
	fmt.Printf("nlb-lab: %s on Linux %s\n", version, release())
	phases := agent
	if len(os.Args) > 1 && os.Args[1] == "package" {
		phases = installs
	}
	for _, p := range phases {
		began := time.Now()
		var shown string
		if err := demand.Try(func() { shown = p.play(s) }); err != nil {
			fmt.Printf("nlb-lab: %s FAILED after %.1f s: %v\n%s", p.name, time.Since(began).Seconds(), err, scene())
			demand.Fail("nlb-lab: what comes after %s was not tried", p.name)
		}
		fmt.Printf("nlb-lab: %s: %s (%.1f s)\n", p.name, shown, time.Since(began).Seconds())
	}
}

// scene is what can be seen of a failure.
func scene() string {
	var b strings.Builder
	for _, c := range []string{
		"systemctl --no-pager --full status " + unit, "journalctl --no-pager -b -n 100 -u " + unit, "nlb show", "nft list ruleset",
	} {
		words := strings.Fields(c)
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		fmt.Fprintf(&b, "$ %s\n%s", c, out)
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	return b.String()
}

func release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(name.Release[:])
}

// command runs a program that has to end with 0, and returns what it printed.
func command(name string, args ...string) string { return demand.Of(output(name, args...)) }

// output runs a program, and returns what it printed.
func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}
