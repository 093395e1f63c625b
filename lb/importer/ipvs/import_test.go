package ipvs

import (
	"testing"

	"nlb/lb/importer/importertest"
)

func TestGolden(t *testing.T) { importertest.Golden(t, "ipvs", Import) }

func FuzzImport(f *testing.F) { importertest.Fuzz(f, "ipvs", Import) }
