//go:build linux

package roster

// History: what came of the last checks of one kind.

// MostPast is how many results are known of a check.
const MostPast = 60

// history has two bits for each of the last results, the newest lowest.
type history struct{ low, high uint64 }

// What came of a check. Zero: there was none.
const (
	pastPassed = 1
	pastFailed = 2
	pastLate   = 3 // this host was, so it says nothing
)

func (h *history) add(past uint64) { h.low, h.high = h.low<<1|past&1, h.high<<1|past>>1 }

// String is a character for each, the newest last: + passed, - failed, ~ late.
func (h *history) String() string {
	out := make([]byte, 0, MostPast)
	for i := MostPast - 1; i >= 0; i-- {
		if past := h.low>>i&1 | h.high>>i&1<<1; past != 0 {
			out = append(out, " +-~"[past])
		}
	}
	return string(out)
}
