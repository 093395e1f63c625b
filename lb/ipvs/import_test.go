package ipvs

import (
	"testing"

	"nlb/lb/migration/migrationtest"
)

func TestGolden(t *testing.T) { migrationtest.Golden(t, "ipvs", Import) }

func FuzzImport(f *testing.F) { migrationtest.Fuzz(f, "ipvs", Import) }
