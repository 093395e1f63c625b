package qemu

// The agent's unit under Debian's systemd, and the package under dpkg.

import (
	"context"
	"os"
	"os/exec"
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
	t.Parallel() // one machine for each processor
	list := kernels(t)
	dir := t.TempDir()
	nlb, lab := build(t, dir, "./cmd/nlb"), build(t, dir, "./integration/systemd")
	for _, one := range []struct{ packages, version, means string }{
		{"systemd", list[0], " Type=notify,"},
		{"systemd-backports", list[len(list)-1], " Type=notify-reload,"},
	} {
		t.Run(one.packages, func(t *testing.T) {
			t.Parallel()
			c := managed(lab, one.packages)
			c.Programs["usr/sbin/nlb"] = nlb
			enable(c, "packaging", "nlb-agent.service")
			console := play(t, one.packages, one.version, "/usr/sbin/lab", c)
			if !strings.Contains(console, one.means) {
				t.Errorf("this systemd does not say%s", one.means)
			}
		})
	}
}

// TestPackage boots a machine that has systemd and dpkg, and plays what becomes of
// the package there: installed, upgraded under load, purged, and installed by who knows
// the README alone.
func TestPackage(t *testing.T) {
	t.Parallel()
	version := kernels(t)[0]
	dir := t.TempDir()
	c := managed(build(t, dir, "./integration/systemd"), "systemd", "dpkg")
	c.Texts["var/lib/dpkg/status"] = ""
	c.Texts["etc/dpkg/dpkg.cfg"] = "force-bad-path\n" // it asks for ldconfig
	c.Texts["root/readme.sh"] = readme(t)
	c.Texts["etc/systemd/system/nlb-lab.service.d/play.conf"] = "[Service]\nExecStart=\nExecStart=/usr/sbin/lab package\n"
	for _, v := range []string{"1.0.0", "1.0.1", "1.0.2"} {
		make := exec.CommandContext(t.Context(), filepath.Join(root, "packaging/build.sh"), "deb")
		make.Env = append(os.Environ(), "DIST="+dir, "VERSION="+v, "PROCESSORS=amd64", "SOURCE_DATE_EPOCH=1790000000", "GOFLAGS="+os.Getenv("GOFLAGS")+" -buildvcs=false")
		if out, err := make.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		name := "nlb_" + v + "-1_amd64.deb"
		c.Programs["root/"+name] = filepath.Join(dir, name)
	}
	play(t, "package", version, "/usr/sbin/lab,package", c)
}

// readme is the script of the README's section for newcomers.
func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	netlabtest.Must(t, err)
	_, section, _ := strings.Cut(string(text), "## From the package to a watched service\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, script, _ := strings.Cut(section, "```sh\n")
	script, _, ok := strings.Cut(script, "```\n")
	if !ok {
		t.Fatal("README.md has no script for newcomers")
	}
	return script
}

// play boots a machine that plays integration/systemd, and returns what it said.
func play(t *testing.T, name, version, program string, c Contents) string {
	t.Helper()
	dir := t.TempDir()
	image, err := Build(cache(t), dir, version, c)
	netlabtest.Must(t, err)
	h := bench(t)
	m := &Machine{Name: name, image: image, dir: dir, accelerator: accelerate(t, h, version), memory: 768}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	start := time.Now()
	err = m.Once(ctx, h, program, nil)
	for line := range strings.Lines(m.output()) {
		if said, ok := strings.CutPrefix(line, "nlb-lab: "); ok {
			t.Log(strings.TrimSpace(said))
		}
	}
	if err != nil {
		t.Fatalf("%v\n\n%s", err, m.output())
	}
	t.Logf("linux %s: the unit under %s took %.1f s", image.Release, name, time.Since(start).Seconds())
	return m.output()
}

// managed is a system of Debian's packages, systemd among them, and the program that
// plays the others. Without D-Bus, udev and anybody who logs in there is no use for
// what is masked.
func managed(lab string, packages ...string) Contents {
	c := Contents{
		Init: "/lib/systemd/systemd", Extra: append(packages, "bench"),
		Programs: map[string]string{"usr/sbin/lab": lab},
		Texts:    map[string]string{"etc/machine-id": strings.Repeat("6e6c62", 5) + "00\n"},
		Links:    map[string]string{"etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target"},
	}
	enable(c, "integration/systemd", "nlb-lab.service")
	for _, name := range []string{"sbin/modprobe", "bin/kill", "bin/mount", "bin/umount", "bin/sh", "bin/rm", "usr/bin/awk", "usr/bin/diff", "usr/bin/tee"} {
		c.Links[name] = "/bin/busybox"
	}
	for _, name := range []string{"systemd-logind.service", "getty.target", "proc-sys-fs-binfmt_misc.automount"} {
		c.Links["etc/systemd/system/"+name] = os.DevNull
	}
	return c
}

// enable adds a unit of a folder, which starts at boot.
func enable(c Contents, folder, name string) {
	c.Programs["lib/systemd/system/"+name] = filepath.Join(root, folder, name)
	c.Links["etc/systemd/system/multi-user.target.wants/"+name] = "/lib/systemd/system/" + name
}
