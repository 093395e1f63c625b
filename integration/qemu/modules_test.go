package qemu

// Modules: the packet tests of what needs modules, of direct return and of syn-protection, in
// machines with Debian's kernels.

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nlb/integration/netlab/netlabtest"
)

// buildTests builds the tests of a package, and returns the program.
func buildTests(t *testing.T, dir, pkg string) string {
	t.Helper()
	tests := filepath.Join(dir, "tests")
	c := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", tests, "nlb/"+pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return tests
}

// TestModules runs the tests of integration/modules in a machine of each kernel.
func TestModules(t *testing.T) {
	t.Parallel()
	inMachines(t, kernels(t), "integration/modules", "modules", "-nlb=/usr/sbin/nlb", "keepalived")
}

// TestAnnounced runs the tests of addresses to announce where there are dummy devices.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	inMachines(t, kernels(t)[:1], "cmd/nlb/internal/engine/vip", "addresses to announce", "-test.run=^Test")
}

// oldest is the oldest kernel that nlb is for.
const oldest = "5.10"

// TestOldest runs tests of mode: dsr, of syn-protection and of half-open connections in a
// machine of the oldest kernel.
func TestOldest(t *testing.T) {
	t.Parallel()
	kernels(t)
	inMachines(t, []string{oldest}, "integration", "direct return, syn-protection and half-open connections", "-test.parallel=1,-test.run=^(TestDirect(|Errors|Fragments|Remembers|Listing)|Test(SYN|HalfOpen).*)$")
}

// TestSYNProtection runs the tests of syn-protection and of half-open connections in a
// machine of each kernel: each has another SYN proxy, and counts elements in another way.
func TestSYNProtection(t *testing.T) {
	t.Parallel()
	inMachines(t, kernels(t), "integration", "syn-protection and half-open connections", "-test.parallel=1,-test.run=^Test(SYN|HalfOpen)")
}

// inMachines runs tests of a package in a machine of each kernel, which also has these
// folders of the cache.
func inMachines(t *testing.T, list []string, pkg, what, option string, folders ...string) {
	t.Helper()
	folders = append(folders, "bench")
	dir := t.TempDir()
	tests := buildTests(t, dir, pkg)
	nlb := build(t, dir, "./cmd/nlb")
	for _, version := range list {
		t.Run("linux "+version, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			image, err := Build(cache(t), dir, version, Contents{
				Programs: map[string]string{"usr/sbin/nlb": nlb, "usr/sbin/tests": tests}, Extra: folders,
			})
			netlabtest.Must(t, err)
			h := bench(t)
			m := &Machine{Name: filepath.Base(pkg), image: image, dir: dir, accelerator: accelerate(t, h, version), memory: 1024}
			if err := m.Once(t.Context(), h, "/usr/sbin/tests,"+option+",-test.v,-test.timeout=10m", nil); err != nil {
				t.Fatalf("%v\n%s", err, m.output())
			}
			passed := strings.Count(m.output(), "--- PASS")
			t.Logf("linux %s: %d tests of %s passed", image.Release, passed, what)
			if passed == 0 || strings.Contains(m.output(), "--- SKIP") {
				t.Errorf("it was not proved:\n%s", m.output())
			}
		})
	}
}
