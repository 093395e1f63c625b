package config

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb/lbtest"
)

// TestValidate: what lb takes for valid is what a file can say. A profile that is
// valid is read back as it was written; another one is refused, or read as
// something else.
func TestValidate(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	valid, rounds := 0, 1000
	if *full {
		rounds = 100_000
	}
	for range rounds {
		p := lbtest.Hostile(r)
		text := Write(p)
		read, parsed := Parse("p.yaml", text)
		same := parsed == nil && cmp.Equal(p, read, lbtest.Same)
		err := p.Validate()
		if (err == nil) != same {
			t.Fatalf("Validate: %v\nParse: %v\n%s\n%s", err, parsed, text, cmp.Diff(p, read, lbtest.Same))
		}
		if err == nil {
			valid++
		} else if err.Error() == "" {
			t.Fatal("it is not said what is wrong")
		}
	}
	if valid < rounds/5 || valid > rounds*4/5 {
		t.Errorf("%d of %d profiles were valid", valid, rounds)
	}
	t.Logf("%d of %d profiles were valid", valid, rounds)
}

// TestValidateRandom: every random profile of the tests is valid.
func TestValidateRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for range 2000 {
		if p := lbtest.Named(r, lbtest.Profile(r)); p.Validate() != nil {
			t.Fatalf("%v\n%s", p.Validate(), Write(p))
		}
	}
}
