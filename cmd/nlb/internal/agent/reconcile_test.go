//go:build linux

package agent

import (
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"testing"

	"nlb/nft/conntrack"
)

// told is what the kernel tells, call by call; then it ends.
type told []struct {
	marks []uint32
	err   error
}

func (k *told) Next() ([]uint32, error) {
	if len(*k) == 0 {
		return nil, net.ErrClosed
	}
	first := (*k)[0]
	*k = (*k)[1:]
	return first.marks, first.err
}

// TestHearRefusals: what was lost is said, and what follows it is heard.
func TestHearRefusals(t *testing.T) {
	a := &agent{Config: Config{Log: slog.New(slog.DiscardHandler)}, refusals: make(chan []uint32, 3)}
	a.hearRefusals(t.Context(), &told{{[]uint32{1}, nil}, {nil, fmt.Errorf("socket: %w", conntrack.ErrLost)}, {[]uint32{2}, nil}})
	close(a.refusals)
	var heard [][]uint32
	for marks := range a.refusals {
		heard = append(heard, marks)
	}
	if want := [][]uint32{{1}, nil, {2}}; !reflect.DeepEqual(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
}
