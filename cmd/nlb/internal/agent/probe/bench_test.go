//go:build linux

package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// serverEnv has the test program serve connections, in a process of its own, so
// that what serving costs is not taken for what checking costs.
const serverEnv = "NLB_PROBE_TEST_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverEnv) == "" {
		netlabtest.Main(m)
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() { // until whoever started it ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	for {
		if c, err := l.Accept(); err == nil {
			_ = c.Close()
		}
	}
}

// serve starts the server, on all of 127.0.0.0/8.
func serve(b *testing.B) (port uint16) {
	b.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serverEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	if _, err := fmt.Sscan(line, &port); err != nil {
		b.Fatalf("the server says %q", line)
	}
	return port
}

// cpu is what this process has used; memory what it has, in MiB.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func memory() (mib float64) {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	_, _ = fmt.Sscan(rest, &mib)
	return mib / 1024
}

// BenchmarkChecks checks 10,000 servers every 2 s, first by the pool, then with a
// goroutine and a net.Dialer for each. One operation is one round.
func BenchmarkChecks(b *testing.B) {
	const servers, interval = 10000, 2 * time.Second
	port := serve(b)
	check := &lb.Check{Kind: lb.CheckTCP, Interval: interval, Timeout: time.Second}
	var targets []Target
	for i := range servers {
		at := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
		targets = append(targets, Target{Check: check, At: netip.AddrPortFrom(at, port)})
	}
	for _, way := range []struct {
		name string
		do   func(b *testing.B, targets []Target) (checks, failed int, late time.Duration)
	}{{"pool", poolRounds}, {"dialer", dialerRounds}} {
		b.Run(way.name, func(b *testing.B) {
			debug.FreeOSMemory()
			before := cpu()
			checks, failed, late := way.do(b, targets)
			used := cpu() - before
			if failed*100 > checks {
				b.Errorf("%d of %d checks failed", failed, checks)
			}
			b.ReportMetric(float64(used.Microseconds())/float64(checks), "cpu-us/check")
			b.ReportMetric(used.Seconds()/b.Elapsed().Seconds(), "cores")
			b.ReportMetric(memory(), "MiB")
			b.ReportMetric(float64(late.Microseconds())/1000, "worst-late-ms")
		})
	}
}

func poolRounds(b *testing.B, targets []Target) (checks, failed int, late time.Duration) {
	p, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	interval := targets[0].Check.Interval
	due := make([]time.Time, len(targets))
	start := func(i int, at time.Time) {
		due[i] = at
		p.Start(Key(i), &targets[i], time.Until(at))
	}
	begun := time.Now()
	for i := range targets {
		start(i, begun.Add(interval*time.Duration(i)/time.Duration(len(targets))))
	}
	for checks < b.N*len(targets) {
		for _, r := range <-p.Results() {
			checks++
			if !r.OK {
				failed++
			}
			late = max(late, r.Began.Sub(due[r.Key]))
			start(int(r.Key), due[r.Key].Add(interval))
		}
	}
	return checks, failed, late
}

func dialerRounds(b *testing.B, targets []Target) (checks, failed int, late time.Duration) {
	interval := targets[0].Check.Interval
	var mu sync.Mutex
	var all sync.WaitGroup
	begun := time.Now()
	for i, t := range targets {
		all.Go(func() {
			due := begun.Add(interval * time.Duration(i) / time.Duration(len(targets)))
			for range b.N {
				time.Sleep(time.Until(due))
				began := time.Now()
				ctx, end := context.WithTimeout(b.Context(), t.Check.Timeout)
				c, err := Dialer(t).DialContext(ctx, "tcp", t.At.String())
				end()
				if err == nil {
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
				}
				mu.Lock()
				checks++
				if err != nil {
					failed++
				}
				late = max(late, began.Sub(due))
				mu.Unlock()
				due = due.Add(interval)
			}
		})
	}
	all.Wait()
	return checks, failed, late
}
