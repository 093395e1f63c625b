//go:build linux

package main

// Signals: every command ends soon after the first one, and says what it changed.

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// bigProfile is one of so many services, at most 90,000, with addresses that no
// other number of it has.
func bigProfile(number, services int) []byte {
	b := fmt.Appendf(nil, "profile: big%d\nservices:\n", number)
	for i := range services {
		b = fmt.Appendf(b, "  - {name: s%d, listen: \"10.%d.%d.%d:80\", backends: [10.255.0.1, 10.255.0.2]}\n", i, number<<4|i>>16, i>>8&0xff, i&0xff)
	}
	return b
}

// bigRules are rules of iptables that take minutes to import.
func bigRules() []byte {
	b := []byte("*nat\n")
	for i := range 100_000 {
		b = fmt.Appendf(b, "-A PREROUTING -d 203.%d.%d.%d -p tcp --dport 80 -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.0.0.11\n", i>>16, i>>8&0xff, i&0xff)
	}
	return append(b, "COMMIT\n"...)
}

func testHost(t *testing.T) *netlab.Host {
	t.Helper()
	return netlabtest.NewHost(t, netlabtest.NewWorld(t), "host")
}

// TestInterrupted: at its first signal a command ends, whether it
// waits for its input, works, or waits for somebody to read what it prints.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	h, dir := testHost(t), t.TempDir()
	netlabtest.Must(t, os.Mkdir(dir+"/big", 0o700), os.WriteFile(dir+"/big.rules", bigRules(), 0o600), os.WriteFile(dir+"/one.yaml", bigProfile(0, 5000), 0o600))
	for i := range 4 {
		netlabtest.Must(t, os.WriteFile(fmt.Sprintf("%s/big/%d.yaml", dir, i), bigProfile(i, 60_000), 0o600))
	}
	for _, command := range []string{
		"check -", "apply -", "diff -", "render -", "lab -", "doctor -", "import iptables -",
		"check big", "apply big", "apply --dry-run big", "diff big", "render big", "lab big", "doctor big", "import iptables big.rules",
		"render one.yaml >stuck",
	} {
		signals := []syscall.Signal{syscall.SIGTERM}
		if strings.HasPrefix(command, "import") {
			signals = append(signals, syscall.SIGINT)
		}
		for _, s := range signals {
			t.Run(s.String()+" "+command, func(t *testing.T) {
				args, isStuck := strings.CutSuffix(command, " >stuck")
				if isStuck || strings.HasSuffix(args, " -") {
					t.Parallel() // it waits, and the others work
				}
				c := nlbOn(h, strings.Fields(args)...)
				c.Dir = dir
				stdin, more, err := os.Pipe() // never closed before the end
				netlabtest.Must(t, err)
				defer more.Close()
				defer stdin.Close()
				_, err = more.WriteString("#")
				netlabtest.Must(t, err)
				c.Stdin = stdin
				var stdout, stderr bytes.Buffer
				c.Stdout, c.Stderr = &stdout, &stderr
				r, w, err := os.Pipe()
				netlabtest.Must(t, err)
				defer r.Close()
				defer w.Close()
				if isStuck {
					c.Stdout = w
				}
				netlabtest.Must(t, c.Start())
				if isStuck {
					_, err := r.Read(make([]byte, 1))
					netlabtest.Must(t, err)
				}
				for end := time.Now().Add(time.Minute); !isStuck && !isBusy(t, c, stdin) && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				signaled := time.Now()
				netlabtest.Must(t, c.Process.Signal(s))
				err = c.Wait()
				if took := time.Since(signaled); took > 10*time.Second { // a third of one, and a busy machine
					t.Errorf("it ended %v after the signal", took)
				}
				if c.ProcessState.ExitCode() != exitFailed || stdout.Len() > 0 {
					t.Errorf("%v, %d bytes on stdout", err, stdout.Len())
				}
				if got, want := stderr.String(), "nlb: error: interrupted; nothing was changed\n"; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}

// isBusy reports whether a command has begun: it has read what was there to read, or has
// worked for longer than a start takes.
func isBusy(t *testing.T, c *netlab.Cmd, stdin *os.File) bool {
	t.Helper()
	unread, err := unix.IoctlGetInt(int(stdin.Fd()), unix.TIOCINQ)
	netlabtest.Must(t, err)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid)) // proc_pid_stat(5)
	netlabtest.Must(t, err)
	user, err := strconv.Atoi(strings.Fields(string(stat))[13])
	netlabtest.Must(t, err)
	return unread == 0 || user >= 20 // hundredths of a second
}

// TestInterruptedApply: whenever the signal comes, what apply says of what it did
// is so. The signal comes later each time, until it comes too late.
func TestInterruptedApply(t *testing.T) {
	t.Parallel()
	profile := bigProfile(0, 4000)
	unchanged := 0
	for after, late := 50*time.Millisecond, false; !late; after = after * 4 / 3 {
		h := testHost(t)
		c := nlbOn(h, "apply", "-")
		var stderr bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(profile), io.Discard, &stderr
		netlabtest.Must(t, c.Start())
		timer := time.AfterFunc(after, func() { _ = c.Process.Signal(syscall.SIGTERM) })
		err := c.Wait()
		late = timer.Stop()
		shown, showErr := nlbOn(h, "show").CombinedOutput()
		netlabtest.Must(t, showErr)
		exit := c.ProcessState.ExitCode()
		applied := bytes.Contains(shown, []byte("big0/s3999 "))
		empty := bytes.HasPrefix(shown, []byte("nothing is balanced here (no table"))
		t.Logf("signal after %v: %v, applied %v", after, err, applied)
		switch {
		case exit == exitDone && applied:
		case exit == exitFailed && empty && stderr.String() == "nlb: error: interrupted; nothing was changed\n":
			unchanged++
		case exit == -1 && empty: // before the program could catch it
		default:
			t.Errorf("exit code %d, stderr %q, and the kernel has\n%.200s", exit, stderr.String(), shown)
		}
	}
	if unchanged == 0 {
		t.Error("no apply was interrupted")
	}
}

// TestBegun: apply and flush are not cut short once they have begun to change the
// kernel; whatever changes nothing is.
func TestBegun(t *testing.T) {
	h := testHost(t)
	for _, c := range []struct {
		command string
		begun   bool
	}{
		{"apply --dry-run -", false},
		{"diff -", false},
		{"apply -", true},
		{"apply -", false}, // nothing to do
		{"show", false},
		{"flush", true},
		{"flush", false},
	} {
		var out bytes.Buffer
		a := newApp(strings.NewReader(testProfile), &out, &out)
		netlabtest.Must(t, h.Do(func() error {
			a.run(t.Context(), strings.Fields(c.command))
			return nil
		}))
		if a.begun != c.begun {
			t.Errorf("nlb %s: begun %v, want %v\n%s", c.command, a.begun, c.begun, out.String())
		}
		if a.begun {
			a.interrupt() // or this process ends
		}
	}
}
