package integration

// Limits of the kernel and of the host: an expression that is lacking, sockets
// that take little, many open files, and somebody who flushes everything.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
	"nlb/nft"
	"nlb/nft/probe"
	"nlb/nft/wire"
)

// TestNothingLostLacking: a kernel without an expression refuses the profile, the
// error names the expression and what it stands in, and nothing is changed.
func TestNothingLostLacking(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	before, refusals, services := b.generation(), 0, 0
	for _, profile := range features {
		parsed := b.all([]string{profile})
		needed := probe.Needed(parsed)
		for _, part := range netlabtest.Expressions() {
			if !needed[part.Name] {
				continue
			}
			var err error
			b.Check(b.Balancer.Do(func() error {
				transport, e := wire.Open()
				if e != nil {
					return e
				}
				c := wire.NewConn(&netlabtest.Lacking{Transport: transport, Expression: part.Name})
				defer c.Close()
				_, err = nft.Apply(t.Context(), c, parsed, nft.Options{Table: "nlb", Links: netlabtest.Links(b.Balancer)})
				return nil
			}))
			refused, ok := errors.AsType[*wire.Error](err)
			// Of what an expression has inside, the kernel names the whole.
			inside := ok && refused.Expr == "dynset" && (part.Name == "limit" || part.Name == "connlimit")
			if !ok || refused.Expr != part.Name && !inside || refused.Errno != unix.ENOENT || !strings.HasPrefix(refused.What, "chain ") {
				t.Errorf("without %s: %v", part.Name, err)
				continue
			}
			refusals++
			if strings.Contains(refused.What, "/") {
				services++ // it is the chain of a service
			} else if part.For != "every service" && !shared[part.Name] && !forAll[strings.TrimRight(refused.What, "46")] {
				t.Errorf("without %s, no service is named: %v", part.Name, err)
			}
		}
	}
	if b.generation() != before || refusals < 50 {
		t.Errorf("%d refusals, changed: %v", refusals, b.generation() != before)
	}
	figures(t, "kernels without an expression: %d profiles refused, %d times with the service's name and else that of a chain for all services; 0 changes", refusals, services)
}

// forAll are chains for all services that have retry, max-connections or mode: dsr.
var forAll = map[string]bool{"chain eject": true, "chain wait": true, "chain note-full": true, "chain fragments": true, "chain first": true, "chain send": true}

// shared are expressions that stand in chains for several services.
var shared = map[string]bool{"numgen": true, "masq": true, "fib": true, "reject": true, "limit": true, "redir": true, "socket": true}

