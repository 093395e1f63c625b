//go:build linux

// Command bench measures nlb and prints the table of docs/performance.md: what
// was measured, beside what, in one run. It builds nlb, makes its profiles,
// and works in throw-away network namespaces; it leaves nothing behind.
//
//	go run ./integration/bench [-quick] [-rounds N] [-only WORD]
package main

// The program: its flags, the order of its chapters.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

// bench is one run.
type bench struct {
	ctx    context.Context
	dir    string // everything that it writes
	nlb    string // the program, built
	rounds int
	// few and many are how many services the rows of 10,000 and 64,000 have.
	few, many int
	quick     bool
	table     table
}

// chapters are the rows in the order of the table.
var chapters = []struct {
	name string
	run  func(*bench) error
}{
	{"apply", (*bench).applyRows},
	{"change", (*bench).changeRows},
	{"read", (*bench).readRows},
	{"packets", (*bench).packetRows},
	{"bounded", (*bench).boundedRows},
}

func main() {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			finish(hurry())
			finish(role(os.Args[2:]))
			return
		}
	}
	finish(run())
}

func finish(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	b := &bench{}
	flag.BoolVar(&b.quick, "quick", false, "a tenth of the services, two rounds: to see that it works, not to measure")
	flag.IntVar(&b.rounds, "rounds", 0, "how often each thing is measured (default 5; with -quick 2)")
	only := flag.String("only", "", "only chapters with this word in their `name`: apply change read packets bounded")
	flag.Parse()
	b.few, b.many = 10_000, 64_000
	if b.quick {
		b.few, b.many = 1_000, 6_400
	}
	if b.rounds == 0 {
		b.rounds = 5
		if b.quick {
			b.rounds = 2
		}
	}
	if os.Getuid() != 0 {
		return errors.New("it needs root: in a user namespace nft cannot send batches as large as these")
	}
	var stop func()
	b.ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if b.dir, err = os.MkdirTemp("", "nlb-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.build(); err != nil {
		return err
	}
	for _, c := range chapters {
		if strings.Contains(c.name, *only) {
			if err := c.run(b); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	fmt.Println(b.machine())
	return b.table.print(os.Stdout)
}

// build makes the nlb that is measured.
func (b *bench) build() error {
	b.nlb = filepath.Join(b.dir, "nlb")
	out, err := exec.CommandContext(b.ctx, "go", "build", "-o", b.nlb, "nlb/cmd/nlb").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// progress tells who waits what is being measured.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
