package nftlb

import (
	"testing"

	"nlb/lb/migration/migrationtest"
)

func TestGolden(t *testing.T) { migrationtest.Golden(t, "json", Import) }

func FuzzImport(f *testing.F) { migrationtest.Fuzz(f, "json", Import) }
