package iptlb

import (
	"testing"

	"nlb/lb/importer/importertest"
)

func TestGolden(t *testing.T) { importertest.Golden(t, "iptlb", Import) }

func FuzzImport(f *testing.F) { importertest.Fuzz(f, "iptlb", Import) }
