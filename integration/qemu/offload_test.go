package qemu

// Offload: the packet tests of flow tables, in machines with Debian's kernels.

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nlb/integration/netlab/netlabtest"
)

// TestOffload runs the tests of integration/offload in a machine of each kernel.
func TestOffload(t *testing.T) {
	t.Parallel()
	list := kernels(t)
	dir := t.TempDir()
	tests := filepath.Join(dir, "offload")
	c := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", tests, "nlb/integration/offload")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	nlb := build(t, dir, "./cmd/nlb")
	for _, version := range list {
		t.Run("linux "+version, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			image, err := Build(cache(t), dir, version, Contents{
				Programs: map[string]string{"usr/sbin/nlb": nlb, "usr/sbin/offload": tests}, Extra: []string{"bench"},
			})
			netlabtest.Must(t, err)
			h := bench(t)
			m := &Machine{Name: "offload", image: image, dir: dir, accelerator: accelerate(t, h, version), memory: 1024}
			if err := m.Once(t.Context(), h, "/usr/sbin/offload,-nlb=/usr/sbin/nlb,-test.v,-test.timeout=10m", nil); err != nil {
				t.Fatalf("%v\n%s", err, m.output())
			}
			passed := strings.Count(m.output(), "--- PASS")
			t.Logf("linux %s: %d tests of offload passed", image.Release, passed)
			if passed == 0 || strings.Contains(m.output(), "--- SKIP") {
				t.Errorf("it was not proved:\n%s", m.output())
			}
		})
	}
}
