package iptables

import (
	"testing"

	"nlb/lb/importer/importertest"
)

func TestGolden(t *testing.T) { importertest.Golden(t, "rules", Import) }
