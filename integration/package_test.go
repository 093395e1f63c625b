package integration

// Packages and releases: what packaging/build.sh makes, and what packages run when
// they are removed. integration/qemu installs, upgrades and purges one.

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/integration/netlab/netlabtest"
)

// TestPackageRemoved: what packages run before they are removed takes all of nlb out
// of the kernel, and puts forwarding back; not for an upgrade, and not in a chroot,
// where the kernel is that of the system around it.
func TestPackageRemoved(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11")
	// Of systemd there is nothing but a program that does nothing.
	programs := t.TempDir()
	b.Check(os.WriteFile(filepath.Join(programs, "systemctl"), []byte("#!/bin/sh\n"), 0o755))
	b.Check(os.Symlink(b.command(), filepath.Join(programs, "nlb")))
	script, err := filepath.Abs("../packaging/remove.sh")
	b.Check(err)
	profile := b.write("shop.yaml", web+backends(8080, -1))
	chroot := `set -e; mount -t tmpfs none "$0"
for f in /*; do if [ -L "$f" ]; then cp -P "$f" "$0$f"; elif [ -d "$f" ]; then mkdir "$0$f"; mount --rbind "$f" "$0$f"; fi; done
exec chroot "$0" "$@"`
	for _, tt := range []struct {
		name    string
		command []string
		stays   bool
	}{
		{"deb, upgrade", []string{"sh", script, "upgrade", "1.2.3-1"}, true},
		{"rpm, upgrade", []string{"sh", script, "1"}, true},
		{"chroot", []string{"unshare", "--mount", "sh", "-c", chroot, t.TempDir(), "sh", script, "remove"}, true},
		{"deb", []string{"sh", script, "remove"}, false},
		{"rpm", []string{"sh", script, "0"}, false},
		{"apk", []string{"sh", script, "1.2.3-r1"}, false},
	} {
		b.Check(b.Balancer.SetSysctl("net.ipv4.ip_forward", "0"))
		b.Witness(b.Balancer, "", b.command(), "apply", profile)
		held, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
		b.Check(err)
		b.Witness(b.Balancer, "", "env", append([]string{"PATH=" + programs + ":" + os.Getenv("PATH")}, tt.command...)...)
		forward, err := b.Balancer.Sysctl("net.ipv4.ip_forward")
		b.Check(err)
		switch rules := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); {
		case !tt.stays:
			if forward != "0" || rules != "" {
				t.Errorf("%s: forwarding is %s, and of rules there are:\n%s", tt.name, forward, rules)
			}
		default:
			if _, err := held.Again(); err != nil || forward != "1" {
				t.Errorf("%s: forwarding is %s, and the connection that was open: %v", tt.name, forward, err)
			}
		}
		held.Close()
	}
}

// made are the packages of a release, by what Go calls their processors, and what is
// built for them.
var made = map[string]struct {
	deb, rpm, apk string
	machine       elf.Machine
}{
	"amd64":   {"amd64", "x86_64", "x86_64", elf.EM_X86_64},
	"arm64":   {"arm64", "aarch64", "aarch64", elf.EM_AARCH64},
	"arm":     {"armhf", "armv7hl", "armv7", elf.EM_ARM},
	"riscv64": {"riscv64", "riscv64", "riscv64", elf.EM_RISCV},
}

// repository copies the source into a repository, whose one commit has the tag v1.2.3.
const repository = `set -e; mkdir "$0"
git -c safe.directory='*' -C .. ls-files -z -co --exclude-standard | (cd .. && xargs -0 tar -cf -) | tar -C "$0" -xf -
cd "$0"
sed -i 's/^## Unreleased/## 1.2.3\n\nAll of it.\n\n&/' CHANGELOG.md
git init -q . && git add -A && git -c user.name=a -c user.email=a@b.invalid commit -qm all && git tag v1.2.3`

// release clones a repository, and makes the release of it.
const release = `set -e; umask "$2"; git clone -q "$0" "$1"; make -C "$1" release`

