//go:build linux

// Package bench measures nlb beside other ways to do the same, and prints the
// tables of docs/performance.md and, of Agent, of docs/agent.md, which say how it
// is measured:
//
//	go test ./integration/bench -bench . -benchtime 5x -timeout 1h
//
// With -quick everything has a tenth of its size: to see that it works.
package bench

// The process: its flags, and the table that it prints at the end.

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
)

var (
	quick   = flag.Bool("quick", false, "a tenth of the size: to see that it works, not to measure")
	least   = flag.Bool("least", false, "of packets, take the round that took least: where instructions are counted, the others have those of other work")
	program = flag.String("nlb", "", "the nlb to measure; it is built where there is none")
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		if err := roles[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	netlabtest.Enter()
	code := m.Run()
	if len(rows) > 0 {
		fmt.Printf("\nLinux %s, %d processors, %s%s\n\n", release(), runtime.NumCPU(), runtime.Version(), map[bool]string{true: "; QUICK: no proof"}[*quick])
		fmt.Println("| work | figure | yardstick | ratio | wanted |\n| --- | --- | --- | --- | --- |")
		fmt.Println(strings.Join(rows, "\n"))
	}
	if len(prices) > 0 {
		fmt.Println("\n" + strings.Join(prices, "\n"))
	}
	if len(proofs) > 0 {
		fmt.Printf("\nLinux %s, %d processors, %s%s\n\n", release(), runtime.NumCPU(), runtime.Version(), map[bool]string{true: "; QUICK: no proof"}[*quick])
		fmt.Println("| what happens | nlb run | HAProxy | wanted |\n| --- | --- | --- | --- |")
		fmt.Println(strings.Join(proofs, "\n"))
	}
	os.RemoveAll(scratch)
	os.Exit(code)
}

func release() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

// scratch is the folder of everything that benchmarks write.
var scratch string

// prepare makes the folder and the program, once.
func prepare(b *testing.B) {
	b.Helper()
	if os.Getuid() != 0 || !netlabtest.RootOfMachine(b) {
		b.Skip("it needs root: in a user namespace nft cannot send batches as large as these")
	}
	if scratch != "" {
		return
	}
	dir, err := os.MkdirTemp("", "nlb-bench-")
	netlabtest.Must(b, err)
	scratch = dir
	if *program == "" {
		*program = filepath.Join(dir, "nlb")
		build(b, *program)
	}
}

// build builds nlb as make does, with flags.
func build(b *testing.B, file string, flags ...string) {
	b.Helper()
	c := exec.Command("go", slices.Concat([]string{"build", "-o", file}, flags, []string{"nlb/cmd/nlb"})...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
}

// size is a number of services, a tenth of it with -quick.
func size(n int) int {
	if *quick {
		return n / 10
	}
	return n
}

var rows []string

// compare adds a row to the table: times beside those of a yardstick. Both are
// medians. The ratio is the median of the rounds' ratios, since what disturbs a
// machine disturbs both of a round; it is to be at most limit, 0: it has none.
func compare(b *testing.B, work string, figures []time.Duration, name string, yardsticks []time.Duration, limit float64) {
	b.Helper()
	ratios := make([]float64, min(len(figures), len(yardsticks)))
	for i := range ratios {
		ratios[i] = float64(figures[i]) / float64(yardsticks[i])
	}
	add(b, work, short(median(figures)), name+": "+short(median(yardsticks)), median(ratios), limit)
}

// compareSizes is compare for memory.
func compareSizes(b *testing.B, figures []int64, name string, yardsticks []int64, limit float64) {
	b.Helper()
	ours, theirs := median(figures), median(yardsticks)
	add(b, "its memory", fmt.Sprintf("%d MiB", ours>>20), fmt.Sprintf("%s: %d MiB", name, theirs>>20), float64(ours)/float64(theirs), limit)
}

func add(b *testing.B, work, figure, yardstick string, ratio, limit float64) {
	b.Helper()
	wanted := ""
	if limit > 0 {
		wanted = fmt.Sprintf("at most %g: %s", limit, map[bool]string{true: "yes", false: "no"}[ratio <= limit])
	}
	rows = append(rows, fmt.Sprintf("| %s | %s | %s | %.3g | %s |", work, figure, yardstick, ratio, wanted))
	b.Logf("%s: %s; %s; %.3g", work, figure, yardstick, ratio)
}

// short is a time with three digits, or all of its nanoseconds.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%d ns", d.Nanoseconds())
}

// grouped is a number with commas.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// median is the middle one; of an even number, the lower of the two.
func median[T int | int64 | float64 | time.Duration](values []T) T {
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}
