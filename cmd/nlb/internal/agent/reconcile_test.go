//go:build linux

package agent

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"nlb/cmd/nlb/internal/agent/probe"
	"nlb/cmd/nlb/internal/agent/roster"
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

// nobody answers no check.
type nobody struct{}

func (nobody) Start(probe.Key, *probe.Target, time.Duration) {}
func (nobody) Stop(probe.Key)                                {}

// TestFirstRound: servers that do not answer hold the beginning up for the longest
// timeout, within bounds.
func TestFirstRound(t *testing.T) {
	for _, tt := range []struct{ timeout, want time.Duration }{{2 * time.Second, 2 * time.Second}, {time.Hour, longestRound}} {
		synctest.Test(t, func(t *testing.T) {
			wanted := []*lb.Profile{{Name: "shop", Services: []lb.Service{{
				Name: "web", Health: []lb.Check{{Kind: lb.CheckHTTP, Interval: time.Hour, Timeout: tt.timeout, Rise: 1, Fall: 1}},
				Backends: []lb.Backend{{Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80}, Weight: 1, Priority: 1}},
			}}}}
			a := &agent{pool: &probe.Pool{}, roster: roster.New(nobody{}, 1)}
			a.roster.Set(wanted, nil, time.Now())
			began := time.Now()
			if a.firstRound(t.Context(), wanted); time.Since(began) != tt.want {
				t.Errorf("timeout %v: took %v, want %v", tt.timeout, time.Since(began), tt.want)
			}
		})
	}
}
