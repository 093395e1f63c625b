package qemu

// The agent's unit under Debian's systemd.

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
)

// TestSystemd boots machines whose process 1 is systemd, with the agent's unit
// enabled, and plays integration/systemd on them. systemd before 253 takes another
// Type= of the unit's than a newer one does.
func TestSystemd(t *testing.T) {
	list := kernels(t)
	dir := t.TempDir()
	nlb, lab := build(t, dir, "./cmd/nlb"), build(t, dir, "./integration/systemd")
	for _, one := range []struct{ packages, version, means string }{
		{"systemd", list[0], " Type=notify,"},
		{"systemd-backports", list[len(list)-1], " Type=notify-reload,"},
	} {
		t.Run(one.packages, func(t *testing.T) {
			dir := t.TempDir()
			image, err := Build(cache(t), dir, one.version, managed(one.packages, nlb, lab))
			netlabtest.Must(t, err)
			h := bench(t)
			m := &Machine{Name: one.packages, image: image, dir: dir, accelerator: accelerate(t, h, one.version), memory: 512}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			start := time.Now()
			err = m.Once(ctx, h, "/usr/sbin/lab", nil)
			for line := range strings.Lines(m.output()) {
				if said, ok := strings.CutPrefix(line, "nlb-lab: "); ok {
					t.Log(strings.TrimSpace(said))
				}
			}
			if err != nil {
				t.Fatalf("%v\n\n%s", err, m.output())
			}
			if !strings.Contains(m.output(), one.means) {
				t.Errorf("this systemd does not say%s", one.means)
			}
			t.Logf("linux %s: the unit under %s took %.1f s", image.Release, one.packages, time.Since(start).Seconds())
		})
	}
}

// managed is a system of Debian's systemd, the agent with its unit, and the program
// that plays the others. Without D-Bus, udev and anybody who logs in there is no use
// for what is masked.
func managed(packages, nlb, lab string) Contents {
	c := Contents{
		Init: "/lib/systemd/systemd", Extra: []string{packages, "bench"},
		Programs: map[string]string{"usr/sbin/nlb": nlb, "usr/sbin/lab": lab},
		Texts:    map[string]string{"etc/machine-id": strings.Repeat("6e6c62", 5) + "00\n"},
		Links:    map[string]string{"etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target"},
	}
	for name, from := range map[string]string{"nlb-agent.service": "packaging", "nlb-lab.service": "integration/systemd"} {
		c.Programs["lib/systemd/system/"+name] = filepath.Join(root, from, name)
		c.Links["etc/systemd/system/multi-user.target.wants/"+name] = "/lib/systemd/system/" + name
	}
	for _, name := range []string{"sbin/modprobe", "bin/kill", "bin/mount", "bin/umount", "bin/sh"} {
		c.Links[name] = "/bin/busybox"
	}
	for _, name := range []string{"systemd-logind.service", "getty.target", "proc-sys-fs-binfmt_misc.automount"} {
		c.Links["etc/systemd/system/"+name] = os.DevNull
	}
	return c
}
