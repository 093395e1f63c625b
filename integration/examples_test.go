package integration

// The profiles in examples/ work, each alone and all of them together.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
	"nlb/nft/wire"
)

func TestExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 6 {
		t.Errorf("%d examples in %v", len(files), files)
	}
	var all []*lb.Profile
	for _, file := range files {
		p := readExample(t, file)
		if p == nil {
			continue
		}
		all = append(all, p)
		t.Run(p.Name, func(t *testing.T) { newBed(t).wantApplied(p) })
	}
	t.Run("together", func(t *testing.T) {
		if errs := lb.Conflicts(all); len(errs) > 0 {
			t.Fatal(config.Format(errs))
		}
		newBed(t).wantApplied(all...)
	})
}

func readExample(t *testing.T, file string) *lb.Profile {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := config.Parse(file, data)
	if err != nil {
		t.Errorf("%s: %v", file, err)
		return nil
	}
	if want := strings.TrimSuffix(filepath.Base(file), ".yaml"); p.Name != want {
		t.Errorf("%s holds the profile %s", file, p.Name)
	}
	if !strings.HasPrefix(string(data), "# ") {
		t.Errorf("%s does not begin with what it shows", file)
	}
	return p
}

// wantApplied applies profiles: the kernel takes them and gives them back, the
// same again sends nothing, and nft lists each service.
func (b *bed) wantApplied(profiles ...*lb.Profile) {
	b.T.Helper()
	apply := func() (r *nft.Result) {
		b.T.Helper()
		b.Kernel(b.Balancer, func(c *wire.Conn) (err error) {
			r, err = nft.Apply(b.T.Context(), c, profiles, nft.Options{Table: "nlb"})
			return err
		})
		return r
	}
	if r := apply(); r.Batches != 1 {
		b.T.Errorf("applied in %d batches", r.Batches)
	}
	if changes := lb.Compare(b.Load().Profiles, profiles); len(changes) > 0 {
		b.T.Errorf("read back, they differ: %v", changes)
	}
	if r := apply(); r.Messages != 0 || len(r.Changes) != 0 {
		b.T.Errorf("applied again: %d messages, %v", r.Messages, r.Changes)
	}
	list := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	for _, p := range profiles {
		for _, s := range p.Services {
			if !strings.Contains(list, "chain "+p.Name+"/"+s.Name+" {") {
				b.T.Errorf("nft lists no chain of %s/%s:\n%s", p.Name, s.Name, list)
			}
		}
	}
	b.Witness(b.Balancer, "flush ruleset\n"+list, "nft", "-f", "-")
	if changes := lb.Compare(b.Load().Profiles, profiles); len(changes) > 0 {
		b.T.Errorf("listed by nft and loaded again, they differ: %v", changes)
	}
}
