package iptables

import (
	"testing"

	"nlb/lb/migration/migrationtest"
)

func TestGolden(t *testing.T) { migrationtest.Golden(t, "rules", Import) }
