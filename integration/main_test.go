// Package integration proves nlb with real packets: clients, balancers and
// backends in network namespaces, and nft and strace as witnesses.
//
// Every test builds a world of its own and leaves the namespace that the tests
// were started in alone. Without root the tests run in a user namespace.
//
// The tests called TestNothingLost... say with figures that changing the
// profile costs nobody a connection, whatever happens meanwhile:
//
//	go test ./integration -run NothingLost -count=1 -v -full -timeout 2h
package integration

import (
	"os"
	"slices"
	"testing"

	"nlb/integration/netlab/netlabtest"
)

var full = netlabtest.Full

func TestMain(m *testing.M) {
	netlabtest.Main(m, func() { os.RemoveAll(builtIn) })
}

// bed is the world of most tests.
type bed struct{ *netlabtest.Bed }

func newBed(t testing.TB) *bed {
	t.Helper()
	return &bed{netlabtest.New(t)}
}

func (b *bed) with(t testing.TB) *bed { return &bed{b.With(t)} }

// undrifted checks that the table is as nlb would make it.
func (b *bed) undrifted(when string) {
	b.T.Helper()
	for _, d := range b.Load().Drift() {
		b.T.Errorf("%s: %+v", when, d)
	}
}

// figures reports what a test has counted, in a line that begins with the
// same word for all of them.
func figures(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Logf("figures: "+format, args...)
}

func count(row []string) map[string]int {
	out := map[string]int{}
	for _, s := range row {
		out[s]++
	}
	return out
}

// longestRun is the most answers of one backend in a row, in a row that begins
// again at its end.
func longestRun(row []string) int {
	longest, run := 0, 0
	last := ""
	for _, s := range slices.Concat(row, row) {
		if s != last {
			run = 0
		}
		last = s
		run++
		longest = max(longest, run)
	}
	return longest
}
