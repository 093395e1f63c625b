package haproxy

import (
	"testing"

	"nlb/lb/importer/importertest"
)

func TestGolden(t *testing.T) { importertest.Golden(t, "cfg", Import) }

func FuzzImport(f *testing.F) { importertest.Fuzz(f, "cfg", Import) }
