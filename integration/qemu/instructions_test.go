package qemu

// Instructions: the packet's way of integration/bench in a machine whose clock
// counts them.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nlb/integration/netlab/netlabtest"
)

// BenchmarkInstructions prints what a packet costs, in instructions: a
// nanosecond of the table is one. The clock of the machine advances by a
// nanosecond with every instruction, and at once over a time in which there is
// nothing to do, so that the figures repeat whatever else happens here. They
// show no effects of caches, locks or network cards.
// https://www.qemu.org/docs/master/devel/tcg-icount.html
//
//	integration/qemu/fetch.sh CACHE bench 6.1
//	NLB_LAB_CACHE=CACHE NLB_LAB_KERNELS=6.1 go test ./integration/qemu -run '^$' -bench Instructions -benchtime 1x
func BenchmarkInstructions(b *testing.B) {
	for _, version := range kernels(b) {
		dir := b.TempDir()
		measure := filepath.Join(dir, "bench")
		c := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", measure, "nlb/integration/bench")
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		image, err := Build(cache(b), dir, version, Contents{
			Programs: map[string]string{"usr/sbin/nlb": build(b, dir, "./cmd/nlb"), "usr/sbin/bench": measure}, Extra: []string{"bench"},
		})
		netlabtest.Must(b, err)
		m := &Machine{Name: "count", image: image, dir: dir, accelerator: Accelerator{Name: "tcg"}, memory: 1024}
		program := "/usr/sbin/bench,-nlb=/usr/sbin/nlb,-quick,-least,-test.run=^$,-test.bench=Packets,-test.benchtime=1x"
		netlabtest.Must(b, m.Once(b.Context(), bench(b), program, []string{"-icount", "shift=0,sleep=off"}))
		fmt.Printf("\nLinux %s\n\n", image.Release)
		for line := range strings.Lines(m.output()) {
			if strings.HasPrefix(line, "|") {
				fmt.Print(line)
			}
		}
	}
}
