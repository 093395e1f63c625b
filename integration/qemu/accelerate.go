package qemu

// Whether this machine can run others by KVM.

import (
	"context"
	"os"
	"strings"
	"time"

	"nlb/integration/netlab"
)

// Accelerator is how QEMU runs a machine.
type Accelerator struct {
	Name string // kvm, or tcg: emulation
	Why  string // why it is not kvm
}

// args are those of QEMU. la57 and cx16 would cost an emulated kernel page
// levels and code paths that it has no use for.
func (a Accelerator) args() []string {
	if a.Name == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=single", "-cpu", "max,la57=off,cx16=off"}
}

// Probe finds out whether KVM works. /dev/kvm may be there and not work, and
// QEMU then hangs instead of failing; so a kernel is booted with it, and given
// ten seconds.
func Probe(ctx context.Context, h *netlab.Host, image *Image, dir string) Accelerator {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return Accelerator{Name: "tcg", Why: err.Error()}
	}
	f.Close()
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	m := &Machine{Name: "probe", image: image, dir: dir, accelerator: Accelerator{Name: "kvm"}, memory: 512}
	err = m.Once(ctx, h, "true", nil)
	switch {
	case ctx.Err() != nil:
		return Accelerator{Name: "tcg", Why: "a kernel that was booted with /dev/kvm did not get up in " + limit.String()}
	case err != nil:
		why, _, _ := strings.Cut(err.Error(), "\n")
		return Accelerator{Name: "tcg", Why: why}
	}
	return Accelerator{Name: "kvm"}
}
