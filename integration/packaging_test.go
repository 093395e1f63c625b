package integration

// What an administrator installs: make install, and the systemd unit.

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// ready is the folder that make build has built in.
var ready = sync.OnceValues(func() (string, error) {
	dir, err := folder()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "made")
	_, err = runMake("build", dir)
	return dir, err
})

// runMake runs make for a target that builds in a folder, or takes what was built there.
func runMake(target, dir string, args ...string) (string, error) {
	c := exec.Command("make", append([]string{"-C", "..", target, "O=" + dir}, args...)...)
	// Git may not let us look at somebody else's clone.
	c.Env = append(os.Environ(), "MAKEFLAGS=", "GOFLAGS="+os.Getenv("GOFLAGS")+" -buildvcs=false")
	out, err := c.CombinedOutput()
	if err != nil {
		return "", &buildError{string(out), err}
	}
	return string(out), nil
}

// install runs make install into a folder that everybody can read.
func install(t *testing.T) (destdir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds the program")
	}
	netlabtest.Needs(t, "make")
	dir, err := ready()
	if err != nil {
		t.Fatal(err)
	}
	destdir = t.TempDir()
	for _, d := range []string{destdir, filepath.Dir(destdir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := runMake("install", dir, "DESTDIR="+destdir, "PREFIX=/usr")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "go build") {
		t.Errorf("make install builds what make build has built:\n%s", out)
	}
	return destdir
}

func TestInstall(t *testing.T) {
	t.Parallel()
	destdir := install(t)
	for _, want := range []struct {
		path string
		mode os.FileMode
		has  string
	}{
		{"usr/sbin/nlb", 0o755, "nftables"},
		{"usr/lib/systemd/system/nlb.service", 0o644, "\nExecStart=/usr/sbin/nlb apply "},
		{"usr/lib/systemd/system/nlb-agent.service", 0o644, "\nExecStart=/usr/sbin/nlb run "},
		{"usr/share/man/man8/nlb.8", 0o644, ".TH \"NLB\" \"8\""},
		{"usr/share/bash-completion/completions/nlb", 0o644, "complete -F _nlb nlb"},
		{"usr/share/zsh/site-functions/_nlb", 0o644, "#compdef nlb"},
		{"usr/share/fish/vendor_completions.d/nlb.fish", 0o644, "complete -c nlb"},
		{"usr/share/doc/nlb/README.md", 0o644, "# nlb"},
		{"usr/share/doc/nlb/profile.md", 0o644, "# The profile"},
		{"usr/share/doc/nlb/examples/web.yaml", 0o644, "services:"},
		{"etc/nlb", os.ModeDir | 0o755, ""},
	} {
		path := filepath.Join(destdir, want.path)
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode() != want.mode {
			t.Errorf("%s has the mode %v, want %v", want.path, info.Mode(), want.mode)
		}
		if want.mode.IsDir() {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		if !bytes.Contains(data, []byte(want.has)) {
			t.Errorf("%s has no %q", want.path, want.has)
		}
	}
	binary, err := elf.Open(filepath.Join(destdir, "usr/sbin/nlb"))
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
}

// tooOld is what systemd before 253 says of the agent's unit, which means it.
const tooOld = "Failed to parse service type, ignoring: notify-reload"

// TestUnit: systemd finds nothing wrong with the units, and little exposed.
func TestUnit(t *testing.T) {
	t.Parallel()
	netlabtest.Needs(t, "systemd-analyze")
	destdir := install(t)
	for _, name := range []string{"nlb.service", "nlb-agent.service"} {
		// verify looks for the program and the manual where they are now.
		unit := filepath.Join(t.TempDir(), name)
		text := strings.ReplaceAll(readUnit(t, destdir, name), "=/usr/sbin/", "="+destdir+"/usr/sbin/")
		if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"verify", unit},
			{"security", "--offline=true", "--no-pager", "--threshold=15", unit}, // tenths: 1.5 of 10
		} {
			c := exec.CommandContext(t.Context(), "systemd-analyze", args...)
			c.Env = append(os.Environ(), "MANPATH="+destdir+"/usr/share/man")
			out, err := c.CombinedOutput()
			lines := slices.DeleteFunc(slices.Collect(strings.Lines(string(out))), func(line string) bool { return strings.Contains(line, tooOld) })
			if err != nil || args[0] == "verify" && len(lines) > 0 {
				t.Errorf("systemd-analyze %s %s: %v\n%s", args[0], name, err, out)
			}
		}
	}
}

// TestUnitsDiffer: what protects the machine from one unit protects it from the
// other, but for what the agent needs.
func TestUnitsDiffer(t *testing.T) {
	hardening := func(name string) (out []string) {
		data, err := os.ReadFile(filepath.Join("../packaging", name))
		if err != nil {
			t.Fatal(err)
		}
		_, settings, _ := strings.Cut(string(data), "\nDynamicUser=")
		for line := range strings.Lines("DynamicUser=" + settings) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				out = append(out, line)
			}
		}
		return out
	}
	want := slices.DeleteFunc(hardening("nlb.service"), func(line string) bool { return line == "IPAddressDeny=any" })
	i := slices.Index(want, "RestrictAddressFamilies=AF_NETLINK")
	if i < 0 {
		t.Fatal("nlb.service may use more than netlink")
	}
	want[i] += " AF_UNIX AF_INET AF_INET6"
	if d := cmp.Diff(want, hardening("nlb-agent.service")); d != "" {
		t.Errorf("-nlb.service +nlb-agent.service\n%s", d)
	}
}

