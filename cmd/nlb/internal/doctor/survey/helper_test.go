package survey

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestReads(t *testing.T) {
	modules := t.TempDir()
	for _, name := range []string{
		"nf_conntrack_ftp/initstate", "nf_nat_ftp/initstate", // both loaded
		"nf_conntrack_sip/parameters", // a part of the kernel
		"nf_conntrack_tftp/initstate", // half of it
	} {
		if err := os.MkdirAll(filepath.Join(modules, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := reads(modules); !slices.Equal(got, []string{"tftp"}) {
		t.Errorf("got %q, want tftp alone", got)
	}
	if got := reads(filepath.Join(modules, "absent")); got != nil {
		t.Errorf("without a list of modules: %q", got)
	}
}
