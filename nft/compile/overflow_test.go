package compile

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// TestConnectionLists: the lists of a limit hold as many as the limit together,
// and each port has one.
func TestConnectionLists(t *testing.T) {
	for n, want := range map[uint32]int{1: 1, 2000: 1, 2001: 2, 4001: 2, 4002: 4, 5000: 4, 30000: 16, 128000: 64, 1 << 31: 64, math.MaxUint32: 64} {
		rules := connectionLists(n)
		if len(rules) != want {
			t.Errorf("%d: %d lists, want %d", n, len(rules), want)
		}
		sum := uint64(0)
		var ports []string
		for _, r := range rules {
			var most uint64
			for _, s := range r.Statements {
				if _, err := fmt.Sscanf(s.Text, "ct count over %d", &most); err == nil {
					sum += most
				}
			}
			ports = append(ports, r.Statements[0].Text)
		}
		slices.Sort(ports)
		if sum != uint64(n) || len(slices.Compact(ports)) != want {
			t.Errorf("%d: %d connections in the lists %q", n, sum, ports)
		}
	}
}