func readUnit(t *testing.T, destdir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(destdir, "usr/lib/systemd/system", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// setting is the one value of a key of a unit.
func setting(t *testing.T, unit, key string) string {
	t.Helper()
	found := regexp.MustCompile("(?m)^"+key+"=(.*)$").FindAllStringSubmatch(unit, -1)
	if len(found) != 1 {
		t.Fatalf("the unit has %d settings %s", len(found), key)
	}
	return found[0][1]
}

// TestUnitCommands: what the unit runs works with the one capability that it
// gives, as a user that is not root: kernel parameters included.
func TestUnitCommands(t *testing.T) {
	t.Parallel()
	destdir := install(t)
	unit := readUnit(t, destdir, "nlb.service")
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.Check(b.Balancer.SetSysctl("net.ipv4.ip_forward", "0"))
	folder := filepath.Join(destdir, "etc/nlb")
	write := func(servers ...int) {
		b.T.Helper()
		b.Check(os.WriteFile(filepath.Join(folder, "web.yaml"), []byte(web+backends(8080, servers...)), 0o644))
	}
	run := func(key string) (string, error) {
		command := setting(t, unit, key)
		command = strings.ReplaceAll(command, "/usr/sbin/", destdir+"/usr/sbin/")
		command = strings.ReplaceAll(command, "/etc/nlb", folder)
		return b.limited(b.Balancer, setting(t, unit, "CapabilityBoundingSet"), setting(t, unit, "AmbientCapabilities"), strings.Fields(command)...)
	}
	succeed := func(key, want string) {
		t.Helper()
		if out, err := run(key); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s\nwant %s", key, err, out, want)
		}
	}
	write(-1)
	succeed("ExecStart", "set net.ipv4.ip_forward=1 ")
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 4)), map[string]int{"10.2.0.11": 4})
	write(-1, -1)
	succeed("ExecReload", "(+1 ~0 -0)")
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 4)), map[string]int{"10.2.0.11": 2, "10.2.0.12": 2})
	// A mistake, and a folder without profiles, change nothing.
	b.Check(os.WriteFile(filepath.Join(folder, "wrong.yaml"), []byte("services: 1\n"), 0o644))
	if out, err := run("ExecReload"); err == nil || !strings.Contains(out, "nothing was changed") {
		t.Errorf("a wrong profile: %v\n%s", err, out)
	}
	b.Check(os.RemoveAll(folder))
	b.Check(os.Mkdir(folder, 0o755))
	if out, err := run("ExecReload"); err == nil || !strings.Contains(out, "nothing was changed") {
		t.Errorf("an empty folder: %v\n%s", err, out)
	}
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 4)), map[string]int{"10.2.0.11": 2, "10.2.0.12": 2})
	// The table stays where connections do, also such as are just closing.
	b.Check(b.Balancer.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	succeed("ExecStop", "flushed")
	if list := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); list != "" {
		t.Errorf("left after stop:\n%s", list)
	}
}

// TestAgentUnit: the agent works with the one capability that its unit gives, as a
// user that is not root: it sets parameters, applies and checks. Its end leaves the
// kernel as it is.
func TestAgentUnit(t *testing.T) {
	t.Parallel()
	destdir := install(t)
	unit := readUnit(t, destdir, "nlb-agent.service")
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.Check(b.Balancer.SetSysctl("net.ipv4.ip_forward", "0"))
	folder := filepath.Join(destdir, "etc/nlb")
	b.Check(os.WriteFile(filepath.Join(folder, "web.yaml"), []byte(web+"    health: {check: tcp, interval: 100ms}\n"+backends(8080, -1, -1, -1)), 0o644))
	runtime := filepath.Join(destdir, "run")
	b.Check(os.Mkdir(runtime, 0o755))
	if netlabtest.RootOfMachine(t) {
		b.Check(os.Chown(runtime, 65534, 65534)) // as RuntimeDirectory= does
	}
	command := strings.Fields(strings.ReplaceAll(strings.ReplaceAll(setting(t, unit, "ExecStart"), "/usr/sbin/", destdir+"/usr/sbin/"), "/etc/nlb", folder))
	command = append([]string{"timeout", "--foreground", "--preserve-status", "3"}, append(command, "--socket", filepath.Join(runtime, "nlb.sock"))...)
	out, err := b.limited(b.Balancer, setting(t, unit, "CapabilityBoundingSet"), setting(t, unit, "AmbientCapabilities"), command...)
	for _, want := range []string{"name=net.ipv4.ip_forward from=0 to=1", "msg=down backend=shop/web/10.2.0.13:8080", "stopped; the kernel balances on as it is"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v, and it does not say %q\n%s", err, want, out)
		}
	}
	b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 4)), map[string]int{"10.2.0.11": 2, "10.2.0.12": 2})
}

// limited runs a program on a host, with these capabilities at most, as nobody
// where there is one: the user namespace of tests that are not run by root has
// root only.
func (b *bed) limited(h *netlab.Host, bounding, ambient string, command ...string) (string, error) {
	b.T.Helper()
	netlabtest.Needs(b.T, "setpriv")
	only := func(set string) string {
		return "-all,+" + strings.ToLower(strings.ReplaceAll(set, "CAP_", ""))
	}
	args := []string{
		"--bounding-set=" + only(bounding), "--inh-caps=" + only(ambient), "--ambient-caps=" + only(ambient),
		"--securebits=+noroot,+noroot_locked", "--no-new-privs",
	}
	if netlabtest.RootOfMachine(b.T) {
		args = append(args, "--reuid=65534", "--regid=65534", "--clear-groups")
	}
	c := h.Command(b.T.Context(), "setpriv", append(append(args, "--"), command...)...)
	out, err := c.CombinedOutput()
	return string(out), err
}
