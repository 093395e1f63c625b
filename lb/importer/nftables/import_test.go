package nftables

import (
	"testing"

	"nlb/lb/importer/importertest"
)

func TestGolden(t *testing.T) { importertest.Golden(t, "json", Import) }

func FuzzImport(f *testing.F) { importertest.Fuzz(f, "json", Import) }
