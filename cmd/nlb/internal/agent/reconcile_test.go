//go:build linux

package agent

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"testing"

	"nlb/lb"
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

// TestNoteOpen: a service that ignores health is counted for as long as it is there.
func TestNoteOpen(t *testing.T) {
	service := func(name string, v lb.Verdict) lb.Service {
		s := lb.Service{Name: name, Health: []lb.Check{{Kind: lb.CheckTCP}}, Backends: []lb.Backend{{
			Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.1")}, Weight: 1, Priority: 1, Standing: lb.Standing{Verdict: v},
		}}}
		s.Place()
		return s
	}
	a := &agent{Config: Config{Log: slog.New(slog.DiscardHandler)}, open: map[string]bool{}}
	down := func(names ...string) (out []*lb.Profile) {
		out = []*lb.Profile{{Name: "shop"}}
		for _, name := range names {
			out[0].Services = append(out[0].Services, service(name, lb.VerdictDown))
		}
		return out
	}
	a.noteAllOpen(down("web", "mail"))
	a.noteOpen([]*lb.Profile{{Name: "shop", Services: []lb.Service{service("mail", lb.VerdictUp)}}})
	if len(a.open) != 1 || !a.open["shop/web"] {
		t.Errorf("open: %v", a.open)
	}
	if a.noteAllOpen(down("mail")); len(a.open) != 1 || !a.open["shop/mail"] {
		t.Errorf("open after a reload: %v", a.open)
	}
}
