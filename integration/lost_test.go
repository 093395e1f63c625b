package integration

// Nothing lost: the tests called TestNothingLost... say with figures that
// changing the profile costs nobody a connection, whatever happens meanwhile.
//
//	go test ./integration -run NothingLost -count=1 -v -full -timeout 2h
//
// Without -full they are short.

import (
	"flag"
	"testing"
)

var full = flag.Bool("full", false, "the tests of NothingLost in their full length")

// figures reports what a test has counted, in a line that begins with the
// same word for all of them.
func figures(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("figures: "+format, args...)
}