// TestNothingLostOpenFiles: sockets with numbers beyond 1,024, and none at all.
func TestNothingLostOpenFiles(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	profile := b.write("shop.yaml", shopBefore)
	run := func(files int, args ...string) (string, error) {
		t.Helper()
		c := b.Balancer.Command(context.Background(), b.command(), args...)
		null, err := os.Open(os.DevNull)
		b.Check(err)
		defer null.Close()
		c.ExtraFiles = slices.Repeat([]*os.File{null}, files)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	const many = 1500
	roomForFiles(t, many+100)
	for _, args := range [][]string{{"apply", profile}, {"diff", profile}, {"show"}, {"apply", profile}, {"flush"}, {"apply", profile}} {
		if out, err := run(many, args...); err != nil {
			t.Errorf("with %d open files, nlb %s: %v\n%s", many, strings.Join(args, " "), err, out)
		}
	}
	if wrong := b.differs([]string{shopBefore}); wrong != "" {
		t.Error(wrong)
	}
	// Go's runtime needs some before nlb begins.
	before, clear := b.generation(), 0
	for limit := 4; limit < 16; limit++ {
		c := b.Balancer.Command(context.Background(), "sh", "-c", fmt.Sprintf("ulimit -n %d; exec %s flush", limit, b.command()))
		out, err := c.CombinedOutput()
		if err == nil {
			break
		}
		if strings.Contains(string(out), "too many open files; nothing was changed") {
			clear++
		}
		if b.generation() != before {
			t.Errorf("with %d files: %v\n%s and something was changed", limit, err, out)
		}
	}
	if clear == 0 {
		t.Error("nlb never said that there are too many open files")
	}
	figures(t, "open files: 6 commands with %d of them; too few of them: %d times a clear error", many, clear)
}

// roomForFiles lets the processes that are started from now on have so many open
// files. A shell often allows 1,024. Go raises the limit for itself only, but
// leaves to its children what a program sets itself.
func roomForFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < n {
		t.Skipf("SKIPPED, NOT PROVED: a process may open %d files here, and %d are needed", limit.Max, n)
	}
	limit.Cur = max(limit.Cur, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// flushing is a transport beside which somebody flushes the whole ruleset, at
// one of its calls to the kernel.
type flushing struct {
	wire.Transport
	at, calls int
	flush     func()
	since     int // batches after that
}

func (f *flushing) step() {
	if f.calls++; f.calls == f.at {
		f.flush()
		f.since = 0
	}
}

func (f *flushing) Send(b []byte) error {
	f.step()
	// Those that move flows come after what was applied.
	if netlabtest.IsBatch(b) && !bytes.Contains(b, []byte("moving")) {
		f.since++
	}
	return f.Transport.Send(b)
}

func (f *flushing) Receive(b []byte) (int, error) { f.step(); return f.Transport.Receive(b) }

// TestNothingLostForeignFlush: somebody runs `nft flush ruleset` at any moment of
// an apply. The profile is there in the end, whole, unless the flush came last.
func TestNothingLostForeignFlush(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	d := &deed{name: "apply", before: []string{shopBefore, otherShop}, after: []string{shopAfter, otherShop}}
	trials, after := 0, 0
	step := 7
	if *full {
		step = 1
	}
	for at := 1; ; at += step {
		b.begin(d)
		var f *flushing
		b.Check(b.Balancer.Do(func() error {
			transport, err := wire.Open()
			if err != nil {
				return err
			}
			f = &flushing{Transport: transport, at: at, flush: func() { b.Witness(b.Balancer, "flush ruleset\n", "nft", "-f", "-") }}
			c := wire.NewConn(f)
			defer c.Close()
			err = applies(b, c, d)
			if _, flows := errors.AsType[*nft.FlowsError](err); flows {
				return nil // all else was done
			}
			return err
		}))
		if f.calls < at {
			break
		}
		trials++
		switch wrong := b.differs(d.after); {
		case wrong == "":
		case f.since == 0 && !b.Load().Exists():
			after++ // applied, and flushed by somebody
		default:
			t.Errorf("flushed at call %d: %s", at, wrong)
		}
	}
	if trials < 4 {
		t.Errorf("%d trials", trials)
	}
	figures(t, "foreign flush at any moment: %d trials, %d times whole in the end, %d times flushed when all was applied", trials, trials-after, after)
}

// TestNothingLostSmallSocket: in a user namespace the socket takes no more than
// net.core.wmem_max. A profile that is too large for that goes in several
// batches, and is whole.
func TestNothingLostSmallSocket(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	services := 3000
	if *full {
		services = 30_000
	}
	var profile strings.Builder
	profile.WriteString("profile: many\nservices:\n")
	for i := range services {
		fmt.Fprintf(&profile, "  - {name: s%d, listen: \"198.%d.%d.%d:80\", backends: [\"10.2.0.11:80\", \"10.2.0.12:80\", \"10.2.0.13:80\"]}\n",
			i, 18+i/62500, i/250%250, i%250)
	}
	// The same again, other backends' names (which replace elements), and a flush.
	one, two := b.write("many.yaml", profile.String()), b.write("named.yaml", strings.ReplaceAll(profile.String(), `"10.2.0.11:80"`, `{name: first, address: "10.2.0.11:80"}`))
	c := exec.Command("sh", "-ec", `"$0" apply "$1"; "$0" diff "$1"; "$0" apply --dry-run "$2"; "$0" apply "$2"; "$0" diff "$2"; "$0" flush`, b.command(), one, two)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	batches := "1"
	if _, rest, several := strings.Cut(string(out), "so it went in "); several {
		batches, _, _ = strings.Cut(rest, ";")
	} else if most, err := b.Balancer.Sysctl("net.core.wmem_max"); *full || err == nil && most == "212992" {
		t.Errorf("it took one batch:\n%s", out)
	}
	figures(t, "%d services in a user namespace: %s batches, and nothing to do for the same again", services, batches)
}
