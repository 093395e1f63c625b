package qemu

// A machine whose clock counts instructions.

import (
	"context"
	"strings"

	"nlb/integration/netlab"
)

// Count boots a machine that runs a program, and returns the lines of tables
// that it printed. Its clock advances by a nanosecond with every instruction,
// and at once over a time in which there is nothing to do.
// https://www.qemu.org/docs/master/devel/tcg-icount.html
func Count(ctx context.Context, h *netlab.Host, image *Image, dir, program string) (string, error) {
	m := &Machine{Name: "count", image: image, dir: dir, accelerator: Accelerator{Name: "tcg"}, memory: 512}
	if err := m.Once(ctx, h, program, []string{"-icount", "shift=0,sleep=off"}); err != nil {
		return "", err
	}
	var table strings.Builder
	for line := range strings.Lines(m.output()) {
		if strings.HasPrefix(line, "|") {
			table.WriteString(line)
		}
	}
	return table.String(), nil
}
