package qemu

// What a machine boots: the kernel and the initramfs, made from a cache folder
// that fetch.sh filled.

import (
	_ "embed"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"nlb/integration/demand"
)

//go:embed init.sh
var initScript string

// Image is a kernel with its initramfs.
type Image struct {
	Version string // as asked for: 6.1
	Release string // as the kernel calls itself
	Kernel  string // path of vmlinux
	Initrd  string // path of the cpio archive
}

// Contents are the files of an image beside the system's own.
type Contents struct {
	// Init is what the kernel starts; empty: init.sh.
	Init     string
	Programs map[string]string // by the path that they get, and with their modes
	Texts    map[string]string
	Links    map[string]string // what they lead to, by their path
	// Extra are folders of the cache whose files are added, such as bench.
	Extra []string
}

// Build makes an image in dir. The cache is that of fetch.sh.
func Build(cache, dir, version string, c Contents) (i *Image, err error) {
	err = demand.Try(func() { i = makeImage(cache, dir, version, c) })
	return i, err
}

func makeImage(cache, dir, version string, c Contents) *Image {
	tree := filepath.Join(cache, "linux-"+version)
	release, err := os.ReadFile(filepath.Join(tree, "release"))
	if err != nil {
		demand.Fail("linux %s: it was not fetched (%w)", version, err)
	}
	i := &Image{
		Version: version, Release: strings.TrimSpace(string(release)),
		Kernel: filepath.Join(tree, "vmlinux"), Initrd: filepath.Join(dir, "initrd-"+version),
	}
	modules := chooseModules(cache, dir, tree, i.Release)
	f := demand.Of(os.Create(i.Initrd))
	defer f.Close()
	a := newArchive(f)
	if c.Init == "" {
		a.text("init", 0o755, initScript)
	} else {
		a.link("init", c.Init)
	}
	// Before packages, whose files of the same path are left out.
	for _, name := range sorted(c.Links) {
		a.link(name, c.Links[name])
	}
	a.text("etc/passwd", 0o644, "root::0:0:root:/root:/bin/sh\n")
	a.text("etc/group", 0o644, "root:x:0:\n")
	a.text("etc/shells", 0o644, "/bin/sh\n")
	for _, folder := range append([]string{"tools"}, c.Extra...) {
		addPackages(a, filepath.Join(cache, folder))
	}
	a.tree(modules, func(string) bool { return true })
	for _, name := range sorted(c.Programs) {
		a.file(name, c.Programs[name])
	}
	for _, name := range sorted(c.Texts) {
		a.text(name, 0o600, c.Texts[name])
	}
	a.close()
	return i
}

// addPackages adds the programs and libraries of unpacked packages, without
// what only people read.
func addPackages(a *archive, root string) {
	a.tree(root, func(name string) bool {
		return !strings.HasPrefix(name, "usr/share/") && !strings.HasPrefix(name, "etc/") &&
			!strings.Contains(name, "/gconv/") && !strings.Contains(name, "/audit/")
	})
}

// modules are the folders and files below kernel/ that a machine may need;
// those that they depend on come along.
var modules = []string{
	"net/bridge", "net/core", "net/ipv4", "net/ipv6", "net/netfilter", "net/sctp", "net/sched",
	"drivers/net/virtio_net.ko", "drivers/net/veth.ko", "drivers/net/dummy.ko",
	"drivers/block/virtio_blk.ko", "drivers/virtio",
}

// chooseModules copies the modules that machines need, and returns the folder
// that they are in.
func chooseModules(cache, dir, tree, release string) string {
	from := filepath.Join(tree, "lib/modules", release)
	to := filepath.Join(dir, "modules-"+release)
	target := filepath.Join(to, "lib/modules", release)
	needs := map[string][]string{}
	for line := range strings.Lines(string(demand.Of(os.ReadFile(filepath.Join(from, "modules.dep"))))) {
		name, deps, _ := strings.Cut(line, ":")
		needs[name] = strings.Fields(deps)
	}
	wanted := map[string]bool{}
	for name, deps := range needs {
		for _, m := range modules {
			if name == "kernel/"+m || strings.HasPrefix(name, "kernel/"+m+"/") {
				wanted[name] = true
				for _, d := range deps { // modules.dep has those of those, too
					wanted[d] = true
				}
			}
		}
	}
	// SCTP's checksums are asked for by name, which modules.dep does not know.
	for name := range needs {
		if strings.Contains(filepath.Base(name), "crc32c") || strings.HasPrefix(filepath.Base(name), "sha") {
			wanted[name] = true
		}
	}
	for _, name := range sorted(wanted) {
		demand.OK(os.MkdirAll(filepath.Join(target, filepath.Dir(name)), 0o755))
		if os.Link(filepath.Join(from, name), filepath.Join(target, name)) != nil {
			demand.OK(copyFile(filepath.Join(target, name), filepath.Join(from, name)))
		}
	}
	for _, name := range []string{"modules.builtin", "modules.order"} {
		if err := copyFile(filepath.Join(target, name), filepath.Join(from, name)); !errors.Is(err, fs.ErrNotExist) {
			demand.OK(err)
		}
	}
	out, err := exec.Command(filepath.Join(cache, "tools/bin/busybox"), "depmod", "-b", to, release).CombinedOutput()
	if err != nil {
		demand.Fail("depmod: %w\n%s", err, out)
	}
	return to
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}
