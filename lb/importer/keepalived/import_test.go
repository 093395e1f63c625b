package keepalived

import (
	"testing"

	"nlb/lb/importer/importertest"
)

func TestGolden(t *testing.T) { importertest.Golden(t, "conf", Import) }

func FuzzImport(f *testing.F) { importertest.Fuzz(f, "conf", Import) }