// bash runs a script that has to end with 0.
func bash(t *testing.T, env []string, script string, args ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "bash", append([]string{"-c", script}, args...)...)
	c.Env = append(os.Environ(), append(env, "MAKEFLAGS=", "GIT_CONFIG_GLOBAL=/dev/null")...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestRelease: one command makes all of a release, and the same bytes wherever and
// whenever it is given.
func TestRelease(t *testing.T) {
	if !*full {
		t.Skip("SKIPPED, NOT PROVED: it builds for four processors; -full does")
	}
	for _, need := range []string{"make", "git", "lintian", "dpkg-deb", "rpm"} {
		netlabtest.Needs(t, need)
	}
	source, one, another := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "another/of them")
	bash(t, nil, repository, source)
	bash(t, nil, release, source, one, "022")
	bash(t, []string{"TZ=Asia/Tokyo", "LC_ALL=C.UTF-8"}, release, source, another, "077")
	dir, other := filepath.Join(one, "dist/nlb-1.2.3"), filepath.Join(another, "dist/nlb-1.2.3")
	sums := contents(t, dir)
	if d := cmp.Diff(sums, contents(t, other)); d != "" {
		t.Errorf("two builds: -one +another\n%s", d)
	}
	want := []string{"CHANGES.md", "SHA256SUMS", "nlb-1.2.3.cdx.json", "nlb-1.2.3.tar.gz"}
	for goarch, a := range made {
		want = append(want, "nlb-1.2.3-linux-"+goarch+".tar.gz", "nlb_1.2.3-1_"+a.deb+".deb", "nlb-1.2.3-1."+a.rpm+".rpm", "nlb_1.2.3-r1_"+a.apk+".apk")
	}
	got := make([]string, 0, len(sums))
	for name, sum := range sums {
		got = append(got, name)
		if list := read(t, dir, "SHA256SUMS"); name != "SHA256SUMS" && !strings.Contains(list, sum+"  "+name+"\n") {
			t.Errorf("SHA256SUMS has not %s of %s", sum, name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if changes := read(t, dir, "CHANGES.md"); changes != "## 1.2.3\n\nAll of it.\n\n" {
		t.Errorf("the section of the changelog: %q", changes)
	}
	for goarch, a := range made {
		t.Run(goarch, func(t *testing.T) {
			deb := filepath.Join(dir, "nlb_1.2.3-1_"+a.deb+".deb")
			if out, err := exec.CommandContext(t.Context(), "lintian", "--allow-root", "--fail-on", "error", deb).CombinedOutput(); err != nil {
				t.Errorf("lintian: %v\n%s", err, out)
			}
			if out := output(t, "dpkg-deb", "--field", deb, "Package", "Version", "Architecture", "Conffiles", "Depends"); out != "Package: nlb\nVersion: 1.2.3-1\nArchitecture: "+a.deb+"\n" {
				t.Errorf("the package is\n%s", out)
			}
			files := untar(t, strings.NewReader(output(t, "dpkg-deb", "--fsys-tarfile", deb)))
			program, err := elf.NewFile(strings.NewReader(files["usr/sbin/nlb"]))
			netlabtest.Must(t, err)
			if program.Machine != a.machine {
				t.Errorf("the program is for %v", program.Machine)
			}
			modules(t, read(t, dir, "nlb-1.2.3.cdx.json"), files["usr/sbin/nlb"])
			samePackages(t, files, filepath.Join(dir, "nlb-1.2.3-1."+a.rpm+".rpm"), filepath.Join(dir, "nlb_1.2.3-r1_"+a.apk+".apk"))
			archived := untar(t, gunzip(t, filepath.Join(dir, "nlb-1.2.3-linux-"+goarch+".tar.gz")))
			if archived["nlb-1.2.3-linux-"+goarch+"/nlb"] != files["usr/sbin/nlb"] {
				t.Error("the archive has another program")
			}
			if goarch == runtime.GOARCH {
				file := filepath.Join(t.TempDir(), "nlb")
				netlabtest.Must(t, os.WriteFile(file, []byte(files["usr/sbin/nlb"]), 0o755))
				if out := output(t, file, "version"); out != "nlb v1.2.3\n" {
					t.Errorf("it says it is %s", out)
				}
				sameInstall(t, files)
				comesAndGoes(t, filepath.Join(dir, "nlb-1.2.3-1."+a.rpm+".rpm"), filepath.Join(dir, "nlb_1.2.3-r1_"+a.apk+".apk"))
			}
		})
	}
}

// sameInstall: the package has what make install puts there.
func sameInstall(t *testing.T, files map[string]string) {
	destdir := install(t)
	changed := []string{"nlb.8", "CHANGELOG.md"}
	list := map[string]bool{}
	for name, data := range files {
		name = strings.Replace(name, "zsh/vendor-completions", "zsh/site-functions", 1)
		switch name = strings.TrimSuffix(name, ".gz"); path.Base(name) {
		case "80-nlb.preset", "copyright", "changelog.Debian":
		case "licenses":
			list[path.Join(path.Dir(name), "LICENSE")] = true
		default:
			if name == "usr/share/lintian/overrides/nlb" {
				continue
			}
			list[name] = true
			if was, err := os.ReadFile(filepath.Join(destdir, name)); err == nil && path.Base(name) != "nlb" && !slices.Contains(changed, path.Base(name)) && string(was) != data {
				t.Errorf("%s is another than that of make install", name)
			}
		}
	}
	installed := map[string]bool{}
	netlabtest.Must(t, filepath.WalkDir(destdir, func(file string, d os.DirEntry, err error) error {
		if name, _ := filepath.Rel(destdir, file); err == nil && !d.IsDir() {
			installed[name] = true
		}
		return err
	}))
	if d := cmp.Diff(installed, list); d != "" {
		t.Errorf("-make install +package\n%s", d)
	}
}

// samePackages: the three packages have the same files, each of which is in its place.
func samePackages(t *testing.T, deb map[string]string, rpm, apk string) {
	var want []string
	for name := range deb {
		switch {
		case strings.HasPrefix(name, "usr/share/lintian/"), strings.HasSuffix(name, "/changelog.Debian.gz"):
		default:
			want = append(want, strings.Replace(name, "zsh/vendor-completions", "zsh/site-functions", 1))
		}
	}
	slices.Sort(want)
	var got []string
	for line := range strings.Lines(output(t, "rpm", "-qp", "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]", rpm)) {
		if mode, name, _ := strings.Cut(strings.TrimSpace(line), " "); mode[0] != 'd' {
			got = append(got, strings.TrimPrefix(name, "/"))
		}
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-deb +rpm\n%s", d)
	}
	got = nil
	for name := range untar(t, gunzip(t, apk)) {
		if !strings.HasPrefix(name, ".") {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-deb +apk\n%s", d)
	}
}

// overlaid runs a script with packages in /packages, on this system with a layer of its own
// over it that is gone afterwards, in a network namespace, as if systemd ran. Instead of
// doing it, systemctl says what it was told.
const overlaid = `set -e; mount -t tmpfs none "$0"; mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay none -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
mount --rbind /proc "$0/root/proc"
cd "$0/root"
mkdir -p packages run/systemd/system
cp "$2" "$3" packages
printf '#!/bin/sh\necho systemctl "$@"\n' >usr/bin/systemctl
chmod 755 usr/bin/systemctl
exec chroot . sh -ec "$1"`

// comesAndGoes: rpm installs its package, upgrades, verifies and erases it, and the scripts
// of that of Alpine run in the order in which apk runs them. Nothing is enabled or
// started, and nothing is left but a profile.
func comesAndGoes(t *testing.T, rpm, apk string) {
	t.Helper()
	const left = `ls -d /usr/sbin/nlb /usr/share/nlb /usr/share/doc/nlb /usr/lib/systemd/system/nlb* /etc/nlb/* 2>/dev/null || :`
	const come = "systemctl daemon-reload\nsystemctl try-restart nlb-agent.service\nsystemctl -q is-active nlb.service\nsystemctl reload nlb.service\n"
	const gone = "systemctl stop nlb-agent.service\nsystemctl stop nlb.service\nsystemctl -q disable nlb.service nlb-agent.service\n"
	for _, tt := range []struct{ name, script, want string }{
		{"rpm", `r() { rpm --dbpath /packages/db --nodeps "$@" 2>&1 | grep -v -e '^rpm: ' || :; }
rpm --dbpath /packages/db --initdb
r -i /packages/*.rpm; echo >/etc/nlb/shop.yaml; nlb version; r -U --force /packages/*.rpm; r -V nlb; r -e nlb; ` + left, come + "nlb v1.2.3\n" + come + gone + "systemctl daemon-reload\n/etc/nlb/shop.yaml\n"},
		{"apk", `cd /packages; mkdir of; tar -xzf *.apk -C of --warning=no-unknown-keyword; cp -r of/usr of/etc /
sh of/.post-install 1.2.3-r1; echo >/etc/nlb/shop.yaml; nlb version; sh of/.pre-deinstall 1.2.3-r1
(cd of && find usr etc -type f) | (cd / && xargs rm); rm -r /usr/share/nlb /usr/share/doc/nlb; sh of/.post-deinstall 1.2.3-r1; ` + left, "nlb v1.2.3\n" + gone + "/etc/nlb/shop.yaml\n"},
	} {
		got := output(t, "unshare", "--mount", "--net", "sh", "-c", overlaid, t.TempDir(), tt.script, rpm, apk)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, d)
		}
	}
}

// modules: the bill of materials has the modules that are in the program.
func modules(t *testing.T, bill, program string) {
	var listed struct {
		BomFormat  string
		Components []struct{ Name, Version string }
	}
	netlabtest.Must(t, json.Unmarshal([]byte(bill), &listed))
	info, err := buildinfo.Read(strings.NewReader(program))
	netlabtest.Must(t, err)
	want := map[string]string{"std": info.GoVersion}
	for _, m := range info.Deps {
		want[m.Path] = m.Version
	}
	got := map[string]string{}
	for _, c := range listed.Components {
		got[c.Name] = c.Version
	}
	if d := cmp.Diff(want, got); d != "" || listed.BomFormat != "CycloneDX" {
		t.Errorf("%s: -program +bill\n%s", listed.BomFormat, d)
	}
}

// contents are the sums of a folder's files, by their names.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	netlabtest.Must(t, err)
	out := map[string]string{}
	for _, e := range entries {
		out[e.Name()] = fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, dir, e.Name()))))
	}
	return out
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	netlabtest.Must(t, err)
	return string(data)
}

// output is what a program prints that has to end with 0.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w\n%s", err, e.Stderr)
		}
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

// gunzip is what was packed, in one piece or in several.
func gunzip(t *testing.T, file string) io.Reader {
	t.Helper()
	data, err := os.ReadFile(file)
	netlabtest.Must(t, err)
	r, err := gzip.NewReader(bufio.NewReader(bytes.NewReader(data)))
	netlabtest.Must(t, err)
	return r
}

// untar are the files of an archive. Their modes are those that everybody can read.
func untar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	out := map[string]string{}
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		netlabtest.Must(t, err)
		data, err := io.ReadAll(a)
		netlabtest.Must(t, err)
		want := int64(0o644)
		switch name := path.Clean(h.Name); {
		case h.Typeflag == tar.TypeDir:
			want = 0o755
		case strings.HasPrefix(name, "."): // of apk's own
			want = h.Mode
		case path.Base(name) == "nlb" && !strings.HasPrefix(name, "usr/share/"):
			want = 0o755
		}
		if h.Mode&0o777 != want || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s has mode %o and owner %d:%d", h.Name, h.Mode, h.Uid, h.Gid)
		}
		if h.Typeflag == tar.TypeReg {
			out[path.Clean(h.Name)] = string(data)
		}
	}
}
