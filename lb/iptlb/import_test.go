package iptlb

import (
	"testing"

	"nlb/lb/migration/migrationtest"
)

func TestGolden(t *testing.T) { migrationtest.Golden(t, "iptlb", Import) }

func FuzzImport(f *testing.F) { migrationtest.Fuzz(f, "iptlb", Import) }
